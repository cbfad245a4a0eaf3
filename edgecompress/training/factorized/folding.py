"""How the axes of a weight are split into modes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt, log, prod

from edgecompress.core.arrays import Shape


@dataclass(frozen=True, slots=True)
class Folding:
    """The modes of a weight of canonical shape (out, in, *kernel) or (rows, width).

    Attributes:
        rows: Sizes whose product is ``out`` (of a table: its rows); the last one varies fastest.
        columns: Sizes whose product is ``in`` (of a table: its width).
        kernel: Spatial sizes of a convolution; empty for a matrix.
    """

    rows: Shape
    columns: Shape
    kernel: Shape = ()

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise ValueError("both sides of a weight have at least one mode")
        if any(size < 1 for size in (*self.rows, *self.columns, *self.kernel)):
            raise ValueError("modes are at least 1")

    @property
    def shape(self) -> Shape:
        """Canonical shape of the weight."""
        return (prod(self.rows), prod(self.columns), *self.kernel)

    @property
    def entries(self) -> int:
        """Entries of the dense weight."""
        return prod(self.shape)


def split_size(size: int, parts: int) -> Shape:
    """Modes of a size, as near to each other as its divisors allow, the smallest first.

    Modes of 1 are left out, so a prime stays whole: one mode.

    Args:
        size: At least 1.
        parts: The most modes.
    """
    divisors = [d for d in range(1, isqrt(size) + 1) if size % d == 0]
    divisors = sorted({*divisors, *(size // d for d in divisors)})
    best = _best_split(size, parts, tuple(divisors))
    return tuple(sorted(mode for mode in best if mode > 1)) or (size,)


def pad_size(size: int, parts: int) -> int:
    """The least size from here up, at most an eighth more, that splits into near-equal modes.

    Near-equal: no mode is above twice the root. For tables, whose spare rows cost next to nothing.
    """
    for padded in range(size, size + size // 8 + 1):
        if max(split_size(padded, parts)) ** parts <= 2**parts * padded:
            return padded
    return size


def usual_modes(size: int) -> int:
    """Modes for a size when nobody said: each near 16.

    Source: 784 = 28 * 28 and 512 = 16 * 32 as in the published nets of Hawkins and Zhang 2021.
    """
    return max(1, round(log(size, 16))) if size > 1 else 1


@lru_cache(maxsize=4096)
def _best_split(size: int, parts: int, divisors: Shape) -> Shape:
    """The split with the least largest mode, then the least sum."""
    if parts == 1:
        return (size,)
    options = []
    for d in divisors:
        if size % d == 0 and d**parts <= size:
            rest = _best_split(size // d, parts - 1, divisors)
            options.append((max(d, *rest), d + sum(rest), (d, *rest)))
    return min(options)[2]
