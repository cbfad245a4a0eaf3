"""Statistics of weights, against counts by plain Python on the codes that were written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecompress.core.grids import GRIDS
from edgecompress.core.tensors import Affine
from edgecompress.core.winograd import transforms
from edgecompress.core.work import WeightStatistics, WeightValues, Work
from edgecompress.graph.code_reader import CodeReader
from edgecompress.graph.code_sample import SAMPLED, spread
from edgecompress.graph.model import load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.weight_statistics import ROUNDED, rounded, statistics
from edgecompress.graph.work import derive_work


def entropy(codes: Iterable[int]) -> float:
    counts = Counter(codes)
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def run_entries(codes: Iterable[int]) -> int:
    """Entries of a run-length code, one code after the other: a count of at most 15 zeros each."""
    entries = zeros = pending = 0
    for code in codes:
        if code == 0:
            zeros += 1
            if zeros == 16:
                pending, zeros = pending + 1, 0
        else:
            entries, pending, zeros = entries + 1 + pending, 0, 0
    return entries


@given(
    codes=hnp.arrays(
        np.int8,
        st.integers(1, 300),
        elements=st.sampled_from([0] * 12 + [-1, 1, 3, -128, 127]),
    )
)
def test_counts_are_those_of_a_loop(codes: np.ndarray) -> None:
    found = statistics(codes, 2)
    plain = codes.tolist()
    assert found.count == len(plain)
    assert found.levels == len(set(plain))
    assert found.entropy_bits == pytest.approx(entropy(plain), abs=1e-12)
    assert found.zero_share == plain.count(0) / len(plain)
    assert found.zero_run_bits == pytest.approx(run_entries(plain) * (4 + 2) / len(plain))


def test_a_worked_example() -> None:
    """17 zeros, 5, 5, 3 zeros, -1: a stuffing entry and three others of 4 + 8 bits each."""
    codes = np.array([0] * 17 + [5, 5] + [0] * 3 + [-1], np.int8)
    found = statistics(codes, 8)
    assert found.levels == 3
    assert found.zero_share == 20 / 23
    assert found.zero_run_bits == pytest.approx(4 * 12 / 23)


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (131, 101, 3, 3), (3, 4, 5, 5)])
def test_winograd_zeros_are_those_of_the_transform(shape: tuple[int, ...]) -> None:
    """Truth: G g G^T of every kernel, one at a time; many of few levels are counted by kind."""
    rng = np.random.default_rng(3)
    codes = rng.choice(np.array([-1, 0, 0, 0, 1], np.int8), shape)
    found = dict(statistics(codes, 2, winograd=True).winograd_zero_shares)
    assert set(found) == {omega for omega in (4, 6, 8) if shape[2] < omega}
    for omega, share in found.items():
        spread = transforms(omega, shape[2]).kernel
        zeros = sum(
            int(np.count_nonzero(spread @ kernel.astype(np.int64) @ spread.T == 0))
            for kernel in codes.reshape(-1, *shape[2:])
        )
        assert share == pytest.approx(zeros / (shape[0] * shape[1] * omega * omega), rel=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1, 1), (4, 4, 7, 7), (4, 4, 3, 1)])
def test_other_kernels_have_no_winograd_domain(shape: tuple[int, ...]) -> None:
    codes = np.ones(shape, np.int8)
    assert statistics(codes, 2, winograd=True).winograd_zero_shares == ()


def test_floats_are_rounded_to_127_steps_of_the_largest() -> None:
    weight = np.array([[1.0, -0.5, 0.003], [0.02, 0.02, -0.01], [0, 0, 0]], np.float32)
    assert rounded(weight, channels=True).tolist() == [[127, -64, 0], [127, 127, -64], [0, 0, 0]]
    assert rounded(weight, channels=False).tolist() == [[127, -64, 0], [3, 3, -1], [0, 0, 0]]


# --- through a graph -----------------------------------------------------------------------------

NETWORK = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[1,16,8,8] x) => (float[1,10] y) {
  a = Conv <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (x, w1)
  b = Relu (a)
  d = GlobalAveragePool (b)
  e = Flatten (d)
  y = Gemm <transB: int = 1> (e, w3)
}
"""
SHAPES = {"w1": (32, 16, 3, 3), "w3": (10, 32)}


def saved(proto: onnx.ModelProto, path: Path, level: WeightValues = "codes") -> list[Work]:
    onnx.save(proto, path)
    works = derive_work(load_model(path, normalize=False), {}, statistics=level)
    return [work for work in works if work.weights is not None]


