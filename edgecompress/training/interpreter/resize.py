"""Resizing along any axes: every output is a weighted sum of a few inputs of its axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgecompress.core.arrays import Array
from edgecompress.training.interpreter.calls import Call, axis_of, operator, whole_numbers

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One axis: its size before and after, the scale, and the region of interest."""

    size: int
    wanted: int
    scale: float
    region: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to resize; attributes of the operator of the same names."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def _positions(line: Line, coordinates: str) -> Array:
    """Where each output lies on the input's axis, float32 as in onnxruntime.

    Source: ONNX operator specification, Resize, coordinate_transformation_mode.
    """
    x = np.arange(line.wanted, dtype=np.float32)
    scale, size = np.float32(line.scale), np.float32(line.size)
    half, one = np.float32(0.5), np.float32(1)
    steps = np.float32(max(line.wanted - 1, 1))
    match coordinates:
        case "asymmetric":
            places = x / scale
        case "tf_half_pixel_for_nn":
            places = (x + half) / scale
        case "align_corners":
            places = x * (size - one) / steps
        case "tf_crop_and_resize":
            start, end = (np.float32(edge) for edge in line.region)
            first = start if line.wanted > 1 else half * (start + end)
            places = first * (size - one) + x * (end - start) * (size - one) / steps
        case _:
            places = (x + half) / scale - half
            if coordinates == "pytorch_half_pixel" and line.wanted == 1:
                places = np.zeros_like(x)
            elif coordinates == "half_pixel_symmetric":
                adjusted = np.float32(line.wanted) / (scale * size)
                places = places + size / np.float32(2) * (one - adjusted)
    return np.asarray(places)


def _nearest(x: Array, manner: Manner) -> Array:
    half = np.float32(0.5)
    rounded: dict[str, Array] = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_ceil": np.floor(x + half),
        "round_prefer_floor": np.ceil(x - half),
    }
    return rounded[manner.nearest]


def _kernel(distance: Array, manner: Manner) -> Array:
    """Weight of an input at a distance. Source: Keys 1981 for cubic."""
    d = np.abs(distance)
    if manner.mode == "linear":
        return np.asarray(np.maximum(0, 1 - d))
    a = manner.cubic
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def taps(line: Line, manner: Manner) -> tuple[Array, Array]:
    """Indices and weights (outputs, taps) of one axis."""
    x = _positions(line, manner.coordinates)
    if manner.mode == "nearest":
        places = _nearest(x, manner).astype(np.int64)[:, None]
        weights = np.ones(places.shape)
    else:
        narrow = min(line.scale, 1.0) if manner.antialias else 1.0
        reach = _TAPS[manner.mode] / 2 / narrow
        first = np.floor(x - reach).astype(np.int64) + 1
        count = math.ceil(2 * reach) + (1 if narrow < 1 else 0)
        places = first[:, None] + np.arange(count)
        weights = _kernel((places - x[:, None].astype(np.float64)) * narrow, manner)
        outside = (places < 0) | (places >= line.size)
        if manner.exclude_outside:
            weights = np.where(outside, 0.0, weights)
        if manner.exclude_outside or narrow < 1:
            weights = weights / weights.sum(1, keepdims=True)
    return np.clip(places, 0, line.size - 1), weights


def _along(x: Tensor, axis: int, line: Line, manner: Manner) -> Tensor:
    places, weights = taps(line, manner)
    shape = [-1 if k == axis else 1 for k in range(x.dim())]
    total: Tensor | None = None
    for k in range(places.shape[1]):
        piece = x.index_select(axis, torch.from_numpy(places[:, k].copy()).to(x.device))
        if manner.mode == "nearest":
            return piece
        factor = torch.from_numpy(weights[:, k]).to(x.device, x.dtype).reshape(shape)
        total = piece * factor if total is None else total + piece * factor
    return x if total is None else total


