"""What happens to a graph on the way in, and that it computes the same afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import onnx.parser
import pytest
from oracle import relative_l2, run_reference, run_unoptimized
from tolerance import FLOAT32_GRAPH_RELATIVE_L2

from edgecompress.core.errors import Unsupported, UsageError
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.normalize import CODEC_KEY

Arrays = dict[str, np.ndarray]


def built(text: str, opset: int = 21, **constants: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return model


def loaded(tmp_path: Path, model: onnx.ModelProto, **options: object) -> Model:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return load_model(path, **options)  # type: ignore[arg-type]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def batch_norm(channels: int) -> Arrays:
    return {
        "g": normal(channels, seed=3),
        "h": normal(channels, seed=4),
        "m": normal(channels, seed=5),
        "v": np.abs(normal(channels, seed=6)) + 0.1,
    }


BEFORE_BATCH_NORM = {
    "Conv": ("a = Conv(x, w)", (4, 3, 3, 3), (2, 3, 6, 6), 4),
    "Conv with bias": ("a = Conv(x, w, h)", (4, 3, 3, 3), (2, 3, 6, 6), 4),
    "grouped Conv": ("a = Conv<group = 3>(x, w)", (6, 1, 3, 3), (2, 3, 6, 6), 6),
    "ConvTranspose": ("a = ConvTranspose<group = 2>(x, w)", (4, 3, 3, 3), (2, 4, 5, 5), 6),
    "Gemm": ("a = Gemm<transB = 1>(x, w, h)", (4, 7), (2, 7), 4),
    "MatMul": ("a = MatMul(x, w)", (7, 4), (2, 7), 4),
    "MatMul and Add": ("p = MatMul(x, w) a = Add(p, h)", (7, 4), (2, 7), 4),
}


@pytest.mark.parametrize("kind", BEFORE_BATCH_NORM)
def test_batch_norm_is_folded(tmp_path: Path, kind: str) -> None:
    body, weight, entering, channels = BEFORE_BATCH_NORM[kind]
    text = (
        f"g (float[{', '.join(map(str, entering))}] x) => (float[] y)"
        f" {{ {body} n = BatchNormalization<epsilon = 0.01>(a, g, h, m, v) y = Relu(n) }}"
    )
    original = built(text, w=normal(*weight), **batch_norm(channels))
    model = loaded(tmp_path, original)
    assert "BatchNormalization" not in operators(model)
    assert "folded 1 BatchNormalization into the layers before" in model.notes
    feed = {"x": normal(*entering, seed=7)}
    # The reference implementation does not run ConvTranspose with groups.
    run = run_unoptimized if kind == "ConvTranspose" else run_reference
    (expected,) = run(original, feed)
    (found,) = run_unoptimized(model.to_proto(), feed)
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


KEPT = {
    "two readers": "a = Conv(x, w) n = BatchNormalization(a, g, h, m, v) y = Add(a, n)",
    "before the layer": "n = BatchNormalization(x, g, h, m, v) y = Conv(n, w)",
    "shared weight": "b = Conv(x, w) a = Conv(b, w) y = BatchNormalization(a, g, h, m, v)",
    "training": ("a = Conv(x, w) y, mm, vv = BatchNormalization<training_mode = 1>(a, g, h, m, v)"),
}


@pytest.mark.parametrize("why", KEPT)
def test_batch_norm_stays_where_folding_would_change_something(tmp_path: Path, why: str) -> None:
    text = f"g (float[1, 3, 6, 6] x) => (float[] y) {{ {KEPT[why]} }}"
    original = built(text, w=normal(3, 3, 1, 1), **batch_norm(3))
    model = loaded(tmp_path, original)
    assert "BatchNormalization" in operators(model)
    feed = {"x": normal(1, 3, 6, 6, seed=7)}
    (expected,) = run_unoptimized(original, feed)
    (found,) = run_unoptimized(model.to_proto(), feed)
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv(x, w) y = Add(a, c)",
        "a = Conv(x, w) y = Sub(c, a)",
        "a = Conv(x, w) b = Mul(a, c) y = Div(b, s)",
    ],
)
def test_constants_per_channel_are_folded(tmp_path: Path, body: str) -> None:
    original = built(
        f"g (float[1, 3, 6, 6] x) => (float[] y) {{ {body} }}",
        w=normal(4, 3, 3, 3),
        c=normal(4, 1, 1, seed=1),
        s=np.array(3.0, np.float32),
    )
    model = loaded(tmp_path, original)
    assert operators(model) == ["Conv"]
    feed = {"x": normal(1, 3, 6, 6, seed=2)}
    (expected,) = run_reference(original, feed)
    (found,) = run_unoptimized(model.to_proto(), feed)
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


def test_constant_over_positions_is_not_folded(tmp_path: Path) -> None:
    text = "g (float[1, 3, 6, 6] x) => (float[] y) { a = Conv(x, w) y = Add(a, c) }"
    model = loaded(tmp_path, built(text, w=normal(4, 3, 3, 3), c=normal(4, seed=1)))
    assert operators(model) == ["Conv", "Add"]


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    text = """g (float[2, 3, 4] x) => (float[] y) {
        s = Shape(x) i = Constant<value = int64 {2}>() j = Constant<value_ints = [0]>()
        d = Gather(s, i) e = Unsqueeze(d, j) k = Constant<value_ints = [-1]>()
        n = Concat<axis = 0>(k, e) y = Reshape(x, n) }"""
    model = loaded(tmp_path, built(text))
    assert operators(model) == ["Reshape"]
    (found,) = run_unoptimized(model.to_proto(), {"x": normal(2, 3, 4)})
    np.testing.assert_array_equal(found, normal(2, 3, 4).reshape(-1, 4))


def test_weights_whose_parts_are_put_in_another_order_are_folded(tmp_path: Path) -> None:
    """As PyTorch's exporter writes the gates of a recurrent cell."""
    text = """g (float[3, 2, 5] x) => (float[3, 1, 2, 64] y) {
        z = Constant<value_ints = [0]>() one = Constant<value_ints = [64]>()
        two = Constant<value_ints = [128]>() three = Constant<value_ints = [192]>()
        end = Constant<value_ints = [256]>()
        a = Slice(w, z, one, z) b = Slice(w, one, two, z)
        c = Slice(w, two, three, z) d = Slice(w, three, end, z)
        t = Concat<axis = 0>(a, d, b, c) v = Unsqueeze(t, z)
        y, h, s = LSTM<hidden_size = 64>(x, v, r) }"""
    constants = {"w": normal(256, 5), "r": normal(1, 256, 64)}
    model = loaded(tmp_path, built(text, **constants))
    assert operators(model) == ["LSTM"]
    assert {layer.weight_shape for layer in model.find_layers().layers} == {
        (1, 256, 5),
        (1, 256, 64),
    }
    x = {"x": normal(3, 2, 5, seed=2)}
    (wanted,) = run_reference(built(text, **constants), x)[:1]
    (found,) = run_unoptimized(model.to_proto(), x)[:1]
    assert relative_l2(wanted, found) < FLOAT32_GRAPH_RELATIVE_L2


