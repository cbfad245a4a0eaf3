"""Decompose as far as the outputs stay what they are, where nobody named a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecompress.core.layers import Layer
from edgecompress.core.options import Budget, Tolerance
from edgecompress.core.samples import Samples
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.pipeline.data import rows_of
from edgecompress.pipeline.evaluate import fidelity

if TYPE_CHECKING:
    from edgecompress.graph.model import Model

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""What may remain, tried by bisection; above 0.9 a decomposition is not worth its nodes."""

HELD_BACK = 4
"""One feed in so many is held back from the fit."""


SCORES = 10
"""Relative error of scores for each unit of the share of places that may change."""


def too_much(rule: Tolerance) -> str:
    """Why a layer stays dense when no share is within the tolerance."""
    return f"stays dense: at {SHARES[-1]:.0%} of the cost more than {rule.share:.1%} would change"


def budget_kind(layers: Sequence[Layer], *, by_target: bool) -> str:
    """What is saved: seconds on a target, else multiply-accumulates, else parameters."""
    if by_target:
        return "latency"
    return "macs" if all(layer.macs is not None for layer in layers) else "params"


def smallest_budget(kind: str, is_kept: Callable[[Budget], bool]) -> Budget | None:
    """The smallest budget of `SHARES` that keeps the outputs; None if none does.

    Args:
        kind: Of the budget.
        is_kept: Whether a budget keeps them; taken to hold for every larger one too.
    """
    low, high = 0, len(SHARES)
    while low < high:
        middle = (low + high) // 2
        if is_kept(Budget(kind, ratio=SHARES[middle])):
            high = middle
        else:
            low = middle + 1
    return Budget(kind, ratio=SHARES[low]) if low < len(SHARES) else None


def split(samples: Samples) -> tuple[Samples, Samples]:
    """Samples to fit on and samples held back; the same ones where there is only one feed."""
    held = len(samples.feeds) // HELD_BACK or (1 if len(samples.feeds) > 1 else 0)
    if not held:
        return samples, samples
    parts = samples.feeds[:-held], samples.feeds[-held:]
    first, second = (
        replace(samples, feeds=feeds, labels=None, count=sum(rows_of(feed) for feed in feeds))
        for feeds in parts
    )
    return first, second


def keeps_outputs(model: Model, twin: Model, held: Samples, rule: Tolerance) -> bool:
    """Whether a decomposed twin gives what the model gives, within the tolerance."""
    reference, outputs = (
        run_feeds(open_session(one.to_proto(), optimize=True), held.feeds) for one in (model, twin)
    )
    found = fidelity(reference, outputs, replace(held, labels=None))
    if found.top1_agreement is None:
        return found.relative_l2 <= rule.share
    sure = found.relative_l2 <= SCORES * rule.share
    return sure and 1 - found.top1_agreement <= rule.share
