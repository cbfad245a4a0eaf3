"""Products of codes: summed exactly, in float64 while all sums are below 2^53."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import Call, operator
from edgecompress.training.interpreter.convolution import convolve
from edgecompress.training.interpreter.quantize import rounded


def _whole(x: Tensor, zero_point: Tensor | None, axis: int | None = None) -> Tensor:
    """Codes less their zero point, as float64; zero points of an axis broadcast along it."""
    values = x.to(torch.float64)
    if zero_point is None:
        return values
    shift = zero_point.to(torch.float64)
    if shift.dim() == 1 and shift.numel() > 1 and axis is not None:
        shift = shift.reshape([-1 if k == axis % x.dim() else 1 for k in range(x.dim())])
    elif shift.numel() == 1:
        shift = shift.reshape(())
    return values - shift


def _sum(call: Call, total: Tensor) -> Tensor:
    """The result as integers, or as floats that a gradient passes."""
    if call.numerics.straight_through:
        return total.to(call.numerics.single)
    return total.to(torch.int32)


@operator("MatMulInteger")
def matmul_integer(
    call: Call, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """(a - its zero point) (b - its zero point), exact."""
    rows = -2 if a.dim() > 1 else None
    product = torch.matmul(_whole(a, a_zero, rows), _whole(b, b_zero, -1))
    return _sum(call, product)


@operator("ConvInteger")
def conv_integer(
    call: Call, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """A convolution of codes less their zero points, exact."""
    return _sum(call, convolve(call, _whole(x, x_zero), _whole(w, w_zero, 0), None))


def _requantized(
    call: Call, total: Tensor, scale: Tensor, zero_point: Tensor, place: int
) -> Tensor:
    """Sums times a scale as codes of the type of the zero point."""
    kind = call.input_types[place]
    if kind is None:
        raise call.refused("codes of unknown type")
    return rounded(call, total.to(torch.float32) * scale, zero_point.to(torch.float32), kind)


@operator("QLinearMatMul", differentiable=False)
def qlinear_matmul(call: Call, *inputs: Tensor) -> Tensor:
    """A product of codes, rounded to codes."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    total = torch.matmul(_whole(a, a_zero, -2), _whole(b, b_zero, -1))
    rows = a_scale.reshape(-1, 1) if a_scale.dim() == 1 and a_scale.numel() > 1 else a_scale
    return _requantized(call, total, rows * b_scale / y_scale, y_zero, 7)


@operator("QLinearConv", differentiable=False)
def qlinear_conv(call: Call, *inputs: Tensor | None) -> Tensor:
    """A convolution of codes, rounded to codes."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *rest = inputs
    if x is None or w is None or x_scale is None or w_scale is None:
        raise call.refused("inputs left out")
    if y_scale is None or y_zero is None:
        raise call.refused("inputs left out")
    bias = rest[0].to(torch.float64) if rest and rest[0] is not None else None
    total = convolve(call, _whole(x, x_zero), _whole(w, w_zero, 0), bias)
    scale = x_scale * w_scale / y_scale
    if scale.numel() > 1:
        scale = scale.reshape(-1, *[1] * (x.dim() - 2))
    return _requantized(call, total, scale.reshape(scale.shape or ()), y_zero, 7)


_SCALED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "QLinearAdd": torch.add,
    "QLinearMul": torch.mul,
}


@operator(*_SCALED, domain="com.microsoft", differentiable=False)
def qlinear_elementwise(call: Call, *inputs: Tensor | None) -> Tensor:
    """A sum or product of decoded codes, rounded to codes."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, *rest = inputs
    if a is None or b is None or a_scale is None or b_scale is None or y_scale is None:
        raise call.refused("inputs left out")
    left = _whole(a, a_zero).to(torch.float32) * a_scale
    right = _whole(b, b_zero).to(torch.float32) * b_scale
    total = _SCALED[call.operator](left, right) / y_scale
    kind = call.input_types[0] or call.input_types[3]
    if kind is None:
        raise call.refused("codes of unknown type")
    shift = 0 if not rest or rest[0] is None else rest[0].to(torch.float32)
    return rounded(call, total, shift, kind)
