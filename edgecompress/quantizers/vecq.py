"""VecQ as the paper has it: steering by the Gaussian step, driving by least squares. No data.

Source: VecQ (arXiv 2005.08501).
"""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import Grid
from edgecompress.quantizers._steering import drive, gaussian_scale
from edgecompress.quantizers.base import Moments, Rows, nearest_codes


class VecQ:
    """Codes from one look at the root mean square, then the best scale for these codes."""

    name = "vecq"
    needs_data = False

    def quantize(
        self, weight: FloatArray, grid: Grid, *, moments: Moments | None, per_channel: bool
    ) -> Rows:
        """Codes of the paper; see `Quantizer`. The moments are not used."""
        weight = weight.astype(np.float64)
        codes = nearest_codes(weight, gaussian_scale(weight, grid, per_channel=per_channel), grid)
        scale = drive(weight, codes, codes, per_channel=per_channel)
        return Rows(codes.astype(np.int8), scale)


QUANTIZER = VecQ()
