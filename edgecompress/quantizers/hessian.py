"""VecQ in the Hessian metric: the codes that keep the layer's output, measured on data.

Steps: a target that also repairs the error of the layers before it (asymmetric), steering and
driving in the metric, error feedback from several scales, coordinate descent with the scale driven
again between sweeps. Of all starts the best is kept, row by row.

Source: VecQ (arXiv 2005.08501); GPTQ (arXiv 2210.17323); the asymmetric target is that of AdaRound
(arXiv 2004.10568), here in closed form.
"""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import Grid
from edgecompress.quantizers._descent import error_feedback, sweep
from edgecompress.quantizers._steering import drive, inner, over_rows, steer
from edgecompress.quantizers.base import Moments, Rows

DAMPING = 0.05
"""Added to the diagonal of H, as a share of its mean."""
PULL = 0.1
"""Pull of the target towards the float weight, as a share of the mean diagonal of H."""
STARTS = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2, 1.3)
"""Scales from which error feedback starts, as shares of the steered one."""
FEW_STARTS = (0.8, 0.9, 1.0)
"""For layers above `WIDE_COLUMNS` columns."""
WIDE_COLUMNS = 1024
SWEEPS = 4


def mean_power(gram: FloatArray) -> FloatArray:
    """Mean of each group's diagonal, one where it is zero; (groups, 1, 1)."""
    mean = np.einsum("gkk->gk", gram).mean(axis=1)
    power: FloatArray = np.where(mean > 0, mean, 1.0)[:, None, None]
    return power


def damped(gram: FloatArray, share: float) -> FloatArray:
    """``gram`` with a share of its mean diagonal added to the diagonal; the shape stays."""
    return gram + share * mean_power(gram) * np.eye(gram.shape[1])


def asymmetric_target(weight: FloatArray, moments: Moments, pull: float) -> FloatArray:
    """W* with the least |y - W* x~|^2 + mu |W* - W|^2, mu = ``pull`` times the mean power of x~.

    Args:
        weight: W, (groups, rows, columns).
        moments: Of the float output y and the compressed input x~.
        pull: Above 0.
    """
    right = moments.cross + pull * mean_power(moments.gram) * weight
    solved = np.linalg.solve(damped(moments.gram, pull), np.swapaxes(right, 1, 2))
    return np.swapaxes(solved, 1, 2)


class Hessian:
    """Codes with the least error of the layer's output on the calibration data."""

    name = "hessian"
    needs_data = True

    def quantize(
        self, weight: FloatArray, grid: Grid, *, moments: Moments | None, per_channel: bool
    ) -> Rows:
        """Codes and scales; see `Quantizer`."""
        if moments is None:
            raise ValueError("the Hessian metric needs moments")
        metric = damped(moments.gram, DAMPING)
        target = asymmetric_target(weight.astype(np.float64), moments, PULL)
        codes, scale = steer(target, grid, metric, per_channel=per_channel)
        shares = STARTS if weight.shape[2] <= WIDE_COLUMNS else FEW_STARTS
        starts = np.array(shares)[:, None, None, None] * scale
        found = descend(target, starts, metric, grid, per_channel=per_channel)
        all_codes = np.concatenate([codes[None], found[0]])
        all_scales = np.concatenate([scale[None], found[1]])
        error = target - all_scales * all_codes
        loss = over_rows(inner(error, error @ metric), per_channel=per_channel)
        best = np.argmin(loss, axis=0)[None]
        codes = np.take_along_axis(all_codes, best, axis=0)[0]
        scale = np.take_along_axis(all_scales, best, axis=0)[0]
        return Rows(codes.astype(np.int8), scale)


def descend(
    target: FloatArray, starts: FloatArray, metric: FloatArray, grid: Grid, *, per_channel: bool
) -> tuple[FloatArray, FloatArray]:
    """Error feedback from each starting scale, then sweeps with the scale driven in between.

    Args:
        target: (groups, rows, columns).
        starts: (starts, groups, rows, 1).
        metric: (groups, columns, columns), positive definite.
        grid: The codes that are allowed.
        per_channel: One scale per row, else one for all.

    Returns:
        codes (starts, groups, rows, columns) and scale (starts, groups, rows, 1), float64.
    """
    scale = starts
    wanted = np.broadcast_to(target, (len(starts), *target.shape))
    codes = error_feedback(wanted, scale, metric, grid)
    turned_target = target @ metric
    turned = codes @ metric
    for _ in range(SWEEPS):
        driven = drive(wanted, codes, turned, per_channel=per_channel)
        scale = np.where(driven > 0, driven, scale)
        codes, change = sweep(codes, scale, turned_target - scale * turned, metric, grid)
        turned = turned + change
    return codes, drive(wanted, codes, turned, per_channel=per_channel)


QUANTIZER = Hessian()
