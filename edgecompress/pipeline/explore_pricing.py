"""Prices of whole networks on many configurations: every different operator once for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import FloatArray
from edgecompress.core.work import ConvWork, Cost, ElementWork, Work
from edgecompress.hardware.chains import fuse_chains
from edgecompress.hardware.cost import cost
from edgecompress.hardware.families import Batch, BatchFamily, Family, family_named
from edgecompress.hardware.timeline import HostElements
from edgecompress.pipeline.explore_space import Candidate

_price_now = cost.__wrapped__
"""The price without the memory of earlier ones, which these would only push out."""
TAKEN_AS_IF = "taken as if"
"""In what a price assumes: what it was worked out for is more than there is."""


@dataclass(frozen=True, slots=True)
class Network:
    """The operators of one model."""

    works: tuple[Work, ...]

    @property
    def has_chains(self) -> bool:
        """Whether what stays on chip between operators depends on the configuration."""
        return any(work.source_layer for work in self.works)


@dataclass(frozen=True, slots=True)
class Prices:
    """Of some configurations, (configurations, networks) each.

    Attributes:
        latency_s: One inference.
        per_inference_s: One over the inferences a second, with the device's images filled.
        energy_pj: One inference; NaN where the target has no energy numbers.
        overfull: (configurations,), those whose buffers do not hold the operands of some operator,
            so that its price stands for nothing that can be built.
    """

    latency_s: FloatArray
    per_inference_s: FloatArray
    energy_pj: FloatArray
    overfull: NDArray[np.bool_]


@runtime_checkable
class SaysOverfull(Protocol):
    """A batch that knows which of its targets cannot hold what an operator takes at once."""

    @property
    def overfull(self) -> NDArray[np.bool_]:
        """(targets,), of the operators that have been priced."""
        ...


class Pricer:
    """Prices networks on configurations.

    Args:
        networks: At least one.

    Attributes:
        shapes: Different operators, over all networks.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        places: dict[Work, int] = {}
        rows = [
            [places.setdefault(_shape(work), len(places)) for work in network.works]
            for network in networks
        ]
        self.shapes = tuple(places)
        self._networks = tuple(networks)
        self._counts = np.zeros((len(places), len(rows)))
        for column, row in enumerate(rows):
            np.add.at(self._counts[:, column], row, 1.0)
        self._elements = np.array(
            [isinstance(work.operator, ElementWork) for work in self.shapes], dtype=bool
        )
        self._batches = tuple(_smallest_batch(network.works) for network in networks)
        self._remembered: dict[tuple[object, ...], tuple[float, float]] = {}

    def price(self, candidates: Sequence[Candidate]) -> Prices:
        """Prices of all networks on all configurations."""
        size = (len(candidates), len(self.shapes))
        seconds, energies = np.empty(size), np.full(size, np.nan)
        overfull = np.zeros(len(candidates), dtype=bool)
        fill = np.empty((len(candidates), len(self._batches)))
        for name, rows in _grouped(candidates, lambda one: one.target.family).items():
            family = family_named(str(name))
            some = [candidates[row] for row in rows]
            fill[rows] = [
                [_fill(batch, family.images_per_pass(one.target)) for batch in self._batches]
                for one in some
            ]
            seconds[rows], energies[rows], overfull[rows] = self._price_family(family, some)
        latency, energy = seconds @ self._counts, energies @ self._counts
        outside = np.where(self._elements, seconds, 0.0) @ self._counts
        for column, network in enumerate(self._networks):
            if network.has_chains:
                for row, candidate in enumerate(candidates):
                    *found, unfit = _with_chains(network, candidate)
                    latency[row, column], outside[row, column], energy[row, column] = found
                    overfull[row] |= unfit
        return Prices(latency, (latency + (fill - 1) * outside) / fill, energy, overfull)

    def _price_family(
        self, family: Family, candidates: Sequence[Candidate]
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Seconds and energy of every different operator, (configurations, operators)."""
        pricing: object = type(family).price_elements
        beside = pricing is HostElements.price_elements
        alike = _grouped(candidates, lambda one: one.common)
        together = family.batch([one.target for one in candidates]) if _batches(family) else None
        seconds = np.empty((len(candidates), len(self.shapes)))
        energies = np.full_like(seconds, np.nan)
        overfull = np.zeros(len(candidates), dtype=bool)
        for place, work in enumerate(self.shapes):
            if beside and self._elements[place]:
                for key, rows in alike.items():
                    found = self._element(place, (family, key), candidates[rows[0]])
                    seconds[rows, place], energies[rows, place] = found
            elif together is not None and not self._elements[place]:
                seconds[:, place], energies[:, place] = together.figures(work)
            else:
                for row, candidate in enumerate(candidates):
                    price = _price_now(work, candidate.target)
                    seconds[row, place], energies[row, place] = _figures(price)
                    overfull[row] |= _is_overfull(price)
        return seconds, energies, overfull | _said_overfull(together, len(candidates))

    def _element(
        self, place: int, key: tuple[object, ...], candidate: Candidate
    ) -> tuple[float, float]:
        """Price of what runs beside the array, which the numbers of the array do not change."""
        known = (place, *key)
        if known not in self._remembered:
            price = _price_now(self.shapes[place], candidate.target)
            self._remembered[known] = _figures(price)
        return self._remembered[known]


def _batches(family: Family) -> TypeGuard[BatchFamily]:
    return isinstance(family, BatchFamily)


def _grouped(
    candidates: Sequence[Candidate], key: Callable[[Candidate], object]
) -> dict[object, list[int]]:
    """Places of the candidates that have the same key."""
    found: dict[object, list[int]] = {}
    for place, candidate in enumerate(candidates):
        found.setdefault(key(candidate), []).append(place)
    return found


def _said_overfull(batch: Batch | None, count: int) -> NDArray[np.bool_]:
    return batch.overfull if isinstance(batch, SaysOverfull) else np.zeros(count, dtype=bool)


def _is_overfull(price: Cost) -> bool:
    """Whether the estimate goes on although the buffers are too small."""
    return TAKEN_AS_IF in price.assumed


def _with_chains(network: Network, candidate: Candidate) -> tuple[float, float, float, bool]:
    """Seconds, those outside the array, and energy, with factors' intermediates on chip."""
    works, _ = fuse_chains(network.works, candidate.target)
    known: dict[Work, tuple[float, float]] = {}
    totals, overfull = np.zeros(3), False
    for work in works:
        shape = _shape(work)
        if shape not in known:
            price = _price_now(shape, candidate.target)
            known[shape] = _figures(price)
            overfull |= _is_overfull(price)
        second, energy = known[shape]
        totals += (second, second if isinstance(work.operator, ElementWork) else 0.0, energy)
    return float(totals[0]), float(totals[1]), float(totals[2]), overfull


def _figures(price: Cost) -> tuple[float, float]:
    return price.latency_s, np.nan if price.energy_pj is None else price.energy_pj


def _shape(work: Work) -> Work:
    """The operator without what it is called and what it is connected to."""
    return replace(work, name="", op_type="", assumed="", source_layer="", reads=(), writes=())


def _smallest_batch(works: Sequence[Work]) -> int:
    """Images of the convolution with the fewest; 0 if there is none."""
    return min((w.operator.batch for w in works if isinstance(w.operator, ConvWork)), default=0)


def _fill(batch: int, together: int) -> float:
    """How many inferences the device could do in the passes of one."""
    return 1.0 if batch < 1 else -(-batch // together) * together / batch
