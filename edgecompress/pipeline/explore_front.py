"""Pareto fronts, and the points of a front that are the best for something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import FloatArray

PICKS = ("latency", "resources", "energy", "balanced")
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
        lowest product of score and share. Of equal points the first.
    """
    picks = {"latency": _first_best(scores)}
    if shares is not None:
        enough = [place for place, score in enumerate(scores) if score <= 1.0]
        places = enough or list(range(len(scores)))
        picks["resources"] = min(places, key=lambda place: (shares[place], scores[place]))
        picks["balanced"] = _first_best(
            [score * share for score, share in zip(scores, shares, strict=True)]
        )
    if energies is not None:
        picks["energy"] = _first_best(energies)
    return picks


def _first_best(values: Sequence[float]) -> int:
    return min(range(len(values)), key=lambda place: values[place])
