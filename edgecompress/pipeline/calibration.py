"""Second moments of a layer, for the Hessian metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.errors import DataInvalid
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv
from edgecompress.pipeline.columns import paired_columns
from edgecompress.quantizers.base import Moments

MOST_WORK = 2e10
"""Multiplications that the moments of one layer may take, about: they set the number of columns."""
FEWEST_COLUMNS, MOST_COLUMNS = 8_192, 65_536


def column_limit(row: int) -> int:
    """Columns for a layer with ``row`` weights in a row."""
    return int(np.clip(MOST_WORK / row**2, max(FEWEST_COLUMNS, 2 * row), MOST_COLUMNS))


def measure_moments(
    layer: Layer,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    rng: np.random.Generator,
    *,
    centred: bool,
) -> Moments | None:
    """Moments over the calibration samples.

    Args:
        layer: A convolution or a matrix product.
        inputs: What enters it in the compressed model, canonical layout, one array per feed.
        outputs: What it gives in the float model, bias included, likewise.
        rng: Draws the columns.
        centred: Take the means out, because the bias will absorb them.

    Returns:
        None where there is not one column.

    Raises:
        DataInvalid: An activation is not finite.
    """
    stage = layer.stage
    groups = stage.group if isinstance(stage, Conv) else 1
    columns = int(np.prod(stage.weight.shape[1:], dtype=np.int64))
    rows = stage.weight.shape[0] // groups
    bias = np.zeros(groups * rows) if layer.bias is None else layer.bias
    known = bias.astype(np.float32).reshape(groups, 1, rows)
    gram, cross = np.zeros((groups, columns, columns)), np.zeros((groups, rows, columns))
    sum_x, sum_y, count = np.zeros((groups, columns)), np.zeros((groups, rows)), 0
    with np.errstate(over="ignore", invalid="ignore"):  # the check below says it better
        for raw_x, raw_y in paired_columns(stage, inputs, outputs, column_limit(columns), rng):
            x, y = raw_x.astype(np.float32), raw_y.astype(np.float32) - known
            gram += np.swapaxes(x, 1, 2) @ x
            cross += np.swapaxes(y, 1, 2) @ x
            sum_x += x.sum(axis=1, dtype=np.float64)
            sum_y += y.sum(axis=1, dtype=np.float64)
            count += x.shape[1]
        if count == 0:
            return None
        mean_x, mean_y = (sum_x / count, sum_y / count) if centred else (0 * sum_x, 0 * sum_y)
        moments = Moments(
            gram=gram / count - mean_x[:, :, None] * mean_x[:, None, :],
            cross=cross / count - mean_y[:, :, None] * mean_x[:, None, :],
            count=count,
        )
    _check_finite(layer.name, moments.gram, moments.cross)
    return moments


def _check_finite(name: str, *arrays: FloatArray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataInvalid(
            f"an activation at layer {name!r} is not finite on the calibration data",
            hint="check the data and --preprocess",
        )
