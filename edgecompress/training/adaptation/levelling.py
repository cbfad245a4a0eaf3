"""Cores of one magnitude after balancing, and an optimiser whose memory follows the gauge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgecompress.training.adaptation.cutting import SECOND_MOMENTS, HasState, moments
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.linalg import slice_sums

APART = 16.0
"""Largest over smallest root mean square of a factorization's cores that is left alone.

Source: measured: benchmarks/training/planted_ranks.py, whose cores come out of balancing 3 to 10
apart: as they are, ranks are found at both thresholds; levelled, at the lower one a rank too many
stays in 3 of 3 seeds. benchmarks/training/recommender.py, whose tables come out 60 to 180 apart:
levelled, they lose 0.8 points of the area under the curve while ranks fall from 4 to 3 where they
lost 7.5 (a thousandth of the rows, width 32, 2 million samples).
"""
LEAST_APART = 1.0
"""The same once ranks no longer change, and no penalty looks at magnitudes any more.

Source: measured, benchmarks/training/fashion_mnist.py: with moments that follow, and cores levelled
at the end, a tensor train at a thirtieth of the parameters had 88.4 % of the held-back images right
instead of 88.1 % (two seeds)."""


def core_sizes(part: Factorization) -> list[float]:
    """Root mean square of each core."""
    cores = part.parameters_of_cores()
    return [float(core.detach().double().square().mean().sqrt()) for core in cores]


@torch.no_grad()
def level_cores(part: Factorization, *, settled: bool = False) -> bool:
    """Give all cores the same root mean square where they are far apart, in place.

    Balancing leaves inner cores of three or more with entries near 1 over the root of their count,
    and the outer ones with the square root of the whole weight's norm. One learning rate cannot fit
    both. A weight is linear in each core, in every format, so factors whose product is 1 leave it
    as it is, and the spectra of its bonds with it. Weights of zero stay.

    Args:
        part: The factorization.
        settled: Ranks no longer change: nothing is left alone.

    Returns:
        Whether they were changed.
    """
    sizes, apart = core_sizes(part), LEAST_APART if settled else APART
    if min(sizes) <= 0 or max(sizes) <= apart * min(sizes):
        return False
    logs = torch.tensor(sizes, dtype=torch.float64).log()
    for core, factor in zip(part.cores, (logs.mean() - logs).exp().tolist(), strict=True):
        core.mul_(factor)
    return True


@torch.no_grad()
def follow_sizes(optimizer: HasState, part: Factorization, before: Sequence[float]) -> None:
    """Let an optimiser's moments follow cores whose magnitudes have changed, in place.

    Where a core grows by f and the weight stays, its gradient shrinks by f: first moments shrink by
    f, second ones by f squared.

    Args:
        optimizer: Its moments are those of the old magnitudes.
        part: Its cores have the new ones.
        before: `core_sizes` at that time; a core of zeros has moments of no magnitude to follow.

    Source: the chain rule for a product; Kingma and Ba 2015 for what the moments are.
    """
    for core, old, new in zip(part.cores, before, core_sizes(part), strict=True):
        if min(old, new) <= 0:
            continue
        for name, value in moments(optimizer, core).items():
            value.mul_((old / new) ** (2 if name in SECOND_MOMENTS else 1))


LEAST_SHARE = 1e-3
"""Least second moment of a slice as a share of its bond's mean. Source: a choice; a slice whose
partner is almost zero would take steps without measure."""


@torch.no_grad()
def follow_slices(optimizer: HasState, part: Factorization) -> None:
    """Give each slice of a bond between two cores its share of its core's second moment, in place.

    The gradient of a slice is as large as what the slice meets on the other side of its bond. Of a
    core with one bond its own norm says what is left for the other side of the singular value; two
    inner cores of a balanced train have the root of it each. With one value for the whole core,
    weak slices would learn slowly.

    Args:
        optimizer: Its second moments are equal within each core.
        part: In the balanced gauge. Bonds of more than two cores have no such gauge and are left.

    Source: the chain rule for a product; measured, benchmarks/training/fashion_mnist.py: a tensor
    train at a thirtieth of the parameters ended with a training loss of 0.229 instead of 0.239 (two
    seeds).
    """
    bonds = [bond.members for bond in type(part).bonds(part.folding)]
    uses = Counter(core for members in bonds for core, _ in members)
    for bond, members in enumerate(bonds):
        if len(members) != 2:
            continue
        values = part.spectrum(bond).double()
        sides = [
            slice_sums(part.cores[core].detach().double().square(), axis)
            for core, axis in members
            if uses[core] == 1
        ]
        own = sides[0] if sides else values
        tiny = torch.finfo(torch.float64).tiny
        met = values.square() / own.clamp_min(tiny)
        for core, axis in members:
            leaf = uses[core] == 1
            _scale_moments(optimizer, part.cores[core], axis, met if leaf or not sides else own)


def _scale_moments(optimizer: HasState, parameter: nn.Parameter, axis: int, energy: Tensor) -> None:
    """Multiply second moments along an axis by shares of energy, whose mean is 1."""
    if not float(energy.sum()):
        return
    share = (energy / energy.mean()).clamp_min(LEAST_SHARE)
    shape = [1] * parameter.ndim
    shape[axis] = -1
    for name, value in moments(optimizer, parameter).items():
        if name in SECOND_MOMENTS:
            value.mul_(share.to(value).view(shape))
