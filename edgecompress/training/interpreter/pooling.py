"""Pooling over windows and over whole planes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, operator
from edgecompress.training.interpreter.convolution import Pads, padded, window_pads

_LARGEST: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_MEANS: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


@dataclass(frozen=True, slots=True)
class Windows:
    """Where windows lie on every spatial axis.

    Attributes:
        kernel, strides, dilations: One for each axis.
        pads: As asked.
        counts: Number of windows.
        reach: (before, after) to add so that exactly these windows fit; may be negative after.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads
    counts: tuple[int, ...]
    reach: Pads

    @property
    def symmetric(self) -> bool:
        """Whether torch's own padding does: equal on both sides and at most half a window."""
        return all(
            before == after == pad[0] == pad[1] and 2 * before <= width
            for (before, after), pad, width in zip(self.reach, self.pads, self.kernel, strict=True)
        )


def windows(call: Call, x: Tensor) -> Windows:
    """Windows of a pooling node.

    With ``ceil_mode`` a last window may reach beyond the padding, but not begin there.
    Source: ONNX operator specification, MaxPool (opset 22), and onnxruntime.
    """
    kernel = tuple(call.attributes["kernel_shape"])
    axes = len(kernel)
    if x.dim() != axes + 2 or axes not in _LARGEST:
        raise call.refused(f"{x.dim()} axes and a window of {axes}")
    strides = tuple(call.get("strides", [1] * axes)) or (1,) * axes
    dilations = tuple(call.get("dilations", [1] * axes)) or (1,) * axes
    pads = window_pads(call, x.shape[2:], kernel)
    counts: list[int] = []
    reach: Pads = []
    for k, size in enumerate(x.shape[2:]):
        span = dilations[k] * (kernel[k] - 1) + 1
        room = size + sum(pads[k]) - span
        count = room // strides[k] + 1
        if call.get("ceil_mode", 0):
            count = -(-room // strides[k]) + 1
            if (count - 1) * strides[k] >= size + pads[k][0]:
                count -= 1
        counts.append(count)
        after = (count - 1) * strides[k] + span - size - pads[k][0]
        floor_fits = room // strides[k] + 1 == count
        reach.append((pads[k][0], pads[k][1] if floor_fits else after))
    return Windows(kernel, strides, dilations, pads, tuple(counts), reach)


@operator("MaxPool")
def max_pool(call: Call, x: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The largest entry of every window, and where asked its place in the whole tensor."""
    placed = windows(call, x)
    pool = _LARGEST[len(placed.kernel)]
    kind = x.dtype
    values = x if x.is_floating_point() else x.to(torch.float64)
    indices = len(call.used) > 1 and call.used[1]
    if placed.symmetric and not indices:
        before = tuple(width for width, _ in placed.reach)
        return pool(values, placed.kernel, placed.strides, before, placed.dilations).to(kind)
    wide = padded(values, placed.reach, -math.inf)
    settings = (wide, placed.kernel, placed.strides, 0, placed.dilations)
    if not indices:
        return pool(*settings).to(kind)
    largest, places = pool(*settings, return_indices=True)
    return largest.to(kind), _places(call, x, places, wide, placed)


def _places(call: Call, x: Tensor, places: Tensor, wide: Tensor, placed: Windows) -> Tensor:
    """Places in the padded planes as places in the whole tensor without padding."""
    sizes, wide_sizes = x.shape[2:], wide.shape[2:]
    coordinates: list[Tensor] = []
    left = places
    for k in range(len(sizes))[::-1]:
        coordinates.insert(0, left % wide_sizes[k] - placed.reach[k][0])
        left = left // wide_sizes[k]
    order = range(len(sizes))
    if call.get("storage_order", 0):
        order = order[::-1]
    flat, scale = torch.zeros_like(places), 1
    for k in order[::-1]:
        flat = flat + coordinates[k] * scale
        scale *= sizes[k]
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    return flat + (planes * scale).reshape(*x.shape[:2], *[1] * len(sizes))


def _sums(x: Tensor, placed: Windows) -> Tensor:
    """The sum over every window."""
    wide = padded(x, placed.reach)
    axes = len(placed.kernel)
    if all(dilation == 1 for dilation in placed.dilations):
        return _MEANS[axes](wide, placed.kernel, placed.strides) * math.prod(placed.kernel)
    for k, width in enumerate(placed.kernel):
        span = (placed.counts[k] - 1) * placed.strides[k] + 1
        first = [j * placed.dilations[k] for j in range(width)]
        index = torch.arange(0, span, placed.strides[k], device=x.device)
        pieces = [wide.index_select(2 + k, index + start) for start in first]
        wide = torch.stack(pieces).sum(0)
    return wide


def _cells(placed: Windows, x: Tensor, *, with_pads: bool) -> Tensor:
    """Number of entries of every window that count."""
    total = torch.ones((), dtype=x.dtype)
    axes = len(placed.kernel)
    for k, size in enumerate(x.shape[2:]):
        low, high = (-placed.pads[k][0], size + placed.pads[k][1]) if with_pads else (0, size)
        starts = torch.arange(placed.counts[k]) * placed.strides[k] - placed.pads[k][0]
        cells = starts[:, None] + torch.arange(placed.kernel[k]) * placed.dilations[k]
        inside = ((cells >= low) & (cells < high)).sum(1).to(x.dtype)
        total = total * inside.reshape(*[-1 if j == k else 1 for j in range(axes)])
    return total.to(x.device)


@operator("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of every window; padding counts only where asked."""
    placed = windows(call, x)
    with_pads = bool(call.get("count_include_pad", 0))
    plain = placed.symmetric and all(dilation == 1 for dilation in placed.dilations)
    if plain:
        pads = tuple(width for width, _ in placed.reach)
        pool = _MEANS[len(pads)]
        return pool(x, placed.kernel, placed.strides, pads, False, with_pads)
    return _sums(x, placed) / _cells(placed, x, with_pads=with_pads)


@operator("LpPool")
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of every window."""
    p: int = call.get("p", 2)
    return _sums(x.abs().pow(p), windows(call, x)).pow(1.0 / p)


def _planes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of every plane."""
    return x.mean(_planes(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """The largest entry of every plane."""
    return x.amax(_planes(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of every plane."""
    p: int = call.get("p", 2)
    return (x.abs().pow(p)).sum(_planes(x), keepdim=True).pow(1.0 / p)
