"""Pareto fronts, and the points of a front that are the best for something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import FloatArray

PICKS = ("latency", "resources", "energy", "balanced")
LEAST_SHARE = 1e-4
"""Assumed: less of a device than this is nothing."""
_BLOCK = 512


def pareto_front(objectives: FloatArray) -> NDArray[np.intp]:
    """Rows that no other row is at least as good as in every column and better in one.

    Args:
        objectives: (points, objectives), smaller is better, no NaN. Of equal rows the first stays.

    Returns:
        Row numbers, by the first objective, then the others.
    """
    if not len(objectives):
        return np.zeros(0, dtype=np.intp)
    distinct, first = np.unique(objectives, axis=0, return_index=True)
    kept = np.zeros((0, objectives.shape[1]))
    rows: list[NDArray[np.intp]] = []
    # Rows come in rising order, so a row can only be beaten by one that came before it.
    for start in range(0, len(distinct), _BLOCK):
        block = distinct[start : start + _BLOCK]
        alive = ~_beaten(block, kept)
        places = np.flatnonzero(alive)
        inner = ~_beaten(block[places], block[places])
        places = places[inner]
        kept = np.concatenate([kept, block[places]])
        rows.append(first[start + places])
    return np.concatenate(rows)


def _beaten(points: FloatArray, others: FloatArray) -> NDArray[np.bool_]:
    """Which points another point is at least as good as everywhere, and not the same as."""
    beaten = np.zeros(len(points), dtype=bool)
    for start in range(0, len(others), _BLOCK):
        some = others[start : start + _BLOCK]
        better = (some[None, :, :] <= points[:, None, :]).all(axis=2)
        same = (some[None, :, :] == points[:, None, :]).all(axis=2)
        beaten |= (better & ~same).any(axis=1)
    return beaten


def pick_rows(
    scores: Sequence[float], shares: Sequence[float] | None, energies: Sequence[float] | None
) -> dict[str, int]:
    """The best point of a front for each purpose that can be judged.

    Args:
        scores: Of each point; 1 is the base target.
        shares: Largest share of a resource; None if not known.
        energies: None if not known.

    Returns:
        ``latency``: the lowest score; ``resources``: the smallest share among the points that are
        no slower than the base, or the smallest of all; ``energy``: the lowest; ``balanced``: the
        `knee` of the points no slower than the base, or of all. Of equal points the first.
    """
    picks = {"latency": _first_best(scores)}
    if shares is not None:
        enough = [place for place, score in enumerate(scores) if score <= 1.0]
        places = enough or list(range(len(scores)))
        picks["resources"] = min(places, key=lambda place: (shares[place], scores[place]))
        knee_place = knee([scores[place] for place in places], [shares[place] for place in places])
        picks["balanced"] = places[knee_place]
    if energies is not None:
        picks["energy"] = _first_best(energies)
    return picks


def knee(scores: Sequence[float], shares: Sequence[float]) -> int:
    """The point nearest to the best score and the smallest share at once.

    Of the points that no other beats in score and share. Both are on logarithmic scales from 0 at
    the best of these points to 1 at the worst, so that a ratio counts for as much anywhere.

    Args:
        scores: Above 0.
        shares: At least 0; those below `LEAST_SHARE` count as that.

    Source: the ideal point of compromise programming, Zeleny 1973.
    """
    costs = np.array([scores, np.maximum(shares, LEAST_SHARE)]).T
    front = pareto_front(costs)
    logs = np.log(costs[front])
    least, most = logs.min(axis=0), logs.max(axis=0)
    way = (logs - least) / np.where(most > least, most - least, 1.0)
    return int(front[int(np.argmin((way**2).sum(axis=1)))])


def _first_best(values: Sequence[float]) -> int:
    return min(range(len(values)), key=lambda place: values[place])
