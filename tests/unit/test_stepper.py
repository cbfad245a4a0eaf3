"""The walk on two streams, against whole runs of the graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from edgecompress.core.stages import Conv, MatMul
from edgecompress.core.tensors import Dense
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.stepper import Stepper

BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2,6,6] x) => (float[N,3] y, float[N,4,6,6] side)
{
  a = Conv <pads = [1,1,1,1]> (x, w1, b1)
  r = Relu (a)
  c = Conv <pads = [1,1,1,1]> (r, w2)
  side = Add (c, r)
  p = GlobalAveragePool (side)
  f = Flatten (p)
  m = MatMul (f, w3)
  y = Add (m, b3)
}
"""


def _model(tmp_path: Path) -> tuple[Model, Path]:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(BRANCHES)
    shapes = {"w1": (4, 2, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (4, 3), "b3": (3,)}
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    return load_model(path), path


def _run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(5, 2, 6, 6)).astype(np.float32)} for _ in range(2)]


def test_reference_stream_is_the_float_model(
    tmp_path: Path, feeds: list[dict[str, np.ndarray]]
) -> None:
    model, path = _model(tmp_path)
    stepper = Stepper(model, model.find_layers().layers, feeds)
    names = [step.layer.name for step in stepper]
    assert len(names) == 3
    reference, compressed = stepper.results()
    for feed, first, second in zip(feeds, reference, compressed, strict=True):
        for expected, one, two in zip(_run(onnx.load(path), feed), first, second, strict=True):
            np.testing.assert_allclose(one, expected, atol=1e-5)
            np.testing.assert_array_equal(one, two)


def test_compressed_stream_follows_each_decision(
    tmp_path: Path, feeds: list[dict[str, np.ndarray]]
) -> None:
    model, path = _model(tmp_path)
    original = _run(onnx.load(path), feeds[0])
    stepper = Stepper(model, model.find_layers().layers, feeds)
    for step in stepper:
        stage = step.layer.stage
        assert isinstance(stage, Conv | MatMul)
        smaller = replace(stage, weight=Dense(stage.weight.to_dense() * 0.5))
        expected = step.outputs([smaller], step.layer.bias)
        step.replace([smaller], step.layer.bias)
        assert expected[0].shape == step.reference_outputs[0].shape
        assert not np.allclose(expected[0], step.reference_outputs[0])
    reference, compressed = stepper.results()
    for expected_whole, one in zip(original, reference[0], strict=True):
        np.testing.assert_allclose(one, expected_whole, atol=1e-5)
    for feed, outputs in zip(feeds, compressed, strict=True):
        for expected_whole, one in zip(_run(model.to_proto(), feed), outputs, strict=True):
            np.testing.assert_allclose(one, expected_whole, atol=1e-5)


def test_a_chain_takes_the_place_of_a_layer(
    tmp_path: Path, feeds: list[dict[str, np.ndarray]]
) -> None:
    model, _ = _model(tmp_path)
    stepper = Stepper(model, model.find_layers().layers, feeds)
    for step in stepper:
        stage = step.layer.stage
        if isinstance(stage, Conv):
            out = stage.weight.shape[0]
            last = Conv(
                weight=Dense(np.eye(out, dtype=np.float32)[:, :, None, None]),
                stride=(1, 1),
                pads=(0, 0, 0, 0),
                dilation=(1, 1),
            )
            step.replace([stage, last], step.layer.bias)
    reference, compressed = stepper.results()
    assert len([node for node in model.ir.graph if node.op_type == "Conv"]) == 4
    for first, second in zip(reference[0], compressed[0], strict=True):
        np.testing.assert_allclose(second, first, atol=1e-4)
