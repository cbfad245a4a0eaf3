"""Activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, axis_of, operator, real_number

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softsign": functional.softsign,
    "Mish": functional.mish,
}
_ROW_WISE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Softmax": torch.softmax,
    "LogSoftmax": torch.log_softmax,
}


@operator(*_PLAIN)
def plain(call: Call, x: Tensor) -> Tensor:
    """A function without settings."""
    return _PLAIN[call.operator](x)


@operator("Softplus")
def softplus(call: Call, x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """x, or alpha x below zero."""
    return functional.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu")
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """x, or slope x below zero; before opset 7 one slope a channel."""
    if call.version < 7 and slope.dim() == 1 and slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, slope * x, x)


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """x above alpha, else zero."""
    return torch.where(x > call.get("alpha", 1.0), x, torch.zeros_like(x))


@operator("Elu")
def elu(call: Call, x: Tensor) -> Tensor:
    """x, or alpha (e^x - 1) below zero."""
    return functional.elu(x, call.get("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Tensor) -> Tensor:
    """x, or alpha (e^(x / alpha) - 1) below zero."""
    return functional.celu(x, call.get("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: Tensor) -> Tensor:
    """gamma x, or gamma alpha (e^x - 1) below zero; defaults as the ONNX operator states them."""
    alpha = call.get("alpha", 1.67326319217681884765625)
    gamma: float = call.get("gamma", 1.05070102214813232421875)
    return functional.elu(x, alpha) * gamma


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """alpha x + beta, within 0 and 1."""
    return torch.clamp(x * call.get("alpha", 0.2) + call.get("beta", 0.5), 0, 1)


@operator("HardSwish")
def hard_swish(call: Call, x: Tensor) -> Tensor:
    """x times (x / 6 + 1/2 within 0 and 1)."""
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


@operator("Swish")
def swish(call: Call, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(x * call.get("alpha", 1.0))


@operator("Gelu")
def gelu(call: Call, x: Tensor) -> Tensor:
    """x times the normal distribution function, or its approximation by tanh."""
    return functional.gelu(x, approximate=call.get("approximate", "none"))


@operator("Gelu", domain="com.microsoft")
def exact_gelu(call: Call, x: Tensor) -> Tensor:
    """x times the normal distribution function."""
    return functional.gelu(x)


@operator("QuickGelu", domain="com.microsoft")
def quick_gelu(call: Call, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(x * call.get("alpha", 1.702))


@operator("FastGelu", domain="com.microsoft")
def fast_gelu(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The approximation by tanh, after a bias."""
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("BiasGelu", domain="com.microsoft")
def bias_gelu(call: Call, x: Tensor, bias: Tensor) -> Tensor:
    """Gelu after a bias."""
    return functional.gelu(x + bias)


@operator("Shrink")
def shrink(call: Call, x: Tensor) -> Tensor:
    """Zero within lambda of zero, else moved towards zero by the bias."""
    bias, limit = call.get("bias", 0.0), call.get("lambd", 0.5)
    outside = torch.where(x < -limit, x + bias, torch.zeros_like(x))
    return torch.where(x > limit, x - bias, outside)


@operator("Clip", numbers=(1, 2))
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """x within two bounds: attributes before opset 11, then inputs."""
    if call.version < 11:
        return torch.clamp(x, call.get("min", -math.inf), call.get("max", math.inf))
    if x.is_floating_point():
        bounds = real_number(low, -math.inf), real_number(high, math.inf)
        return torch.clamp(torch.clamp(x, min=bounds[0]), max=bounds[1])
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _rows(call: Call, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Along one axis; before opset 13 along that axis and all after it as one."""
    if call.version >= 13:
        return function(x, call.get("axis", -1))
    axis = axis_of(call.get("axis", 1), x.dim())
    flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return function(flat, 1).reshape(x.shape)


@operator(*_ROW_WISE)
def softmax(call: Call, x: Tensor) -> Tensor:
    """Exponentials that sum to one, or their logarithms."""
    return _rows(call, x, _ROW_WISE[call.operator])


@operator("Hardmax", differentiable=False)
def hardmax(call: Call, x: Tensor) -> Tensor:
    """One at the first largest entry."""

    def first_largest(values: Tensor, axis: int) -> Tensor:
        place = values.argmax(axis, keepdim=True)
        return torch.zeros_like(values).scatter(axis, place, 1)

    return _rows(call, x, first_largest)


@operator("Dropout", numbers=(1, 2))
def dropout(
    call: Call, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, ...]:
    """x and a mask of ones: nothing is dropped, in training neither."""
    kind = torch.bool if call.version >= 10 else x.dtype
    return x, torch.ones_like(x, dtype=kind)
