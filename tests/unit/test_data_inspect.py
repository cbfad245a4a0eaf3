"""Inspection of written files: shapes, MACs, bits and bytes that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecompress.core.grids import GRIDS
from edgecompress.core.stages import Conv, MatMul
from edgecompress.core.tensors import Affine
from edgecompress.graph.model import load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.pipeline.inspect import inspect

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path) -> Path:
    """A convolution (16, 8, 3, 3) on 10x10, a pooling, a product (24, 16) with bias."""
    weights = {
        "w": RNG.normal(size=(16, 8, 3, 3)).astype(np.float32),
        "b": RNG.normal(size=16).astype(np.float32),
        "v": RNG.normal(size=(16, 24)).astype(np.float32),
        "c": RNG.normal(size=24).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["p"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["p"], ["q"], name="pool"),
        helper.make_node("Flatten", ["q"], ["r"], name="flat"),
        helper.make_node("MatMul", ["r", "v"], ["s"], name="fc"),
        helper.make_node("Add", ["s", "c"], ["y"], name="add"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 10, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 24])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, producer_name="by hand"
    )
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_a_float_model(path) -> None:
    report = inspect(load_model(path, normalize=False))
    conv, product = report.layers
    assert (conv.name, conv.kind, conv.weight_shape) == ("conv", "Conv", (16, 8, 3, 3))
    assert (conv.input_shape, conv.output_shape) == ((None, 8, 10, 10), (None, 16, 10, 10))
    assert conv.macs == 100 * 16 * 8 * 9
    assert conv.parameters == 1152
    assert (conv.weight_bits, conv.storage_bits) == (32, 1152 * 32)
    assert (product.name, product.kind, product.weight_shape) == ("fc", "MatMul", (24, 16))
    assert product.macs == 24 * 16
    assert report.parameters == 1152 + 16 + 384 + 24
    assert report.macs == 115200 + 384
    assert (report.opset, report.ir_version, report.producer) == (21, 10, "by hand")
    assert report.inputs == {"x": "float32[?,8,10,10]"}
    assert report.outputs == {"y": "float32[?,24]"}
    assert report.nodes["Conv"] == 1
    assert sum(report.nodes.values()) == 5


@pytest.mark.parametrize(("grid", "bits_per_weight"), [("ternary", 1.6), ("2", 2), ("4", 4)])
def test_a_packed_model(path, tmp_path, grid: str, bits_per_weight: float) -> None:
    """The same shapes and MACs as before, at the packed width: 5 trits, 4 or 2 codes a byte."""
    model = load_model(path)
    for layer in model.find_layers().layers:
        shape = layer.weight_shape
        axes = (1,) * (len(shape) - 1)
        codes = RNG.choice(GRIDS[grid].codes, shape).astype(np.int8)
        weight = Affine(codes, np.full((shape[0], *axes), 0.1, np.float32), GRIDS[grid])
        match layer.stage:
            case Conv(stride=stride, pads=pads, dilation=dilation):
                stage = Conv(weight=weight, stride=stride, pads=pads, dilation=dilation)
                model.replace(layer, [stage], layer.bias)
            case MatMul():
                model.replace(layer, [MatMul(weight=weight)], layer.bias)
    pack(model, activations=False, keep_names=False)
    save_model(model, tmp_path / "packed.onnx")
    report = inspect(load_model(tmp_path / "packed.onnx", normalize=False))
    conv, product = report.layers
    assert conv.weight_shape == (16, 8, 3, 3)
    assert product.weight_shape == (24, 16)
    assert (conv.macs, product.macs) == (115200, 384)
    assert conv.weight_bits == GRIDS[grid].bits
    scales, padding = 16 * 32, 8 * 16
    expected = 1152 * bits_per_weight
    assert expected <= conv.storage_bits <= expected + scales + padding
    assert report.macs == 115200 + 384
