"""Bits of weights as stored, followed through decoders, against what was packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecompress.core.grids import GRIDS, Grid
from edgecompress.core.tensors import Affine
from edgecompress.core.work import ConvWork, MatMulWork, Work
from edgecompress.graph.constants import is_constant, stored_weight
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.work import derive_work

NETWORK = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[1,16,8,8] x) => (float[1,10] y) {
  a = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (x, w1)
  b = Relu (a)
  c = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (b, w2)
  d = GlobalAveragePool (c)
  e = Flatten (d)
  y = Gemm <transB: int = 1> (e, w3)
}
"""
SHAPES = {"w1": (32, 16, 3, 3), "w2": (64, 32, 3, 3), "w3": (10, 64)}
PACKED_BITS = {"ternary": 1.6, "2": 2.0, "3": 3.0, "4": 4.0}


def write(text: str, weights: dict[str, np.ndarray], path: Path) -> Path:
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, path)
    return path


def packed_works(grid: Grid, tmp_path: Path, *, activations: bool) -> dict[str, Work]:
    """Works of the network with random codes on ``grid``, packed, written and read again."""
    rng = np.random.default_rng(0)
    codes = {name: rng.choice(grid.codes, shape) for name, shape in SHAPES.items()}
    scales = {
        name: np.ones((shape[0],) + (1,) * (len(shape) - 1), np.float32)
        for name, shape in SHAPES.items()
    }
    floats = {name: codes[name] * scales[name] for name in SHAPES}
    model = load_model(write(NETWORK, floats, tmp_path / "float.onnx"))
    for layer, name in zip(model.find_layers().layers, SHAPES, strict=True):
        assert layer.weight_shape == SHAPES[name]
        model.quantized[model.weight_name(layer)] = Affine(codes[name], scales[name], grid)
    if activations:
        names = [value.name for node in model.ir.graph for value in node.outputs]
        model.activation_ranges |= dict.fromkeys(["x", *filter(None, names)], (-1.0, 1.0))
    pack(model, activations=activations, keep_names=False)
    onnx.save(model.to_proto(), tmp_path / "packed.onnx")
    written: Model = load_model(tmp_path / "packed.onnx", normalize=False)
    works = derive_work(written, {})
    products = [work for work in works if isinstance(work.operator, ConvWork | MatMulWork)]
    assert len(products) == 3
    return dict(zip(SHAPES, products, strict=True))


@pytest.mark.parametrize("activations", [False, True])
@pytest.mark.parametrize("name", ["ternary", "2", "3", "4"])
def test_packed_weights_have_their_packed_bits(
    name: str, activations: bool, tmp_path: Path
) -> None:
    """Truth: digits per byte of the codec, plus a float32 scale per output channel."""
    works = packed_works(GRIDS[name], tmp_path, activations=activations)
    for weight, shape in SHAPES.items():
        operator = works[weight].operator
        assert operator.weight_bits == GRIDS[name].bits
        elements = int(np.prod(shape))
        codes = elements * PACKED_BITS[name]
        stored = operator.weight_storage_bits
        assert codes - 8 <= stored <= codes + 48 * shape[0] + 0.01 * codes, weight


def test_weights_only_keep_float_activations(tmp_path: Path) -> None:
    works = packed_works(GRIDS["4"], tmp_path, activations=False)
    assert {work.operator.activation_bits for work in works.values()} == {32}


def test_quantized_activations_are_seen_through_their_pairs(tmp_path: Path) -> None:
    works = packed_works(GRIDS["4"], tmp_path, activations=True)
    assert works["w2"].operator.activation_bits == 8
    assert works["w2"].input_bits == 32 * 8 * 8 * 8


def test_eight_bit_weights(tmp_path: Path) -> None:
    works = packed_works(GRIDS["8"], tmp_path, activations=False)
    operator = works["w2"].operator
    assert operator.weight_bits == 8
    assert operator.weight_storage_bits == 64 * 32 * 9 * 8 + 64 * 32


def weight_of(text: str, weights: dict[str, np.ndarray], tmp_path: Path) -> tuple[int, int] | None:
    """(weight bits, storage bits) of the second input of the last node."""
    model = load_model(write(text, weights, tmp_path / "m.onnx"), normalize=False)
    stored = stored_weight(model.ir.graph[-1].inputs[1], model.shapes())
    return None if stored is None else (stored.weight_bits, stored.storage_bits)


HEAD = '<ir_version: 10, opset_import: ["" : 21]> g (float[1,8] x{more}) => (float[1,4] y) {{'


def head(more: str = "") -> str:
    return HEAD.format(more=more)


@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, 32), (np.float16, 16)])
def test_plain_and_cast_floats(dtype: type, bits: int, tmp_path: Path) -> None:
    text = head() + "w = Cast <to: int = 1> (v) y = MatMul (x, w) }"
    found = weight_of(text, {"v": np.ones((8, 4), dtype)}, tmp_path)
    assert found == (bits, 32 * bits)


def test_dequantized_int8_with_scales_and_zero_points(tmp_path: Path) -> None:
    text = head() + "w = DequantizeLinear <axis: int = 1> (q, s, z) y = MatMul (x, w) }"
    weights = {
        "q": np.ones((8, 4), np.int8),
        "s": np.ones(4, np.float32),
        "z": np.zeros(4, np.int8),
    }
    assert weight_of(text, weights, tmp_path) == (8, 32 * 8 + 4 * 32 + 4 * 8)


def test_int4_initializer_behind_a_cast(tmp_path: Path) -> None:
    text = head() + "c = Cast <to: int = 1> (q) w = Mul (c, s) y = MatMul (x, w) }"
    proto = onnx.parser.parse_model(text)
    packed = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, (8, 4), [1] * 32)
    proto.graph.initializer.append(packed)
    scale = onnx.numpy_helper.from_array(np.ones(4, np.float32), "s")
    proto.graph.initializer.append(scale)
    onnx.save(proto, tmp_path / "int4.onnx")
    model = load_model(tmp_path / "int4.onnx", normalize=False)
    stored = stored_weight(model.ir.graph[-1].inputs[1], model.shapes())
    assert stored is not None
    assert (stored.shape, stored.weight_bits, stored.storage_bits) == ((8, 4), 4, 32 * 4 + 4 * 32)


def test_slice_of_a_shared_table_counts_its_part(tmp_path: Path) -> None:
    text = head() + "w = Slice (t, b, e) y = MatMul (x, w) }"
    weights = {
        "t": np.ones((32, 4), np.float32),
        "b": np.array([0], np.int64),
        "e": np.array([8], np.int64),
    }
    assert weight_of(text, weights, tmp_path) == (32, 32 * 32)


def test_a_weight_from_an_input_is_not_constant(tmp_path: Path) -> None:
    text = head(", float[8,4] w") + "v = Relu (w) y = MatMul (x, v) }"
    model = load_model(write(text, {}, tmp_path / "m.onnx"), normalize=False)
    value = model.ir.graph[-1].inputs[1]
    assert not is_constant(value)
    assert stored_weight(value) is None


def test_random_numbers_are_not_constant(tmp_path: Path) -> None:
    text = head() + "w = RandomNormal <shape: ints = [8,4]> () y = MatMul (x, w) }"
    assert weight_of(text, {}, tmp_path) is None


def test_long_constant_chains_do_not_recurse(tmp_path: Path) -> None:
    links = " ".join(f"w{i + 1} = Identity (w{i})" for i in range(3000))
    text = head() + links + " y = MatMul (x, w3000) }"
    assert weight_of(text, {"w0": np.ones((8, 4), np.float32)}, tmp_path) == (32, 32 * 32)