def measured(work: Work) -> WeightStatistics:
    assert work.weights is not None
    return work.weights


@pytest.mark.parametrize("activations", [False, True])
@pytest.mark.parametrize("name", GRIDS)
def test_codes_are_found_behind_their_decoder(name: str, activations: bool, tmp_path: Path) -> None:
    grid = GRIDS[name]
    rng = np.random.default_rng(1)
    codes = {w: rng.choice(grid.codes, shape) for w, shape in SHAPES.items()}
    scales = {
        w: rng.uniform(0.5, 2, (shape[0],) + (1,) * (len(shape) - 1)).astype(np.float32)
        for w, shape in SHAPES.items()
    }
    proto = onnx.parser.parse_model(NETWORK)
    for w, array in codes.items():
        values = (array * scales[w]).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, w))
    onnx.save(proto, tmp_path / "float.onnx")
    model = load_model(tmp_path / "float.onnx")
    for layer, w in zip(model.find_layers().layers, SHAPES, strict=True):
        model.quantized[model.weight_name(layer)] = Affine(codes[w], scales[w], grid)
    if activations:
        names = [value.name for node in model.ir.graph for value in node.outputs]
        model.activation_ranges |= dict.fromkeys(["x", *filter(None, names)], (-1.0, 1.0))
    pack(model, activations=activations, keep_names=False)
    works = saved(model.to_proto(), tmp_path / "packed.onnx", "winograd")
    for work, w in zip(works, SHAPES, strict=True):
        plain = codes[w].reshape(-1).tolist()
        found = measured(work)
        assert found.count == len(plain)
        assert found.levels == len(set(plain))
        assert found.entropy_bits == pytest.approx(entropy(plain))
        assert found.zero_share == plain.count(0) / len(plain)
        assert bool(found.winograd_zero_shares) == (w == "w1")
        assert work.assumed == ""


def int_model(body: str, arrays: dict[str, np.ndarray], *, inputs: str) -> onnx.ModelProto:
    text = (
        '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
        f" g ({inputs}) => (float[1,4] y) {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


CODES = np.arange(32, dtype=np.uint8).reshape(8, 4) % 5 + 126  # 126 to 130
ZERO = np.array(128, np.uint8)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("w = DequantizeLinear (q, s, z) y = MatMul (x, w)", "float[1,8] x"),
        (
            "i = MatMulInteger (x, q, xz, z) y = Cast <to: int = 1> (i)",
            "uint8[1,8] x",
        ),
        (
            "c = Cast <to: int = 1> (q) d = Sub (c, zf) w = Mul (d, s) y = MatMul (x, w)",
            "float[1,8] x",
        ),
    ],
)
def test_zero_points_are_zeros(body: str, inputs: str, tmp_path: Path) -> None:
    arrays = {
        "q": CODES,
        "s": np.array(0.5, np.float32),
        "z": ZERO,
        "zf": np.array(128, np.float32),
        "xz": np.array(3, np.uint8),
    }
    used = {name: array for name, array in arrays.items() if name in body.replace("(", " ( ")}
    (work,) = saved(int_model(body, used, inputs=inputs), tmp_path / "m.onnx")
    plain = (CODES.astype(int) - 128).reshape(-1).tolist()
    assert measured(work).zero_share == plain.count(0) / 32
    assert measured(work).entropy_bits == pytest.approx(entropy(plain))


