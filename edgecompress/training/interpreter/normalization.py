"""Normalization; batch statistics are those that are stored."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, axis_of, operator

_EPSILON = 1e-5
"""Default of the ONNX operators."""


def _along_channels(x: Tensor, value: Tensor) -> Tensor:
    return value.reshape(1, -1, *[1] * (x.dim() - 2))


@operator("BatchNormalization", frozen=(3, 4))
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) scale + bias by channel, with the stored statistics."""
    if call.get("training_mode", 0) or sum(call.used) > 1:
        raise call.refused("statistics of the batch")
    epsilon = call.get("epsilon", _EPSILON)
    if not call.get("spatial", 1):
        return (x - mean) / torch.sqrt(variance + epsilon) * scale + bias
    if x.dim() < 2:
        raise call.refused("fewer than two axes")
    if scale.dtype == mean.dtype == x.dtype:
        return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)
    factor = scale / torch.sqrt(variance + epsilon)
    shift = bias - mean * factor
    return (x * _along_channels(x, factor) + _along_channels(x, shift)).to(x.dtype)


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every plane with mean 0 and variance 1, then scale and bias by channel."""
    y = _standard(x, tuple(range(2, x.dim())), call.get("epsilon", _EPSILON))[0]
    return y * _along_channels(x, scale) + _along_channels(x, bias)


def _standard(x: Tensor, axes: tuple[int, ...], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and variance 1 over the axes; the mean; one over the deviation."""
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    return centred * inverse, mean, inverse


def _computed_in(call: Call, x: Tensor) -> Tensor:
    """x in the type of the statistics: at least float32 unless the node says otherwise."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return x.to(torch.float32) if half and call.get("stash_type", 1) == 1 else x


@operator("LayerNormalization")
def layer_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Mean 0 and variance 1 over the last axes, then scale and bias; mean; 1 / deviation."""
    axis = axis_of(call.get("axis", -1), x.dim())
    axes = tuple(range(axis, x.dim()))
    epsilon = call.get("epsilon", _EPSILON)
    if sum(call.used) == 1 and scale.shape == x.shape[axis:] and scale.dtype == x.dtype:
        return (functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon),)
    y, mean, inverse = _standard(_computed_in(call, x), axes, epsilon)
    y = y.to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@operator("RMSNormalization")
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """Mean square 1 over the last axes, then scale."""
    axis = axis_of(call.get("axis", -1), x.dim())
    values = _computed_in(call, x)
    square = (values * values).mean(tuple(range(axis, x.dim())), keepdim=True)
    inverse = torch.rsqrt(square + call.get("epsilon", _EPSILON))
    return (values * inverse).to(x.dtype) * scale


@operator("GroupNormalization")
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Mean 0 and variance 1 over groups of channels; scale and bias by group before opset 21."""
    groups, channels = call.attributes["num_groups"], x.shape[1]
    values = _computed_in(call, x).reshape(x.shape[0], groups, -1)
    y = _standard(values, (2,), call.get("epsilon", _EPSILON))[0].reshape(x.shape).to(x.dtype)
    if call.version < 21:
        scale = scale.repeat_interleave(channels // groups)
        bias = bias.repeat_interleave(channels // groups)
    return y * _along_channels(x, scale) + _along_channels(x, bias)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over these axes. Source: ONNX operator specification (1e-9)."""
    axes = tuple(call.get("axes", [0, 2, 3]))
    centred = x - x.mean(axes, keepdim=True)
    deviation = (centred * centred).mean(axes, keepdim=True).sqrt()
    return centred / (deviation + 1e-9)


@operator("LpNormalization")
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    """Norm 1 along an axis; zeros stay."""
    norm = torch.linalg.vector_norm(x, call.get("p", 2), call.get("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("LRN")
def local_response_normalization(call: Call, x: Tensor) -> Tensor:
    """x / (bias + alpha / size (sum of squares of channels nearby))^beta."""
    size = call.attributes["size"]
    squares = x * x
    zeros = [0, 0] * (x.dim() - 2)
    wide = functional.pad(squares, [*zeros, (size - 1) // 2, math.ceil((size - 1) / 2)])
    total = torch.stack([wide.narrow(1, k, x.shape[1]) for k in range(size)]).sum(0)
    factor: Tensor = call.get("bias", 1.0) + call.get("alpha", 0.0001) / size * total
    beta: float = call.get("beta", 0.75)
    return x / factor.pow(beta)
