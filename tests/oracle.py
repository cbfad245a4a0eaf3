"""Slow, plain computations that share no code with the package: what tests compare it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]


def run_reference(model: onnx.ModelProto, feed: Mapping[str, Array]) -> list[Array]:
    """Outputs of the model by the reference implementation of ONNX, in Python."""
    outputs = ReferenceEvaluator(model).run(None, dict(feed))
    return [np.asarray(output) for output in outputs]


def run_unoptimized(model: onnx.ModelProto | str, feed: Mapping[str, Array]) -> list[Array]:
    """Outputs of the model, or of the file, by onnxruntime without graph optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(feed))]


def relative_l2(actual: Array, expected: Array) -> float:
    """|actual - expected| / |expected| over all entries; |actual - expected| where that is 0."""
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    distance, size = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return distance / size if size else distance


def convolve(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    group: int = 1,
) -> Array:
    """A convolution over any number of spatial axes, one output position at a time, in float64.

    Args:
        x: (n, c, *spatial).
        weight: (out, c / group, *kernel).
        stride, dilation: One per spatial axis.
        pads: Begins of all spatial axes, then ends.
        group: Number of groups.
    """
    axes = weight.ndim - 2
    width = [(0, 0), (0, 0), *((pads[k], pads[axes + k]) for k in range(axes))]
    padded = np.pad(x.astype(np.float64), width)
    reach = [dilation[k] * (weight.shape[2 + k] - 1) + 1 for k in range(axes)]
    sizes = [(padded.shape[2 + k] - reach[k]) // stride[k] + 1 for k in range(axes)]
    outputs, inputs = weight.shape[0] // group, weight.shape[1]
    result = np.zeros((x.shape[0], weight.shape[0], *sizes))
    for place in np.ndindex(*sizes):
        window = tuple(
            slice(i * stride[k], i * stride[k] + reach[k], dilation[k]) for k, i in enumerate(place)
        )
        patch = padded[(slice(None), slice(None), *window)]
        for g in range(group):
            rows = slice(g * outputs, (g + 1) * outputs)
            result[(slice(None), rows, *place)] = np.tensordot(
                patch[:, g * inputs : (g + 1) * inputs],
                weight[rows].astype(np.float64),
                axes=(range(1, axes + 2), range(1, axes + 2)),
            )
    return result
