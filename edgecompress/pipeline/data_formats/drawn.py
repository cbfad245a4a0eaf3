"""Random inputs, for models without data: the report says loudly that they are not real."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import Unsupported
from edgecompress.core.samples import Feed
from edgecompress.pipeline.data_formats.source import check_declared

if TYPE_CHECKING:
    from edgecompress.graph.model import InputSpec

OPEN_SIZE = 64
INTEGER_RANGE = 10


def draw_feeds(inputs: Mapping[str, InputSpec], wanted: int, batch: int, seed: int) -> list[Feed]:
    """Random feeds for a model.

    Args:
        inputs: By name.
        wanted: Number of samples; a model's own batch size can make it a few more.
        batch: Samples in a feed where all first axes are open; else an open first axis is 1.
        seed: Of the draw.

    Raises:
        Unsupported: An input takes text or another type without a random form.
    """
    if inputs and all(item.shape[:1] == (None,) for item in inputs.values()):
        rows = {name: draw(item, item.shape[1:], wanted, seed) for name, item in inputs.items()}
        starts = range(0, wanted, batch)
        return [{name: rows[name][start : start + batch] for name in rows} for start in starts]
    own = next((item.shape[0] for item in inputs.values() if item.shape), None) or 1
    count = max(1, wanted // own) if inputs else 1
    columns = {name: draw(item, _one_row(item.shape), count, seed) for name, item in inputs.items()}
    return [{name: np.asarray(columns[name][place]) for name in columns} for place in range(count)]


def _one_row(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return tuple(1 if size is None and not axis else size for axis, size in enumerate(shape))


def draw(item: InputSpec, shape: Sequence[int | None], count: int, seed: int) -> Array:
    """``count`` random inputs: normal floats, bytes over their range, other integers 0 to 9.

    Integers that index a table are in it.

    Args:
        item: The input; its name, with the seed, fixes the numbers.
        shape: Of one input; open sizes become 64.
        count: Number of inputs.
        seed: Of the draw.

    Returns:
        (count, *shape)

    Raises:
        Unsupported: The input takes text or another type without a random form.
    """
    name, dtype = item.name, item.dtype
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
        if item.below is not None:
            low, high = 0, max(1, min(high, item.below))
        return generator.integers(low, high, sizes).astype(dtype)
    raise Unsupported(f"no random values for input {name!r} of type {dtype}")


def assumption(name: str, shape: Sequence[int | None], first_axis: int) -> str:
    """What was assumed about open sizes, in words; empty if nothing was."""
    axes = [axis for axis, size in enumerate(shape, first_axis) if size is None]
    if not axes or not prod(size for size in shape if size is not None):
        return ""
    listed = " and ".join(map(str, axes))
    return f"input {name!r}: the open size of axis {listed} was taken as {OPEN_SIZE}"