def test_parts_that_overlap_are_not_copied(tmp_path: Path) -> None:
    text = """g (float[300] x) => (float[300] y) {
        z = Constant<value_ints = [0]>() i = Constant<value_ints = [1]>()
        m = Constant<value_ints = [300]>() n = Constant<value_ints = [301]>()
        a = Slice(w, z, m) b = Slice(w, i, n) p = Add(x, a) y = Mul(p, b) }"""
    model = loaded(tmp_path, built(text, w=normal(301)))
    assert operators(model).count("Slice") == 2


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (
            "k = Constant<value_ints = [100000]>() z = ConstantOfShape(k) y = Add(x, z)",
            "ConstantOfShape",
        ),
        ("z = Expand(c, n) y = Add(x, z)", "Expand"),
        ("z = RandomNormal<shape = [4], seed = 1.0>() y = Add(x, z)", "RandomNormal"),
        ("z = DequantizeLinear(q, c) y = Add(x, z)", "DequantizeLinear"),
        ("f = Cast<to = 1>(q) z = Mul(f, c) y = Add(x, z)", "Cast"),
    ],
)
def test_what_would_unfold_the_file_is_left(tmp_path: Path, body: str, left: str) -> None:
    model = loaded(
        tmp_path,
        built(
            f"g (float[1] x) => (float[] y) {{ {body} }}",
            c=np.array([2.0], np.float32).reshape(()),
            n=np.array([50000]),
            q=np.ones(5000, np.int8),
        ),
    )
    assert left in operators(model)


def test_tied_weight_is_not_doubled(tmp_path: Path) -> None:
    text = """g (int64[2] i) => (float[] y) {
        e = Gather(w, i) t = Transpose<perm = [1, 0]>(w) y = MatMul(e, t) }"""
    model = loaded(tmp_path, built(text, w=normal(500, 8)))
    assert sum(v.const_value.nbytes for v in model.ir.graph.initializers.values()) < 17_000


def test_inputs_with_defaults_become_constants(tmp_path: Path) -> None:
    model = built(
        "g (float[1, 3] x, float[3, 2] w) => (float[] y) { y = MatMul(x, w) }", w=normal(3, 2)
    )
    found = loaded(tmp_path, model)
    assert [spec.name for spec in found.inputs()] == ["x"]
    assert "1 inputs with default values are now constants" in found.notes
    assert len(found.find_layers().layers) == 1


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 20])
def test_old_opsets_are_lifted(tmp_path: Path, opset: int) -> None:
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["a"]),
        oh.make_node("BatchNormalization", ["a", "g", "h", "m", "v"], ["b"]),
        oh.make_node("Relu", ["b"], ["c"]),
        oh.make_node("Flatten", ["c"], ["y"]),
    ]
    constants = {"w": normal(4, 3, 3, 3), **batch_norm(4)}
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", 1, ["n", 3, 6, 6])],
        [oh.make_tensor_value_info("y", 1, ["n", 64])],
        [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    original = oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=4)
    model = loaded(tmp_path, original)
    assert model.ir.opset_imports[""] == 21
    assert f"opset {opset} lifted to 21" in model.notes
    feed = {"x": normal(2, 3, 6, 6, seed=1)}
    (expected,) = run_unoptimized(original, feed)
    (found,) = run_unoptimized(model.to_proto(), feed)
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


