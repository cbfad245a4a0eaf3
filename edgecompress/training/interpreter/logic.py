"""Comparisons, truth values and bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import Call, operator
from edgecompress.training.interpreter.elementwise import aligned

_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "BitwiseNot": torch.bitwise_not,
    "IsNaN": torch.isnan,
    "Not": torch.logical_not,
}


@operator(*_TWO, differentiable=False)
def two(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """A relation of two values."""
    return _TWO[call.operator](x, aligned(call, x, y))


@operator(*_ONE, differentiable=False)
def one(call: Call, x: Tensor) -> Tensor:
    """A property of one value."""
    return _ONE[call.operator](x)


@operator("IsInf", differentiable=False)
def is_infinite(call: Call, x: Tensor) -> Tensor:
    """Whether it is infinite, of either sign or of one."""
    low = torch.logical_and(x == -math.inf, torch.tensor(bool(call.get("detect_negative", 1))))
    high = torch.logical_and(x == math.inf, torch.tensor(bool(call.get("detect_positive", 1))))
    return low | high


@operator("BitShift", differentiable=False)
def bit_shift(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """Bits moved to one side."""
    left = call.attributes["direction"] == "LEFT"
    return torch.bitwise_left_shift(x, y) if left else torch.bitwise_right_shift(x, y)


@operator("Where")
def where(call: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition holds, else y."""
    return torch.where(condition, x, y)
