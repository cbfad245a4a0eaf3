"""Hypothesis strategies: weights, convolution settings and whole small models."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FloatArray = NDArray[np.floating[Any]]


@st.composite
def weights(draw: st.DrawFn, ndim: int, largest: int = 6) -> FloatArray:
    """A float64 tensor of normal entries: sizes 1 to ``largest``, any scale from 1e-3 to 1e3.

    One in four has an exact low-rank part alone, one in eight is all zeros.
    """
    shape = tuple(draw(st.lists(st.integers(1, largest), min_size=ndim, max_size=ndim)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-3, 3))
    match draw(st.integers(0, 7)):
        case 0:
            return np.zeros(shape)
        case 1 | 2 if ndim > 1:
            row = rng.normal(size=(shape[0], 1))
            return scale * (row @ rng.normal(size=(1, int(np.prod(shape[1:]))))).reshape(shape)
        case _:
            return scale * rng.normal(size=shape)


@st.composite
def convolution_models(draw: st.DrawFn) -> onnx.ModelProto:
    """A model of one convolution over one to three spatial axes, with anything that ONNX allows.

    Groups, strides, dilations, uneven padding or ``auto_pad``, with and without bias. The input
    is ``x``, the output ``y``; the spatial size is large enough for the kernel.
    """
    spatial = draw(st.integers(1, 3))
    group = draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs, outputs = (group * draw(st.integers(1, 4)) for _ in range(2))
    sizes = st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial)
    kernel, stride, dilation = draw(sizes), draw(sizes), draw(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.normal(size=(outputs, inputs // group, *kernel)).astype(np.float32)
    settings: dict[str, Any] = {"strides": stride, "group": group}
    if draw(st.booleans()):
        settings["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        pads = st.lists(st.integers(0, 2), min_size=2 * spatial, max_size=2 * spatial)
        settings |= {"pads": draw(pads), "dilations": dilation}
    constants = [numpy_helper.from_array(weight, "w")]
    if draw(st.booleans()):
        bias = rng.normal(size=outputs).astype(np.float32)
        constants.append(numpy_helper.from_array(bias, "b"))
    image = [draw(st.integers(0, 3)) + 7 for _ in range(spatial)]
    node = helper.make_node("Conv", ["x", *(c.name for c in constants)], ["y"], **settings)
    return model([node], [("x", [2, inputs, *image])], ["y"], constants)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, list[int | str]]],
    outputs: list[str],
    constants: list[onnx.TensorProto],
    opset: int = 21,
) -> onnx.ModelProto:
    """A checked float32 model; the shapes of its outputs are left to inference."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        constants,
    )
    imports = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    onnx.checker.check_model(made, full_check=True)
    return made


def feed_for(made: onnx.ModelProto, seed: int) -> dict[str, FloatArray]:
    """Normal float32 inputs for a model; an open axis gets size 2."""
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.normal(
            size=[d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in made.graph.input
    }
