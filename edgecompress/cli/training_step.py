"""The options of ``estimate-latency --training-step``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecompress.core.training_step import Optimizer, TrainingStepOptions

TRAINING_STEP = (
    click.option(
        "--training-step",
        is_flag=True,
        help="One step of training instead of one inference: forward, backward, update.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(("sgd", "momentum", "adam")),
        help="Of the training step.  [default: sgd]",
    ),
    click.option(
        "--gradient-bits",
        type=click.IntRange(2, 64),
        metavar="N",
        help="Width of gradients in the training step.  [default: 16]",
    ),
    click.option(
        "--master-bits",
        type=click.IntRange(0, 64),
        metavar="N",
        help="Width of a finer copy of the weights in the training step; 0: none.  [default: 0]",
    ),
)


def read_training_step(
    asked: bool, optimizer: Optimizer | None, gradient_bits: int | None, master_bits: int | None
) -> TrainingStepOptions | None:
    """How a step is done; None where none was asked for.

    Raises:
        UsageError: An option of the step without the step, or a width of one bit.
    """
    from edgecompress.core.errors import UsageError
    from edgecompress.core.training_step import TrainingStepOptions

    given = {"optimizer": optimizer, "gradient-bits": gradient_bits, "master-bits": master_bits}
    for name, value in given.items():
        if value is not None and not asked:
            raise UsageError("is an option of --training-step", where=f"--{name}")
    if master_bits == 1:
        raise UsageError("master weights have 2 to 64 bits, or 0 for none", where="--master-bits")
    if not asked:
        return None
    return TrainingStepOptions(
        optimizer=optimizer or "sgd",
        gradient_bits=16 if gradient_bits is None else gradient_bits,
        master_bits=master_bits or 0,
    )
