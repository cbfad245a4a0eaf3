"""Operators that make values from shapes and numbers."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import Call, operator, whole_numbers
from edgecompress.training.interpreter.shape import cast_to
from edgecompress.training.interpreter.tensors import to_torch


@operator("ConstantOfShape", numbers=(0,), differentiable=False)
def constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    """One value everywhere; zero without one."""
    value = call.get("value", None)
    fill = torch.zeros(1, dtype=call.numerics.single)
    if value is not None:
        fill = to_torch(value, call.numerics)
    return fill.reshape(()).repeat(whole_numbers(shape))


@operator("Range", numbers=(0, 1, 2), differentiable=False)
def number_range(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, ... before limit."""
    count = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    return start + torch.arange(count).to(start.dtype) * delta


@operator("EyeLike", differentiable=False)
def eye_like(call: Call, x: Tensor) -> Tensor:
    """Ones on a diagonal of a matrix of the same shape."""
    rows, columns = x.shape
    offset = torch.arange(columns)[None, :] - torch.arange(rows)[:, None]
    line = (offset == call.get("k", 0)).to(x.dtype)
    kind = call.get("dtype", None)
    return line if kind is None else cast_to(call, line, ir.DataType(kind))
