"""Winograd transforms in exact integers, with one input transform for all kernels of a tile size.

A tile of ``omega`` pixels a side gives ``omega + 1 - kernel`` outputs a side for a kernel of any
size. The interpolation points depend on ``omega`` alone, so that kernels of all sizes share the
input transform; that is what lets one array run them all.

Source: Toom 1963 and Cook 1966 for the construction, Winograd 1980 and Lavin and Gray (arXiv
1509.09308) for convolutions and for the points; kernel sharing: WinoCNN (arXiv 2107.04244).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# Points besides infinity: the smallest ones, as usual (Lavin and Gray 2016, section 5).
POINTS = {
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    6: tuple(map(Fraction, (0, 1, -1, 2, -2))),
    8: (*map(Fraction, (0, 1, -1, 2, -2)), Fraction(1, 2), Fraction(-1, 2)),
}
OMEGAS = tuple(POINTS)
KERNELS_AT_ONCE = 1 << 16  # 32 MiB in the Winograd domain at omega 8
_EXACT_IN_FLOAT32 = 1 << 24  # integers below are exact in its significand


@dataclass(frozen=True, slots=True, kw_only=True)
class Transforms:
    """The three matrices of F(m x m, kernel x kernel).

    For a tile d (omega, omega) and a kernel g (k, k), in integers and without any rounding,
    ``output @ ((kernel @ g @ kernel.T) * (input @ d @ input.T)) @ output.T`` is ``kernel_scale**2``
    times the (m, m) correlation of d with g.

    Attributes:
        input: B^T, (omega, omega); the same for every kernel of an omega.
        kernel: G times ``kernel_scale``, (omega, kernel).
        output: A^T, (m, omega).
        kernel_scale: What G was multiplied by, for each of its two uses.
    """

    input: IntArray
    kernel: IntArray
    output: IntArray
    kernel_scale: int

    @property
    def omega(self) -> int:
        """Side of a tile."""
        return len(self.input)


@lru_cache(maxsize=64)
def transforms(omega: int, kernel: int) -> Transforms:
    """The transforms of one tile size and kernel; the arrays are read-only.

    Args:
        omega: Side of a tile: 4 (points 0, 1, -1, infinity), 6 (and 2, -2) or 8 (and 1/2, -1/2).
        kernel: Side of the kernel, 1 to ``omega - 1``.

    Raises:
        ValueError: No such tile size, or the kernel does not fit in a tile.
    """
    if omega not in POINTS:
        raise ValueError(f"Winograd tiles are of {OMEGAS} pixels a side, not {omega}")
    if not 1 <= kernel < omega:
        raise ValueError(f"a kernel of {kernel} does not fit in a Winograd tile of {omega}")
    points = POINTS[omega]
    outputs = omega + 1 - kernel
    taken = [points[:place] + points[place + 1 :] for place in range(len(points))]
    taken.append(points)  # infinity: no point is left out
    rows = [_polynomial(others, omega) for others in taken]
    sums: list[list[int]] = [
        [point.numerator**i * point.denominator ** (outputs - 1 - i) for point in points]
        + [int(i == outputs - 1)]
        for i in range(outputs)
    ]
    spread = [_kernel_row(points, place, kernel, outputs) for place in range(len(points))]
    whole = math.prod(point.denominator for point in points)
    spread.append([Fraction(0)] * (kernel - 1) + [Fraction(1, whole)])
    scale = math.lcm(*(value.denominator for row in spread for value in row))
    return Transforms(
        input=_frozen(rows),
        kernel=_frozen([[int(value * scale) for value in row] for row in spread]),
        output=_frozen(sums),
        kernel_scale=scale,
    )


def _kernel_row(
    points: tuple[Fraction, ...], place: int, kernel: int, outputs: int
) -> list[Fraction]:
    """A row of G, divided by what made the same rows of B^T and columns of A^T integers."""
    point = points[place]
    others = points[:place] + points[place + 1 :]
    divisor = math.prod((point - other for other in others), start=Fraction(1))
    divisor *= math.prod(other.denominator for other in others)
    divisor *= point.denominator ** (outputs - 1)
    return [point**i / divisor for i in range(kernel)]


def _polynomial(roots: tuple[Fraction, ...], length: int) -> list[int]:
    """Integer coefficients, lowest first, of the product of (q x - p) over the roots p / q."""
    coefficients = [1]
    for root in roots:
        shifted = [0, *(root.denominator * value for value in coefficients)]
        coefficients = [
            up - root.numerator * same for up, same in zip(shifted, [*coefficients, 0], strict=True)
        ]
    return coefficients + [0] * (length - len(coefficients))


def _frozen(rows: list[list[int]]) -> IntArray:
    """A read-only array of integers."""
    array = np.array(rows, dtype=np.int64)
    array.setflags(write=False)
    return array


def transformed_kernels(weights: IntArray, omega: int) -> IntArray:
    """The kernels in the Winograd domain: G g G^T times ``kernel_scale`` squared.

    Args:
        weights: (out, in, k, k) integers.
        omega: Side of a tile.

    Returns:
        (out, in, omega, omega).

    Raises:
        ValueError: The kernels are not square, or do not fit in a tile.
    """
    side = _side(weights)
    spread = transforms(omega, side).kernel
    domain: IntArray = np.einsum("xi,ocij,yj->ocxy", spread, weights, spread, optimize=True)
    return domain


def zero_share(weights: IntArray, omega: int) -> float:
    """Share of the transformed weights G g G^T that are zero: multiplications that could be left
    out; 0 for a weight without elements.

    Args:
        weights: (out, in, k, k) integers of at most 32 bits.
        omega: Side of a tile.

    Raises:
        ValueError: The kernels are not square, or do not fit in a tile.
    """
    side = _side(weights)
    transforms(omega, side)
    return dict(zero_shares(weights)).get(omega, 0.0)


def zero_shares(weights: IntArray) -> tuple[tuple[int, float], ...]:
    """(omega, share) as in `zero_share`, for every tile size that the kernels fit in.

    The points of a tile size are among those of the larger ones, so that the largest transform has
    the entries of all others in it.

    Args:
        weights: (out, in, k, k) integers of at most 32 bits.

    Raises:
        ValueError: The kernels are not square.
    """
    side = _side(weights)
    omegas = [omega for omega in OMEGAS if side < omega]
    if not omegas or not side:
        return ()
    both, growth = _both_sides(side)
    kernels = weights.reshape(-1, both.shape[1])
    if not kernels.size:
        return tuple((omega, 0.0) for omega in omegas)
    largest = max(abs(int(kernels.min())), abs(int(kernels.max())))
    dtype: type[np.floating] = np.float32 if largest * growth < _EXACT_IN_FLOAT32 else np.float64
    transform: npt.NDArray[np.floating] = both.astype(dtype)
    zeros = dict.fromkeys(omegas, 0)
    for start in range(0, len(kernels), KERNELS_AT_ONCE):
        part: npt.NDArray[np.floating] = kernels[start : start + KERNELS_AT_ONCE].astype(dtype)
        found = transform @ part.T == 0
        for omega in omegas:
            zeros[omega] += int(np.count_nonzero(found[: omega**2]))
    return tuple((omega, zeros[omega] / (len(kernels) * omega**2)) for omega in omegas)


@lru_cache(maxsize=8)
def _both_sides(side: int) -> tuple[IntArray, int]:
    """Both sides of the transform of a kernel as one matrix (omega^2, side^2) for the largest
    omega, entries that smaller ones have first; and how many times the largest tap its results
    can be.

    Zeros stay zeros when a row is divided by its common factor; sums of small rows are exact in
    floating point, whose products numpy leaves to the linear algebra library.
    """
    rows: list[IntArray] = []
    points = 0
    for omega in OMEGAS:
        if side < omega:
            spread = transforms(omega, side).kernel
            spread = spread // np.gcd.reduce(spread, axis=1, keepdims=True)
            # The points that the tile size before has not; the first brings infinity too.
            rows += list(spread[points:-1] if points else spread)
            points = len(POINTS[omega])
    places = sorted(np.ndindex(len(rows), len(rows)), key=max)
    both = np.array([np.kron(rows[i], rows[j]) for i, j in places], np.int64)
    return both, int(np.abs(both).sum(axis=1).max())


def _side(weights: IntArray) -> int:
    """The side of the kernels."""
    if weights.ndim != 4 or weights.shape[2] != weights.shape[3]:
        raise ValueError(f"square kernels (out, in, k, k) are needed, not {weights.shape}")
    return int(weights.shape[2])
