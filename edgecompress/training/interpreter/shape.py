"""Operators that move values or change shapes and types."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import (
    Call,
    axis_of,
    operator,
    whole_number,
    whole_numbers,
)


@operator("Reshape", numbers=(1,))
def reshape(call: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """The same entries in another shape; -1 is what is left, 0 the same as before."""
    sizes = list(call.attributes["shape"]) if call.version < 5 else whole_numbers(shape)
    if not call.get("allowzero", 0):
        sizes = [x.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = x.numel() // known if known else 0
    return x.reshape(sizes)


@operator("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    """Two axes: those before one, and the rest."""
    axis = axis_of(call.get("axis", 1), x.dim())
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    """Axes in another order; reversed without one."""
    return x.permute(tuple(call.get("perm", range(x.dim() - 1, -1, -1))))


def _axes(call: Call, axes: Tensor | None) -> list[int]:
    return list(call.get("axes", [])) if call.version < 13 else whole_numbers(axes)


@operator("Squeeze", numbers=(1,))
def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without these axes of size one, or without all."""
    chosen = _axes(call, axes)
    if not chosen:
        return x.squeeze()
    return x.squeeze(tuple(axis_of(axis, x.dim()) for axis in chosen))


@operator("Unsqueeze", numbers=(1,))
def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With axes of size one at these places of the result."""
    chosen = _axes(call, axes)
    rank = x.dim() + len(chosen)
    for axis in sorted(axis_of(axis, rank) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def concat(call: Call, *values: Tensor) -> Tensor:
    """One after the other along an axis."""
    return torch.cat(values, call.get("axis", 1))


@operator("Split", numbers=(1,))
def split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Pieces along an axis: of given sizes, or equal ones of which the last may be smaller."""
    axis = axis_of(call.get("axis", 0), x.dim())
    given = list(call.get("split", [])) if call.version < 13 else whole_numbers(sizes)
    if not given:
        size = -(-x.shape[axis] // call.outputs)
        starts = [min(k * size, x.shape[axis]) for k in range(call.outputs + 1)]
        given = [after - before for before, after in pairwise(starts)]
    return tuple(torch.split(x, given, axis))


@operator("Expand", numbers=(1,))
def expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    """Repeated along axes of size one."""
    sizes = whole_numbers(shape)
    more = max(0, x.dim() - len(sizes))
    sizes = [1] * more + sizes
    own = [1] * (len(sizes) - x.dim()) + list(x.shape)
    return x.expand([b if a == 1 else a for a, b in zip(own, sizes, strict=True)])


@operator("Tile", numbers=(1, 2))
def tile(call: Call, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    """Repeated along every axis; in opset 1 along one."""
    counts = whole_numbers(repeats)
    if axis is not None:
        along = whole_number(axis)
        counts = [counts[0] if k == along else 1 for k in range(x.dim())]
    return x.repeat(counts) if counts else x


@operator("Shape", differentiable=False)
def shape_of(call: Call, x: Tensor) -> Tensor:
    """Sizes of the axes, or of some."""
    return torch.tensor(tuple(x.shape)[call.get("start", 0) : call.get("end", None)]).to(
        torch.int64
    )


@operator("Size", differentiable=False)
def size_of(call: Call, x: Tensor) -> Tensor:
    """Number of entries."""
    return torch.tensor(x.numel())


_NAMED = {name: ir.DataType[name] for name in ("FLOAT", "DOUBLE", "INT64", "INT32", "BOOL")}


@operator("Cast")
def cast(call: Call, x: Tensor) -> Tensor:
    """In another type; floats to integers towards zero."""
    to = call.attributes["to"]
    return cast_to(call, x, _NAMED[to] if isinstance(to, str) else ir.DataType(to))


_SUB_BYTE = {ir.DataType[name] for name in ("INT2", "UINT2", "INT4", "UINT4")}


def cast_to(call: Call, x: Tensor, kind: ir.DataType) -> Tensor:
    """In another type."""
    if kind in _SUB_BYTE:
        raise call.refused(f"a result of type {kind.name}")
    target = call.numerics.torch_type(kind)
    if call.numerics.straight_through and x.requires_grad and not target.is_floating_point:
        return x
    return x.to(target)


@operator("CastLike", numbers=(1,))
def cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    """In the type of another value."""
    return x.to(like.dtype)


@operator("Pad", numbers=(1, 2, 3))
def pad(
    call: Call,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """More entries before and after, or fewer where negative."""
    if call.version < 11:
        widths = list(call.attributes["pads" if call.version >= 2 else "paddings"])
        fill: Any = call.get("value", 0.0)
    else:
        widths = whole_numbers(pads)
        fill = 0 if value is None else value.item()
    chosen = whole_numbers(axes, list(range(x.dim())))
    half = len(widths) // 2
    pairs = {axis_of(axis, x.dim()): (widths[k], widths[half + k]) for k, axis in enumerate(chosen)}
    mode = call.get("mode", "constant")
    if mode == "constant":
        flat = [width for axis in range(x.dim())[::-1] for width in pairs.get(axis, (0, 0))]
        return functional.pad(x, flat, value=fill)
    for axis, (before, after) in pairs.items():
        x = _pad_by_index(x, axis, (before, after), mode)
    return x


def _pad_by_index(x: Tensor, axis: int, widths: tuple[int, int], mode: str) -> Tensor:
    """Entries of the axis itself, reflected, repeated at the edge, or around."""
    size = x.shape[axis]
    first, last = max(0, -widths[0]), size - max(0, -widths[1])
    more = (max(0, widths[0]), max(0, widths[1]))
    if more == (0, 0):
        return x.narrow(axis, first, last - first)
    kind: Any = mode
    places = np.pad(np.arange(first, last), more, mode=kind)
    return x.index_select(axis, torch.from_numpy(places).to(x.device))


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Blocks of channels as blocks of pixels."""
    n, c, h, w = x.shape
    b = call.attributes["blocksize"]
    if call.get("mode", "DCR") == "CRD":
        blocks = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        blocks = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // (b * b), h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels as channels."""
    n, c, h, w = x.shape
    b = call.attributes["blocksize"]
    blocks = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * b * b, h // b, w // b)
