"""Layers of a graph as integers, onnxruntime's sums of them, and graphs with replaced ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from quantized_models import affine, packed, quantized_model
from quantized_models import run as run_graph

from edgecompress.core.errors import Unsupported
from edgecompress.core.layers import Skip
from edgecompress.core.report import FileFact
from edgecompress.graph import integers
from edgecompress.graph.integer_reference import onnxruntime_sums
from edgecompress.graph.integers import ConvGeometry, NamedLayer, integer_layers
from edgecompress.graph.model import Model
from edgecompress.graph.replaced import run_replaced

Arrays = Mapping[str, NDArray[Any]]
SCALE = np.array(0.5, np.float32)


def graph(text: str, constants: Arrays) -> Model:
    header = '<ir_version: 10, opset_import: ["" : 21]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto, full_check=True)
    return Model(ir.from_proto(proto), FileFact(path="", sha256="", size_bytes=0))


def codes(seed: int, shape: tuple[int, ...], low: int, high: int, kind: Any) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(kind)


def only(model: Model, feeds: list[dict[str, NDArray[Any]]]) -> NamedLayer:
    (found,) = integer_layers(model, feeds)
    assert isinstance(found, NamedLayer), found
    return found


QDQ = """agraph (float[N,4,7,6] x) => (float[N,6,4,3] y) {
    q = QuantizeLinear (x, half, three)
    d = DequantizeLinear (q, half, three)
    w = DequantizeLinear <axis = 0> (codes, scales, zeros)
    y = Conv <kernel_shape = [3, 2], pads = [1, 1, 1, 0], strides = [2, 2], group = 2> (d, w, bias)
}"""


def qdq() -> tuple[Model, Arrays]:
    constants = {
        "codes": codes(1, (6, 2, 3, 2), -8, 7, np.int8),
        "scales": np.arange(1, 7, dtype=np.float32) / 8,
        "zeros": np.zeros(6, np.int8),
        "bias": np.arange(6, dtype=np.float32),
        "half": SCALE,
        "three": np.array(3, np.int8),
    }
    return graph(QDQ, constants), constants


def test_a_convolution_between_pairs() -> None:
    model, constants = qdq()
    feeds = [{"x": (codes(seed, (1, 4, 7, 6), -100, 100, np.float32))} for seed in (2, 3)]
    found = only(model, feeds)
    whole = np.concatenate([feed["x"] for feed in feeds])
    np.testing.assert_array_equal(found.inputs, np.clip(np.rint(whole / 0.5) + 3, -128, 127))
    np.testing.assert_array_equal(found.weights, constants["codes"])
    np.testing.assert_allclose(found.weight_scales, constants["scales"])
    assert (found.zero_point, found.input_scale) == (3, 0.5)
    assert (found.input_bits, found.input_signed, found.weight_bits) == (8, True, 4)
    assert not found.quantized_here
    assert found.geometry == ConvGeometry(
        stride=(2, 2), dilation=(1, 1), pads=(1, 1, 1, 0), group=2
    )


def test_onnxruntime_sums_by_hand() -> None:
    """Padding is zero, the zero point is taken off: 2 x 1 inputs, one 3 x 3 kernel."""
    weights = np.arange(9).reshape(1, 1, 3, 3) - 4
    found = NamedLayer(
        name="n",
        op_type="Conv",
        inputs=np.array([[[[5], [-7]]]]),
        weights=weights,
        zero_point=-2,
        input_scale=None,
        weight_scales=np.zeros(0),
        input_bits=8,
        input_signed=True,
        weight_bits=4,
        stored_bits=4,
        quantized_here=False,
        geometry=ConvGeometry(stride=(1, 1), dilation=(1, 1), pads=(1, 1, 1, 1), group=1),
    )
    above, middle, below = weights[0, 0, :, 1]
    expected = [7 * middle - 5 * below, 7 * above - 5 * middle]
    np.testing.assert_array_equal(onnxruntime_sums(found)[0, 0, :, 0], expected)


def test_operators_on_integers() -> None:
    text = """agraph (uint8[2,4,5] x) => (int32[2,3,3] y) {
        y = ConvInteger (x, codes, seven, zero)
    }"""
    stored = codes(4, (3, 4, 3), 100, 160, np.uint8)
    constants = {
        "codes": stored,
        "seven": np.array(7, np.uint8),
        "zero": np.array(128, np.uint8),
    }
    x = codes(5, (2, 4, 5), 0, 255, np.uint8)
    found = only(graph(text, constants), [{"x": x}])
    np.testing.assert_array_equal(found.weights[:, :, 0], stored.astype(int) - 128)
    np.testing.assert_array_equal(found.inputs[:, :, 0], x)
    assert (found.zero_point, found.input_signed) == (7, False)
    assert found.geometry == ConvGeometry(
        stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), group=1
    )


def test_a_dynamic_product_has_the_zero_point_of_its_input() -> None:
    text = """agraph (float[2,3,20] x) => (int32[2,3,5] y) {
        q, s, z = DynamicQuantizeLinear (x)
        y = MatMulInteger (q, codes, z)
    }"""
    stored = codes(6, (20, 5), -3, 3, np.int8)
    x = np.linspace(-1, 3, 120, dtype=np.float32).reshape(2, 3, 20)
    found = only(graph(text, {"codes": stored}), [{"x": x}])
    assert found.zero_point == 64  # 1 / (4 / 255), rounded to even
    assert found.inputs.shape == (6, 20)
    assert (found.inputs.min(), found.inputs.max()) == (0, 255)
    np.testing.assert_array_equal(found.weights, stored)


def test_weights_of_the_packed_form_and_floats_quantized_here() -> None:
    text = """agraph (float[4,300] x) => (float[4,8] y) {
        y = Gemm <transB = 1> (x, w)
    }"""
    weight = affine((8, 300), "3")
    data = packed(quantized_model(text, {"w": weight}))
    model = Model(
        ir.from_proto(onnx.load_from_string(data)), FileFact(path="", sha256="", size_bytes=0)
    )
    x = np.linspace(-2, 8.2, 1200, dtype=np.float32).reshape(4, 300)
    found = only(model, [{"x": x}])
    np.testing.assert_array_equal(found.weights, weight.codes.T)
    np.testing.assert_allclose(found.weight_scales, weight.scale.reshape(-1), rtol=1e-6)
    assert found.quantized_here
    assert found.zero_point == 50  # 2 / (10.2 / 255)
    assert found.input_scale == pytest.approx(0.04, rel=1e-6)
    np.testing.assert_allclose((found.inputs - 50) * 0.04, x, atol=0.0201)
    assert found.stored_bits == 3


@pytest.mark.parametrize(
    ("text", "constants", "reason"),
    [
        (
            "agraph (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul (x, w) }",
            {},
            integers.TWO_ACTIVATIONS,
        ),
        (
            "agraph (float[2,3] x) => (float[2,4] y) { y = MatMul (x, w) }",
            {"w": np.ones((3, 4), np.float32)},
            integers.FLOAT_WEIGHT,
        ),
        (
            "agraph (int8[2,3] x) => (int32[5,2,4] y) { y = MatMulInteger (x, w) }",
            {"w": np.ones((5, 3, 4), np.int8)},
            integers.SHAPE,
        ),
        (
            "agraph (uint8[2,3] x) => (int32[2,4] y) { y = MatMulInteger (x, w) }",
            {"w": np.full((3, 4), 200, np.uint8)},
            integers.WIDE,
        ),
        (
            "agraph (float[1,3,4,4] x) => (float[1,2,4,4] y) { y = ConvTranspose (x, w) }",
            {"w": np.ones((3, 2, 1, 1), np.float32)},
            integers.TRANSPOSED,
        ),
    ],
)
def test_what_is_left_out_says_why(text: str, constants: Arrays, reason: str) -> None:
    model = graph(text, constants)
    feed = {
        spec.name: np.ones([size or 1 for size in spec.shape], spec.dtype)
        for spec in model.inputs()
    }
    (found,) = integer_layers(model, [feed])
    assert isinstance(found, Skip)
    assert found.reason == reason


def test_only_the_layers_that_are_asked_for() -> None:
    model, _ = qdq()
    assert not list(integer_layers(model, [], names=["other"]))


def exact(layer: NamedLayer) -> NDArray[Any]:
    return onnxruntime_sums(layer)


QLINEAR = """agraph (uint8[N,3,6,6] x) => (uint8[N,5,6,6] y) {
    y = QLinearConv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>
        (x, xs, xz, codes, ws, wz, ys, yz, bias)
}"""


def test_replaced_by_exact_sums_it_is_what_onnxruntime_gives() -> None:
    constants = {
        "codes": codes(7, (5, 3, 3, 3), -7, 7, np.int8),
        "xs": np.array(0.25, np.float32),
        "xz": np.array(100, np.uint8),
        "ws": np.array([0.5, 1, 2, 0.25, 0.125], np.float32),
        "wz": np.zeros(5, np.int8),
        "ys": np.array(16, np.float32),
        "yz": np.array(120, np.uint8),
        "bias": np.arange(5, dtype=np.int32) * 100,
    }
    model = graph(QLINEAR, constants)
    feeds = [{"x": codes(seed, (2, 3, 6, 6), 0, 255, np.uint8)} for seed in (8, 9)]
    ran = run_replaced(model, feeds, exact)
    assert len(ran.layers) == 1
    data = model.to_proto().SerializeToString()
    for feed, (found,) in zip(feeds, ran.outputs, strict=True):
        np.testing.assert_array_equal(found, run_graph(data, feed)[0])


def test_replaced_convolutions_between_pairs_keep_bias_and_scales() -> None:
    model, _ = qdq()
    feeds = [{"x": codes(10, (1, 4, 7, 6), -60, 60, np.float32)}]
    (found,) = run_replaced(model, feeds, exact).outputs[0]
    expected = run_graph(model.to_proto().SerializeToString(), feeds[0])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    nothing = run_replaced(model, feeds, lambda layer: 0 * exact(layer)).outputs[0][0]
    np.testing.assert_array_equal(
        nothing, np.broadcast_to(np.arange(6.0), (1, 4, 3, 6)).transpose(0, 3, 1, 2)
    )


def test_convolutions_that_are_not_integers_stay() -> None:
    text = "agraph (float[1,3,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, w) }"
    model = graph(text, {"w": np.ones((2, 3, 1, 1), np.float32)})
    ran = run_replaced(model, [{"x": np.ones((1, 3, 4, 4), np.float32)}], exact)
    assert not ran.layers
    assert [skip.reason for skip in ran.skips] == [integers.FLOAT_WEIGHT]
    np.testing.assert_array_equal(ran.outputs[0][0], np.full((1, 2, 4, 4), 3.0))


def test_a_reference_that_onnxruntime_refuses_says_so() -> None:
    model, _ = qdq()
    found = only(model, [{"x": np.ones((1, 4, 7, 6), np.float32)}])
    broken = NamedLayer(
        **{name: getattr(found, name) for name in NamedLayer.__slots__ if name != "geometry"},
        geometry=ConvGeometry(stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), group=3),
    )
    with pytest.raises(Unsupported, match="onnxruntime cannot run the graph"):
        onnxruntime_sums(broken)
