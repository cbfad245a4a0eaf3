"""The report of an exploration, from the rows that were priced."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.exploration import DesignPoint, Dropped, ExplorationReport
from edgecompress.core.report import FileFact
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target_text import numbers_of
from edgecompress.pipeline.explore_buffers import said_small
from edgecompress.pipeline.explore_edges import edges
from edgecompress.pipeline.explore_front import pareto_front, pick_rows
from edgecompress.pipeline.explore_space import SLOWER_MEMORY, Limits, Space
from edgecompress.pipeline.explore_state import Chunk, Row

CLOUD_POINTS = 2000
SAMPLED = "{tried:,} points of {grid:,} were drawn at random; the best may be among the others"
UNFIT = "the base target does not fit the limits itself: {reason}"
UNBUILT = "the base target cannot be built itself: {reason}"
NO_SHARES = "the family has no estimate of resources: the front is in time and energy alone"
CLOCK = "every configuration is taken to reach the clock of the base target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Everything that the report of a finished exploration is made of.

    Attributes:
        space: What was explored.
        part: Name of the programmable device, or empty.
        files, weights: Of the networks.
        objective, networks, seed: As asked.
        layer_shapes: Different operators.
        base_row: The base target as a row.
        assumptions: Of the networks.
    """

    space: Space
    part: str
    files: tuple[FileFact, ...]
    weights: tuple[float, ...]
    objective: Literal["latency", "throughput"]
    networks: Literal["mean", "worst"]
    seed: int
    layer_shapes: int
    base_row: Row
    assumptions: tuple[str, ...]

    def judged(
        self, rows: Sequence[Row]
    ) -> tuple[list[float], list[float] | None, list[float] | None]:
        """Scores, shares and energies of at least one row; None for what is not known."""
        figures = _numbers(rows)
        scores, energies = self._scores(figures)
        base, limits = _resources(self.base_row), self.space.limits
        shares = [_share(_resources(row), base, limits) for row in rows]
        known = [share for share in shares if share is not None]
        return (
            scores.tolist(),
            known if len(known) == len(rows) else None,
            None if np.isnan(energies).any() else energies.tolist(),
        )

    def _scores(self, figures: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Scores and energies of rows."""
        networks, weights = len(self.files), np.array(self.weights)
        times = _times(figures, networks, self.objective)
        ratios = times / _times(_numbers([self.base_row]), networks, self.objective)
        scores = ratios.max(axis=1) if self.networks == "worst" else ratios @ weights
        return scores, figures[:, 4 + 2 * networks :] @ weights

    def report(self, chunks: Sequence[Chunk], tried: int, refined: int = 0) -> ExplorationReport:
        """The report of all chunks.

        Args:
            chunks: Of the grid, and beside it.
            tried: Points of the grid that were looked at.
            refined: Points beside those.
        """
        rows = [row for chunk in chunks for row in chunk.rows]
        dropped: Counter[str] = Counter()
        for chunk in chunks:
            dropped.update(chunk.dropped)
        points = self._points(rows)
        order = sorted(range(len(rows)), key=lambda place: rows[place][0] or 0.0)
        front = self._front([points[place] for place in order])
        cloud = points[:CLOUD_POINTS] if points and points[0].share is not None else []
        return ExplorationReport(
            models=self.files,
            weights=self.weights,
            target=self.space.base.name,
            part=self.part,
            limits=self.space.limits.as_numbers(),
            objective=self.objective,
            networks=self.networks,
            axes=self.space.axes,
            grid_points=self.space.size,
            tried_points=tried,
            refined_points=refined,
            feasible_points=len(rows),
            dropped=tuple(
                Dropped(reason=reason, points=count) for reason, count in dropped.most_common()
            ),
            layer_shapes=self.layer_shapes,
            layer_configurations=self.layer_shapes * len(rows),
            base=self._points([self.base_row])[0],
            front=front,
            cloud_scores=tuple(point.score for point in cloud),
            cloud_shares=tuple(point.share or 0.0 for point in cloud),
            assumptions=(*self.assumptions, *self._more_assumptions(tried)),
            edges=tuple(edges(front, self.space)),
            seed=self.seed,
        )

    def _points(self, rows: Sequence[Row]) -> list[DesignPoint]:
        if not rows:
            return []
        scores, energies = self._scores(_numbers(rows))
        return [
            self._point(row, float(score), float(energy))
            for row, score, energy in zip(rows, scores, energies, strict=True)
        ]

    def _point(self, row: Row, score: float, energy: float) -> DesignPoint:
        networks = len(self.files)
        index = int(row[0] or 0)
        own = row is not self.base_row
        seconds = [value or 0.0 for value in row[4 : 4 + 2 * networks]]
        used = _resources(row)
        return DesignPoint(
            values=self.space.values(index) if own else {},
            score=score,
            latency_s=tuple(seconds[:networks]),
            throughput_per_s=tuple(1 / value if value else 0.0 for value in seconds[networks:]),
            energy_pj=None if math.isnan(energy) else energy,
            dsp=used.dsp if used else None,
            bram18=used.bram18 if used else None,
            lut=used.lut if used else None,
            share=_share(used, _resources(self.base_row), self.space.limits),
        )

    def _front(self, points: Sequence[DesignPoint]) -> tuple[DesignPoint, ...]:
        if not points:
            return ()
        columns = [[point.score for point in points]]
        columns += [
            [float(getattr(point, name)) for point in points]
            for name in ("dsp", "bram18", "lut", "energy_pj")
            if getattr(points[0], name) is not None
        ]
        front = [points[row] for row in pareto_front(np.array(columns).T)]
        shares = None if front[0].share is None else [point.share or 0.0 for point in front]
        known = front[0].energy_pj is not None
        energies = [point.energy_pj or 0.0 for point in front] if known else None
        names: dict[int, list[str]] = {}
        for name, place in pick_rows([p.score for p in front], shares, energies).items():
            names.setdefault(place, []).append(name)
        return tuple(
            replace(point, picks=tuple(names.get(place, ()))) for place, point in enumerate(front)
        )

    def _more_assumptions(self, tried: int) -> Iterator[str]:
        base, limits = self.space.base, self.space.limits
        if tried < self.space.size:
            yield SAMPLED.format(tried=tried, grid=self.space.size)
        yield CLOCK
        used = _resources(self.base_row)
        reason = limits.too_much(used) if used else None
        if reason:
            yield UNFIT.format(reason=reason)
        for text in said_small(numbers_of(base)):
            yield UNBUILT.format(reason=text)
        if used is None:
            yield NO_SHARES
        if limits.dram_bytes_per_s is not None and base.dram_bytes_per_s > limits.dram_bytes_per_s:
            yield SLOWER_MEMORY


def _numbers(rows: Sequence[Row]) -> FloatArray:
    return np.array([[math.nan if value is None else value for value in row] for row in rows])


def _times(figures: FloatArray, networks: int, objective: str) -> FloatArray:
    """Seconds of each network, that everything is judged by."""
    start = 4 if objective == "latency" else 4 + networks
    return figures[:, start : start + networks]


def _resources(row: Row) -> Resources | None:
    dsp, bram18, lut = row[1:4]
    if dsp is None or bram18 is None or lut is None:
        return None
    return Resources(dsp=int(dsp), bram18=int(bram18), lut=int(lut))


def _share(used: Resources | None, base: Resources | None, limits: Limits) -> float | None:
    """Largest share of a limited resource; of the base's resources where none is limited."""
    if used is None or base is None:
        return None
    names = ("dsp", "bram18", "lut")
    limited = {name: getattr(limits, name) for name in names if getattr(limits, name)}
    whole = limited or {name: getattr(base, name) for name in names if getattr(base, name)}
    return max((getattr(used, name) / most for name, most in whole.items()), default=0.0)
