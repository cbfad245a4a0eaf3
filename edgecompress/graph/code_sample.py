"""Which codes of a large weight are measured: blocks of neighbours, evenly spread.

Blocks keep runs of zeros and whole kernels together. The sample is the same at every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgecompress.core.arrays import Array

EXACT_CODES = 1 << 16
"""Weights of at most so many codes are measured whole."""

SAMPLED_CODES = 1 << 15
"""Codes of a sample. Source: the standard error of an entropy is the spread of the information of a
code over the square root of their number: 1 bit for a normal distribution (log2 e / sqrt 2), so
0.006 bits. Channels with a scale of their own differ more, by 0.1 bits for a normal distribution
whose scale is the largest of thousands, so that 64 of them give 0.013 bits."""

SAMPLED = (
    f"weights of more than {EXACT_CODES} codes were measured on {SAMPLED_CODES} of them, evenly"
    " spread: their entropy is known to about 0.03 bits"
)

KERNELS = (3, 5)
"""Sides of square kernels that have a Winograd domain."""

_BLOCKS = 64
_SCALED_VALUES = 1 << 17
"""Floats that are read for the scales of output channels, unless `_BLOCKS` channels have more."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_CODES_OF_A_BYTE = 120
"""Any number of codes that a byte or two hold divides it: 2, 3, 4, 5 or 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Positions start + i * stride + j of a flat tensor, i below ``count``, j below ``length``."""

    start: int
    stride: int
    count: int
    length: int

    def of(self, array: Array) -> Array:
        """These entries of an array in C order: (count, length)."""
        windows = sliding_window_view(array.reshape(-1), self.length)
        part: Array = np.ascontiguousarray(windows[self.start :: self.stride][: self.count])
        return part

    def over(self, size: int) -> Blocks | None:
        """Blocks of the groups of ``size`` that hold these positions; None if they start at
        different places of a group."""
        if self.stride % size:
            return None
        within = self.start % size
        return Blocks(
            start=self.start // size,
            stride=self.stride // size,
            count=self.count,
            length=-(-(within + self.length) // size),
        )

    def cut(self, groups: Array, size: int) -> Array:
        """Of the entries of such groups, (count, entries), these."""
        within = self.start % size
        return groups[:, within : within + self.length]


def taps(shape: Sequence[int]) -> int:
    """Codes that belong together: a kernel with a Winograd domain, else one."""
    if len(shape) == 4 and shape[2] == shape[3] and shape[2] in KERNELS:
        return shape[2] * shape[3]
    return 1


def spread(shape: Sequence[int]) -> Blocks:
    """All of a weight of at most `EXACT_CODES` codes, else blocks of it.

    They start at multiples of what bytes and kernels hold, an odd number of these apart, so that
    they do not meet the same columns of a matrix again and again.
    """
    size, kernel = math.prod(shape), taps(shape)
    unit = math.lcm(kernel, _CODES_OF_A_BYTE)
    if size <= EXACT_CODES:
        return Blocks(start=0, stride=unit, count=1, length=size)
    length = SAMPLED_CODES // _BLOCKS // kernel * kernel
    apart = (size - length) // (_BLOCKS - 1) // unit
    stride = unit * (apart - 1 + apart % 2 if apart > _BLOCKS // 8 else apart)
    left = size - length - (_BLOCKS - 1) * stride
    return Blocks(start=left // 2 // unit * unit, stride=stride, count=_BLOCKS, length=length)


def sampled_channels(weight: Array) -> tuple[Array, Array]:
    """Output channels, evenly spread, and a block of each.

    Returns:
        (channels, codes of one), a view where the weight is contiguous, and (channels, length).
    """
    rows = weight.reshape(len(weight), -1)
    every, kernel = rows.shape[1], taps(weight.shape)
    wanted = min(len(rows), max(_BLOCKS, _SCALED_VALUES // every))
    step = -(-len(rows) // wanted)
    rows = rows[step // 2 :: step]
    length = min(every, max(1, SAMPLED_CODES // len(rows) // kernel) * kernel)
    places, parts = np.arange(len(rows)), max(1, every // length)
    # The parts of a channel take turns, none more often than the others: multiples of the golden
    # ratio, modulo one. The first or last inputs may well be smaller than those between.
    turns = (places * _GOLDEN % 1 * parts).astype(np.int64)
    starts = turns * ((every - length) // kernel) // max(1, parts - 1) * kernel
    return rows, sliding_window_view(rows, length, axis=1)[places, starts]


def sampled_rows(total: int, codes: int) -> Array:
    """Indices of runs of rows, evenly spread, that hold about `SAMPLED_CODES` codes together.

    Args:
        total: Rows there are.
        codes: In each.
    """
    run = max(1, SAMPLED_CODES // codes // _BLOCKS)
    count = max(1, min(_BLOCKS, SAMPLED_CODES // codes))
    starts = np.arange(count) * max(0, total - run) // max(1, count - 1)
    return (starts[:, None] + np.arange(run)).reshape(-1)


def digits(packed: Array, bits: int) -> Array:
    """Codes of ``bits`` each along the last axis of bytes, the first in the lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: Array = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)