def _manner(call: Call) -> Manner:
    if call.version < 11:
        return Manner(
            mode=str(call.get("mode", "nearest")).replace("bilinear", "linear"),
            coordinates="asymmetric",
            nearest="floor",
            cubic=-0.75,
            exclude_outside=False,
            antialias=False,
            extrapolation=0.0,
        )
    return Manner(
        mode=call.get("mode", "nearest"),
        coordinates=call.get("coordinate_transformation_mode", "half_pixel"),
        nearest=call.get("nearest_mode", "round_prefer_floor"),
        cubic=call.get("cubic_coeff_a", -0.75),
        exclude_outside=bool(call.get("exclude_outside", 0)),
        antialias=bool(call.get("antialias", 0)),
        extrapolation=call.get("extrapolation_value", 0.0),
    )


@operator("Upsample", numbers=(1,))
def upsample(call: Call, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Larger by factors: attributes before opset 9, then an input."""
    if scales is not None:
        factors = [float(factor) for factor in scales.tolist()]
    elif "scales" in call.attributes:
        factors = list(call.attributes["scales"])
    else:
        factors = [1.0, 1.0, call.attributes["height_scale"], call.attributes["width_scale"]]
    lines = [
        Line(size=size, wanted=math.floor(size * factor), scale=factor, region=(0.0, 1.0))
        for size, factor in zip(x.shape, factors, strict=True)
    ]
    return _resized(call, x, dict(enumerate(lines)))


@operator("Resize", numbers=(1, 2, 3))
def resize(
    call: Call,
    x: Tensor,
    region: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """To other sizes, or by factors."""
    if call.version < 11:
        region, scales = None, region
    chosen = [axis_of(axis, x.dim()) for axis in call.get("axes", range(x.dim()))]
    before = [x.shape[axis] for axis in chosen]
    if sizes is not None and sizes.numel():
        wanted = whole_numbers(sizes)
        factors = [w / size for w, size in zip(wanted, before, strict=True)]
        wanted, factors = _kept_ratio(call, before, wanted, factors)
    elif scales is not None:
        factors = [float(factor) for factor in scales.tolist()]
        wanted = [math.floor(size * factor) for size, factor in zip(before, factors, strict=True)]
    else:
        raise call.refused("neither sizes nor scales")
    edges = [0.0] * len(chosen) + [1.0] * len(chosen)
    if region is not None and region.numel():
        edges = [float(edge) for edge in region.tolist()]
    lines = {
        axis: Line(
            size=before[k],
            wanted=wanted[k],
            scale=factors[k],
            region=(edges[k], edges[len(chosen) + k]),
        )
        for k, axis in enumerate(chosen)
    }
    return _resized(call, x, lines)


def _kept_ratio(
    call: Call, before: Sequence[int], wanted: list[int], factors: list[float]
) -> tuple[list[int], list[float]]:
    """Sizes that keep the ratio of the axes, within or around those asked for."""
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return wanted, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    sizes = [math.floor(size * factor + 0.5) for size in before]
    return sizes, [factor] * len(sizes)


def _resized(call: Call, x: Tensor, lines: dict[int, Line]) -> Tensor:
    manner = _manner(call)
    crops = manner.coordinates == "tf_crop_and_resize"
    kind, source = x.dtype, x
    if manner.mode != "nearest" and not x.is_floating_point():
        x = x.to(torch.float32)
    for axis, line in lines.items():
        if line.wanted != line.size or line.scale != 1 or crops:
            x = _along(x, axis, line, manner)
    if crops:
        x = _outside_filled(x, source, lines, manner)
    return x.to(kind)


def _outside_filled(x: Tensor, source: Tensor, lines: dict[int, Line], manner: Manner) -> Tensor:
    """Outputs whose place is outside the input get the extrapolation value."""
    fill = torch.full((), manner.extrapolation, dtype=x.dtype, device=x.device)
    for axis, line in lines.items():
        places = _positions(line, manner.coordinates)
        inside = torch.from_numpy((places >= 0) & (places <= line.size - 1)).to(source.device)
        x = torch.where(inside.reshape([-1 if k == axis else 1 for k in range(x.dim())]), x, fill)
    return x
