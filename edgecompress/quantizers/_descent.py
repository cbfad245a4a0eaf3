"""Choosing codes in the metric of H: error feedback, then exact coordinate descent.

All arrays of codes have any number of leading axes before ``(groups, rows, columns)``, so that
several starts run at once. Columns are handled in blocks: inside a block one at a time, between
blocks by one matrix product.

Source: error feedback in order of falling diagonal: GPTQ (arXiv 2210.17323).
"""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.grids import Grid
from edgecompress.quantizers.base import nearest_codes

BLOCK = 64


def error_feedback(
    target: FloatArray, scale: FloatArray, metric: FloatArray, grid: Grid
) -> FloatArray:
    """Codes, column by column, each column's error compensated by the columns after it.

    Args:
        target: (..., groups, rows, columns).
        scale: (..., groups, rows, 1).
        metric: (groups, columns, columns), positive definite.
        grid: The codes that are allowed.

    Returns:
        (..., groups, rows, columns) float64 codes.
    """
    order = np.argsort(-np.einsum("gkk->gk", metric), axis=1, kind="stable")
    upper = _feedback_factor(metric, order)
    spread: Array = np.broadcast_to(order[:, None, :], target.shape)
    work = np.take_along_axis(target, spread, axis=-1)
    codes = np.empty_like(work)
    columns = work.shape[-1]
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.empty((*work.shape[:-1], stop - start))
        for j in range(start, stop):
            column = work[..., j : j + 1]
            codes[..., j : j + 1] = nearest_codes(column, scale, grid)
            error = (column - scale * codes[..., j : j + 1]) / upper[:, j, j][:, None, None]
            errors[..., j - start] = error[..., 0]
            work[..., j + 1 : stop] -= error * upper[:, None, j, j + 1 : stop]
        work[..., stop:] -= errors @ upper[:, start:stop, stop:]
    result = np.empty_like(codes)
    np.put_along_axis(result, spread, codes, axis=-1)
    return result


def _feedback_factor(metric: FloatArray, order: Array) -> FloatArray:
    """Upper U of each group with H^-1 = U^T U in that order; row j spreads column j's error."""
    rows = np.take_along_axis(metric, order[:, :, None], axis=1)
    ordered = np.take_along_axis(rows, order[:, None, :], axis=2)
    inverse = np.linalg.inv(ordered)
    return np.swapaxes(np.linalg.cholesky(0.5 * (inverse + np.swapaxes(inverse, 1, 2))), 1, 2)


def sweep(
    codes: FloatArray, scale: FloatArray, slope: FloatArray, metric: FloatArray, grid: Grid
) -> tuple[FloatArray, FloatArray]:
    """One pass of exact coordinate descent over all columns; never raises the error.

    Args:
        codes: (..., groups, rows, columns).
        scale: (..., groups, rows, 1).
        slope: (target - scale * codes) through the metric.
        metric: (groups, columns, columns), positive diagonal.
        grid: The codes that are allowed.

    Returns:
        The new codes, and their change through the metric (codes, not values).
    """
    codes = codes.copy()
    slope = slope.copy()
    turned_change = np.zeros_like(codes)
    diagonal = np.einsum("gkk->gk", metric)[:, None, :]
    step = scale[..., 0]
    columns = codes.shape[-1]
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        local = slope[..., start:stop].copy()
        before = codes[..., start:stop].copy()
        for j in range(start, stop):
            old = codes[..., j].copy()
            wanted = step * old + local[..., j - start] / diagonal[..., j]
            new = nearest_codes(wanted, step, grid)
            codes[..., j] = new
            move = (step * (new - old))[..., None]
            local -= move * metric[:, None, j, start:stop]
        turned = (codes[..., start:stop] - before) @ metric[:, start:stop, :]
        turned_change += turned
        slope -= scale * turned
    return codes, turned_change
