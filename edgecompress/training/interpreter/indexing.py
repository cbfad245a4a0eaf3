"""Operators that pick entries by index, or put them there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import (
    Call,
    axis_of,
    operator,
    whole_number,
    whole_numbers,
)

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
_FAR = 1 << 62


def _counted(indices: Tensor, size: int) -> Tensor:
    """Indices counted from the front."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather")
def gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of one axis by index."""
    axis = axis_of(call.get("axis", 0), x.dim())
    places = _counted(indices, x.shape[axis])
    if places.dim() == 0 and places.device.type == "cpu":
        return x.select(axis, int(places))
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Single entries along one axis by index."""
    axis = axis_of(call.get("axis", 0), x.dim())
    return x.gather(axis, _counted(indices, x.shape[axis]))


def _linear(indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Tuples of indices along the last axis as one index into these axes flattened."""
    place = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for k, size in enumerate(sizes):
        place = place * size + _counted(indices[..., k], size)
    return place


@operator("GatherND")
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices by tuples of indices, after axes that both share."""
    shared, depth = call.get("batch_dims", 0), indices.shape[-1]
    batch = math.prod(x.shape[:shared])
    sizes, rest = x.shape[shared : shared + depth], x.shape[shared + depth :]
    rows = math.prod(sizes)
    place = _linear(indices, sizes).reshape(batch, -1)
    place = place + torch.arange(batch, device=place.device)[:, None] * rows
    picked = x.reshape(batch * rows, math.prod(rest)).index_select(0, place.reshape(-1))
    return picked.reshape(*indices.shape[:-1], *rest)


@operator("ScatterND")
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with slices replaced, or combined, at tuples of indices."""
    depth = indices.shape[-1]
    sizes, rest = x.shape[:depth], math.prod(x.shape[depth:])
    place = _linear(indices, sizes).reshape(-1)
    flat, rows = x.reshape(math.prod(sizes), rest), updates.reshape(place.numel(), rest)
    return _scattered(call, flat, 0, place[:, None].expand(-1, rest), rows).reshape(x.shape)


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with single entries replaced, or combined, along one axis."""
    axis = axis_of(call.get("axis", 0), x.dim())
    return _scattered(call, x, axis, _counted(indices, x.shape[axis]), updates)


def _scattered(call: Call, x: Tensor, axis: int, places: Tensor, updates: Tensor) -> Tensor:
    reduction = call.get("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction], include_self=True)


@operator("Slice", numbers=(1, 2, 3, 4))
def slice_axes(
    call: Call,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """From start to end in steps, along some axes; attributes before opset 10, then inputs."""
    if call.version < 10:
        first, last = list(call.attributes["starts"]), list(call.attributes["ends"])
        along = list(call.get("axes", range(len(first))))
    else:
        first, last = whole_numbers(starts), whole_numbers(ends)
        along = whole_numbers(axes, list(range(len(first))))
    strides = whole_numbers(steps, [1] * len(first))
    for axis, start, end, step in zip(along, first, last, strides, strict=True):
        x = _sliced(x, axis_of(axis, x.dim()), slice(start, end, step))
    return x


def _sliced(x: Tensor, axis: int, asked: slice) -> Tensor:
    size = x.shape[axis]
    step: int = asked.step
    if step > 0:
        start, end, _ = asked.indices(size)
        piece = x.narrow(axis, start, max(0, end - start))
        if step == 1:
            return piece
        return piece[(slice(None),) * axis + (slice(None, None, min(step, _FAR)),)]
    start = min(asked.start + size if asked.start < 0 else asked.start, size - 1)
    end = max(asked.stop + size if asked.stop < 0 else asked.stop, -1)
    places = torch.arange(max(start, -1), end, step) if start > end else torch.arange(0)
    return x.index_select(axis, places.to(x.device))


@operator("TopK", numbers=(1,))
def top_k(call: Call, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest entries of an axis and their places; equal ones as they come."""
    axis = axis_of(call.get("axis", -1), x.dim())
    count = call.attributes["k"] if k is None else whole_number(k)
    largest = bool(call.get("largest", 1))
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


@operator("NonZero", differentiable=False)
def non_zero(call: Call, x: Tensor) -> Tensor:
    """Places that are not zero, one column each."""
    return torch.nonzero(x.reshape(1) if x.dim() == 0 else x).t()[: max(x.dim(), 0) or None]


@operator("OneHot", numbers=(1,))
def one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """One of two values: that at the index, and that elsewhere."""
    count = whole_number(depth)
    rank = indices.dim() + 1
    axis = axis_of(call.get("axis", -1), rank)
    places = _counted(indices, count).unsqueeze(axis)
    shape = [count if k == axis else 1 for k in range(rank)]
    line = torch.arange(count, device=places.device).reshape(shape)
    return torch.where(places == line, values[1], values[0])


@operator("Compress", numbers=(1,))
def compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    """Slices of an axis where a condition holds."""
    places = torch.nonzero(condition).reshape(-1).to(x.device)
    if "axis" not in call.attributes:
        return x.reshape(-1).index_select(0, places)
    return x.index_select(axis_of(call.attributes["axis"], x.dim()), places)


@operator("Trilu", numbers=(1,))
def triangle(call: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper or lower triangle, zero elsewhere."""
    diagonal = 0 if k is None else whole_number(k)
    return torch.triu(x, diagonal) if call.get("upper", 1) else torch.tril(x, diagonal)


@operator("ReverseSequence", numbers=(1,))
def reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    """Every sequence of a batch from its end to its start; what comes after stays."""
    batch, time = call.get("batch_axis", 1), call.get("time_axis", 0)
    turned = reversed_within(x.movedim((time, batch), (0, 1)), lengths)
    return turned.movedim((0, 1), (time, batch))


def reversed_within(x: Tensor, lengths: Tensor) -> Tensor:
    """x (time, batch, ...) with every sequence reversed within its length (batch,)."""
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    ends = lengths.to(x.device, torch.int64)[None, :]
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    places = places.reshape(*places.shape, *[1] * (x.dim() - 2)).expand(x.shape)
    return x.gather(0, places)
