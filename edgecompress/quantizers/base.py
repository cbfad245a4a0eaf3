"""What a weight quantizer is given and what it gives back: rows of numbers, no ONNX and no layers.

A weight is seen as ``(groups, rows, columns)``: one row per output channel, the rows of a group
read the same inputs. A dense layer has one group, a depthwise convolution one per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgecompress.core.arrays import CodeArray, FloatArray
from edgecompress.core.grids import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Second moments of a layer on calibration data.

    x~ is what enters the layer in the model whose earlier layers are quantized already, as columns
    (one entry per weight of a row); y is what the layer gives in the float model. Their means are
    taken out where the layer's bias can absorb them.

    Attributes:
        gram: (groups, columns, columns) float64, mean of x~ x~^T.
        cross: (groups, rows, columns) float64, mean of y x~^T.
        count: Number of columns that were averaged.
    """

    gram: FloatArray
    cross: FloatArray
    count: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Quantized rows: value = scale * code.

    Attributes:
        codes: (groups, rows, columns) int8, on the grid.
        scale: (groups, rows, 1) float64, never negative.
    """

    codes: CodeArray
    scale: FloatArray

    def to_dense(self) -> FloatArray:
        """float64 values, (groups, rows, columns)."""
        values: FloatArray = self.codes * self.scale
        return values


class Quantizer(Protocol):
    """A way to choose codes and scales.

    Attributes:
        name: As on the command line; the name of the file it is in.
        needs_data: `quantize` must be given moments.
    """

    name: str
    needs_data: bool

    def quantize(
        self, weight: FloatArray, grid: Grid, *, moments: Moments | None, per_channel: bool
    ) -> Rows:
        """Codes and scales for a weight.

        Args:
            weight: (groups, rows, columns), finite.
            grid: The codes that are allowed.
            moments: Of the layer's input; None without data.
            per_channel: One scale per row, else the same scale for all.

        Returns:
            Rows of the shape of ``weight``. A row of zeros gives values of zero.

        Raises:
            ValueError: ``needs_data`` and there are no moments.
        """
        ...


def nearest_codes(values: FloatArray, scale: FloatArray, grid: Grid) -> FloatArray:
    """Codes nearest to ``values / scale``, as float64; a scale of zero gives the code of zero.

    On a mid-rise grid a tie at zero becomes +1.
    """
    safe = np.where(scale > 0, scale, 1.0)
    units = np.where(scale > 0, values / safe, 0.0)
    codes = 2.0 * np.floor(0.5 * units) + 1.0 if grid.spacing == 2 else np.rint(units)
    clipped: FloatArray = np.clip(codes, -grid.largest, grid.largest)
    return clipped
