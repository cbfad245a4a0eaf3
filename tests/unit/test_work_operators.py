"""Counts of operators by hand calculation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecompress.core.errors import Unsupported
from edgecompress.core.work import AssumedBits, ConvWork, ElementWork, MatMulWork, Work
from edgecompress.graph.model import load_model
from edgecompress.graph.work import derive_work

Weights = dict[str, tuple[int, ...]]


def works_of(
    body: str,
    signature: str,
    weights: Weights | None = None,
    *,
    tmp_path: Path,
    shapes: dict[str, tuple[int, ...]] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> tuple[Work, ...]:
    text = (
        f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
        f" g {signature} {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    arrays = {name: np.ones(shape, np.float32) for name, shape in (weights or {}).items()}
    for name, array in (arrays | (constants or {})).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return derive_work(load_model(path, normalize=False), shapes or {})


PRODUCTS = [
    # A 3x3 convolution with stride 2 and padding: 16 outputs a side.
    (
        "y = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2]> (x, w)",
        "(float[2,3,32,32] x) => (float[2,8,16,16] y)",
        {"w": (8, 3, 3, 3)},
        2 * 16 * 16 * 9 * 3 * 8,
    ),
    (
        'y = Conv <group: int = 4, auto_pad: string = "SAME_UPPER"> (x, w)',
        "(float[1,4,9,9] x) => (float[1,8,9,9] y)",
        {"w": (8, 1, 3, 3)},
        81 * 9 * 8,
    ),
    (
        "y = Conv <strides: ints = [4]> (x, w)",
        "(float[1,2,64] x) => (float[1,5,15] y)",
        {"w": (5, 2, 8)},
        15 * 8 * 2 * 5,
    ),
    (
        "y = Conv (x, w)",
        "(float[1,2,5,6,7] x) => (float[1,3,4,5,6] y)",
        {"w": (3, 2, 2, 2, 2)},
        4 * 5 * 6 * 8 * 2 * 3,
    ),
    (
        "y = ConvTranspose <strides: ints = [2,2]> (x, w)",
        "(float[1,4,8,8] x) => (float[1,3,16,16] y)",
        {"w": (4, 3, 2, 2)},
        64 * 4 * 4 * 3,
    ),
    (
        "y = ConvTranspose <strides: ints = [2,2], group: int = 2> (x, w)",
        "(float[1,4,8,8] x) => (float[1,6,16,16] y)",
        {"w": (4, 3, 2, 2)},
        64 * 4 * 4 * 3,
    ),
    ("y = Gemm <transB: int = 1> (x, w)", "(float[5,7] x) => (float[5,3] y)", {"w": (3, 7)}, 105),
    (
        "y = Gemm <transA: int = 1> (x, w)",
        "(float[7,5] x) => (float[5,3] y)",
        {"w": (7, 3)},
        105,
    ),
    ("y = MatMul (x, w)", "(float[2,5,7] x) => (float[2,5,3] y)", {"w": (7, 3)}, 210),
    ("y = MatMul (w, x)", "(float[2,7,5] x) => (float[2,3,5] y)", {"w": (3, 7)}, 210),
    ("y = MatMul (x, w)", "(float[7] x) => (float[3] y)", {"w": (7, 3)}, 21),
    ("y = MatMul (x, w)", "(float[4,5,7] x) => (float[4,5,3] y)", {"w": (4, 7, 3)}, 420),
    ("y = MatMul (x, z)", "(float[2,4,5,7] x, float[2,4,7,3] z) => (float[2,4,5,3] y)", {}, 840),
    (
        'y = Einsum <equation: string = "bik,kj->bij"> (x, w)',
        "(float[2,5,7] x) => (float[2,5,3] y)",
        {"w": (7, 3)},
        210,
    ),
]


@pytest.mark.parametrize(("body", "signature", "weights", "macs"), PRODUCTS)
def test_multiply_accumulates(
    body: str, signature: str, weights: Weights, macs: int, tmp_path: Path
) -> None:
    works = works_of(body, signature, weights, tmp_path=tmp_path)
    assert len(works) == 1
    operator = works[0].operator
    assert isinstance(operator, ConvWork | MatMulWork)
    assert operator.macs == macs
    if weights:
        elements = sum(int(np.prod(shape)) for shape in weights.values())
        assert operator.weight_storage_bits == 32 * elements
        assert operator.weight_bits == 32


CELLS = [
    (
        "y = LSTM <hidden_size: int = 6> (x, w, r)",
        "(float[10,2,5] x) => (float[10,1,2,6] y)",
        {"w": (1, 24, 5), "r": (1, 24, 6)},
        (10 * 2 * 24 * 5, 10 * 2 * 24 * 6),
    ),
    (
        'y = GRU <hidden_size: int = 6, direction: string = "bidirectional"> (x, w, r)',
        "(float[10,2,5] x) => (float[10,2,2,6] y)",
        {"w": (2, 18, 5), "r": (2, 18, 6)},
        (2 * 10 * 2 * 18 * 5, 2 * 10 * 2 * 18 * 6),
    ),
    (
        "y = RNN <hidden_size: int = 6, layout: int = 1> (x, w, r)",
        "(float[2,10,5] x) => (float[2,10,1,6] y)",
        {"w": (1, 6, 5), "r": (1, 6, 6)},
        (10 * 2 * 6 * 5, 10 * 2 * 6 * 6),
    ),
]


@pytest.mark.parametrize(("body", "signature", "weights", "macs"), CELLS)
def test_recurrent_cells_are_two_products_and_gates(
    body: str, signature: str, weights: Weights, macs: tuple[int, int], tmp_path: Path
) -> None:
    inputs, states, gates = works_of(body, signature, weights, tmp_path=tmp_path)
    assert isinstance(inputs.operator, MatMulWork)
    assert isinstance(states.operator, MatMulWork)
    assert isinstance(gates.operator, ElementWork)
    assert (inputs.operator.macs, states.operator.macs) == macs
    assert (inputs.operator.repeats, states.operator.repeats) == (1, 10)
    stored = [32 * int(np.prod(shape)) for shape in weights.values()]
    assert [inputs.operator.weight_storage_bits, states.operator.weight_storage_bits] == stored
    assert gates.operator.operations > 0
    assert [work.assumed for work in (inputs, states, gates)] == ["", "", ""]
    # What one part writes is what the next reads.
    assert gates.reads == (*inputs.writes, *states.writes)


# Batch 2, 4 heads of 8, 5 rows: scores and values take 2 * 4 * 5 * length * 8 products each.
ATTENTION = [
    (
        "y = Attention <q_num_heads: int = 4, kv_num_heads: int = 4> (q, k, v)",
        "(float[2,5,32] q, float[2,7,32] k, float[2,7,32] v) => (float[2,5,32] y)",
        2 * (2 * 4 * 5 * 7 * 8),
    ),
    (
        "y = Attention (q, k, v)",
        "(float[2,4,5,8] q, float[2,2,7,8] k, float[2,2,7,3] v) => (float[2,4,5,3] y)",
        2 * 4 * 5 * 7 * (8 + 3),
    ),
    (
        "y = com.microsoft.MultiHeadAttention <num_heads: int = 4> (q, k, v)",
        "(float[2,5,32] q, float[2,7,32] k, float[2,7,32] v) => (float[2,5,32] y)",
        2 * (2 * 4 * 5 * 7 * 8),
    ),
    (
        "y, pk, pv = com.microsoft.GroupQueryAttention"
        " <num_heads: int = 4, kv_num_heads: int = 2> (q, k, v, ok, ov, l, t)",
        "(float[2,1,32] q, float[2,1,16] k, float[2,1,16] v, float[2,2,6,8] ok,"
        " float[2,2,6,8] ov, int32[2] l, int32[1] t)"
        " => (float[2,1,32] y, float[2,2,7,8] pk, float[2,2,7,8] pv)",
        2 * (2 * 4 * 1 * 7 * 8),
    ),
]


@pytest.mark.parametrize(("body", "signature", "macs"), ATTENTION)
def test_attention_is_two_products_and_a_softmax(
    body: str, signature: str, macs: int, tmp_path: Path
) -> None:
    """Truth: by hand from softmax(Q K^T) V."""
    works = works_of(body, signature, tmp_path=tmp_path, opset=23)
    scores, softmax, values = works
    assert isinstance(scores.operator, MatMulWork)
    assert isinstance(values.operator, MatMulWork)
    assert isinstance(softmax.operator, ElementWork)
    assert scores.operator.macs + values.operator.macs == macs
    assert softmax.reads == scores.writes
    assert softmax.writes[0] in values.reads
    assert not any(work.assumed for work in works)


def test_attention_with_its_projection(tmp_path: Path) -> None:
    works = works_of(
        "y = com.microsoft.Attention <num_heads: int = 4> (x, w, b)",
        "(float[2,5,16] x) => (float[2,5,32] y)",
        {"w": (16, 96), "b": (96,)},
        tmp_path=tmp_path,
    )
    products = [work.operator for work in works if isinstance(work.operator, MatMulWork)]
    assert [product.macs for product in products] == [
        2 * 5 * 16 * 96,
        2 * 4 * 5 * 5 * 8,
        2 * 4 * 5 * 5 * 8,
    ]
    assert products[0].weight_storage_bits == 32 * 16 * 96


@pytest.mark.parametrize(
    ("body", "signature", "operations"),
    [
        # A sort of 4 rows of 8: 3 comparisons an element.
        ("v, i = TopK (x, k)", "(float[4,8] x, int64[1] k) => (float[4,8] v, int64[4,8] i)", 96),
        # 5 n log2 n for n = 16.
        ("y = DFT (x)", "(float[1,16,1] x) => (float[1,16,2] y)", 5 * 16 * 4),
        ("y = com.microsoft.FastGelu (x)", "(float[4,8] x) => (float[4,8] y)", 8 * 32),
    ],
)
def test_operators_with_a_count_of_their_own(
    body: str, signature: str, operations: int, tmp_path: Path
) -> None:
    (work,) = works_of(body, signature, tmp_path=tmp_path, opset=19)
    assert isinstance(work.operator, ElementWork)
    assert work.operator.operations == operations
    assert "unknown" not in work.assumed


@pytest.mark.parametrize(("activations", "weights"), [(8, 4), (16, 32)])
def test_assumed_bits_are_those_of_floats_only(
    activations: int, weights: int, tmp_path: Path
) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1,4,8,8] x) => (int64[1,1,8,8] y)'
        " { a = Conv (x, w, b) b2 = Relu (a) y = ArgMax <axis: int = 1> (b2) }"
    )
    proto = onnx.parser.parse_model(text)
    for name, shape in (("w", (6, 4, 1, 1)), ("b", (6,))):
        array = np.ones(shape, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx", normalize=False)
    conv, relu, index = derive_work(
        model, {}, assumed=AssumedBits(activations=activations, weights=weights)
    )
    assert isinstance(conv.operator, ConvWork)
    assert (conv.operator.activation_bits, conv.operator.weight_bits) == (activations, weights)
    assert conv.operator.weight_storage_bits == 24 * weights
    assert conv.input_bits == 4 * 64 * activations
    assert relu.output_bits == 6 * 64 * activations
    assert index.output_bits == 64 * 64


def test_activations_have_one_name_for_all_that_read_them(tmp_path: Path) -> None:
    works = works_of(
        "a = Conv (x, w) b = Relu (a) y = Add (b, x)",
        "(float[1,4,8,8] x) => (float[1,4,8,8] y)",
        {"w": (4, 4, 1, 1)},
        tmp_path=tmp_path,
    )
    assert [[use.name for use in work.reads] for work in works] == [["x"], ["a"], ["b", "x"]]
    assert [[use.name for use in work.writes] for work in works] == [["a"], ["b"], ["y"]]
    for work in works:
        assert sum(use.bits for use in work.reads) == work.input_bits
        assert {use.width_bits for use in work.writes} == {32}


def test_bodies_read_and_write_what_is_outside(tmp_path: Path) -> None:
    works = works_of(
        LOOP + " z = Relu (y)",
        "(float[1,7] x) => (float[1,7] z)",
        {"w": (7, 7)},
        tmp_path=tmp_path,
        constants={"t": np.array(True), "n": np.array(3, np.int64)},
    )
    product = next(work for work in works if work.op_type == "MatMul")
    assert [use.name for use in product.reads] == ["x"]
    assert [use.name for use in product.writes] == ["y"]
    branch = works_of(
        IF + " z = Relu (y)",
        "(float[1,7] x, bool c) => (float[1,3] z)",
        {"w": (7, 3), "u": (7, 7)},
        tmp_path=tmp_path,
    )
    assert [use.name for use in branch[-2].writes] == ["y"]
    inside = branch[0].writes[0].name
    assert inside != "a"
    assert branch[1].reads[0].name == inside


def test_a_loop_that_never_runs_is_no_work(tmp_path: Path) -> None:
    works = works_of(
        LOOP,
        "(float[1,7] x) => (float[1,7] y)",
        {"w": (7, 7)},
        tmp_path=tmp_path,
        constants={"t": np.array(True), "n": np.array(0, np.int64)},
    )
    assert works == ()


def test_one_axis_has_height_one(tmp_path: Path) -> None:
    body, signature, weights, _ = PRODUCTS[2]
    operator = works_of(body, signature, weights, tmp_path=tmp_path)[0].operator
    assert isinstance(operator, ConvWork)
    assert (operator.in_height, operator.out_height, operator.kernel) == (1, 1, (1, 8))
    assert operator.stride == (1, 4)


def test_three_axes_are_flagged(tmp_path: Path) -> None:
    body, signature, weights, _ = PRODUCTS[3]
    assert "more than two axes" in works_of(body, signature, weights, tmp_path=tmp_path)[0].assumed


def test_integer_products(tmp_path: Path) -> None:
    works = works_of(
        "q, s, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, w, z)"
        " f = Cast <to: int = 1> (i) p = Mul (f, s) y = Add (p, b)",
        "(float[5,7] x) => (float[5,3] y)",
        tmp_path=tmp_path,
        constants={"w": np.ones((7, 3), np.int8), "b": np.ones(3, np.float32)},
    )
    product = works[1].operator
    assert isinstance(product, MatMulWork)
    assert [work.operator.fused for work in works[2:]] == [True, True, True]
    assert (product.macs, product.activation_bits, product.weight_bits) == (105, 8, 8)
    assert works[1].input_bits == (35 + 1) * 8


def test_quantized_convolution(tmp_path: Path) -> None:
    works = works_of(
        "y = QLinearConv (x, s, z, w, s, zw, s, z)",
        "(uint8[1,3,8,8] x) => (uint8[1,4,6,6] y)",
        tmp_path=tmp_path,
        constants={
            "w": np.ones((4, 3, 3, 3), np.int8),
            "s": np.array(1, np.float32),
            "z": np.array(0, np.uint8),
            "zw": np.array(0, np.int8),
        },
    )
    operator = works[0].operator
    assert isinstance(operator, ConvWork)
    assert (operator.macs, operator.activation_bits) == (36 * 27 * 4, 8)
    assert works[0].output_bits == 4 * 36 * 8


def test_embedding_reads_the_rows_that_are_looked_up(tmp_path: Path) -> None:
    works = works_of(
        "y = Gather (t, i)", "(int64[5] i) => (float[5,16] y)", {"t": (100, 16)}, tmp_path=tmp_path
    )
    operator = works[0].operator
    assert isinstance(operator, ElementWork)
    assert operator.weight_storage_bits == 5 * 16 * 32
    assert operator.written_bits == 5 * 16 * 32
    assert operator.movement


def test_bounds_are_fused_to_convolutions_and_sums_but_a_residual_is_not(tmp_path: Path) -> None:
    works = works_of(
        "a = Conv (x, w) b = Relu (a) c = Conv (b, v) d = Add (c, x) y = Relu (d)",
        "(float[1,4,8,8] x) => (float[1,4,8,8] y)",
        {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1)},
        tmp_path=tmp_path,
    )
    assert [work.op_type for work in works] == ["Conv", "Relu", "Conv", "Add", "Relu"]
    assert [work.operator.fused for work in works[1::2]] == [True, False]
    assert works[4].operator.fused


def test_a_bound_is_not_fused_to_what_is_read_twice(tmp_path: Path) -> None:
    works = works_of(
        "a = Conv (x, w) b = Relu (a) y = Sub (a, b)",
        "(float[1,4,8,8] x) => (float[1,4,8,8] y)",
        {"w": (4, 4, 1, 1)},
        tmp_path=tmp_path,
    )
    assert not works[1].operator.fused


def test_shapes_cost_nothing_and_elements_are_counted(tmp_path: Path) -> None:
    works = works_of(
        "s = Shape (x) r = Reshape (x, s) y = Softmax (r)",
        "(float[4,8] x) => (float[4,8] y)",
        tmp_path=tmp_path,
    )
    assert [work.operator.free for work in works] == [True, True, False]
    assert works[2].operator.operations >= 4 * 8
    assert works[2].operator.read_bits == 4 * 8 * 32
    assert all(work.assumed == "" for work in works)


def test_unknown_operator_is_bound_by_memory_and_flagged(tmp_path: Path) -> None:
    works = works_of(
        "y = com.microsoft.CDist (x, b)",
        "(float[4,8] x) => (float[4,8] y)",
        {"b": (8,)},
        tmp_path=tmp_path,
    )
    assert "com.microsoft::CDist" in works[0].assumed
    assert works[0].operator.read_bits == 4 * 8 * 32


def test_constant_branches_are_no_operators(tmp_path: Path) -> None:
    works = works_of(
        "w = Transpose (v) y = MatMul (x, w)",
        "(float[5,7] x) => (float[5,3] y)",
        {"v": (3, 7)},
        tmp_path=tmp_path,
    )
    assert [work.op_type for work in works] == ["MatMul"]


IF = """
y = If (c) <
  then_branch = t () => (float[1,3] p) { p = MatMul (x, w) },
  else_branch = e () => (float[1,3] q) { a = MatMul (x, u) b = Relu (a) q = MatMul (b, w) }
