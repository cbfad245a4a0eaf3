"""Linear layers in 8 bits without calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from oracle import relative_l2
from quantized_models import affine, operators, optimized_operators, packed, quantized_model, run

from edgecompress.core.tensors import Affine

LAYERS = {
    "matmul": ("y = MatMul (x, w)", (256, 64), 1),
    "matmul with bias": ("h = MatMul (x, w)  y = Add (h, b)", (256, 64), 1),
    "gemm": ("y = Gemm (x, w, b)", (256, 64), 1),
    "gemm, transposed": ("y = Gemm <transB=1> (x, w, b)", (64, 256), 0),
    "gemm without bias": ("y = Gemm <transB=1> (x, w)", (64, 256), 0),
}
BIAS = np.linspace(-1, 1, 64).astype(np.float32)


def _bytes(
    body: str, weight: Affine, rows: str = "5"
) -> tuple[bytes, bytes, dict[str, np.ndarray]]:
    text = f"g (float[{rows},256] x) => (float[{rows},64] y) {{ {body} }}"
    model = quantized_model(text, {"w": weight}, {"b": BIAS} if " b)" in body else {})
    shape = [int(size) for size in rows.split(",")]
    feed = {"x": np.random.default_rng(0).standard_normal((*shape, 256)).astype(np.float32)}
    return model.to_proto().SerializeToString(), packed(model, activations=True), feed


@pytest.mark.parametrize("grid", ["ternary", "4", "8"])
@pytest.mark.parametrize("name", LAYERS)
def test_one_fused_operator_is_left(name: str, grid: str, tmp_path: Path) -> None:
    body, shape, axis = LAYERS[name]
    original, data, feed = _bytes(body, affine(shape, grid, axis))
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    assert relative_l2(fused, plain) <= 1e-5
    assert relative_l2(plain, run(original, feed)[0]) <= 0.01  # the input at 255 steps
    assert set(optimized_operators(data, tmp_path)) == {"DynamicQuantizeMatMul"}


def test_more_axes_than_two(tmp_path: Path) -> None:
    original, data, feed = _bytes("y = MatMul (x, w)", affine((256, 64), "2", 1), rows="2,3")
    assert relative_l2(run(data, feed)[0], run(original, feed)[0]) <= 0.01
    assert set(optimized_operators(data, tmp_path)) == {"DynamicQuantizeMatMul"}


def test_one_scale_for_the_whole_weight(tmp_path: Path) -> None:
    weight = affine((256, 64), "4", 1)
    single = Affine(weight.codes, np.full((1, 1), 0.03, np.float32), weight.grid)
    original, data, feed = _bytes("y = MatMul (x, w)", single)
    assert relative_l2(run(data, feed)[0], run(original, feed)[0]) <= 0.01
    assert set(optimized_operators(data, tmp_path)) == {"DynamicQuantizeMatMul"}


@pytest.mark.parametrize(
    ("body", "shape", "axis"),
    [
        ("y = MatMul (x, w)", (256, 64), 0),
        ("y = Gemm <alpha=0.5> (x, w)", (256, 64), 1),
        ("y = Gemm <beta=0.5> (x, w, b)", (256, 64), 1),
    ],
)
def test_what_does_not_fit_stays_float(body: str, shape: tuple[int, int], axis: int) -> None:
    original, data, feed = _bytes(body, affine(shape, "4", axis))
    assert operators(data)["DynamicQuantizeLinear"] == 0
    assert np.array_equal(run(data, feed)[0], run(original, feed)[0])


def test_few_weights_stay_float() -> None:
    text = "g (float[2,8] x) => (float[2,9] y) { y = MatMul (x, w) }"
    model = quantized_model(text, {"w": affine((8, 9), "8", 1)})
    assert operators(packed(model, activations=True))["DynamicQuantizeLinear"] == 0


def test_layers_with_the_same_input_quantize_it_once() -> None:
    text = """g (float[2,256] x) => (float[2,64] p, float[2,64] q) {
      p = MatMul (x, a)
      q = MatMul (x, b)
    }"""
    weights = {"b": affine((256, 64), "2", 1), "a": affine((256, 64), "2", 1, seed=1)}
    model = quantized_model(text, weights)
    data = packed(model, activations=True)
    assert operators(data)["DynamicQuantizeLinear"] == 1
    feed = {"x": np.ones((2, 256), np.float32)}
    exact = run(model.to_proto().SerializeToString(), feed)
    for found, expected in zip(run(data, feed), exact, strict=True):
        assert relative_l2(found, expected) <= 0.01


def test_the_product_keeps_the_name_of_the_layer() -> None:
    text = "g (float[2,256] x) => (float[2,64] y) { y = MatMul (x, w) }"
    model = quantized_model(text, {"w": affine((256, 64), "2", 1)})
    next(iter(model.ir.graph)).name = "head"
    nodes = onnx.load_from_string(packed(model, activations=True)).graph.node
    assert [node.op_type for node in nodes if node.name == "head"] == ["MatMulInteger"]
