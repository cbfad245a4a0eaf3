"""Rounding to codes and back.

With straight-through rounding, codes are floats of whole numbers: the forward values are the same,
and a gradient passes where a value is within the range of the codes (Bengio et al. 2013).
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import INTEGER_TYPES, Call, axis_of, operator

_RANGES = {
    ir.DataType.INT2: (-2, 1),
    ir.DataType.UINT2: (0, 3),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}


_BYTES = {kind: name for name, kind in INTEGER_TYPES.items() if name.bitwidth >= 8}
"""The ONNX type of codes that stand in a byte or more."""


def spread(call: Call, x: Tensor, value: Tensor) -> Tensor:
    """A scale or zero point as it broadcasts to x: one, one a slice of an axis, or by blocks."""
    if value.numel() == 1 and value.dim() <= 1:
        return value.reshape(())
    axis = axis_of(call.get("axis", 1), x.dim())
    block = call.get("block_size", 0)
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return value.reshape([-1 if k == axis else 1 for k in range(x.dim())])


def rounded(call: Call, codes: Tensor, shift: Tensor | int, kind: ir.DataType) -> Tensor:
    """Codes of a type from values in steps: to the nearest, halves to even, then the zero point.

    Args:
        call: The node.
        codes: Values over the scale.
        shift: The zero point, as it broadcasts to ``codes``.
        kind: Its range is kept to.
    """
    low, high = _RANGES[kind]
    if not call.numerics.straight_through:
        return torch.clamp(torch.round(codes) + shift, low, high).to(INTEGER_TYPES[kind])
    least, most = (torch.as_tensor(end - shift).to(codes) for end in (low, high))
    within = torch.minimum(torch.maximum(codes, least), most)
    return within + (torch.round(within) - within).detach() + shift


@operator("QuantizeLinear")
def quantize_linear(
    call: Call, x: Tensor, scale: Tensor, zero_point: Tensor | None = None
) -> Tensor:
    """x / scale rounded, plus the zero point."""
    named = call.get("output_dtype", 0)
    kind = ir.DataType(named) if named else ir.DataType.UINT8
    if zero_point is not None:
        known = call.input_types[2] if len(call.input_types) > 2 else None
        kind = known or _BYTES[zero_point.dtype]
    if kind not in _RANGES:
        raise call.refused(f"codes of type {kind.name}")
    values = x if x.is_floating_point() else x.to(scale.dtype)
    codes = values / spread(call, x, scale)
    if zero_point is None:
        return rounded(call, codes, 0, kind)
    return rounded(call, codes, spread(call, x, zero_point.to(codes.dtype)), kind)


@operator("DequantizeLinear")
def dequantize_linear(
    call: Call, x: Tensor, scale: Tensor, zero_point: Tensor | None = None
) -> Tensor:
    """(x - zero point) scale."""
    values = x.to(scale.dtype)
    if x.dtype == torch.int32 and scale.dtype == torch.float32:
        values = values.to(torch.float32)
    if zero_point is not None:
        values = values - spread(call, x, zero_point.to(scale.dtype))
    return values * spread(call, x, scale)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(call: Call, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of 8 bits over the range of x and zero; the scale; the zero point.

    The scale counts as a constant for the gradient.
    Source: ONNX operator specification, DynamicQuantizeLinear.
    """
    values = x.detach()
    low = torch.clamp(values.min(), max=0)
    high = torch.clamp(values.max(), min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    shift = torch.clamp(torch.round(-low / scale), 0, 255)
    codes = rounded(call, x / scale, shift, ir.DataType.UINT8)
    return codes, scale, shift.to(torch.uint8)
