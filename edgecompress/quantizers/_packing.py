"""Radix bytes: the only place that turns weight codes into bits and back.

A plane holds one digit of base L per weight, ``digits`` of them in a byte, first digit least
significant; a table of L^digits rows turns a byte back into the values of its digits. Most
grids are one plane. The 3-bit grid is two, because eight levels fill a byte badly (2 digits, 4
bits each): the low bits 1, 3, 5, 7 (2-bit digits) and the sign 0, -8 (1-bit digits), joined by a
bitwise or of two's complements.

Source: our design; rates are log2(256) / digits: ternary 1.6, 2-bit 2, 3-bit 2 + 1, 4-bit 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import CodeArray
from edgecompress.core.grids import Grid

ByteArray = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plane:
    """One digit per weight.

    Attributes:
        levels: The values of the digits in rising order; 2 to 256 distinct int8 values.

    Raises:
        ValueError: Too few or too many levels, not rising, or not int8.
    """

    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if len(self.levels) < 2 or not rising or self.levels[0] < -128 or self.levels[-1] > 127:
            raise ValueError(f"not a rising row of at least two int8 values: {self.levels}")

    @property
    def digits(self) -> int:
        """Digits in a byte: the largest k with levels^k <= 256."""
        count = 1
        while len(self.levels) ** (count + 1) <= 256:
            count += 1
        return count

    @property
    def table(self) -> CodeArray:
        """Values by byte: int8 (levels^digits, digits)."""
        base = len(self.levels)
        numbers = np.arange(base**self.digits)[:, None]
        digits = numbers // base ** np.arange(self.digits) % base
        return np.array(self.levels, np.int8)[digits]

    def byte_count(self, count: int) -> int:
        """Bytes that ``count`` digits take."""
        return -(-count // self.digits)

    def pack(self, values: CodeArray) -> ByteArray:
        """Bytes of the values in C order; the last byte is filled with the lowest level.

        Args:
            values: int8, any shape, every entry one of ``levels``.

        Raises:
            ValueError: An entry is not a level.
        """
        flat = values.reshape(-1)
        digit_of = np.full(256, -1, np.int16)
        digit_of[np.array(self.levels, np.int8).view(np.uint8)] = np.arange(len(self.levels))
        digits = np.zeros(self.byte_count(flat.size) * self.digits, np.int16)
        digits[: flat.size] = digit_of[flat.astype(np.int8).view(np.uint8)]
        if (digits < 0).any():
            raise ValueError(f"a value is not one of the levels {self.levels}")
        powers = (len(self.levels) ** np.arange(self.digits)).astype(np.int16)
        return (digits.reshape(-1, self.digits) @ powers).astype(np.uint8)

    def unpack(self, packed: ByteArray, count: int) -> CodeArray:
        """The first ``count`` values, int8 (count,).

        Raises:
            ValueError: A byte is not one that `pack` writes, or there are too few.
        """
        table = self.table
        if self.byte_count(count) > packed.size or (packed >= len(table)).any():
            raise ValueError(f"not {count} digits of base {len(self.levels)}")
        return np.ascontiguousarray(table[packed].reshape(-1)[:count])


_THREE_BIT = (Plane((1, 3, 5, 7)), Plane((-8, 0)))


def planes_of(grid: Grid) -> tuple[Plane, ...]:
    """The planes of a grid's codes; none where a code takes a byte (more than 16 levels).

    The bitwise or of the planes' values is the code.
    """
    if grid.levels > 16:
        return ()
    codes = tuple(int(code) for code in grid.codes)
    return _THREE_BIT if codes == (-7, -5, -3, -1, 1, 3, 5, 7) else (Plane(codes),)


def pack_codes(codes: CodeArray, grid: Grid) -> tuple[ByteArray, ...]:
    """One byte array per plane of the grid; for a grid without planes, the codes as they are.

    Args:
        codes: int8, any shape, on the grid; taken in C order.
        grid: Of the codes.

    Raises:
        ValueError: A code is off the grid.
    """
    match planes_of(grid):
        case ():
            return (codes.reshape(-1).view(np.uint8),)
        case (plane,):
            return (plane.pack(codes),)
        case (low, sign):
            return (
                low.pack(codes & np.int8(7)),
                sign.pack(np.where(codes < 0, np.int8(-8), np.int8(0))),
            )
        case planes:
            raise ValueError(f"{len(planes)} planes")


def unpack_codes(packed: tuple[ByteArray, ...], grid: Grid, count: int) -> CodeArray:
    """The codes that `pack_codes` packed, int8 (count,).

    Raises:
        ValueError: The bytes do not hold ``count`` codes of the grid.
    """
    planes = planes_of(grid)
    if not planes:
        return packed[0][:count].view(np.int8)
    codes = np.zeros(count, np.int8)
    for plane, data in zip(planes, packed, strict=True):
        codes |= plane.unpack(data, count)
    return codes


def byte_count(count: int, grid: Grid) -> int:
    """Bytes that ``count`` codes of the grid take, tables not counted."""
    return sum(plane.byte_count(count) for plane in planes_of(grid)) or count
