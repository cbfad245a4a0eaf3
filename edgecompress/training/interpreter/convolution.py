"""Convolutions and their transposes over one to three axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, operator

Convolution = Callable[..., Tensor]
Pads = list[tuple[int, int]]

_CONVOLUTIONS: dict[int, Convolution] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_TRANSPOSED: dict[int, Convolution] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def window_pads(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], *, ceil: bool = False
) -> Pads:
    """(before, after) of every spatial axis, ``auto_pad`` resolved.

    ``SAME`` keeps ceil(size / stride) positions; the odd entry goes after with ``SAME_UPPER``,
    before with ``SAME_LOWER``. Source: ONNX operator specification, Conv.
    """
    axes = len(kernel)
    mode = call.get("auto_pad", "NOTSET") or "NOTSET"
    if mode == "VALID":
        return [(0, 0)] * axes
    if mode == "NOTSET":
        pads = list(call.get("pads", [0] * 2 * axes)) or [0] * 2 * axes
        return [(pads[k], pads[axes + k]) for k in range(axes)]
    strides = list(call.get("strides", [1] * axes)) or [1] * axes
    dilations = list(call.get("dilations", [1] * axes)) or [1] * axes
    found: Pads = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = dilation * (width - 1) + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """With entries before and after along the last axes; fewer where negative."""
    return functional.pad(x, [width for pair in pads[::-1] for width in pair], value=value)


def convolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution with the settings of a node."""
    axes = weight.dim() - 2
    if axes not in _CONVOLUTIONS:
        raise call.refused(f"{axes} spatial axes")
    pads = window_pads(call, x.shape[2:], weight.shape[2:])
    if any(before != after for before, after in pads):
        x, pads = padded(x, pads), [(0, 0)] * axes
    return _CONVOLUTIONS[axes](
        x,
        weight,
        bias,
        tuple(call.get("strides", [1] * axes)),
        tuple(before for before, _ in pads),
        tuple(call.get("dilations", [1] * axes)),
        call.get("group", 1),
    )


@operator("Conv")
def convolution(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution."""
    return convolve(call, x, weight, bias)


@operator("ConvTranspose")
def transposed(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The transpose of a convolution: every input spreads over a window of the output."""
    axes = weight.dim() - 2
    if axes not in _TRANSPOSED:
        raise call.refused(f"{axes} spatial axes")
    strides = list(call.get("strides", [1] * axes))
    dilations = list(call.get("dilations", [1] * axes))
    extra = list(call.get("output_padding", [0] * axes))
    whole = [
        stride * (size - 1) + dilation * (width - 1) + 1
        for size, width, stride, dilation in zip(
            x.shape[2:], weight.shape[2:], strides, dilations, strict=True
        )
    ]
    pads = _transposed_pads(call, x.shape[2:], whole, extra)
    settings = (tuple(dilations), call.get("group", 1))
    usual = all(
        before == after >= 0 and more < max(stride, dilation)
        for (before, after), more, stride, dilation in zip(
            pads, extra, strides, dilations, strict=True
        )
    )
    function = _TRANSPOSED[axes]
    if usual:
        before = tuple(width for width, _ in pads)
        return function(
            x, weight, bias, tuple(strides), before, tuple(extra), settings[1], settings[0]
        )
    result = function(x, weight, None, tuple(strides), 0, 0, settings[1], settings[0])
    crops = [(-before, more - after) for (before, after), more in zip(pads, extra, strict=True)]
    result = padded(result, crops)
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)


def _transposed_pads(
    call: Call, sizes: Sequence[int], whole: Sequence[int], extra: Sequence[int]
) -> Pads:
    """What is cut off before and after. Source: ONNX operator specification, ConvTranspose."""
    axes = len(whole)
    mode = call.get("auto_pad", "NOTSET") or "NOTSET"
    asked = list(call.get("output_shape", []))[-axes:]
    if not asked:
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            return window_pads(call, sizes, whole)
        strides = list(call.get("strides", [1] * axes))
        asked = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    pads: Pads = []
    for full, more, size in zip(whole, extra, asked, strict=True):
        total = full + more - size
        small, large = total // 2, total - total // 2
        pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return pads


@operator("FusedConv", domain="com.microsoft")
def fused_convolution(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None, more: Tensor | None = None
) -> Tensor:
    """A convolution, a sum, and an activation."""
    result = convolve(call, x, weight, bias)
    result = result if more is None else result + more
    activation = call.get("activation", "")
    if activation == "Relu":
        return torch.relu(result)
    if activation:
        raise call.refused(f"activation {activation}")
    return result
