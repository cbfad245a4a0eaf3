"""Second moments of a layer, for the Hessian metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.errors import DataInvalid
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv
from edgecompress.pipeline.columns import paired_columns
from edgecompress.pipeline.sums import ColumnSums
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
    bias = np.zeros(stage.weight.shape[0]) if layer.bias is None else layer.bias
    sums = ColumnSums(np.zeros((groups, 1, columns)), bias.reshape(groups, 1, -1))
    with np.errstate(over="ignore", invalid="ignore"):  # the check below says it better
        for x, y in paired_columns(stage, inputs, outputs, column_limit(columns), rng):
            sums.add(x, y)
        if centred and sums.mostly_mean():
            sums = sums.about_mean()
            for x, y in paired_columns(stage, inputs, outputs, column_limit(columns), rng):
                sums.add(x, y)
        if not sums.count:
            return None
        moments = _moments(sums, centred=centred)
    _check_finite(layer.name, moments.gram, moments.cross)
    return moments


def _moments(sums: ColumnSums, *, centred: bool) -> Moments:
    """Means of the products; with the means taken out if asked."""
    x, y = sums.means()
    if not centred:
        x, y = 0 * x, 0 * y
    return Moments(
        gram=sums.gram / sums.count - x[:, :, None] * x[:, None, :],
        cross=sums.cross / sums.count - y[:, :, None] * x[:, None, :],
        count=sums.count,
    )


def _check_finite(name: str, *arrays: FloatArray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataInvalid(
            f"an activation at layer {name!r} is not finite on the calibration data",
            hint="check the data and --preprocess",
        )