def test_packed_columns_of_matmul_n_bits(tmp_path: Path) -> None:
    """Truth: the codes that were packed by hand, lowest bits first, zero at 8."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 16, (4, 2, 16), dtype=np.uint8)  # 4 columns, 2 blocks of 16
    packed = codes[..., 0::2] | codes[..., 1::2] << 4
    arrays = {"q": packed, "s": np.ones(8, np.float32)}
    body = (
        "y = com.microsoft.MatMulNBits"
        " <K: int = 32, N: int = 4, bits: int = 4, block_size: int = 16> (x, q, s)"
    )
    (work,) = saved(int_model(body, arrays, inputs="float[1,32] x"), tmp_path / "m.onnx")
    plain = (codes.astype(int) - 8).reshape(-1).tolist()
    assert measured(work).count == 128
    assert measured(work).zero_share == plain.count(0) / 128
    assert measured(work).entropy_bits == pytest.approx(entropy(plain))


@pytest.mark.parametrize("dtype", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
def test_four_bit_initializers(dtype: int, tmp_path: Path) -> None:
    body = "w = DequantizeLinear (q, s) y = MatMul (x, w)"
    proto = int_model(body, {"s": np.array(0.5, np.float32)}, inputs="float[1,8] x")
    values = [i % 6 for i in range(32)]
    proto.graph.initializer.append(onnx.helper.make_tensor("q", dtype, (8, 4), values))
    (work,) = saved(proto, tmp_path / "m.onnx")
    assert measured(work).levels == 6
    assert measured(work).entropy_bits == pytest.approx(entropy(values))


def test_floats_say_that_they_were_rounded(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    proto = int_model("y = MatMul (x, w)", {"w": weight}, inputs="float[1,8] x")
    (work,) = saved(proto, tmp_path / "m.onnx")
    assert work.assumed == ROUNDED
    plain = np.rint(weight / np.abs(weight).max() * 127).astype(int).reshape(-1).tolist()
    assert measured(work).entropy_bits == pytest.approx(entropy(plain))


def test_nothing_is_measured_unless_it_is_asked_for(tmp_path: Path) -> None:
    weight = np.ones((8, 4), np.float32)
    proto = int_model("y = MatMul (x, w)", {"w": weight}, inputs="float[1,8] x")
    assert saved(proto, tmp_path / "m.onnx", "none") == []


def test_a_weight_made_by_other_operators_is_not_measured(tmp_path: Path) -> None:
    weight = np.ones((8, 4), np.float32)
    proto = int_model("v = Exp (w) y = MatMul (x, v)", {"w": weight}, inputs="float[1,8] x")
    assert saved(proto, tmp_path / "m.onnx") == []


# --- samples of large weights --------------------------------------------------------------------

SHAPE = (256, 96, 3, 3)
ENTROPY_BITS = 0.02


def whole(codes: np.ndarray, bits: int) -> WeightStatistics:
    """All codes counted."""
    return statistics(codes, bits, winograd=True)


def agree(found: WeightStatistics, exact: WeightStatistics) -> None:
    assert found.count == exact.count
    assert found.entropy_bits == pytest.approx(exact.entropy_bits, abs=ENTROPY_BITS)
    assert found.zero_share == pytest.approx(exact.zero_share, abs=0.01)
    assert found.zero_run_bits == pytest.approx(exact.zero_run_bits, rel=0.02)
    assert math.ceil(math.log2(found.levels)) == math.ceil(math.log2(exact.levels))
    assert dict(found.winograd_zero_shares) == pytest.approx(
        dict(exact.winograd_zero_shares), abs=0.01
    )


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("shape", [SHAPE, (65537, 1), (128, 513, 1, 1), (70, 40, 5, 5)])
def test_a_sample_of_packed_codes_is_decoded_from_few_bytes(
    name: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truth: all codes, as they were before they were packed; reading all of them is forbidden."""
    grid = GRIDS[name]
    rng = np.random.default_rng(4)
    weights = rng.dirichlet(np.ones(len(grid.codes)))
    codes = rng.choice(grid.codes, shape, p=weights)
    if len(shape) == 2:
        body, inputs = "y = MatMul (x, w)", f"float[1,{shape[0]}] x"
    else:
        body, inputs = "y = Conv (x, w)", f"float[1,{shape[1]},8,8] x"
    proto = int_model(body, {"w": codes.astype(np.float32)}, inputs=inputs)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "float.onnx")
    model = load_model(tmp_path / "float.onnx")
    (layer,) = model.find_layers().layers
    scale = np.ones((1,) * len(shape), np.float32)
    model.quantized[model.weight_name(layer)] = Affine(codes, scale, grid)
    pack(model, activations=False, keep_names=False)
    if grid.levels <= 16:
        monkeypatch.setattr(CodeReader, "read", lambda *args: pytest.fail("read whole"))
    (work,) = saved(model.to_proto(), tmp_path / "packed.onnx", "winograd")
    assert SAMPLED in work.assumed
    agree(measured(work), whole(codes, math.ceil(math.log2(grid.levels))))


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
def test_a_sample_of_floats_has_the_scales_of_the_whole(op: str, tmp_path: Path) -> None:
    """Channels of very different size and shape of distribution; truth: all of them rounded."""
    rng = np.random.default_rng(6)
    weight = rng.standard_t(rng.uniform(4, 30, (256, 1, 1, 1)), SHAPE)
    weight = (weight * rng.uniform(0.01, 3, (256, 1, 1, 1))).astype(np.float32)
    body, inputs = "y = Conv (x, w)", "float[1,96,8,8] x"
    if op == "MatMul":
        weight = weight.reshape(len(weight), -1).T.copy()
        body, inputs = "y = MatMul (x, w)", f"float[1,{len(weight)}] x"
    proto = int_model(body, {"w": weight}, inputs=inputs)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (work,) = saved(proto, tmp_path / "m.onnx", "winograd")
    assert work.assumed == f"{ROUNDED}; {SAMPLED}"
    agree(measured(work), whole(rounded(weight, channels=op == "Conv"), 8))


