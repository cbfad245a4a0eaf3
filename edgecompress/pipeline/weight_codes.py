"""From a layer's weight to rows of numbers for a quantizer, and from its rows to codes."""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.grids import Grid
from edgecompress.core.stages import Conv, Recurrent, WeightStage
from edgecompress.core.tensors import Affine
from edgecompress.quantizers import QUANTIZERS
from edgecompress.quantizers._exact import exact_rows
from edgecompress.quantizers.base import Moments, Rows

NEGLIGIBLE = 2.0**-12
"""Scale of a row of zeros, as a share of the smallest other scale."""


def fitted_weight(
    stage: WeightStage, grid: Grid, method: str, moments: Moments | None, *, per_channel: bool
) -> Affine:
    """A weight as the method rounds it to the grid, in canonical order."""
    weight = as_rows(stage).astype(np.float64)
    rows = QUANTIZERS.get(method).quantize(weight, grid, moments=moments, per_channel=per_channel)
    return _as_affine(stage, rows, grid, per_channel=per_channel)


def exact_weight(stage: WeightStage, grid: Grid, *, per_channel: bool) -> Affine | None:
    """A weight that is on a grid with no more levels already, as it is; None: it is on none."""
    found = exact_rows(as_rows(stage), grid, per_channel=per_channel)
    if found is None:
        return None
    return _as_affine(stage, found.rows, found.grid, per_channel=found.per_channel)


def as_rows(stage: WeightStage) -> FloatArray:
    """A weight as (groups, rows, columns), in its own type: one row per output channel."""
    values = stage.weight.to_dense()
    groups = stage.group if isinstance(stage, Conv) else 1
    columns = values.shape[2:] if isinstance(stage, Recurrent) else values.shape[1:]
    return values.reshape(groups, -1, int(np.prod(columns, dtype=np.int64)))


def scale_shape(stage: WeightStage, *, per_channel: bool) -> Shape:
    """Shape of a weight's scales: 1 where they are shared."""
    shape = stage.weight.shape
    if not per_channel:
        return (1,) * len(shape)
    kept = 2 if isinstance(stage, Recurrent) else 1
    return (*shape[:kept], *(1,) * (len(shape) - kept))


def _as_affine(stage: WeightStage, rows: Rows, grid: Grid, *, per_channel: bool) -> Affine:
    shape = scale_shape(stage, per_channel=per_channel)
    scale = _positive(rows.scale if per_channel else rows.scale[:1, :1])
    codes = rows.codes.reshape(stage.weight.shape)
    return Affine(codes, scale.reshape(shape).astype(np.float32), grid)


def _positive(scale: FloatArray) -> FloatArray:
    """Scales of zero (rows of zeros) made negligible instead: integer kernels divide by scales."""
    used = scale[scale > 0]
    floor = used.min() * NEGLIGIBLE if used.size else 1.0
    return np.maximum(scale, floor)