>
"""


def test_if_counts_the_costlier_branch(tmp_path: Path) -> None:
    works = works_of(
        IF,
        "(float[1,7] x, bool c) => (float[1,3] y)",
        {"w": (7, 3), "u": (7, 7)},
        tmp_path=tmp_path,
    )
    assert [work.op_type for work in works] == ["MatMul", "Relu", "MatMul"]
    assert all("costlier branch" in work.assumed for work in works)
    assert sum(work.operator.macs for work in works if work.op_type == "MatMul") == 49 + 21


LOOP = """
y = Loop (n, t, x) <body = b (int64 i, bool go, float[1,7] s) => (bool g, float[1,7] r) {
  g = Identity (go) r = MatMul (s, w)
}>
"""


@pytest.mark.parametrize(("times", "words"), [(5, "times its trip count"), (None, "counted once")])
def test_loop_counts_its_body(times: int | None, words: str, tmp_path: Path) -> None:
    more = "" if times else ", int64 n"
    constants = {"t": np.array(True)} | ({"n": np.array(times, np.int64)} if times else {})
    works = works_of(
        LOOP,
        f"(float[1,7] x{more}) => (float[1,7] y)",
        {"w": (7, 7)},
        tmp_path=tmp_path,
        constants=constants,
    )
    product = next(work for work in works if work.op_type == "MatMul")
    assert words in product.assumed
    assert product.operator.macs == 49 * (times or 1)


def test_a_loop_without_end_is_not_run(tmp_path: Path) -> None:
    works = works_of(
        LOOP + " z = MatMul (y, w)",
        "(float[1,7] x) => (float[a,b] z)",
        {"w": (7, 7)},
        tmp_path=tmp_path,
        constants={"t": np.array(True), "n": np.array(2**62, np.int64)},
    )
    assert works[-1].op_type == "MatMul"
    assert works[-1].operator.macs == 49
    assert "a shape is not known" in works[-1].assumed


def test_shapes_that_depend_on_data_are_measured(tmp_path: Path) -> None:
    """Zeros have one non-zero among [0, 0, 1]: the slice has 1 row."""
    works = works_of(
        "s = Add (x, o) n = NonZero (s) t = Transpose (n) f = Cast <to: int = 1> (t)"
        " y = MatMul (f, w)",
        "(float[3] x) => (float[k,4] y)",
        {"w": (1, 4)},
        tmp_path=tmp_path,
        constants={"o": np.array([0, 0, 1], np.float32)},
    )
    product = works[-1].operator
    assert isinstance(product, MatMulWork)
    assert product.rows == 1
    assert works[-1].assumed == ""


def test_open_batch_is_one_and_given_shapes_count(tmp_path: Path) -> None:
    signature = "(float[N,7] x) => (float[N,3] y)"
    works = works_of("y = MatMul (x, w)", signature, {"w": (7, 3)}, tmp_path=tmp_path)
    assert works[0].operator.macs == 21
    given = works_of(
        "y = MatMul (x, w)", signature, {"w": (7, 3)}, tmp_path=tmp_path, shapes={"x": (4, 7)}
    )
    assert given[0].operator.macs == 84
    assert given[0].assumed == ""


def test_other_open_axes_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"'x' has an open shape.*--input-shape x="):
        works_of("y = Relu (x)", "(float[1,3,h,w] x) => (float[1,3,h,w] y)", tmp_path=tmp_path)


def test_the_second_half_of_a_pair_does_nothing(tmp_path: Path) -> None:
    """Rounding takes time where it is not fused; saying that a value is kept in 8 bits does not."""
    works = works_of(
        "a = Conv (x, w) q = QuantizeLinear (a, s, z) d = DequantizeLinear (q, s, z)"
        " y = Conv (d, w)",
        "(float[1,4,8,8] x) => (float[1,4,8,8] y)",
        tmp_path=tmp_path,
        constants={
            "w": np.ones((4, 4, 1, 1), np.float32),
            "s": np.array(0.1, np.float32),
            "z": np.array(0, np.int8),
        },
    )
    first, rounding, notation, second = works
    assert isinstance(rounding.operator, ElementWork)
    assert isinstance(notation.operator, ElementWork)
    assert (rounding.operator.free, rounding.operator.fused) == (False, True)
    assert notation.operator.free
    assert [first.output_bits, second.input_bits] == [4 * 64 * 8] * 2
