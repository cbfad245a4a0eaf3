"""Weights that are on a grid already: their codes and scales are found, not fitted.

A row is on a grid when every weight is a code times one scale, to the rounding of its own
floating-point type. So the ratio of a weight to the largest one is a ratio of two codes, and the
largest one's code is one of at most 127: each is tried, on a few weights first. Ordinary weights
fail at the first rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import CodeArray, FloatArray
from edgecompress.core.grids import GRIDS, Grid
from edgecompress.quantizers._packing import byte_count
from edgecompress.quantizers.base import Rows

ROUNDINGS = 2
"""A weight may be off by so many roundings: of code times scale, and of a folded normalisation.

Source: the usual bound of relative errors of products, half a unit in the last place each."""

FEW = 32
"""Weights of a row that are looked at first."""

FIRST_ROWS = 16
"""Rows that are looked at first."""

MOST_VALUES = 4096
"""Distinct values of a weight with one scale: more than codes, as folding rounds one to several."""

MOST_TRIED = 1 << 22
"""Numbers held at once while codes are tried, about."""

Found = tuple[CodeArray, FloatArray]


@dataclass(frozen=True, slots=True)
class ExactRows:
    """A weight as it is.

    Attributes:
        rows: Codes and scales; a row of zeros has a scale of zero.
        grid: Of the codes.
        per_channel: Rows have scales of their own, else all have the same.
    """

    rows: Rows
    grid: Grid
    per_channel: bool


def exact_rows(weight: FloatArray, grid: Grid, *, per_channel: bool) -> ExactRows | None:
    """A weight on the grid that it is on already, if that has no more levels than the asked one.

    Args:
        weight: (groups, rows, columns), float32 or float16.
        grid: The finest to look for.
        per_channel: One scale per row may be used; one for all is tried in any case.

    Returns:
        What takes the fewest bytes; code times scale in float32, cast to the weight's type, is the
        weight to the rounding of that type. None: the weight is on none of the grids.
    """
    if not weight.size or not np.isfinite(weight).all():
        return None
    common = _on_rows(weight, grid, per_channel=False)
    if not per_channel:
        return common
    most = common.grid.levels if common is not None else grid.levels + 1
    finest = max(
        (one for one in GRIDS.values() if one.levels < most),
        key=lambda one: one.levels,
        default=None,
    )
    own = _on_rows(weight, finest, per_channel=True) if finest is not None else None
    return min((one for one in (common, own) if one is not None), key=_bytes, default=None)


def _bytes(exact: ExactRows) -> int:
    scales = exact.rows.scale.size if exact.per_channel else 1
    return byte_count(exact.rows.codes.size, exact.grid) + 4 * scales


def _on_rows(weight: FloatArray, grid: Grid, *, per_channel: bool) -> ExactRows | None:
    """Codes and scales of rows, or of the whole as one row."""
    if per_channel:
        found = _separate(weight.reshape(-1, weight.shape[2]), grid)
    else:
        found = _common(weight.reshape(-1), grid)
    if found is None:
        return None
    codes, scale = found
    used = np.flatnonzero(np.bincount(codes.reshape(-1).view(np.uint8), minlength=256))
    for own in sorted(GRIDS.values(), key=lambda one: one.levels):
        if own.levels <= grid.levels and np.isin(used, own.codes.view(np.uint8)).all():
            scales = np.broadcast_to(scale, (weight.shape[0] * weight.shape[1], 1))
            rows = Rows(
                codes.reshape(weight.shape),
                scales.reshape(*weight.shape[:2], 1).astype(np.float64),
            )
            return ExactRows(rows, own, per_channel)
    return None


def _common(values: FloatArray, grid: Grid) -> Found | None:
    """Codes (n,) and one scale (1, 1) for all values."""
    if _codes(values[None, :: max(1, len(values) // MOST_VALUES)], grid) is None:
        return None
    distinct = np.unique(values)
    found = _codes(distinct[None], grid) if len(distinct) <= MOST_VALUES else None
    if found is None:
        return None
    return found[0][0][np.searchsorted(distinct, values)], found[1]


def _separate(rows: FloatArray, grid: Grid) -> Found | None:
    """Codes (n, columns) and scales (n, 1)."""
    parts: list[Found] = []
    for portion in _portions(rows, grid):
        part = _codes(portion, grid)
        if part is None:
            return None
        parts.append(part)
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _portions(rows: FloatArray, grid: Grid) -> Iterator[FloatArray]:
    """The rows a few at first, then as many at once as memory bears."""
    most = max(1, MOST_TRIED // max(rows.shape[1], min(FEW, rows.shape[1]) * grid.largest))
    start, count = 0, min(FIRST_ROWS, most)
    while start < len(rows):
        yield rows[start : start + count]
        start, count = start + count, most


def _codes(rows: FloatArray, grid: Grid) -> Found | None:
    """Codes (n, columns) and scales (n, 1) in float32; None where a row has none."""
    step = 2 if grid.spacing == 2 else 1
    tops = np.arange(1, grid.largest + 1, step)
    slack = 1.25 * ROUNDINGS * float(np.finfo(rows.dtype).eps)  # of a ratio of two, and some room
    peak = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    safe = np.where(peak > 0, peak, 1.0)
    some = np.linspace(0, rows.shape[1] - 1, min(FEW, rows.shape[1])).astype(np.int64)
    tried = rows[:, some, None] / safe[:, :, None] * tops
    possible: NDArray[np.bool_] = np.all(_near(tried, slack), axis=1)
    codes, scale = np.zeros(rows.shape, np.int8), np.zeros((len(rows), 1), np.float32)
    open_rows = np.ones(len(rows), np.bool_)
    for place, top in enumerate(tops):
        chosen = np.flatnonzero(open_rows & possible[:, place])
        if not chosen.size:
            continue
        units = rows[chosen] / safe[chosen] * float(top)
        fits = _near(units, slack).all(axis=1)
        chosen, whole = chosen[fits], np.rint(units[fits]).astype(np.int8)
        scales, right = _scales(rows[chosen], whole)
        chosen = chosen[right]
        codes[chosen], scale[chosen] = whole[right], scales[right]
        open_rows[chosen] = False
    return None if open_rows.any() else (codes, scale)


def _near(units: FloatArray, slack: float) -> NDArray[np.bool_]:
    """Whether a number is whole but for rounding."""
    whole = np.rint(units)
    near: NDArray[np.bool_] = np.abs(units - whole) <= slack * np.abs(whole)
    return near


def _scales(rows: FloatArray, codes: CodeArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """float32 scales (n, 1) that give the rows, bit for bit where one does, and whether they do."""
    rounding = float(np.finfo(rows.dtype).eps) / 2
    size = np.abs(rows).astype(np.float64)
    half = 0.5 * np.spacing(np.abs(rows)).astype(np.float64)
    none = codes == 0
    counted = np.where(none, np.inf, np.abs(codes))
    least = counted.argmin(axis=1)[:, None]
    start = np.take_along_axis(size / counted, least, axis=1).astype(np.float32)
    less, more = (np.nextafter(start, np.float32(end)) for end in (0, np.inf))
    exact = _between((size - half) / counted, (size + half) / counted, none)
    middle = _between(size / counted, size / counted, none)
    scale, same = middle, np.zeros(len(rows), np.bool_)
    for trial in (start, less, more, exact):
        equal = ((codes * trial).astype(rows.dtype) == rows).all(axis=1)
        scale = np.where((equal & ~same)[:, None], trial, scale)
        same |= equal
    error = np.abs(codes * scale.astype(np.float64) - rows)
    close = (error <= ROUNDINGS * rounding * size).all(axis=1)
    return scale, same | close


def _between(low: FloatArray, high: FloatArray, none: NDArray[np.bool_]) -> FloatArray:
    """Midway between the highest of the lows and the lowest of the highs, float32 (n, 1); zero for
    a row without any."""
    top = np.where(none, 0.0, low).max(axis=1, keepdims=True)
    end = np.where(none, np.inf, high).min(axis=1, keepdims=True)
    middle: FloatArray = np.where(end < np.inf, 0.5 * (top + end), 0.0).astype(np.float32)
    return middle
