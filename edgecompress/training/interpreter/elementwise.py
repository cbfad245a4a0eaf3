"""Arithmetic, element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from edgecompress.training.interpreter.calls import Call, axis_of, operator

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
_STEPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "Ceil": torch.ceil,
    "Floor": torch.floor,
    "Round": torch.round,
    "Sign": torch.sign,
}
_MANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": torch.add,
    "Mean": torch.add,
}


@operator(*_UNARY)
def unary(call: Call, x: Tensor) -> Tensor:
    """A smooth function of one value."""
    return _UNARY[call.operator](x)


@operator(*_STEPPED, differentiable=False)
def stepped(call: Call, x: Tensor) -> Tensor:
    """A function of one value whose gradient is zero; halves round to the even number."""
    return _STEPPED[call.operator](x)


def aligned(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """``y`` as it broadcasts to ``x``: before opset 7 from an axis that an attribute names."""
    if call.version >= 7 or not call.get("broadcast", 0) or "axis" not in call.attributes:
        return y
    after = x.dim() - axis_of(call.attributes["axis"], x.dim()) - y.dim()
    return y.reshape(*y.shape, *[1] * after)


@operator("Add")
def add(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x + y."""
    return x + aligned(call, x, y)


@operator("Sub")
def subtract(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x - y."""
    return x - aligned(call, x, y)


@operator("Mul")
def multiply(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x y."""
    return x * aligned(call, x, y)


@operator("Div")
def divide(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x / y, of integers towards zero."""
    y = aligned(call, x, y)
    if x.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


@operator("Pow", frozen=(1,))
def power(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x^y in the type of x."""
    y = aligned(call, x, y)
    if x.is_floating_point() or not y.is_floating_point():
        return torch.pow(x, y).to(x.dtype)
    return torch.pow(x.to(y.dtype), y).to(x.dtype)


@operator("Mod")
def modulo(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """Remainder with the sign of the divisor, with ``fmod`` that of the dividend."""
    return torch.fmod(x, y) if call.get("fmod", 0) else torch.remainder(x, y)


@operator(*_MANY)
def several(call: Call, *values: Tensor) -> Tensor:
    """A commutative operation on any number of values."""
    result = reduce(_MANY[call.operator], values)
    return result / len(values) if call.operator == "Mean" else result


@operator("Identity")
def identity(call: Call, x: Any) -> Any:
    """x."""
    return x
