"""Layers of a graph as integers and as arrays hold them, and graphs with replaced ones."""

from __future__ import annotations

import dataclasses
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
from edgecompress.hardware.simulator.layers import exact_outputs
from edgecompress.hardware.target import load_target
from edgecompress.pipeline.array_codes import as_array_layer, input_sums

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


def with_weights(seed: int, weights: NDArray[Any], stored_bits: int, group: int = 1) -> NamedLayer:
    """A padded convolution, or a product where the weights are a matrix."""
    conv = weights.ndim == 4
    shape = (2, weights.shape[1] * group, 5, 4) if conv else (7, weights.shape[0])
    largest = max(int(weights.max()), -int(weights.min()) - 1, 0)
    return NamedLayer(
        name="n",
        op_type="Conv" if conv else "MatMul",
        inputs=codes(seed, shape, 0, 255, np.int64),
        weights=weights,
        zero_point=77,
        input_scale=None,
        weight_scales=np.zeros(0),
        input_bits=8,
        input_signed=False,
        weight_bits=largest.bit_length() + 1,
        stored_bits=stored_bits,
        quantized_here=False,
        geometry=ConvGeometry(stride=(2, 1), dilation=(1, 1), pads=(1, 0, 1, 1), group=group)
        if conv
        else None,
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("group", [1, 3, 0])
def test_half_steps_run_as_codes_of_the_stored_width(bits: int, group: int) -> None:
    """Truth: onnxruntime's sums of the odd integers; ``group`` 0 is a product."""
    shape = (6, 2, 3, 2) if group else (20, 9)
    half = codes(bits, shape, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, np.int64)
    half.flat[:2] = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    found = with_weights(20 + bits, 2 * half + 1, bits, group or 1)
    on_array = as_array_layer(found, load_target("systolic-ws-32"))
    assert on_array.layer.weight_bits == bits
    np.testing.assert_array_equal(on_array.layer.weights, half)
    sums = exact_outputs(on_array.layer)
    np.testing.assert_array_equal(on_array.restored(on_array.layer, sums), onnxruntime_sums(found))
    assert (sums != onnxruntime_sums(found)).any()


def test_half_steps_by_hand() -> None:
    """Inputs 1 and 2 above zero, weights 3 and -1: 1. Codes 1 and -1: -1, and 2 x -1 + 3 = 1."""
    found = dataclasses.replace(
        with_weights(0, np.array([[3], [-1]]), 2), inputs=np.array([[78, 79]])
    )
    on_array = as_array_layer(found, load_target("systolic-ws-32"))
    np.testing.assert_array_equal(on_array.layer.weights, [[1], [-1]])
    np.testing.assert_array_equal(exact_outputs(on_array.layer), [[-1]])
    np.testing.assert_array_equal(input_sums(on_array.layer), [[3]])
    np.testing.assert_array_equal(on_array.restored(on_array.layer, np.array([[-1]])), [[1]])


def test_the_codes_of_half_steps_are_symmetric_where_they_can_be() -> None:
    found = with_weights(1, np.array([[-3, -1, 1]]), 2)
    on_array = as_array_layer(found, load_target("tdla-z7020"))
    np.testing.assert_array_equal(on_array.layer.weights, [[-1, 0, 1]])
    np.testing.assert_array_equal(
        on_array.restored(on_array.layer, exact_outputs(on_array.layer)), onnxruntime_sums(found)
    )


@pytest.mark.parametrize("group", [1, 2, 0])
def test_zero_points_of_weights_run_as_codes_of_the_stored_width(group: int) -> None:
    """Unsigned 4-bit codes less 0, 8 and 15, by output channel."""
    shape = (6, 2, 3, 2) if group else (20, 6)
    zeros = np.array([0, 0, 8, 8, 15, 15])
    stored = codes(30, shape, 0, 15, np.int64)
    weights = stored - (zeros.reshape(-1, 1, 1, 1) if group else zeros)
    found = with_weights(31, weights, 4, group or 1)
    on_array = as_array_layer(found, load_target("bitserial-ultra96"))
    assert on_array.layer.weight_bits == 4
    assert (on_array.layer.weights.min(), on_array.layer.weights.max()) == (-8, 7)
    np.testing.assert_array_equal(
        on_array.restored(on_array.layer, exact_outputs(on_array.layer)), onnxruntime_sums(found)
    )
    assert "zero point" in on_array.note


def test_plain_codes_run_as_they_are() -> None:
    weights = codes(40, (5, 3, 3, 3), -2, 1, np.int64)
    wide = as_array_layer(with_weights(41, weights, 8), load_target("systolic-ws-32"))
    assert (wide.layer.weight_bits, wide.note) == (8, "")  # what a file of bytes is priced at
    narrow = as_array_layer(with_weights(41, weights, 8), load_target("winocnn-zcu102-w6"))
    assert narrow.layer.weight_bits == 7  # the slot of a weight
    for on_array in (wide, narrow):
        np.testing.assert_array_equal(on_array.layer.weights, weights)


def test_codes_that_fit_no_stored_width_keep_theirs() -> None:
    """Two levels far apart, as a table of 1-bit indices gives them."""
    found = with_weights(50, np.array([[-40], [60]]), 1)
    on_array = as_array_layer(found, load_target("systolic-ws-32"))
    assert (on_array.layer.weight_bits, on_array.note) == (7, "")
    np.testing.assert_array_equal(on_array.layer.weights, found.weights)
