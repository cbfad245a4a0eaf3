"""Packed graphs compute what the float graph with codes times scale computes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from oracle import run_reference
from quantized_models import (
    affine,
    operators,
    optimized_operators,
    packed,
    quantized_model,
    run,
)

from edgecompress.core.grids import GRIDS
from edgecompress.graph import packing_codec
from edgecompress.graph.model import Model
from edgecompress.graph.pack import pack, packed_bytes, why_not_pack

DECODER = ("Gather", "Split", "Cast", "BitwiseOr", "Mul")

CASES = {
    "conv": (
        "g (float[2,3,8,8] x) => (float[2,16,n,m] y) "
        "{ y = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w) }",
        (16, 3, 3, 3),
        0,
        (2, 3, 8, 8),
    ),
    "depthwise": (
        "g (float[2,16,8,8] x) => (float[2,16,n,m] y) { y = Conv <group=16> (x, w) }",
        (16, 1, 3, 3),
        0,
        (2, 16, 8, 8),
    ),
    "one spatial axis": (
        "g (float[2,4,20] x) => (float[2,6,n] y) { y = Conv (x, w) }",
        (6, 4, 5),
        0,
        (2, 4, 20),
    ),
    "transposed": (
        "g (float[2,4,6,6] x) => (float[2,6,n,m] y) { y = ConvTranspose (x, w) }",
        (4, 6, 3, 3),
        1,
        (2, 4, 6, 6),
    ),
    "matmul": (
        "g (float[5,20] x) => (float[5,13] y) { y = MatMul (x, w) }",
        (20, 13),
        1,
        (5, 20),
    ),
    "matmul, weight on the left": (
        "g (float[20,5] x) => (float[13,5] y) { y = MatMul (w, x) }",
        (13, 20),
        0,
        (20, 5),
    ),
    "gemm": (
        "g (float[5,20] x) => (float[5,13] y) { y = Gemm <transB=1> (x, w) }",
        (13, 20),
        0,
        (5, 20),
    ),
    "recurrent": (
        "g (float[4,2,6] x) => (float[4,1,2,5] y) { y = GRU <hidden_size=5> (x, w, r) }",
        (1, 15, 6),
        1,
        (4, 2, 6),
    ),
}


def _case(name: str, grid: str) -> tuple[Model, dict[str, np.ndarray]]:
    text, shape, axis, entering = CASES[name]
    weights = {"w": affine(shape, grid, axis)}
    if name == "recurrent":
        weights["r"] = affine((1, 15, 5), grid, 1, seed=1)
    x = np.random.default_rng(3).standard_normal(entering).astype(np.float32)
    return quantized_model(text, weights), {"x": x}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", CASES)
def test_same_outputs_as_codes_times_scale(name: str, grid: str, tmp_path: Path) -> None:
    model, feed = _case(name, grid)
    expected = run(model.to_proto().SerializeToString(), feed)
    data = packed(model)
    assert np.array_equal(run(data, feed)[0], expected[0])
    np.testing.assert_allclose(run(data, feed, optimize=True)[0], expected[0], rtol=1e-5, atol=1e-5)
    left = optimized_operators(data, tmp_path)
    assert not [name for name in DECODER if left[name]]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_reference_implementation_reads_it_too(grid: str) -> None:
    model, feed = _case("matmul", grid)
    expected = feed["x"].astype(np.float64) @ model.quantized["w"].to_dense()
    found = run_reference(onnx.load_from_string(packed(model)), feed)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


TWO = """g (float[2,12] x) => (float[2,7] y) {
  h = MatMul (x, a)
  y = MatMul (h, b)
}"""


@pytest.mark.parametrize("limit", [1, 100, 1 << 24])
@pytest.mark.parametrize("grid", ["ternary", "2", "3", "4"])
def test_weights_of_a_grid_share_table_and_decoder(
    grid: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing_codec, "_DECODE_LIMIT", limit)
    model = quantized_model(TWO, {"a": affine((12, 9), grid, 1), "b": affine((9, 7), grid, 1, 1)})
    feed = {"x": np.random.default_rng(0).standard_normal((2, 12)).astype(np.float32)}
    data = packed(model)
    planes = 2 if grid == "3" else 1
    tables = [t for t in onnx.load_from_string(data).graph.initializer if t.data_type == 3]
    assert len(tables) == planes
    assert operators(data)["Gather"] == planes * (1 if limit > 100 else 2)
    expected = run(model.to_proto().SerializeToString(), feed)
    assert np.array_equal(run(data, feed)[0], expected[0])


def test_grids_can_be_mixed() -> None:
    model = quantized_model(TWO, {"a": affine((12, 9), "3", 1), "b": affine((9, 7), "8", 1)})
    feed = {"x": np.ones((2, 12), np.float32)}
    expected = run(model.to_proto().SerializeToString(), feed)
    assert np.array_equal(run(packed(model), feed)[0], expected[0])


def test_a_weight_of_several_layers_is_decoded_once() -> None:
    text = "g (float[2,9] x) => (float[2,9] y) { h = MatMul (x, w)  y = MatMul (h, w) }"
    model = quantized_model(text, {"w": affine((9, 9), "2", 1)})
    data = packed(model)
    assert operators(data)["Mul"] == 1
    feed = {"x": np.ones((2, 9), np.float32)}
    expected = run(model.to_proto().SerializeToString(), feed)
    assert np.array_equal(run(data, feed)[0], expected[0])


def test_a_weight_that_a_body_reads() -> None:
    text = """g (float[2,9] x, bool c) => (float[2,9] y) {
      y = If (c) <
        then_branch = t () => (float[2,9] p) { p = MatMul (x, w) },
        else_branch = e () => (float[2,9] q) { q = Identity (x) }
      >
    }"""
    model = quantized_model(text, {"w": affine((9, 9), "ternary", 1)})
    feed = {"x": np.ones((2, 9), np.float32), "c": np.array(True)}
    expected = run(model.to_proto().SerializeToString(), feed)
    assert np.array_equal(run(packed(model, activations=True), feed)[0], expected[0])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("grid", ["ternary", "8"])
def test_an_embedding_stays_int8_in_memory(grid: str, axis: int, tmp_path: Path) -> None:
    text = "g (int64[k] i) => (float[k,12] y) { y = Gather (w, i) }"
    model = quantized_model(text, {"w": affine((30, 12), grid, axis)})
    feed = {"i": np.array([0, 29, 7, 7])}
    data = packed(model)
    expected = model.quantized["w"].to_dense()[feed["i"]]
    assert np.array_equal(run(data, feed)[0], expected)
    assert np.array_equal(run(data, feed, optimize=True)[0], expected)
    optimized_operators(data, tmp_path)
    left = onnx.load(tmp_path / "optimized.onnx").graph.initializer
    large = {t.data_type for t in left if np.prod(t.dims) >= 30 * 12}
    assert large == {onnx.TensorProto.INT8}


def test_an_embedding_tied_to_the_output_layer() -> None:
    text = """g (int64[k] i) => (float[k,30] y) {
      e = Gather (w, i)
      t = Transpose <perm=[1,0]> (w)
      y = MatMul (e, t)
    }"""
    model = quantized_model(text, {"w": affine((30, 12), "4", 0)})
    feed = {"i": np.array([3, 1])}
    expected = run(model.to_proto().SerializeToString(), feed)
    data = packed(model)
    assert np.array_equal(run(data, feed)[0], expected[0])
    assert len([t for t in onnx.load_from_string(data).graph.initializer if t.data_type == 2]) == 1


def test_half_precision_weights_are_rounded_after_scaling() -> None:
    text = "g (float16[5,20] x) => (float16[5,13] y) { y = MatMul (x, w) }"
    model = quantized_model(text, {"w": affine((20, 13), "3", 1)}, dtype=np.float16)
    feed = {"x": np.eye(5, 20, dtype=np.float16)}
    expected = model.quantized["w"].to_dense().astype(np.float16)[:5]
    found = run_reference(onnx.load_from_string(packed(model, activations=True)), feed)[0]
    assert np.array_equal(found, expected)


def test_a_weight_that_is_also_an_output() -> None:
    text = "g (float[2,9] x) => (float[2,9] y, float[9,9] w) { y = MatMul (x, w) }"
    model = quantized_model(text, {"w": affine((9, 9), "2", 1)})
    outputs = run(packed(model, keep_names=False), {"x": np.ones((2, 9), np.float32)})
    assert np.array_equal(outputs[1], model.quantized["w"].to_dense())


def test_new_names_do_not_meet_old_ones() -> None:
    text = """g (float[2,9] w_codes) => (float[2,9] _1) {
      w_q = Relu (w_codes)
      _1 = MatMul (w_q, w)
    }"""
    model = quantized_model(text, {"w": affine((9, 9), "2", 1)})
    feed = {"w_codes": np.ones((2, 9), np.float32)}
    expected = run(model.to_proto().SerializeToString(), feed)
    for keep_names in (False, True):
        assert np.array_equal(run(packed(model, keep_names=keep_names), feed)[0], expected[0])


def test_the_decoded_weight_keeps_the_name_of_the_weight() -> None:
    model, _ = _case("conv", "2")
    pack(model, activations=False, keep_names=True)
    conv = next(node for node in model.ir.graph if node.op_type == "Conv")
    assert conv.inputs[1] is not None
    assert conv.inputs[1].name == "w"


def test_the_file_says_its_codec_and_is_the_same_every_time() -> None:
    model, _ = _case("conv", "3")
    first = packed(model)
    assert first == packed(model)
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(first).metadata_props}
    assert metadata == {"edgecompress.codec": "radix/1"}


def test_the_number_of_weights_is_returned_and_none_is_left_quantized() -> None:
    model = quantized_model(TWO, {"a": affine((12, 9), "3", 1), "b": affine((9, 7), "2", 1)})
    assert pack(model, activations=False, keep_names=True) == 2
    assert model.quantized == {}
    assert pack(model, activations=False, keep_names=True) == 0


def test_codes_without_an_initializer_are_a_bug() -> None:
    model, _ = _case("conv", "3")
    model.quantized["gone"] = model.quantized["w"]
    with pytest.raises(ValueError, match="'gone'"):
        pack(model, activations=False, keep_names=True)


def _chain(count: int, size: int, grid: str) -> int:
    steps = [f"h{k} = MatMul (h{k - 1}, w{k})" for k in range(1, count + 1)]
    text = f"g (float[2,{size}] h0) => (float[2,{size}] h{count}) {{ {' '.join(steps)} }}"
    weights = {f"w{k}": affine((size, size), grid, 1, seed=k) for k in range(1, count + 1)}
    return len(packed(quantized_model(text, weights), keep_names=False))


@pytest.mark.parametrize("grid", ["ternary", "2", "3", "4"])
def test_packed_bytes_is_what_one_more_weight_takes(grid: str) -> None:
    size = 30
    taken = _chain(12, size, grid) - _chain(11, size, grid)
    node = len("h12w12") + 20  # the MatMul itself
    expected = packed_bytes(affine((size, size), grid, 1))
    assert abs(taken - node - expected) <= 60


def test_small_weights_are_not_worth_packing() -> None:
    assert why_not_pack(affine((64, 64, 3, 3), "4")) == ""
    small = affine((4, 4, 1, 1), "4")
    expected = f"too small: packed it would take {packed_bytes(small)} bytes, as float 64"
    assert why_not_pack(small) == expected
