"""Random inputs, for models without data: the report says loudly that they are not real."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import Unsupported
from edgecompress.pipeline.data_formats.source import check_declared

OPEN_SIZE = 64
INTEGER_RANGE = 10


def draw(
    name: str, dtype: np.dtype[np.generic], shape: Sequence[int | None], count: int, seed: int
) -> Array:
    """``count`` random inputs: normal floats, bytes over their range, other integers 0 to 9.

    Args:
        name: Of the input; with the seed it fixes the numbers.
        dtype: Of the input.
        shape: Of one input; open sizes become 64.
        count: Number of inputs.
        seed: Of the draw.

    Returns:
        (count, *shape)

    Raises:
        Unsupported: The input takes text or another type without a random form.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    sizes = (count, *(OPEN_SIZE if size is None else size for size in shape))
    check_declared(sizes, np.dtype(np.float64), f"input {name!r}")
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return generator.standard_normal(sizes, np.float32).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, sizes).astype(dtype)
    if dtype.kind in "iu":
        low, high = (0, INTEGER_RANGE)
        if dtype.itemsize == 1:
            low, high = int(np.iinfo(dtype.name).min), int(np.iinfo(dtype.name).max) + 1
        return generator.integers(low, high, sizes).astype(dtype)
    raise Unsupported(f"no random values for input {name!r} of type {dtype}")


def assumption(name: str, shape: Sequence[int | None], first_axis: int) -> str:
    """What was assumed about open sizes, in words; empty if nothing was."""
    axes = [axis for axis, size in enumerate(shape, first_axis) if size is None]
    if not axes or not prod(size for size in shape if size is not None):
        return ""
    listed = " and ".join(map(str, axes))
    return f"input {name!r}: the open size of axis {listed} was taken as {OPEN_SIZE}"
