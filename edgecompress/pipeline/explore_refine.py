"""Points between those of a grid, near the best of it.

From the points that are the best for their share of the device, one number at a time is moved half,
a quarter, ... of the way to the next value of the grid, down to the smallest step; the other sizes
of the array are left or taken as large as the limits allow. What is found is started from again.

Source: pattern search, Hooke and Jeeves 1961, from every point of a front.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from edgecompress.core.exploration import Axis, Value
from edgecompress.pipeline.explore_front import pareto_front, pick_rows
from edgecompress.pipeline.explore_pricing import Pricer, Prices
from edgecompress.pipeline.explore_search import Search
from edgecompress.pipeline.explore_space import Candidate, Space
from edgecompress.pipeline.explore_state import Chunk, Row, State, Values

ROUND_POINTS = 128
"""Points that are priced before the best are looked for again."""
MOST_STARTS = 24
"""Points of the front that are started from, between two such looks."""
_PICKS = 4
OVERFULL = "the buffers do not hold the operands of one of the operators"
_UNITS = (("_bytes", 1024), ("_words", 64), ("unit_bits", 32), (".luts", 100))
"""Smallest step of a number by the end of its path; 1 otherwise. Assumed: block memories are not
divided finer, and a hundred look-up tables are below the error of an estimate."""


def priced(found: Sequence[Candidate | str], pricer: Pricer) -> list[Row | str]:
    """Rows of what can be built and hold its operands; the reasons of all others.

    Returns:
        (index, dsp, bram18, lut, seconds of each network, seconds an inference of each network,
        energy of each network) each.
    """
    rows: list[Row | str] = [one if isinstance(one, str) else OVERFULL for one in found]
    places = [place for place, one in enumerate(found) if not isinstance(one, str)]
    candidates = [one for one in found if not isinstance(one, str)]
    if not candidates:
        return rows
    prices = pricer.price(candidates)
    for number, place in enumerate(places):
        if not prices.overfull[number]:
            rows[place] = _row(candidates[number], prices, number)
    return rows


def priced_row(candidate: Candidate, pricer: Pricer) -> Row:
    """The row of one configuration, whether its buffers hold the operands or not."""
    return _row(candidate, pricer.price([candidate]), 0)


def _row(candidate: Candidate, prices: Prices, place: int) -> Row:
    used = candidate.resources
    counts = (used.dsp, used.bram18, used.lut) if used else (None, None, None)
    figures = (prices.latency_s, prices.per_inference_s, prices.energy_pj)
    values = [float(value) for figure in figures for value in figure[place]]
    known = [None if math.isnan(value) else value for value in values]
    return [float(candidate.index), *counts, *known]


class Refinement:
    """A search beside the grid, the same whenever it is done again.

    Args:
        space: Takes the points as they are found.
        search: How points are judged.
        pricer: Of the networks.
        finer: Paths that take values between those of their axis.
        tried: Points of the grid that were looked at; None: all.
    """

    def __init__(
        self,
        space: Space,
        search: Search,
        pricer: Pricer,
        finer: Collection[str],
        tried: Collection[int] | None,
    ) -> None:
        self._space, self._search, self._pricer = space, search, pricer
        self._finer, self._tried = frozenset(finer), tried
        self._seen: set[Values] = set()
        self._started: set[Values] = set()
        self._full: dict[Values, int] = {}

    def run(self, state: State, most: int, progress: Callable[[int], None]) -> Chunk:
        """The points that were looked at beside the grid, or beyond what was tried of it.

        Args:
            state: Has the grid, and what of this search was done before.
            most: Points.
            progress: Told of the points that are done.
        """
        rows = [row for chunk in state.chunks for row in chunk.rows]
        chunk = Chunk([], {})
        dropped: Counter[str] = Counter()
        while rows and len(self._seen) < most:
            best = self._best(rows)
            points = self._around_all(best, most)
            if not points:
                break
            missing = [one for one in points if one not in state.beside]
            if missing:
                settled = [self._space.settle(self._space.named(one)) for one in missing]
                state.add_beside(missing, priced(settled, self._pricer))
            rows = best
            for one in points:
                found = state.beside[one]
                if isinstance(found, str):
                    dropped[found] += 1
                    continue
                rows.append([float(self._space.size + len(self._space.beside)), *found[1:]])
                self._space.beside.append(one)
                chunk.rows.append(rows[-1])
            progress(len(self._seen))
        chunk.dropped.update(dropped)
        return chunk

    @property
    def looked_at(self) -> int:
        """Points."""
        return len(self._seen)

    def _best(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that no other beats in score and share, and energy, the picks first."""
        scores, shares, energies = self._search.judged(rows)
        known = [column for column in (scores, shares, energies) if column is not None]
        front = [int(place) for place in pareto_front(np.array(known).T)]
        picks = pick_rows(
            [scores[place] for place in front],
            None if shares is None else [shares[place] for place in front],
            None if energies is None else [energies[place] for place in front],
        )
        first = [front[place] for place in dict.fromkeys(picks.values())]
        return [rows[place] for place in dict.fromkeys([*first, *front])]

    def _around_all(self, best: Sequence[Row], most: int) -> list[Values]:
        """New points near some of the best."""
        points: list[Values] = []
        step = max(1, len(best) // MOST_STARTS)
        for place, row in enumerate(best):
            values = tuple(self._space.values(int(row[0] or 0)).values())
            if values in self._started or (place >= _PICKS and place % step):
                continue
            self._started.add(values)
            for one in self._around(values):
                if one in self._seen or self._was_tried(one):
                    continue
                self._seen.add(one)
                points.append(one)
                if len(self._seen) >= most:
                    return points
            if len(points) >= ROUND_POINTS:
                break
        return points

    def _was_tried(self, values: Values) -> bool:
        index = self._space.index(values)
        return index is not None and (self._tried is None or index in self._tried)

    def _around(self, values: Values) -> Iterator[Values]:
        """A point with one number moved, and with another as large as the limits allow."""
        sizes = [place for place, axis in enumerate(self._space.axes) if self._is_size(axis)]
        for size in sizes:
            yield self._filled(values, size)
        for place, axis in enumerate(self._space.axes):
            for value in self._moves(axis, values[place]):
                moved = (*values[:place], value, *values[place + 1 :])
                yield moved
                if place in sizes:
                    for other in sizes:
                        if other != place:
                            yield self._filled(moved, other)

    def _moves(self, axis: Axis, value: Value) -> list[Value]:
        """Other values of a number: the next of its axis, and between there and here."""
        if isinstance(value, (bool, str)):
            return [other for other in axis.values if other != value]
        known = sorted(other for other in axis.values if not isinstance(other, str))
        found: list[Value] = []
        for near in (
            max((other for other in known if other < value), default=None),
            min((other for other in known if other > value), default=None),
        ):
            if near is None:
                continue
            found.append(near)
            if axis.path in self._finer:
                found += _between(int(value), int(near), _unit(axis.path))
        return list(dict.fromkeys(found))

    def _is_size(self, axis: Axis) -> bool:
        """Whether more of it is more of the array: memories are not filled up."""
        whole = all(type(value) is int for value in axis.values)
        return whole and len(axis.values) > 1 and _unit(axis.path) in (1, 100)

    def _filled(self, values: Values, place: int) -> Values:
        """The point with the largest value at a place that can be built, if more is more."""
        key = (place, *values[:place], *values[place + 1 :])
        if key not in self._full:
            self._full[key] = self._largest(values, place)
        return (*values[:place], self._full[key], *values[place + 1 :])

    def _largest(self, values: Values, place: int) -> int:
        axis = self._space.axes[place]
        known = sorted(int(value) for value in axis.values)
        if axis.path in self._finer:
            known = list(range(known[0], known[-1] + 1, _unit(axis.path)))
        low, high = 0, len(known) - 1
        while low < high:
            middle = (low + high + 1) // 2
            trial = (*values[:place], known[middle], *values[place + 1 :])
            if isinstance(self._space.settle(self._space.named(trial)), str):
                high = middle - 1
            else:
                low = middle
        return known[low]


def _between(here: int, there: int, unit: int) -> Iterator[int]:
    """Half, a quarter, ... of the way, in whole units, down to one."""
    way = abs(there - here) // 2
    while way >= unit:
        step = way // unit * unit
        yield here + step if there > here else here - step
        way //= 2


def _unit(path: str) -> int:
    """Smallest step that is worth a price."""
    return next((unit for end, unit in _UNITS if path.endswith(end)), 1)
