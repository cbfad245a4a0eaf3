"""Layers are found in every form that ONNX has for them, and replaced without changing the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from oracle import convolve, relative_l2, run_unoptimized
from tolerance import FLOAT32_FULL_RANK_RELATIVE_L2, FLOAT32_GRAPH_RELATIVE_L2

from edgecompress.core.grids import GRIDS
from edgecompress.core.stages import Conv, Embedding, MatMul, Permute, Recurrent, Reshape
from edgecompress.core.tensors import Affine, Dense
from edgecompress.graph.model import Model, load_model

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def read(tmp_path: Path, text: str, header: str = HEADER, **constants: np.ndarray) -> Model:
    path = tmp_path / "model.onnx"
    path.write_bytes(built(text, header, **constants).SerializeToString())
    return load_model(path)


def built(text: str, header: str = HEADER, **constants: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(header + text.replace("<>", ""))
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return model


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


CONVOLUTIONS = {
    "plain": ("", (4, 3, 3, 3), (1, 3, 8, 8), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "strided": ("strides = [2, 1]", (4, 3, 3, 3), (1, 3, 8, 8), (2, 1), (0, 0, 0, 0), (1, 1), 1),
    "asymmetric": (
        "pads = [0, 1, 2, 3]",
        (4, 3, 3, 3),
        (1, 3, 8, 8),
        (1, 1),
        (0, 1, 2, 3),
        (1, 1),
        1,
    ),
    "dilated": ("dilations = [2, 2]", (4, 3, 3, 3), (1, 3, 9, 9), (1, 1), (0, 0, 0, 0), (2, 2), 1),
    "grouped": ("group = 2", (4, 3, 3, 3), (1, 6, 8, 8), (1, 1), (0, 0, 0, 0), (1, 1), 2),
    "depthwise": ("group = 4", (4, 1, 3, 3), (1, 4, 8, 8), (1, 1), (0, 0, 0, 0), (1, 1), 4),
    "same upper": (
        'auto_pad = "SAME_UPPER", strides = [2, 2]',
        (4, 3, 2, 5),
        (1, 3, 8, 8),
        (2, 2),
        (0, 1, 0, 2),
        (1, 1),
        1,
    ),
    "same lower": (
        'auto_pad = "SAME_LOWER", strides = [2, 2]',
        (4, 3, 2, 4),
        (1, 3, 7, 7),
        (2, 2),
        (1, 2, 0, 1),
        (1, 1),
        1,
    ),
    "one-dimensional": ("pads = [1, 0]", (4, 3, 3), (1, 3, 8), (1,), (1, 0), (1,), 1),
    "three-dimensional": ("", (2, 3, 2, 2, 2), (1, 3, 4, 4, 4), (1, 1, 1), (0,) * 6, (1, 1, 1), 1),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_read_as_the_standard_has_them(tmp_path: Path, name: str) -> None:
    attributes, weight, entering, stride, pads, dilation, group = CONVOLUTIONS[name]
    sizes = ", ".join(map(str, entering))
    model = read(
        tmp_path,
        f"g (float[{sizes}] x) => (float[] y) {{ y = Conv<{attributes}>(x, w, b) }}",
        w=normal(*weight),
        b=normal(weight[0], seed=1),
    )
    (layer,) = model.find_layers().layers
    assert layer.stage == Conv(
        weight=layer.stage.weight, stride=stride, pads=pads, dilation=dilation, group=group
    )
    assert layer.weight_shape == weight
    x = normal(*entering, seed=2)
    expected = convolve(x, normal(*weight), stride, pads, dilation, group)
    expected += normal(weight[0], seed=1).reshape(-1, *(1,) * len(stride))
    assert layer.output_shape == expected.shape
    # Every output value takes one product for each weight of its channel.
    assert layer.macs == expected.size * np.prod(weight[1:])
    (found,) = run_unoptimized(model.to_proto(), {"x": x})
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


PRODUCTS = {
    "MatMul": ("y = MatMul(x, w)", (5, 3), None, lambda x, w, b: x @ w),
    "MatMul and Add": ("p = MatMul(x, w) y = Add(p, b)", (5, 3), (3,), lambda x, w, b: x @ w + b),
    "Add first": ("p = MatMul(x, w) y = Add(b, p)", (5, 3), (1, 3), lambda x, w, b: x @ w + b),
    "Gemm": ("y = Gemm(x, w, b)", (5, 3), (3,), lambda x, w, b: x @ w + b),
    "Gemm transB": ("y = Gemm<transB = 1>(x, w, b)", (3, 5), (3,), lambda x, w, b: x @ w.T + b),
    "Gemm without bias": ("y = Gemm<transB = 1>(x, w)", (3, 5), None, lambda x, w, b: x @ w.T),
    "Gemm with factors": (
        "y = Gemm<alpha = 0.5, beta = 2.0>(x, w, b)",
        (5, 3),
        (3,),
        lambda x, w, b: 0.5 * (x @ w) + 2 * b,
    ),
    "Gemm with a scalar": ("y = Gemm(x, w, b)", (5, 3), (1,), lambda x, w, b: x @ w + b),
    "Gemm and a matrix": ("y = Gemm(x, w, b)", (5, 3), (4, 3), lambda x, w, b: x @ w + b),
    "Gemm of a turned input": (
        "t = Transpose<perm = [1, 0]>(x) y = Gemm<transA = 1>(t, w, b)",
        (5, 3),
        (3,),
        lambda x, w, b: x @ w + b,
    ),
    "Transpose of the weight": (
        "t = Transpose<perm = [1, 0]>(w) y = MatMul(x, t)",
        (3, 5),
        None,
        lambda x, w, b: x @ w.T,
    ),
    "Identity of the weight": (
        "t = Identity(w) y = MatMul(x, t)",
        (5, 3),
        None,
        lambda x, w, b: x @ w,
    ),
    "Gemm and Add": ("p = Gemm(x, w) y = Add(p, b)", (5, 3), (3,), lambda x, w, b: x @ w + b),
    "scaled after": ("p = MatMul(x, w) y = Mul(p, b)", (5, 3), (3,), lambda x, w, b: (x @ w) * b),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_in_every_orientation(tmp_path: Path, name: str) -> None:
    body, weight, bias, truth = PRODUCTS[name]
    constants = {"w": normal(*weight)} | ({} if bias is None else {"b": normal(*bias, seed=1)})
    model = read(tmp_path, f"g (float[4, 5] x) => (float[4, 3] y) {{ {body} }}", **constants)
    (layer,) = model.find_layers().layers
    x = normal(4, 5, seed=2)
    expected = truth(x, constants["w"], constants.get("b"))
    # The layer itself says y = x W^T + b; a bias that is a matrix stays outside.
    if name != "Gemm and a matrix":
        own = x @ layer.stage.weight.to_dense().T + (0 if layer.bias is None else layer.bias)
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
    assert layer.weight_shape == (3, 5)
    assert layer.macs == 4 * 3 * 5
    (found,) = run_unoptimized(model.to_proto(), {"x": x})
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *PRODUCTS])
def test_a_full_rank_chain_gives_the_same_output(tmp_path: Path, name: str) -> None:
    if name in CONVOLUTIONS:
        attributes, weight, entering, *_ = CONVOLUTIONS[name]
        body = f"y = Conv<{attributes}>(x, w, b)"
        constants = {"w": normal(*weight), "b": normal(weight[0], seed=1)}
    else:
        body, weight, bias, _ = PRODUCTS[name]
        entering = (4, 5)
        constants = {"w": normal(*weight)} | ({} if bias is None else {"b": normal(*bias, seed=1)})
    sizes = ", ".join(map(str, entering))
    model = read(tmp_path, f"g (float[{sizes}] x) => (float[] y) {{ {body} }}", **constants)
    feed = {"x": normal(*entering, seed=2)}
    (before,) = run_unoptimized(model.to_proto(), feed)
    (layer,) = model.find_layers().layers
    last = layer.stage
    width = entering[1]
    if isinstance(last, Conv):
        axes = len(last.stride)
        ones, eye = (1,) * axes, np.eye(width, dtype=np.float32)
        first = Conv(
            weight=Dense(eye.reshape(width, width, *ones)),
            stride=ones,
            pads=(0,) * (2 * axes),
            dilation=ones,
        )
    else:
        first = MatMul(weight=Dense(np.eye(width, dtype=np.float32)))
    assert model.replace(layer, [first, last], layer.bias) == 2
    onnx.checker.check_model(model.to_proto())
    (after,) = run_unoptimized(model.to_proto(), feed)
    assert relative_l2(after, before) < FLOAT32_FULL_RANK_RELATIVE_L2
    found = model.find_layers().layers
    assert [one.weight_shape for one in found] == [first.weight.shape, last.weight.shape]
    assert [one.name for one in found] == [f"{layer.name}/0", f"{layer.name}/1"]
    assert {model.origins[one.name] for one in found} == {layer.name}


def test_reshape_and_permute_stages(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        "g (float[N, 6] x) => (float[N, 4] y) { p = MatMul(x, w) y = Add(p, b) }",
        w=normal(6, 4),
        b=normal(4, seed=1),
    )
    feed = {"x": normal(5, 6, seed=2)}
    (before,) = run_unoptimized(model.to_proto(), feed)
    (layer,) = model.find_layers().layers
    there_and_back = [Reshape(shape=(-1, 2, 3)), Permute(axes=(0, 2, 1)), Permute(axes=(0, 2, 1))]
    model.replace(layer, [*there_and_back, Reshape(shape=(-1, 6)), layer.stage], layer.bias)
    (after,) = run_unoptimized(model.to_proto(), feed)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_products_with_any_leading_shape(tmp_path: Path, leading: tuple[int, ...]) -> None:
    sizes = ", ".join(map(str, (*leading, 5)))
    model = read(
        tmp_path, f"g (float[{sizes}] x) => (float[] y) {{ y = MatMul(x, w) }}", w=normal(5, 3)
    )
    (layer,) = model.find_layers().layers
    assert layer.macs == np.prod((*leading, 15))
    x = normal(*leading, 5, seed=1)
    u, s, vt = np.linalg.svd(layer.stage.weight.to_dense(), full_matrices=False)
    factors = [MatMul(weight=Dense(s[:, None] * vt)), MatMul(weight=Dense(u))]
    model.replace(layer, factors, normal(3, seed=2))
    (found,) = run_unoptimized(model.to_proto(), {"x": x})
    expected = x @ normal(5, 3) + normal(3, seed=2)
    assert relative_l2(found, expected) < FLOAT32_FULL_RANK_RELATIVE_L2


def test_constant_on_the_left(tmp_path: Path) -> None:
    model = read(
        tmp_path, "g (float[2, 5, 7] x) => (float[2, 3, 7] y) { y = MatMul(w, x) }", w=normal(3, 5)
    )
    (layer,) = model.find_layers().layers
    assert layer.frozen == "the constant is on the left"
    assert (layer.weight_shape, layer.input_shape, layer.output_shape) == (
        (3, 5),
        (2, 7, 5),
        (2, 7, 3),
    )
    x = normal(2, 5, 7, seed=1)
    canonical = model.canonical(layer, x)
    np.testing.assert_allclose(
        canonical @ layer.stage.weight.to_dense().T,
        model.canonical(layer, normal(3, 5) @ x),
        rtol=1e-5,
        atol=1e-6,
    )
    model.replace(layer, [MatMul(weight=Dense(2 * normal(3, 5)))], None)
    (found,) = run_unoptimized(model.to_proto(), {"x": x})
    assert relative_l2(found, 2 * (normal(3, 5) @ x)) < FLOAT32_GRAPH_RELATIVE_L2
    with pytest.raises(ValueError, match="cannot become a chain"):
        model.replace(layer, [layer.stage, MatMul(weight=Dense(np.eye(3)))], None)


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution(tmp_path: Path, group: int) -> None:
    text = (
        "g (float[1, 4, 5, 5] x) => (float[] y) { y = ConvTranspose<strides = [2, 2],"
        f" pads = [1, 0, 0, 1], output_padding = [1, 0], group = {group}>(x, w, b) }}"
    )
    weight, bias = normal(4, 3, 3, 2), normal(3 * group, seed=1)
    model = read(tmp_path, text, w=weight, b=bias)
    x = {"x": normal(1, 4, 5, 5, seed=2)}
    (before,) = run_unoptimized(built(text, w=weight, b=bias), x)
    (layer,) = model.find_layers().layers
    assert layer.weight_shape == (3 * group, 4 // group, 3, 2)
    # Output channel o of group g reads input channels of its group.
    np.testing.assert_array_equal(layer.stage.weight.to_dense()[0, 0], weight[0, 0])
    np.testing.assert_array_equal(layer.stage.weight.to_dense()[-1, -1], weight[-1, -1])
    kernel = Conv(
        weight=Dense(np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)),
        stride=(1, 1),
        pads=(0,) * 4,
        dilation=(1, 1),
    )
    chained = model.clone()
    chained.replace(layer, [kernel, layer.stage], layer.bias)
    (after,) = run_unoptimized(chained.to_proto(), x)
    assert relative_l2(after, before) < FLOAT32_FULL_RANK_RELATIVE_L2
    scale = np.arange(1, 3 * group + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    codes = Affine(np.ones(layer.weight_shape, np.int8), scale, GRIDS["8"])
    quantized = Conv(
        weight=codes,
        stride=layer.stage.stride,
        pads=layer.stage.pads,
        dilation=layer.stage.dilation,
        group=group,
        transposed=True,
    )
    model.replace(layer, [quantized], layer.bias)
    (stored,) = model.quantized.values()
    assert stored.shape == weight.shape
    (found,) = run_unoptimized(model.to_proto(), x)
    flat = built(text, w=np.ones_like(weight), b=np.zeros_like(bias))
    (unit,) = run_unoptimized(flat, x)
    expected = unit * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


def test_quantized_weight_lies_in_the_layout_of_the_graph(tmp_path: Path) -> None:
    model = read(
        tmp_path, "g (float[2, 5] x) => (float[2, 3] y) { y = MatMul(x, w) }", w=normal(5, 3)
    )
    (layer,) = model.find_layers().layers
    codes = np.random.default_rng(0).integers(-1, 2, (3, 5)).astype(np.int8)
    scale = np.array([[0.5], [1.0], [2.0]], np.float32)
    model.replace(layer, [MatMul(weight=Affine(codes, scale, GRIDS["ternary"]))], normal(3, seed=1))
    (stored,) = model.quantized.values()
    np.testing.assert_array_equal(stored.codes, codes.T)
    assert stored.scale.shape == (1, 3)
    x = normal(2, 5, seed=2)
    (found,) = run_unoptimized(model.to_proto(), {"x": x})
    expected = x @ (codes * scale).T + normal(3, seed=1)
    assert relative_l2(found, expected) < FLOAT32_GRAPH_RELATIVE_L2


def test_bias_is_added_changed_and_taken_away(tmp_path: Path) -> None:
    text = """g (float[1, 3, 6, 6] x) => (float[] y) {
        a = Conv(x, w) r = Relu(a) c = Conv(r, v, b)
        f = Flatten(c) m = MatMul(f, u) y = Relu(m) }"""
    weights = {"w": normal(3, 3, 3, 3), "v": normal(3, 3, 3, 3), "u": normal(12, 2)}
    model = read(tmp_path, text, b=normal(3), **weights)
    first, second, third = model.find_layers().layers
    model.replace(first, [first.stage], np.array([1.0, 2.0, 3.0]))
    model.replace(second, [second.stage], None)
    model.replace(third, [third.stage], np.array([4.0, 5.0]))
    model.replace(third, [third.stage], np.array([6.0, 7.0]))
    onnx.checker.check_model(model.to_proto())
    found = model.find_layers().layers
    assert [layer.name for layer in found] == [first.name, second.name, third.name]
    np.testing.assert_array_equal(found[0].bias, [1.0, 2.0, 3.0])
    assert found[1].bias is None or not found[1].bias.any()
    np.testing.assert_array_equal(found[2].bias, [6.0, 7.0])
    assert model.output_name(third) == model.layer_nodes(third)[-1].outputs[0].name
    assert [node.op_type for node in model.layer_nodes(third)] == ["MatMul", "Add"]


def test_shared_bias_is_copied_before_it_changes(tmp_path: Path) -> None:
    text = "g (float[1, 3, 6, 6] x) => (float[] y) { a = Conv(x, w, b) y = Conv(a, v, b) }"
    model = read(tmp_path, text, w=normal(3, 3, 3, 3), v=normal(3, 3, 3, 3, seed=1), b=normal(3))
    first, second = model.find_layers().layers
    model.replace(first, [first.stage], np.zeros(3))
    _, after = model.find_layers().layers
    np.testing.assert_array_equal(after.bias, second.bias)


def test_shared_weight_is_one_layer_and_changes_for_all(tmp_path: Path) -> None:
    text = "g (float[1, 3, 6, 6] x) => (float[] y) { a = Conv(x, w) y = Conv(a, w) }"
    model = read(tmp_path, text, w=normal(3, 3, 3, 3))
    (layer,) = model.find_layers().layers
    assert layer.shared
    halved = Conv(
        weight=Dense(normal(3, 3, 3, 3) / 2), stride=(1, 1), pads=(0,) * 4, dilation=(1, 1)
    )
    model.replace(layer, [halved], None)
    feed = {"x": normal(1, 3, 6, 6, seed=1)}
    (found,) = run_unoptimized(model.to_proto(), feed)
    (expected,) = run_unoptimized(built(text, w=normal(3, 3, 3, 3) / 2), feed)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="shared"):
        model.replace(layer, [halved, halved], None)


def test_weight_that_a_body_captures_is_shared(tmp_path: Path) -> None:
    text = """g (bool c, float[1, 3, 6, 6] x) => (float[] y) {
        a = Conv(x, w)
        y = If (c) <
            then_branch = t () => (float p) { p = Conv(a, w) },
            else_branch = e () => (float q) { q = Conv(a, v) }> }"""
    model = read(tmp_path, text, w=normal(3, 3, 3, 3), v=normal(3, 3, 3, 3, seed=1))
    found = model.find_layers()
    (layer,) = found.layers
    assert layer.shared
    assert {skip.reason for skip in found.skips} == {"inside a control-flow body (left intact)"}
    model.replace(layer, [layer.stage], None)
    for condition in (True, False):
        feed = {"c": np.array(condition), "x": normal(1, 3, 6, 6, seed=2)}
        original = built(text, w=normal(3, 3, 3, 3), v=normal(3, 3, 3, 3, seed=1))
        np.testing.assert_array_equal(
            run_unoptimized(model.to_proto(), feed)[0], run_unoptimized(original, feed)[0]
        )


def test_embedding_and_tied_product(tmp_path: Path) -> None:
    text = """g (int64[2, 4] ids) => (float[2, 4, 90] y) {
        e = Gather(w, ids) t = Transpose<perm = [1, 0]>(w) y = MatMul(e, t) }"""
    model = read(tmp_path, text, w=normal(90, 8))
    (layer,) = model.find_layers().layers
    assert isinstance(layer.stage, Embedding)
    assert layer.shared
    assert layer.frozen
    codes = Affine(np.ones((90, 8), np.int8), normal(90, 1), GRIDS["8"])
    model.replace(layer, [Embedding(weight=codes)], None)
    ids = np.arange(8).reshape(2, 4)
    (found,) = run_unoptimized(model.to_proto(), {"ids": ids})
    table = np.tile(normal(90, 1), 8)
    assert relative_l2(found, table[ids] @ table.T) < FLOAT32_GRAPH_RELATIVE_L2


def test_recurrent_cell_has_two_layers(tmp_path: Path) -> None:
    text = "g (float[5, 2, 3] x) => (float[] y) { y = LSTM<hidden_size = 4>(x, w, r, b) }"
    weights = {"w": normal(1, 16, 3), "r": normal(1, 16, 4, seed=1), "b": normal(1, 32, seed=2)}
    model = read(tmp_path, text, **weights)
    found = model.find_layers()
    assert [layer.name[-2:] for layer in found.layers] == ["/W", "/R"]
    assert [layer.weight_shape for layer in found.layers] == [(1, 16, 3), (1, 16, 4)]
    assert [layer.macs for layer in found.layers] == [10 * 48, 10 * 64]
    assert {layer.stage.kind for layer in found.layers if isinstance(layer.stage, Recurrent)} == {
        "LSTM"
    }
    assert [skip.reason for skip in found.skips] == ["biases of a recurrent cell"]


SKIPS = {
    "already packed": (
        """i = Cast<to = 6>(q) l = Gather(table, i) f = Reshape(l, flat) r = Reshape(f, shape)
        c = Cast<to = 1>(r) d = Mul(c, scale) y = Conv(x, d)""",
        {
            "q": np.zeros(27, np.uint8),
            "table": np.ones((256, 4), np.int8),
            "flat": np.array([-1]),
            "shape": np.array([4, 3, 3, 3]),
            "scale": np.ones((4, 1, 1, 1), np.float32),
        },
    ),
    "already quantized": (
        "d = DequantizeLinear<axis = 0>(q, s) y = Conv(x, d)",
        {"q": np.ones((4, 3, 3, 3), np.int8), "s": np.ones(4, np.float32)},
    ),
    "a product with a constant of 3 axes": ("y = MatMul(x, w)", {"w": normal(3, 6, 6)}),
    "weights are double, not float32 or float16": (
        "d = Cast<to = 11>(x) c = Conv(d, w) y = Cast<to = 1>(c)",
        {"w": normal(4, 3, 3, 3, dtype=np.float64)},
    ),
    "its bias is computed at run time": (
        "r = ReduceMax<keepdims = 0>(x, a) e = Expand(r, n) y = Conv(x, w, e)",
        {"w": normal(4, 3, 3, 3), "a": np.arange(4), "n": np.array([4])},
    ),
    "constant of Mul, not a layer": ("y = Mul(x, w)", {"w": normal(3, 6, 6)}),
}


@pytest.mark.parametrize("name", SKIPS)
def test_what_is_not_a_layer_has_a_reason(tmp_path: Path, name: str) -> None:
    body, constants = SKIPS[name]
    reason = "already quantized" if name == "already packed" else name
    model = read(tmp_path, f"g (float[1, 3, 6, 6] x) => (float[] y) {{ {body} }}", **constants)
    found = model.find_layers()
    assert not found.layers
    assert [skip.reason for skip in found.skips] == [reason]
    weights = 108 if name == "already packed" else max(c.size for c in constants.values())
    assert found.skips[0].parameters == weights


def test_automatic_padding_of_an_open_size_is_left(tmp_path: Path) -> None:
    text = (
        'g (float[1, 3, H, W] x) => (float[] y) { y = Conv<auto_pad = "SAME_UPPER",'
        " strides = [2, 2]>(x, w) }"
    )
    found = read(tmp_path, text, w=normal(4, 3, 3, 3)).find_layers()
    assert [skip.reason for skip in found.skips] == ["automatic padding with an open input size"]


def test_half_precision_stays_half(tmp_path: Path) -> None:
    text = "g (float16[1, 3, 6, 6] x) => (float16[1, 3, 4, 4] y) { y = Conv(x, w) }"
    model = read(tmp_path, text, w=normal(3, 3, 3, 3, dtype=np.float16))
    (layer,) = model.find_layers().layers
    one = Conv(
        weight=Dense(np.eye(3).reshape(3, 3, 1, 1)), stride=(1, 1), pads=(0,) * 4, dilation=(1, 1)
    )
    feed = {"x": normal(1, 3, 6, 6, dtype=np.float16)}
    (before,) = run_unoptimized(model.to_proto(), feed)
    model.replace(layer, [layer.stage, one], np.zeros(3))
    (after,) = run_unoptimized(model.to_proto(), feed)
    assert after.dtype == np.float16
    assert relative_l2(after, before) < 1e-3  # half precision has 11 bits


def test_names_are_unique_and_printable(tmp_path: Path) -> None:
    model = built(
        "g (float[1, 3, 9, 9] x) => (float[] y) { a = Conv(x, w) b = Conv(a, v) y = Conv(b, u) }",
        w=normal(3, 3, 3, 3),
        v=normal(3, 3, 3, 3, seed=1),
        u=normal(3, 3, 3, 3, seed=2),
    )
    for node, name in zip(model.graph.node, ["same", "same", "e\x1b[2J\nvil"], strict=True):
        node.name = name
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    names = [layer.name for layer in load_model(path).find_layers().layers]
    assert names == ["same", "same_2", "e[2Jvil"]


def test_clone_is_independent(tmp_path: Path) -> None:
    model = read(
        tmp_path, "g (float[2, 5] x) => (float[2, 3] y) { y = MatMul(x, w) }", w=normal(5, 3)
    )
    before = model.to_proto().SerializeToString()
    twin = model.clone()
    (layer,) = model.find_layers().layers
    twin.replace(
        layer,
        [MatMul(weight=Affine(np.ones((3, 5), np.int8), np.ones((1, 1), np.float32), GRIDS["8"]))],
        None,
    )
    assert model.to_proto().SerializeToString() == before
    assert not model.quantized
    assert twin.quantized


def test_other_nodes_stay_the_same_objects(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        "g (float[2, 5] x) => (float[] y) { r = Relu(x) m = MatMul(r, w) y = Relu(m) }",
        w=normal(5, 3),
    )
    (layer,) = model.find_layers().layers
    others = [node for node in model.ir.graph if node.op_type == "Relu"]
    name = model.output_name(layer)
    model.replace(layer, [MatMul(weight=Dense(np.eye(5))), layer.stage], None)
    assert [node for node in model.ir.graph if node.op_type == "Relu"] == others
    assert any(value.name == name for node in model.ir.graph for value in node.outputs)


def test_layer_whose_output_is_the_graphs(tmp_path: Path) -> None:
    model = read(
        tmp_path, "g (float[2, 5] x) => (float[2, 3] y) { y = MatMul(x, w) }", w=normal(5, 3)
    )
    (layer,) = model.find_layers().layers
    model.replace(layer, [layer.stage], np.ones(3))
    model.replace(layer, [MatMul(weight=Dense(np.eye(5))), layer.stage], np.ones(3))
    assert [spec.name for spec in model.outputs()] == ["y"]
    (found,) = run_unoptimized(model.to_proto(), {"x": np.zeros((2, 5), np.float32)})
    np.testing.assert_array_equal(found, np.ones((2, 3)))
