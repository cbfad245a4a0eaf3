"""Weights and multiply-accumulates of a chain of stages, by following the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import assert_never

from edgecompress.core.arrays import Shape
from edgecompress.core.stages import Conv, Embedding, MatMul, Permute, Recurrent, Reshape, Stage

OpenShape = tuple[int | None, ...]


def count_parameters(stages: Sequence[Stage]) -> int:
    """Number of weights of all stages."""
    return sum(
        prod(stage.weight.shape)
        for stage in stages
        if isinstance(stage, Conv | MatMul | Embedding | Recurrent)
    )


def count_macs(stages: Sequence[Stage], input_shape: OpenShape) -> int | None:
    """Multiply-accumulates of one inference; an open first axis counts as 1.

    Returns:
        None where another axis is open, or where the number of axes is not known.
    """
    if not input_shape:
        return None
    shape = tuple(1 if not axis and size is None else size for axis, size in enumerate(input_shape))
    closed = tuple(size for size in shape if size is not None)
    if len(closed) != len(shape):
        return None
    total = 0
    for stage in stages:
        macs, closed = _step(stage, closed)
        total += macs
    return total


def conv_output(stage: Conv, spatial: Shape) -> Shape:
    """Spatial sizes that a (not transposed) convolution gives.

    Source: ONNX operator Conv, explicit padding.
    """
    axes = len(spatial)
    return tuple(
        max(
            0,
            (size + stage.pads[a] + stage.pads[a + axes] - stage.dilation[a] * (kernel - 1) - 1)
            // stage.stride[a]
            + 1,
        )
        for a, (size, kernel) in enumerate(zip(spatial, stage.weight.shape[2:], strict=True))
    )


def _step(stage: Stage, shape: Shape) -> tuple[int, Shape]:
    """MACs of a stage and the shape after it."""
    match stage:
        case Conv():
            out = conv_output(stage, shape[2:])
            pixels = prod(shape[2:]) if stage.transposed else prod(out)
            return shape[0] * pixels * prod(stage.weight.shape), (
                shape[0],
                stage.weight.shape[0],
                *out,
            )
        case MatMul():
            rows = prod(shape[:-1])
            return rows * prod(stage.weight.shape), (*shape[:-1], stage.weight.shape[0])
        case Reshape():
            return 0, _reshaped(stage.shape, shape)
        case Permute():
            return 0, tuple(shape[axis] for axis in stage.axes)
        case Embedding() | Recurrent():
            return 0, (*shape, stage.weight.shape[-1])
        case _:
            assert_never(stage)


def _reshaped(wanted: Shape, shape: Shape) -> Shape:
    """The shape after an ONNX Reshape."""
    kept = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in kept:
        known = prod(size for size in kept if size != -1)
        kept[kept.index(-1)] = prod(shape) // known
    return tuple(kept)
