"""The inputs of a layer as columns: one row of numbers for each product with a weight row.

Columns are drawn at random over all samples and output positions, so that a layer with many
positions costs no more than one with few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, assert_never

import numpy as np

from edgecompress.core.arrays import Array, FloatArray, Shape
from edgecompress.core.stages import Conv, Embedding, MatMul, Recurrent, WeightStage

CHUNK = 4096
"""Columns in memory at once."""


def stuffed(values: Array, stage: Conv) -> tuple[Array, Shape, Shape]:
    """A convolution's input with its padding, and the stride and number of output positions.

    A transposed convolution is an ordinary one over the input with zeros between its entries; its
    stride is then 1.

    Returns:
        padded (n, c, *spatial), stride, positions per spatial axis.
    """
    kernel = stage.weight.shape[2:]
    spatial = len(kernel)
    reach = [d * (k - 1) for d, k in zip(stage.dilation, kernel, strict=True)]
    begins, ends = stage.pads[:spatial], stage.pads[spatial:]
    stride = stage.stride
    if stage.transposed:
        sizes = [(n - 1) * s + 1 for n, s in zip(values.shape[2:], stride, strict=True)]
        spread = np.zeros((*values.shape[:2], *sizes), values.dtype)
        spread[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = values
        values = spread
        begins = tuple(r - b for r, b in zip(reach, begins, strict=True))
        ends = tuple(r - e for r, e in zip(reach, ends, strict=True))
        stride = (1,) * spatial
    crop = tuple(
        slice(max(-b, 0), n - max(-e, 0))
        for b, e, n in zip(begins, ends, values.shape[2:], strict=True)
    )
    widths = [(0, 0), (0, 0), *((max(b, 0), max(e, 0)) for b, e in zip(begins, ends, strict=True))]
    padded = np.pad(values[(slice(None), slice(None), *crop)], widths)
    positions = tuple(
        max((size - r - 1) // s + 1, 0)
        for size, r, s in zip(padded.shape[2:], reach, stride, strict=True)
    )
    return padded, stride, positions


def conv_columns(padded: Array, stage: Conv, stride: Shape, where: tuple[Array, ...]) -> FloatArray:
    """Columns of a convolution at the given samples and positions.

    Args:
        padded: (n, c, *spatial) with its padding.
        stage: The convolution.
        stride: Of the positions.
        where: Sample and position per spatial axis, each (count,).

    Returns:
        (groups, count, columns) with the columns in the order of a weight row.
    """
    sample, *places = where
    kernel = stage.weight.shape[2:]
    taps = []
    for tap in product(*(range(k) for k in kernel)):
        offsets = tuple(k - 1 - t for k, t in zip(kernel, tap, strict=True))
        offsets = offsets if stage.transposed else tap
        index = (
            place * s + t * d
            for place, s, t, d in zip(places, stride, offsets, stage.dilation, strict=True)
        )
        place_of_tap: tuple[Any, ...] = (sample, slice(None), *index)
        taps.append(padded[place_of_tap])
    stacked = np.stack(taps, axis=-1)
    count, channels, _ = stacked.shape
    grouped = stacked.reshape(count, stage.group, (channels // stage.group) * len(taps))
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def paired_columns(
    stage: WeightStage,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    limit: int,
    rng: np.random.Generator,
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Columns that enter a layer and outputs at the same places, drawn over all feeds.

    Args:
        stage: What the layer does with its input.
        inputs, outputs: One array per feed, canonical layout.
        limit: Number of columns at most, about.
        rng: Draws the places.

    Yields:
        Pairs of (groups, count, columns) and (groups, count, rows), count at most `CHUNK`.
    """
    channel = 1 if isinstance(stage, Conv) else -1
    counts = [y.size // max(1, y.shape[channel]) for y in outputs]
    share = min(1.0, limit / max(sum(counts), 1))
    for x, y, count in zip(inputs, outputs, counts, strict=True):
        take = min(count, int(np.ceil(count * share)))
        picks = (
            np.sort(rng.choice(count, take, replace=False)) if take < count else np.arange(count)
        )
        yield from _pairs(stage, x, y, picks)


def _pairs(
    stage: WeightStage, x: Array, y: Array, picks: Array
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Chunks of the chosen columns of one feed."""
    match stage:
        case Conv():
            padded, stride, positions = stuffed(x, stage)
            for start in range(0, len(picks), CHUNK):
                where = np.unravel_index(picks[start : start + CHUNK], (len(x), *positions))
                columns = conv_columns(padded, stage, stride, where)
                there: tuple[Any, ...] = (where[0], slice(None), *where[1:])
                values = y[there]
                values = values.reshape(len(values), stage.group, -1)
                yield columns, values.transpose(1, 0, 2)
        case MatMul():
            flat_x, flat_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            for start in range(0, len(picks), CHUNK):
                chunk = picks[start : start + CHUNK]
                yield flat_x[None, chunk], flat_y[None, chunk]
        case Embedding() | Recurrent():
            return
        case _:
            assert_never(stage)
