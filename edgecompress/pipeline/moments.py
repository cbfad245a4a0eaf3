"""Second moments of what enters a layer and what should leave it, for the formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any
from zlib import crc32

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.errors import DataInvalid
from edgecompress.core.layers import Layer
from edgecompress.core.samples import Feed
from edgecompress.core.stages import Conv, MatMul
from edgecompress.formats.base import Moments
from edgecompress.pipeline.columns import CHUNK, conv_columns, stuffed
from edgecompress.pipeline.sums import ColumnSums

COLUMN_LIMIT = 32_768
"""Columns for one layer. Source: measured on ResNet-20, docs/decomposition.md."""

LARGEST_ROW = 6_144
"""Weights in a row (in / groups times kernel) above which no moments are gathered: their
covariance would take more than 300 MB."""

MOST_BYTES = 2_000_000_000
"""Of activations held at once."""

HELD_AT_ONCE = 6
"""Activations of the size of the largest layer's input and output: two streams, with residuals."""


def gather_moments(
    layer: Layer,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    seed: int,
    limit: int = COLUMN_LIMIT,
) -> Moments | None:
    """Moments over the calibration samples.

    Args:
        layer: A convolution (not transposed) or matrix product.
        inputs: What enters the layer, canonical layout, one array per feed.
        outputs: What the float layer gives, bias included, at the same places.
        seed: Together with the layer's name it draws the columns.
        limit: Number of columns at most.

    Returns:
        None where there is not one column, or a row is too long.

    Raises:
        DataInvalid: An activation is not finite.
    """
    stage = layer.stage
    groups = stage.group if isinstance(stage, Conv) else 1
    columns = prod(layer.weight_shape[1:])
    if columns > LARGEST_ROW:
        return None
    rows = layer.weight_shape[0]
    sums = ColumnSums(np.zeros((groups, 1, columns)), np.zeros((groups, 1, rows // groups)))
    rng = np.random.default_rng([seed, crc32(layer.name.encode())])
    for x, y in _pairs(layer, inputs, outputs, max(limit, 8 * columns), rng):
        sums.add(x, y)
    if sums.mostly_mean():
        sums = sums.about_mean()
        for x, y in _pairs(layer, inputs, outputs, max(limit, 8 * columns), rng):
            sums.add(x, y)
    if not sums.count:
        return None
    moments = _moments(sums)
    if not (np.isfinite(moments.energy) and np.isfinite(moments.covariance).all()):
        raise DataInvalid(
            f"an activation at layer {layer.name!r} is not finite on the calibration data",
            hint="check the data and --preprocess",
        )
    return moments


def feeds_in_memory(layers: Sequence[Layer], feeds: Sequence[Feed]) -> Sequence[Feed]:
    """As many of the first feeds as fit into memory with their activations; at least one."""
    sizes = [
        prod(size or 1 for size in layer.input_shape[1:])
        + prod(size or 1 for size in layer.output_shape[1:])
        for layer in layers
    ]
    held = HELD_AT_ONCE * max(sizes, default=0) * 4
    total = 0
    for count, feed in enumerate(feeds):
        batch = max((len(array) for array in feed.values() if array.ndim), default=1)
        total += held * batch
        if total > MOST_BYTES:
            return feeds[: max(1, count)]
    return feeds


def fitted_bias(layer: Layer, weight: FloatArray, moments: Moments) -> FloatArray:
    """The bias that makes the mean outputs right for a new dense weight, float32 (out,)."""
    groups, columns = moments.input_mean.shape
    rows = weight.reshape(groups, -1, columns)
    given = np.einsum("gmn,gn->gm", rows, moments.input_mean).reshape(-1)
    bias: FloatArray = (moments.output_mean - given).astype(np.float32)
    return bias


def relative_error(weight: FloatArray, moments: Moments) -> float:
    """|y' - y| / |y| of a layer's outputs about their means, on the calibration data."""
    groups, columns = moments.input_mean.shape
    rows = weight.reshape(groups, -1, columns)
    loss = float(np.vdot(rows @ moments.covariance - 2.0 * moments.cross, rows)) + moments.energy
    return float(np.sqrt(max(loss, 0.0) / moments.energy)) if moments.energy > 0 else 0.0


def _moments(sums: ColumnSums) -> Moments:
    """Means, with the means of inputs and outputs taken out."""
    x, y = sums.means()
    return Moments(
        covariance=sums.gram / sums.count - x[:, :, None] * x[:, None, :],
        cross=sums.cross / sums.count - y[:, :, None] * x[:, None, :],
        energy=sums.energy / sums.count - float(np.square(y).sum()),
        input_mean=x + sums.about[0][:, 0],
        output_mean=(y + sums.about[1][:, 0]).reshape(-1),
        count=sums.count,
    )


def _pairs(
    layer: Layer,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    limit: int,
    rng: np.random.Generator,
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Chunks of columns drawn over all feeds, with the outputs at the same places."""
    channel_axis = 1 if isinstance(layer.stage, Conv) else -1
    total = sum(y.size // max(1, y.shape[channel_axis]) for y in outputs)
    share = min(1.0, limit / max(total, 1))
    for x, y in zip(inputs, outputs, strict=True):
        count = y.size // max(1, y.shape[channel_axis])
        take = min(count, int(np.ceil(count * share)))
        picks = (
            np.sort(rng.choice(count, take, replace=False)) if take < count else np.arange(count)
        )
        for start in range(0, take, CHUNK):
            yield _columns(layer, x, y, picks[start : start + CHUNK])


def _columns(layer: Layer, x: Array, y: Array, picks: Array) -> tuple[FloatArray, FloatArray]:
    """Columns and outputs at some places of one feed, float32."""
    stage = layer.stage
    if isinstance(stage, MatMul):
        flat_x = x.reshape(-1, x.shape[-1])[picks]
        flat_y = y.reshape(-1, y.shape[-1])[picks]
        return flat_x[None].astype(np.float32), flat_y[None].astype(np.float32)
    if not isinstance(stage, Conv):
        raise TypeError(f"{layer.name} is neither a convolution nor a matrix product")
    padded, stride, positions = stuffed(x, stage)
    sample, *places = np.unravel_index(picks, (x.shape[0], *positions))
    columns = conv_columns(padded, stage, stride, (sample, *places))
    index: tuple[Any, ...] = (sample, slice(None), *places)
    values = y[index].reshape(len(picks), stage.group, -1)
    return columns.astype(np.float32), values.transpose(1, 0, 2).astype(np.float32)
