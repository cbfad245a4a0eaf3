"""Sums and the like along axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import (
    Call,
    axis_of,
    operator,
    whole_number,
    whole_numbers,
)

Reduction = Callable[[Tensor, tuple[int, ...]], Tensor]


def _product(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.is_floating_point():
        norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=True)
        return norm
    return (x * x).sum(axes, keepdim=True).to(torch.float64).sqrt()


def _mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=True)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(x.sum(axes, keepdim=True), count, rounding_mode="trunc")


def _largest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.is_floating_point() and any(x.shape[axis] == 0 for axis in axes):
        return x.sum(axes, keepdim=True) - math.inf
    return x.amax(axes, keepdim=True)


def _smallest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.is_floating_point() and any(x.shape[axis] == 0 for axis in axes):
        return x.sum(axes, keepdim=True) + math.inf
    return x.amin(axes, keepdim=True)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes: x.abs().sum(axes, keepdim=True),
    "ReduceL2": _norm,
    "ReduceLogSum": lambda x, axes: x.sum(axes, keepdim=True).log(),
    "ReduceLogSumExp": lambda x, axes: torch.logsumexp(x, axes, keepdim=True),
    "ReduceMax": _largest,
    "ReduceMean": _mean,
    "ReduceMin": _smallest,
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes: x.sum(axes, keepdim=True),
    "ReduceSumSquare": lambda x, axes: (x * x).sum(axes, keepdim=True),
}
_AXES_AS_INPUT = {"ReduceSum": 13}
"""Opset from which axes are an input; 18 for the others."""


@operator(*_REDUCTIONS, numbers=(1,))
def reduce_axes(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """One value for the axes together; all axes if none are named."""
    as_input = call.version >= _AXES_AS_INPUT.get(call.operator, 18)
    chosen = whole_numbers(axes) if as_input else list(call.get("axes", []))
    if not chosen and call.get("noop_with_empty_axes", 0):
        return x
    places = tuple(axis_of(axis, x.dim()) for axis in chosen) or tuple(range(x.dim()))
    if not places:
        x = x.reshape(1)
        return _REDUCTIONS[call.operator](x, (0,)).to(x.dtype).reshape(())
    result = _REDUCTIONS[call.operator](x, places).to(x.dtype)
    if call.get("keepdims", 1):
        return result
    return result.reshape([size for axis, size in enumerate(x.shape) if axis not in places])


@operator("ArgMax", "ArgMin", differentiable=False)
def extreme_place(call: Call, x: Tensor) -> Tensor:
    """The first place (or the last, where asked) of the largest or smallest entry of an axis."""
    axis = axis_of(call.get("axis", 0), x.dim())
    last = bool(call.get("select_last_index", 0))
    values = x.flip(axis) if last else x
    find = torch.argmax if call.operator == "ArgMax" else torch.argmin
    place = find(values, axis, keepdim=bool(call.get("keepdims", 1)))
    return x.shape[axis] - 1 - place if last else place


@operator("CumSum", numbers=(1,))
def cumulative_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    """Sums of all entries up to here, itself left out where asked, from either end."""
    along = axis_of(whole_number(axis), x.dim())
    values = x.flip(along) if call.get("reverse", 0) else x
    result = values.cumsum(along).to(x.dtype)
    if call.get("exclusive", 0):
        result = result - values
    return result.flip(along) if call.get("reverse", 0) else result