@pytest.mark.parametrize("opset", [21, 23, 25])
def test_new_opsets_are_kept(tmp_path: Path, opset: int) -> None:
    text = "g (float[1, 3] x) => (float[1, 2] y) { y = MatMul(x, w) }"
    assert loaded(tmp_path, built(text, opset, w=normal(3, 2))).ir.opset_imports[""] == opset


def test_unliftable_opset_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Scan had a batch axis up to opset 8; no converter carries it over."""
    body = oh.make_graph(
        [oh.make_node("Add", ["s", "e"], ["t"]), oh.make_node("Identity", ["t"], ["o"])],
        "body",
        [oh.make_tensor_value_info(n, 1, [2]) for n in ("s", "e")],
        [oh.make_tensor_value_info(n, 1, [2]) for n in ("t", "o")],
    )
    graph = oh.make_graph(
        [oh.make_node("Scan", ["", "i", "x"], ["y", "z"], body=body, num_scan_inputs=1)],
        "g",
        [oh.make_tensor_value_info("i", 1, [1, 2]), oh.make_tensor_value_info("x", 1, [1, 3, 2])],
        [oh.make_tensor_value_info("y", 1, [1, 2]), oh.make_tensor_value_info("z", 1, [1, 3, 2])],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 8)], ir_version=3)
    with pytest.raises(Unsupported, match="opset 8 cannot be lifted to 21"):
        loaded(tmp_path, model)


def test_model_functions_are_inlined(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[1, 3] x) => (float[1, 2] y) { y = local.linear(x, w) }
        <opset_import: ["" : 21], domain: "local"> linear (a, b) => (c) { c = MatMul(a, b) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(normal(3, 2), "w"))
    found = loaded(tmp_path, model)
    assert len(found.find_layers().layers) == 1
    assert not found.ir.functions


def test_packed_files_are_left_as_they_are(tmp_path: Path) -> None:
    text = "g (float[1, 3] x) => (float[1, 2] y) { k = Identity(w) y = MatMul(x, k) }"
    model = built(text, 17, w=normal(3, 2))
    model.metadata_props.add(key=CODEC_KEY, value="1")
    found = loaded(tmp_path, model)
    assert operators(found) == ["Identity", "MatMul"]
    assert found.ir.opset_imports[""] == 17
    assert found.notes == ["packed by edgecompress before: left as it is"]


def test_without_normalize_nothing_changes(tmp_path: Path) -> None:
    text = "g (float[1, 3] x) => (float[1, 2] y) { k = Identity(w) y = MatMul(x, k) }"
    found = loaded(tmp_path, built(text, 17, w=normal(3, 2)), normalize=False)
    assert operators(found) == ["Identity", "MatMul"]
    assert found.ir.opset_imports[""] == 17


def test_model_that_onnxruntime_cannot_run_is_noted(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.evil" : 1]>
        g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) { a = com.evil.Foo(x) y = Conv(a, w) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 3, 3, 3), "w"))
    found = loaded(tmp_path, model)
    assert "com.evil" in found.notes[0]
    assert found.notes[0].startswith("not compared with the original: ")
    assert operators(found) == ["Foo", "Conv"]


def test_indices_of_a_table_of_one_row_are_compared(tmp_path: Path) -> None:
    """Made-up indices name the row that there is; any other would be an error of the original."""
    text = "g (int64[N,9] x) => (float[N,9,4] y) { y = Gather(w, x) }"
    found = loaded(tmp_path, built(text, opset=17, w=normal(1, 4)))
    assert not [note for note in found.notes if "not compared" in note]


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    text = "g (float[1, 3] x) => (float[1, 3] y) { a = Relu(x) y = Neg(a) }"
    model = built(text)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    found = loaded(tmp_path, model)
    assert operators(found) == ["Relu", "Neg"]
    assert "put the nodes into topological order" in found.notes


def test_input_shapes_give_counts_and_are_checked(tmp_path: Path) -> None:
    text = "g (float[1, 3, H, W] x) => (float[] y) { y = Conv(x, w) }"
    model = built(text, w=normal(4, 3, 3, 3))
    assert loaded(tmp_path, model).find_layers().layers[0].macs is None
    given = loaded(tmp_path, model, input_shapes={"x": (1, 3, 10, 12)})
    assert given.find_layers().layers[0].macs == 4 * 27 * 8 * 10
    assert given.inputs()[0].shape == (1, 3, None, None)
    for shapes in ({"q": (1, 3, 10, 12)}, {"x": (1, 4, 10, 12)}, {"x": (1, 3, 10)}):
        with pytest.raises(UsageError):
            loaded(tmp_path, model, input_shapes=shapes)
