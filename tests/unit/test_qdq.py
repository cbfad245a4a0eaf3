"""Convolutions in 8 bits: onnxruntime fuses them, and they compute what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from oracle import convolve, relative_l2
from quantized_models import affine, operators, optimized_operators, packed, quantized_model, run
from tolerance import OPTIMIZED_INT8_RELATIVE_L2

from edgecompress.graph.model import Model

CHAIN = """g (float[2,4,9,9] x) => (float[2,3,n,m] y) {
  a = Conv <pads=[1,1,1,1]> (x, w1, b1)
  r = Relu (a)
  MIDDLE
  y = Conv (z, w2)
}"""

MIDDLES = {
    "nothing": "z = Identity (r)",
    "clip": "c = Conv <pads=[1,1,1,1]> (r, w3)  z = Clip (c, low, high)",
    "depthwise": "c = Conv <group=8,pads=[1,1,1,1]> (r, w4, b1)  z = Relu (c)",
    "groups": "c = Conv <group=2,strides=[2,2],dilations=[2,2]> (r, w5, b1)  z = Relu (c)",
    "residual": "c = Conv <pads=[1,1,1,1]> (r, w3, b1)  s = Add (c, r)  z = Relu (s)",
    "concat": "c = Conv (r, w6)  d = Conv (r, w7)"
    "  j = Concat <axis=1> (c, d)  s = Relu (j)  z = MaxPool <kernel_shape=[2,2]> (s)",
    "max pool": "z = MaxPool <kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]> (r)",
    "average pool": "z = AveragePool <kernel_shape=[2,2]> (r)",
    "leaky": "c = Conv <pads=[1,1,1,1]> (r, w3)  z = LeakyRelu <alpha=0.1> (c)",
}


def _ranges(model: Model, feeds: list[dict[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
    """Extremes of all float values of the graph."""
    proto = model.to_proto()
    names = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    ranges: dict[str, tuple[float, float]] = {}
    for feed in feeds:
        outputs = run(proto.SerializeToString(), feed)
        for name, array in [*zip(names, outputs, strict=True), *feed.items()]:
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return ranges


def _chain(middle: str, grid: str) -> tuple[Model, dict[str, np.ndarray]]:
    shapes = {
        "w1": (8, 4, 3, 3),
        "w2": (3, 8, 3, 3),
        "w3": (8, 8, 3, 3),
        "w4": (8, 1, 3, 3),
        "w5": (8, 4, 3, 3),
        "w6": (4, 8, 1, 1),
        "w7": (4, 8, 1, 1),
    }
    text = CHAIN.replace("MIDDLE", MIDDLES[middle])
    used = {name: shape for name, shape in shapes.items() if name in text}
    rng = np.random.default_rng(0)
    constants = {"b1": rng.standard_normal(8).astype(np.float32)}
    if middle == "clip":
        constants |= {"low": np.float32(0), "high": np.float32(1.5)}
    weights = {
        name: affine(shape, grid, 0, seed) for seed, (name, shape) in enumerate(used.items())
    }
    model = quantized_model(text, weights, constants)
    feed = {"x": rng.standard_normal((2, 4, 9, 9)).astype(np.float32)}
    model.activation_ranges.update(_ranges(model, [feed]))
    return model, feed


@pytest.mark.parametrize("grid", ["ternary", "3", "8"])
@pytest.mark.parametrize("middle", MIDDLES)
def test_convolutions_and_what_is_between_them_fuse(middle: str, grid: str, tmp_path: Path) -> None:
    model, feed = _chain(middle, grid)
    data = packed(model, activations=True)
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    exact = run(model.to_proto().SerializeToString(), feed)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_INT8_RELATIVE_L2
    assert relative_l2(plain, exact) <= 0.05  # up to four roundings to 1/255 of a range
    left = optimized_operators(data, tmp_path)
    convolutions = operators(data)["Conv"]
    # The last one makes an output of the graph and stays in float, with a folded weight.
    assert left["QLinearConv"] == convolutions - 1
    assert left["Conv"] + left["FusedConv"] == 1
    assert not {"Relu", "Clip", "Add", "Concat", "AveragePool", "LeakyRelu", "Split", "Mul"} & set(
        left
    )
    assert left["DequantizeLinear"] <= 1


def test_the_file_computes_convolution_of_rounded_values() -> None:
    model, feed = _chain("nothing", "2")
    file = onnx.load_from_string(packed(model, activations=True))
    file.graph.output.append(onnx.ValueInfoProto(name="r_u8"))
    found = run(file.SerializeToString(), feed)[1]
    (low, high), (_, top) = (model.activation_ranges[name] for name in ("x", "r"))
    step, out_step = (high - low) / 255, top / 255
    zero = round(-low / step)
    entering = (np.clip(np.rint(feed["x"] / step) + zero, 0, 255) - zero) * step
    weight = model.quantized["w1"].to_dense().astype(np.float64)
    unit = step * model.quantized["w1"].scale.reshape(-1).astype(np.float64)
    bias = np.rint(model.ir.graph.initializers["b1"].const_value.numpy() / unit) * unit
    sums = convolve(entering, weight, (1, 1), (1, 1, 1, 1), (1, 1)) + bias[:, None, None]
    expected = np.clip(np.rint(np.maximum(sums, 0) / out_step), 0, 255)
    # A sum within rounding of the middle between two codes can go either way.
    difference = np.abs(expected - found)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_after_relu_the_zero_point_is_zero() -> None:
    model, _ = _chain("nothing", "2")
    nodes = onnx.load_from_string(packed(model, activations=True)).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in nodes.initializer}
    node = next(n for n in nodes.node if n.op_type == "QuantizeLinear" and n.input[0] == "r")
    assert constants[node.input[2]] == 0
    assert constants[node.input[2]].dtype == np.uint8


def test_a_range_of_the_convolution_is_enough_for_its_relu() -> None:
    model, feed = _chain("nothing", "2")
    del model.activation_ranges["r"], model.activation_ranges["z"]
    assert operators(packed(model, activations=True))["QuantizeLinear"] == 2
    assert run(packed(model, activations=True), feed)


@pytest.mark.parametrize("missing", ["x", "a"])
def test_without_a_range_a_convolution_stays_float(missing: str) -> None:
    model, feed = _chain("nothing", "2")
    for name in ("r", "z", missing):
        model.activation_ranges.pop(name, None)
    data = packed(model, activations=True)
    assert operators(data)["QuantizeLinear"] == 0
    exact = run(model.to_proto().SerializeToString(), feed)[0]
    assert np.array_equal(run(data, feed)[0], exact)


ONE = "g (float[1,2,6,6] x) => (float[1,4,n,m] y) { h = Conv (x, w, b)  y = HardSwish (h) }"


def _one(
    *, codes: object = None, bias: np.ndarray | None = None, scale: float | None = None
) -> tuple[Model, dict[str, np.ndarray]]:
    weight = affine((4, 2, 3, 3), "4")
    if scale is not None:
        weight.scale[1] = scale
    constants = {"b": np.ones(4, np.float32) if bias is None else bias}
    model = quantized_model(ONE, {"w": weight}, constants)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)}
    model.activation_ranges.update(_ranges(model, [feed]))
    return model, feed


def test_a_dead_channel_with_a_bias_still_fuses(tmp_path: Path) -> None:
    # its scale is so small that the bias is over 2^31 steps of the integer sum
    model, feed = _one(scale=1e-17)
    data = packed(model, activations=True)
    assert optimized_operators(data, tmp_path)["QLinearConv"] == 1
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    exact = run(model.to_proto().SerializeToString(), feed)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_INT8_RELATIVE_L2
    assert relative_l2(plain, exact) <= 0.03


def test_a_scale_inside_channels_stays_float() -> None:
    text = "g (float[1,2,6,6] x) => (float[1,4,n,m] y) { h = Conv (x, w)  y = HardSwish (h) }"
    model = quantized_model(text, {"w": affine((4, 2, 3, 3), "4", axis=1)})
    model.activation_ranges.update({"x": (-1.0, 1.0), "h": (-1.0, 1.0)})
    assert operators(packed(model, activations=True))["QuantizeLinear"] == 0


def test_one_scale_for_all_channels_fuses(tmp_path: Path) -> None:
    model, feed = _one()
    weight = model.quantized["w"]
    one = type(weight)(weight.codes, np.full((1, 1, 1, 1), 0.05, np.float32), weight.grid)
    model.quantized["w"] = one
    model.ir.graph.initializers["w"].const_value = ir.tensor(one.to_dense(), name="w")
    data = packed(model, activations=True)
    assert optimized_operators(data, tmp_path)["QLinearConv"] == 1
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_INT8_RELATIVE_L2


def test_a_range_of_zeros() -> None:
    model, feed = _one(bias=np.zeros(4, np.float32))
    model.activation_ranges.update({"x": (0.0, 0.0), "h": (0.0, 0.0)})
    assert np.isfinite(run(packed(model, activations=True), feed)[0]).all()


def test_transposed_convolutions_stay_float() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,3,n,m] y) {
      h = ConvTranspose (x, w)
      y = HardSwish (h)
    }"""
    model = quantized_model(text, {"w": affine((4, 3, 3, 3), "2", 1)})
    model.activation_ranges.update({"x": (-1.0, 1.0), "h": (-1.0, 1.0)})
    assert operators(packed(model, activations=True))["QuantizeLinear"] == 0


def test_one_spatial_axis(tmp_path: Path) -> None:
    text = "g (float[2,4,20] x) => (float[2,6,n] y) { h = Conv (x, w, b)  y = HardSwish (h) }"
    constants = {"b": np.ones(6, np.float32)}
    model = quantized_model(text, {"w": affine((6, 4, 5), "2")}, constants)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 4, 20)).astype(np.float32)}
    model.activation_ranges.update(_ranges(model, [feed]))
    data = packed(model, activations=True)
    assert optimized_operators(data, tmp_path)["QLinearConv"] == 1
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_INT8_RELATIVE_L2
