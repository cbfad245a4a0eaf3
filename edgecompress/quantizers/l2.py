"""Least squares without data: the scale is searched for, the codes are the nearest.

The fallback where a layer has no calibration data.
"""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import Grid
from edgecompress.quantizers._steering import steer
from edgecompress.quantizers.base import Moments, Rows


class LeastSquares:
    """The scale with the least squared error of the weights, and the nearest codes."""

    name = "l2"
    needs_data = False

    def quantize(
        self, weight: FloatArray, grid: Grid, *, moments: Moments | None, per_channel: bool
    ) -> Rows:
        """Codes and scales; see `Quantizer`. The moments are not used."""
        codes, scale = steer(weight.astype(np.float64), grid, None, per_channel=per_channel)
        return Rows(codes.astype(np.int8), scale)


QUANTIZER = LeastSquares()
