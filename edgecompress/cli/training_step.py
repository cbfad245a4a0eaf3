"""The options of ``estimate-latency --training-step``, and what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecompress.core.training_step import Optimizer, TrainingStepReport

TRAINING_STEP = (
    click.option(
        "--training-step",
        is_flag=True,
        help="One step of training instead of one inference: forward, backward, update.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(("sgd", "momentum", "adam")),
        default="sgd",
        show_default=True,
        help="Of the training step.",
    ),
    click.option(
        "--gradient-bits",
        type=click.IntRange(2, 64),
        default=16,
        show_default=True,
        metavar="N",
        help="Width of gradients in the training step.",
    ),
    click.option(
        "--master-bits",
        type=click.IntRange(0, 64),
        default=0,
        show_default=True,
        metavar="N",
        help="Width of a finer copy of the weights in the training step; 0: none.",
    ),
)


def training_steps(  # noqa: PLR0913 - all by name
    model: str,
    targets: Sequence[str],
    *,
    optimizer: Optimizer,
    gradient_bits: int,
    master_bits: int,
    input_shapes: dict[str, tuple[int, ...]],
    torch_factory: str | None,
    trust_input: bool,
) -> tuple[TrainingStepReport, ...]:
    """One report per target."""
    from edgecompress import api
    from edgecompress.core.errors import UsageError
    from edgecompress.core.training_step import TrainingStepOptions

    if master_bits == 1:
        raise UsageError("master weights have 2 to 64 bits, or 0 for none", where="--master-bits")
    options = TrainingStepOptions(
        optimizer=optimizer, gradient_bits=gradient_bits, master_bits=master_bits
    )
    return api.estimate_training_step(
        model,
        targets,
        options,
        input_shapes=input_shapes,
        torch_factory=torch_factory,
        trust_input=trust_input,
    )
