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
LEAST_SPREAD = 1e-3
"""Share of the power about the mean below which products are summed again about the mean: they
are in float32, whose 1e-7 of the power would be more than 1e-4 of the spread."""
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
    sums = _Sums(np.zeros((groups, 1, columns)), bias.reshape(groups, 1, -1))
    with np.errstate(over="ignore", invalid="ignore"):  # the check below says it better
        for x, y in paired_columns(stage, inputs, outputs, column_limit(columns), rng):
            sums.add(x, y)
        if centred and sums.mostly_mean():
            sums = _Sums(*sums.centre())
            for x, y in paired_columns(stage, inputs, outputs, column_limit(columns), rng):
                sums.add(x, y)
        if not sums.count:
            return None
        moments = sums.moments(centred=centred)
    _check_finite(layer.name, moments.gram, moments.cross)
    return moments


class _Sums:
    """Sums over columns, about a point that is known."""

    def __init__(self, about_x: FloatArray, about_y: FloatArray) -> None:
        groups, _, columns = about_x.shape
        rows = about_y.shape[2]
        self._about = about_x.astype(np.float32), about_y.astype(np.float32)
        self._gram = np.zeros((groups, columns, columns))
        self._cross = np.zeros((groups, rows, columns))
        self._x, self._y = np.zeros((groups, columns)), np.zeros((groups, rows))
        self.count = 0

    def add(self, raw_x: Array, raw_y: Array) -> None:
        """Columns (groups, count, columns) and outputs (groups, count, rows)."""
        x, y = raw_x.astype(np.float32), raw_y.astype(np.float32)
        x, y = x - self._about[0], y - self._about[1]
        self._gram += np.swapaxes(x, 1, 2) @ x
        self._cross += np.swapaxes(y, 1, 2) @ x
        self._x += x.sum(axis=1, dtype=np.float64)
        self._y += y.sum(axis=1, dtype=np.float64)
        self.count += x.shape[1]

    def mostly_mean(self) -> bool:
        """Whether the mean is so large that taking it out afterwards leaves rounding errors."""
        power = float(np.einsum("gkk->", self._gram))
        mean = float(np.square(self._x).sum()) / max(self.count, 1)
        return np.isfinite(power) and power > 0 and power - mean < LEAST_SPREAD * power

    def centre(self) -> tuple[FloatArray, FloatArray]:
        """The mean column and the mean output, (groups, 1, ...)."""
        x, y = self._x / self.count, self._y / self.count
        return self._about[0] + x[:, None], self._about[1] + y[:, None]

    def moments(self, *, centred: bool) -> Moments:
        """Means of the products; with the means taken out if asked."""
        x, y = (self._x / self.count, self._y / self.count)
        if not centred:
            x, y = 0 * x, 0 * y
        return Moments(
            gram=self._gram / self.count - x[:, :, None] * x[:, None, :],
            cross=self._cross / self.count - y[:, :, None] * x[:, None, :],
            count=self.count,
        )


def _check_finite(name: str, *arrays: FloatArray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataInvalid(
            f"an activation at layer {name!r} is not finite on the calibration data",
            hint="check the data and --preprocess",
        )
