"""Time of operators on a target."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from edgecompress.core.work import (
    ConvWork,
    Cost,
    ElementWork,
    MatMulWork,
    WeightValues,
    Work,
)
from edgecompress.hardware.families import ReadsWeights, SpeakingFamily, family_named
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import no_time


@lru_cache(maxsize=65536)
def cost(work: Work, target: Target) -> Cost:
    """Time of one operator on one target.

    Work without multiply-accumulates takes no time; everything else takes some, or says in
    ``assumed`` why not.
    """
    match work.operator:
        case ElementWork() as operator:
            return family_named(target.family).price_elements(work, operator, target)
        case ConvWork() | MatMulWork():
            if not work.operator.macs:
                return no_time(work, target)
            return family_named(target.family).price(work, target)


def estimate(works: Iterable[Work], target: Target) -> tuple[Cost, ...]:
    """Time of every operator, in the order given; their sum is the latency."""
    return tuple(cost(work, target) for work in works)


def bound_cycles(work: Work, target: Target) -> float:
    """Cycles that no mapping can go below: the roofline of this target.

    The larger of the multiplications that cannot be saved over the multipliers, and the bytes
    that have to move over the memory's rate.
    """
    match work.operator:
        case ElementWork():
            return cost(work, target).total_cycles
        case ConvWork() | MatMulWork():
            if not work.operator.macs:
                return 0.0
            return family_named(target.family).bound_cycles(work, target)


def images_per_pass(target: Target) -> int:
    """Images that the device works on together; 1 on most."""
    return family_named(target.family).images_per_pass(target)


def weight_values(target: Target) -> WeightValues:
    """What has to be measured on the weights before a graph is priced on this target."""
    family = family_named(target.family)
    if isinstance(family, ReadsWeights):
        asked = family.weight_values(target)
        if asked != "none":
            return asked
    return "codes" if target.weight_stream.reads_values else "none"


def chain_bytes(target: Target) -> int:
    """On-chip memory for what passes between two operators of a chain."""
    return family_named(target.family).chain_bytes(target)


def resources(target: Target) -> Resources | None:
    """What the design takes on a programmable device; None for a fixed chip."""
    return family_named(target.family).resources(target)


def notes(works: Iterable[Work], target: Target) -> tuple[str, ...]:
    """What a reader should know about operators on this target, each sentence once."""
    family = family_named(target.family)
    if not isinstance(family, SpeakingFamily):
        return ()
    return tuple(dict.fromkeys(text for work in works for text in family.notes(work, target)))
