"""Sampling of planes at given points."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, operator

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@operator("GridSample")
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """Values at the points of a grid, interpolated."""
    mode = call.get("mode", "bilinear" if call.version < 20 else "linear")
    return functional.grid_sample(
        x,
        grid.to(x.dtype),
        _MODES.get(mode, mode),
        call.get("padding_mode", "zeros"),
        bool(call.get("align_corners", 0)),
    )


@operator("AffineGrid", numbers=(1,))
def affine_grid(call: Call, theta: Tensor, size: Tensor) -> Tensor:
    """Points of a plane turned, moved and scaled."""
    sizes = torch.Size(size.tolist())
    return functional.affine_grid(theta, list(sizes), bool(call.get("align_corners", 0)))
