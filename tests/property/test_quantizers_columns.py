"""Columns of a layer times its weight are the layer's output, and moments are their averages."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, MatMul
from edgecompress.core.tensors import Dense
from edgecompress.graph.model import load_model
from edgecompress.pipeline.calibration import measure_moments
from edgecompress.pipeline.columns import paired_columns
from tests.strategies import convolution_models, feed_for

Floats = NDArray[np.float32]


def only_layer(made: onnx.ModelProto) -> Layer:
    with TemporaryDirectory() as folder:
        onnx.save(made, Path(folder) / "model.onnx")
        return load_model(Path(folder) / "model.onnx").find_layers().layers[0]


def output_of(made: onnx.ModelProto, feed: dict[str, Any]) -> Floats:
    session = onnxruntime.InferenceSession(made.SerializeToString())
    found: Floats = session.run(None, feed)[0]
    return found


def check_columns(layer: Layer, entering: Floats, leaving: Floats) -> None:
    stage = layer.stage
    assert isinstance(stage, Conv | MatMul)
    group = stage.group if isinstance(stage, Conv) else 1
    rows = stage.weight.to_dense().reshape(group, layer.weight_shape[0] // group, -1)
    bias = 0.0 if layer.bias is None else layer.bias.reshape(group, 1, -1)
    rng = np.random.default_rng(0)
    count = 0
    for columns, outputs in paired_columns(stage, [entering], [leaving], 10**9, rng):
        given_back = columns @ np.swapaxes(rows, 1, 2) + bias
        np.testing.assert_allclose(given_back, outputs, atol=1e-4)
        count += columns.shape[1]
    assert count == leaving.size // layer.weight_shape[0]


@given(made=convolution_models(), seed=st.integers(0, 1000))
def test_convolutions(made: onnx.ModelProto, seed: int) -> None:
    feed = feed_for(made, seed)
    check_columns(only_layer(made), feed["x"], output_of(made, feed))


@st.composite
def transposed_models(draw: st.DrawFn) -> onnx.ModelProto:
    spatial, group = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    inputs, outputs = (group * draw(st.integers(1, 3)) for _ in range(2))
    sizes = st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial)
    kernel, stride, dilation = draw(sizes), draw(sizes), draw(sizes)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    pads = [draw(st.integers(0, min(2, r))) for r in reach + reach]
    extra = [draw(st.integers(0, s - 1)) for s in stride]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.normal(size=(inputs, outputs // group, *kernel)).astype(np.float32)
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=stride,
        dilations=dilation,
        pads=pads,
        output_padding=extra,
        group=group,
    )
    shape = [2, inputs, *(4 + k for k in range(spatial))]
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * (spatial + 2))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@given(made=transposed_models(), seed=st.integers(0, 1000))
def test_transposed_convolutions(made: onnx.ModelProto, seed: int) -> None:
    feed = feed_for(made, seed)
    leaving = output_of(made, feed)
    if leaving.size:
        check_columns(only_layer(made), feed["x"], leaving)


@given(seed=st.integers(0, 1000), centred=st.booleans())
def test_moments_are_averages(seed: int, centred: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, 7)).astype(np.float32)
    layer = Layer(
        name="l",
        stage=MatMul(weight=Dense(weight)),
        bias=rng.normal(size=4).astype(np.float32),
        input_shape=(None, 7),
        output_shape=(None, 4),
        macs=None,
    )
    inputs = [rng.normal(1.0, 1.0, size=(n, 3, 7)).astype(np.float32) for n in (2, 5)]
    outputs = [rng.normal(1.0, 1.0, size=(n, 3, 4)).astype(np.float32) for n in (2, 5)]
    found = measure_moments(layer, inputs, outputs, rng, centred=centred)
    assert found is not None
    x = np.concatenate([a.reshape(-1, 7) for a in inputs]).astype(np.float64)
    y = np.concatenate([a.reshape(-1, 4) for a in outputs]).astype(np.float64) - layer.bias
    if centred:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    assert found.count == 21
    np.testing.assert_allclose(found.gram[0], x.T @ x / 21, atol=1e-5)
    np.testing.assert_allclose(found.cross[0], y.T @ x / 21, atol=1e-5)
