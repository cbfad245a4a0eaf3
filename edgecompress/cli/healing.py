"""The options of ``--heal``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from edgecompress.cli.asked import Asked
    from edgecompress.core.options import Augmentation, Budget, HealOptions

AUGMENTATIONS = ("flip", "crop", "mix")

HEAL = (
    click.option(
        "--heal",
        is_flag=True,
        help="Train the decomposed graph to give what MODEL gives, on --data without labels; a "
        "part that is held back decides what is kept, so it never ends worse. Needs the extra "
        "torch.",
    ),
    click.option(
        "--heal-epochs",
        metavar="N",
        type=click.IntRange(min=1),
        help="Passes over the data.  [default: 20]",
    ),
    click.option(
        "--heal-rate",
        metavar="X",
        type=click.FloatRange(min=0, min_open=True, max=1),
        help="Learning rate at the start.  [default: 0.001]",
    ),
    click.option(
        "--heal-samples",
        metavar="N",
        type=click.IntRange(min=2),
        help="Heal on at most N samples of --data.  [default: all]",
    ),
    click.option(
        "--heal-augment",
        metavar="KIND,...",
        help="Make more of the pictures: flip (left for right), crop (moved by up to an eighth), "
        "mix (of two).",
    ),
    click.option(
        "--heal-macs",
        metavar="SHARE|N",
        help="Let ranks go on falling until these multiply-accumulates remain.",
    ),
    click.option(
        "--heal-params",
        metavar="SHARE|N",
        help="Let ranks go on falling until these parameters remain.",
    ),
    click.option(
        "--heal-strength",
        metavar="X",
        type=click.FloatRange(min=0),
        help="Weight of the penalty on ranks that fall, in units of 1/N.  [default: 0.03]",
    ),
)
DETAILS = (
    "heal_epochs",
    "heal_rate",
    "heal_samples",
    "heal_augment",
    "heal_macs",
    "heal_params",
    "heal_strength",
)


def read_healing(asked: Asked, base: HealOptions | None, seed: int) -> HealOptions | None:
    """How to heal, over what a recipe says; None where it is not asked.

    Raises:
        UsageError: An option of healing without it, or one that cannot be read.
    """
    from edgecompress.cli.reading import option_name
    from edgecompress.core.errors import UsageError
    from edgecompress.core.options import HealOptions

    given = [option_name(name) for name in DETAILS if getattr(asked, name) is not None]
    if not asked.heal and base is None:
        if given:
            raise UsageError(f"{given[0]} has no effect without --heal")
        return None
    options = base or HealOptions()
    return replace(
        options,
        epochs=asked.heal_epochs or options.epochs,
        learning_rate=asked.heal_rate or options.learning_rate,
        samples=asked.heal_samples or options.samples,
        augment=options.augment if asked.heal_augment is None else _kinds(asked.heal_augment),
        budget=_budget(asked, options),
        strength=options.strength if asked.heal_strength is None else asked.heal_strength,
        rank_multiple=options.rank_multiple if asked.rank_multiple is None else asked.rank_multiple,
        seed=seed,
    )


def describe_healing(options: HealOptions) -> str:
    """For the settings in a report."""
    parts = [
        f"{options.slice_epochs} + {options.epochs} passes",
        f"rate {options.learning_rate:g}",
        f"batch {options.batch}",
        f"temperature {options.temperature:g}",
        f"{options.held_back:.0%} held back",
    ]
    if options.samples is not None:
        parts.append(f"at most {options.samples} samples")
    if options.augment:
        parts.append("+".join(options.augment))
    if options.budget is not None:
        share = options.budget.ratio
        amount = f"{options.budget.limit:g}" if share is None else f"{share:g} of the"
        parts.append(f"ranks to {amount} {options.budget.kind}, strength {options.strength:g}")
    return ", ".join(parts)


def _kinds(text: str) -> tuple[Augmentation, ...]:
    from edgecompress.core.errors import UsageError

    kinds = [part.strip() for part in text.split(",")]
    unknown = [kind for kind in kinds if kind not in AUGMENTATIONS]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} is none of {', '.join(AUGMENTATIONS)}", where="--heal-augment"
        )
    return tuple(cast("Augmentation", kind) for kind in AUGMENTATIONS if kind in kinds)


def _budget(asked: Asked, options: HealOptions) -> Budget | None:
    from functools import partial

    from edgecompress.cli.reading import read_option
    from edgecompress.core.errors import UsageError
    from edgecompress.core.quantities import read_budget

    given = [kind for kind in ("macs", "params") if getattr(asked, f"heal_{kind}") is not None]
    if len(given) > 1:
        raise UsageError("--heal-macs and --heal-params exclude each other")
    if not given:
        return options.budget
    kind = given[0]
    text: str = getattr(asked, f"heal_{kind}")
    return read_option(partial(read_budget, kind), text, f"--heal-{kind}")
