"""Steering (which codes) and driving (which scale), in the metric of any second-moment matrix.

VecQ splits the error of a quantized vector into its orientation and its modulus. With the inner
product <a, b>_H = a^T H b the same split measures the error of the layer's output, because
|W x - Q x|^2 averaged over inputs is (W - Q) H (W - Q)^T; H = I is VecQ itself.

Source: VecQ (arXiv 2005.08501) for H = I; the generalisation is the identity above.
"""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import Grid
from edgecompress.quantizers.base import nearest_codes

GAUSSIAN_STEP: dict[str, float] = {
    "ternary": 1.2240064,
    "2": 0.9956867,
    "3": 0.5860194,
    "4": 0.3352006,
    "8": 0.0308701,
}
"""Step of the equally spaced quantizer with the least squared error for a unit Gaussian.

Source: J. Max, "Quantizing for minimum distortion", 1960 (equal spacing); VecQ's lambda for 2 to
4 bits. The tests derive them again."""

SEARCH_STEPS = 49
SEARCH_LOW, SEARCH_HIGH = 0.4, 1.6
PEAK_SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""On fine grids the search also tries scales at which this share of the largest weight fits."""
WIDE_COLUMNS = 1024
"""Above this number of columns the search takes a quarter of the steps (its cost is cubic)."""


def gaussian_scale(weight: FloatArray, grid: Grid, *, per_channel: bool) -> FloatArray:
    """Scale that is best for Gaussian weights of the same root mean square, (groups, rows, 1)."""
    axes = (2,) if per_channel else (0, 1, 2)
    rms = np.sqrt(np.mean(weight * weight, axis=axes, keepdims=True))
    step = GAUSSIAN_STEP[grid.name] / grid.spacing
    scale: FloatArray = np.broadcast_to(step * rms, (*weight.shape[:2], 1)).copy()
    return scale


def over_rows(values: FloatArray, *, per_channel: bool) -> FloatArray:
    """The values (..., groups, rows, 1), or their sum over groups and rows for a common scale."""
    if per_channel:
        return values
    total: FloatArray = np.broadcast_to(
        values.sum(axis=(-3, -2), keepdims=True), values.shape
    ).copy()
    return total


def inner(left: FloatArray, turned: FloatArray) -> FloatArray:
    """Inner product of each row with a row that has been through the metric, (..., rows, 1)."""
    product: FloatArray = np.einsum("...k,...k->...", left, turned)[..., None]
    return product


def through(values: FloatArray, metric: FloatArray | None) -> FloatArray:
    """The rows times the metric (groups, columns, columns); None is the identity."""
    return values if metric is None else values @ metric


def ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """top / bottom, zero where bottom is not positive."""
    positive = bottom > 0
    result: FloatArray = np.where(positive, top / np.where(positive, bottom, 1.0), 0.0)
    return result


def drive(
    weight: FloatArray, codes: FloatArray, turned: FloatArray, *, per_channel: bool
) -> FloatArray:
    """Scale with the least error for these codes, <w, v> / <v, v>, never negative.

    Args:
        weight: (..., groups, rows, columns).
        codes: Likewise.
        turned: The codes through the metric.
        per_channel: One scale per row, else one for all.
    """
    top = over_rows(inner(weight, turned), per_channel=per_channel)
    bottom = over_rows(inner(codes, turned), per_channel=per_channel)
    return np.maximum(ratio(top, bottom), 0.0)


def trial_scales(weight: FloatArray, grid: Grid, *, per_channel: bool) -> list[FloatArray]:
    """Scales that steering tries, each (groups, rows, 1)."""
    base = gaussian_scale(weight, grid, per_channel=per_channel)
    steps = SEARCH_STEPS if weight.shape[2] <= WIDE_COLUMNS else SEARCH_STEPS // 4
    trials = [base * factor for factor in np.linspace(SEARCH_LOW, SEARCH_HIGH, steps)]
    if grid.levels > 8:
        axes = (2,) if per_channel else (0, 1, 2)
        peak = np.max(np.abs(weight), axis=axes, keepdims=True) / grid.largest
        trials += [np.broadcast_to(peak * share, base.shape) for share in PEAK_SHARES]
    return trials


def steer(
    weight: FloatArray, grid: Grid, metric: FloatArray | None, *, per_channel: bool
) -> tuple[FloatArray, FloatArray]:
    """Codes of the best orientation over a range of scales, and the driven scale.

    Args:
        weight: (groups, rows, columns).
        grid: The codes that are allowed.
        metric: (groups, columns, columns), or None for the identity.
        per_channel: One scale per row, else one for all.

    Returns:
        codes (groups, rows, columns) and scale (groups, rows, 1), float64.
    """
    best_codes = np.zeros_like(weight)
    best_scale = np.zeros((*weight.shape[:2], 1))
    best_gain = np.full(best_scale.shape, -np.inf)
    for trial in trial_scales(weight, grid, per_channel=per_channel):
        codes = nearest_codes(weight, trial, grid)
        turned = through(codes, metric)
        top = np.maximum(over_rows(inner(weight, turned), per_channel=per_channel), 0.0)
        bottom = over_rows(inner(codes, turned), per_channel=per_channel)
        gain = top * ratio(top, bottom)
        better = gain > best_gain
        best_codes = np.where(better, codes, best_codes)
        best_scale = np.where(better, ratio(top, bottom), best_scale)
        best_gain = np.where(better, gain, best_gain)
    return best_codes, best_scale