@pytest.mark.parametrize("dtype", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
def test_a_sample_of_four_bit_initializers(dtype: int, tmp_path: Path) -> None:
    low = -8 if dtype == onnx.TensorProto.INT4 else 0
    values = np.clip(np.random.default_rng(2).normal(low + 8, 2, (512, 300)), low, low + 15)
    values = values.astype(np.int8)
    proto = int_model(
        "w = DequantizeLinear (q, s) y = MatMul (x, w)",
        {"s": np.array(0.5, np.float32)},
        inputs="float[1,512] x",
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.initializer.append(
        onnx.helper.make_tensor("q", dtype, (512, 300), values.reshape(-1).tolist())
    )
    (work,) = saved(proto, tmp_path / "m.onnx")
    exact = whole(values, 4)
    agree(measured(work), exact)
    assert measured(work).levels == exact.levels


def test_a_sample_of_matmul_n_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    codes = np.clip(rng.normal(8, 2, (256, 32, 32)), 0, 15).astype(np.uint8)
    points = rng.integers(6, 11, (256, 32), dtype=np.uint8)
    arrays = {
        "q": codes[..., 0::2] | codes[..., 1::2] << 4,
        "s": np.ones(256 * 32, np.float32),
        "z": (points[:, 0::2] | points[:, 1::2] << 4).reshape(-1),
    }
    body = (
        "y = com.microsoft.MatMulNBits"
        " <K: int = 1024, N: int = 256, bits: int = 4, block_size: int = 32> (x, q, s, z)"
    )
    proto = int_model(body, arrays, inputs="float[1,1024] x")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (work,) = saved(proto, tmp_path / "m.onnx")
    exact = whole(codes.astype(np.int16) - points[..., None], 4)
    assert measured(work).count == codes.size
    assert measured(work).entropy_bits == pytest.approx(exact.entropy_bits, abs=ENTROPY_BITS)
    assert measured(work).zero_share == pytest.approx(exact.zero_share, abs=0.01)


@pytest.mark.parametrize("shape", [(65537,), (512, 512, 3, 3), (90, 31, 5, 5), (4096, 4096)])
def test_blocks_are_inside_apart_and_all_over(shape: tuple[int, ...]) -> None:
    blocks, size = spread(shape), math.prod(shape)
    last = blocks.start + (blocks.count - 1) * blocks.stride + blocks.length
    assert last <= size
    assert blocks.stride >= blocks.length
    assert blocks.start < 0.3 * size
    assert size - last < 0.3 * size
    positions = np.arange(size)
    part = blocks.of(positions)
    assert part.shape == (blocks.count, blocks.length)
    assert (part[1] - part[0] == blocks.stride).all()
    inner = blocks.over(5)
    assert inner is not None
    groups = np.arange(-(-size // 5) * 5).reshape(-1, 5)
    found = blocks.cut(inner.of(groups[:, 0])[..., None].repeat(5, -1).reshape(blocks.count, -1), 5)
    assert (found == part // 5 * 5).all()


def test_rare_levels_that_a_sample_misses_are_estimated() -> None:
    """Chao 1984 by hand: 2 levels seen once, 1 twice: 2 * 1 / (2 * 2) is no whole level more;
    5 seen once, none twice: 5 * 4 / 2 = 10 more, but not more than the width has."""
    few = np.array([0] * 50 + [1, 2, 3, 3], np.int8)
    assert statistics(few, 8, count=10**6).levels == 4
    once = np.array([0] * 50 + [1, 2, 3, 4, 5], np.int8)
    assert statistics(once, 8, count=10**6).levels == 6 + 10
    assert statistics(once, 3, count=10**6).levels == 8
    assert statistics(once, 8).levels == 6
