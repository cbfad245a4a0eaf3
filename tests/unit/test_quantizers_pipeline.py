"""Quantization of whole small models: rules, reasons, errors, and the numbers behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgecompress.core.errors import ConfigurationInvalid, DataInvalid, UsageError
from edgecompress.core.grids import GRIDS
from edgecompress.core.options import LayerRule, QuantizeOptions
from edgecompress.core.report import LayerResult
from edgecompress.core.samples import Samples
from edgecompress.graph.model import Model, load_model
from edgecompress.pipeline.layer_rules import matches
from edgecompress.pipeline.quantize import quantize

RNG = np.random.default_rng


def constant(name: str, *shape: int, seed: int = 0, dtype: Any = np.float32) -> onnx.TensorProto:
    values = RNG([seed, len(name), *shape]).normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array(values.astype(dtype), name)


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    shapes: tuple[list[Any], list[Any]],
    constants: list[onnx.TensorProto],
    dtypes: tuple[int, int] = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT),
) -> Model:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtypes[0], shapes[0])],
        [helper.make_tensor_value_info("y", dtypes[1], shapes[1])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, folder / "model.onnx")
    return load_model(folder / "model.onnx")


def small_net(folder: Path, dtype: Any = np.float32) -> Model:
    """Conv, Relu, depthwise Conv, Relu, strided Conv, Flatten, Gemm."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h1"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["h2"], "depthwise", group=32, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["h3"], "down", strides=[2, 2]),
        helper.make_node("Flatten", ["h3"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], "head", transB=1),
    ]
    constants = [
        constant("w1", 32, 3, 3, 3, dtype=dtype),
        constant("b1", 32, dtype=dtype),
        constant("w2", 32, 1, 3, 3, dtype=dtype),
        constant("w3", 24, 32, 3, 3, dtype=dtype),
        constant("b3", 24, dtype=dtype),
        constant("w4", 10, 24 * 9, dtype=dtype),
        constant("b4", 10, dtype=dtype),
    ]
    return save(folder, nodes, ([None, 3, 8, 8], [None, 10]), constants, (kind, kind))


def samples(count: int = 64, *shape: int, dtype: Any = np.float32, seed: int = 1) -> Samples:
    values = RNG(seed).normal(size=(count, *(shape or (3, 8, 8)))).astype(dtype)
    feeds = tuple({"x": values[k : k + 32]} for k in range(0, count, 32))
    return Samples(feeds=feeds, labels=None, count=count, source="normal", sha256="")


def outputs(model: Model, data: Samples) -> np.ndarray[Any, Any]:
    session = onnx.reference.ReferenceEvaluator(model.to_proto())
    return np.concatenate([session.run(None, dict(feed))[0] for feed in data.feeds])


def relative(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(a.astype(np.float64)))


def by_name(results: list[LayerResult]) -> dict[str, LayerResult]:
    return {result.name: result for result in results}


def test_all_layers_and_the_initializers_hold_codes_times_scale(tmp_path: Path) -> None:
    model = small_net(tmp_path)
    plans, results, skips = quantize(model, QuantizeOptions(bits="2"), samples())
    assert [p.layer for p in plans] == ["stem", "depthwise", "down", "head"]
    assert {p.grid for p in plans} == {"2"}
    assert {p.method for p in plans} == {"hessian"}
    assert not skips
    assert [r.action for r in results] == ["quantized"] * 4
    for name, affine in model.quantized.items():
        stored = numpy_helper.to_array(
            next(t for t in model.to_proto().graph.initializer if t.name == name)
        )
        np.testing.assert_array_equal(stored, affine.to_dense())


def test_output_error_falls_with_the_bits_and_data_help(tmp_path: Path) -> None:
    data, other = samples(), samples(seed=2)
    expected = outputs(small_net(tmp_path), other)
    errors = {}
    for bits, given in (("8", data), ("4", data), ("3", data), ("2", data), ("3", None)):
        model = small_net(tmp_path)
        quantize(model, QuantizeOptions(bits=bits), given)
        errors[bits, given is not None] = relative(expected, outputs(model, other))
    assert errors["8", True] < errors["4", True] < errors["3", True] < errors["2", True] < 0.6
    assert errors["8", True] < 0.02
    assert errors["3", True] < errors["3", False]


def test_reported_error_is_that_of_the_output(tmp_path: Path) -> None:
    """One linear layer: the layer's error is the model's."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "only")]
    model = save(tmp_path, nodes, ([None, 48], [None, 40]), [constant("w", 48, 40)])
    data = samples(64, 48)
    expected = outputs(model, data)
    _, results, _ = quantize(model, QuantizeOptions(bits="3"), data)
    assert results[0].relative_error == pytest.approx(
        relative(expected, outputs(model, data)), 1e-4
    )


def test_mean_output_is_kept_by_the_bias(tmp_path: Path) -> None:
    model, data = small_net(tmp_path), samples()
    expected = outputs(model, data).mean(axis=0)
    quantize(model, QuantizeOptions(bits="ternary"), data)
    np.testing.assert_allclose(outputs(model, data).mean(axis=0), expected, atol=1e-4)


def test_rules_first_match_wins(tmp_path: Path) -> None:
    model = small_net(tmp_path)
    rules = (
        LayerRule(match="stem", bits="8"),
        LayerRule(match="re:st.*|down", bits="4"),
        LayerRule(match="h*", skip=True),
    )
    plans, results, skips = quantize(model, QuantizeOptions(bits="2", rules=rules), samples())
    assert {p.layer: p.grid for p in plans} == {"stem": "8", "down": "4", "depthwise": "2"}
    assert [(s.layer, s.reason) for s in skips] == [("head", "skipped by the rule 'h*'")]
    assert by_name(results)["head"].action == "kept"


def test_patterns() -> None:
    assert matches("conv[1]", "conv[1]")
    assert matches("conv[1]", "conv1")
    assert matches("conv?", "conv1")
    assert not matches("conv", "conv1")
    assert matches("re:conv\\d", "conv1")
    assert not matches("re:conv", "conv1")


def test_wrong_rules_are_named(tmp_path: Path) -> None:
    model = small_net(tmp_path)
    with pytest.raises(ConfigurationInvalid, match=r"'stemm' matches no layer.*stem, depthwise"):
        quantize(model, QuantizeOptions(rules=(LayerRule(match="stemm", bits="8"),)), None)
    with pytest.raises(ConfigurationInvalid, match=r"wrong regular expression 're:\('"):
        quantize(model, QuantizeOptions(rules=(LayerRule(match="re:(", bits="8"),)), None)


@pytest.mark.parametrize("bits", ["2", "ternary"])
def test_coarse_grids_without_data_are_refused(tmp_path: Path, bits: str) -> None:
    model = small_net(tmp_path)
    with pytest.raises(UsageError, match=rf"{bits} needs calibration data .*--data"):
        quantize(model, QuantizeOptions(bits=bits), None)
    rules = (LayerRule(match="stem", bits=bits),)
    with pytest.raises(UsageError, match="needs calibration data"):
        quantize(model, QuantizeOptions(rules=rules), None)
    plans, _, _ = quantize(model, QuantizeOptions(bits=bits, method="vecq"), None)
    assert {(p.grid, p.method) for p in plans} == {(bits, "vecq")}
    assert any("without calibration data" in note for note in model.notes)


def test_without_data_the_fallback_is_named(tmp_path: Path) -> None:
    plans, results, _ = quantize(small_net(tmp_path), QuantizeOptions(), None)
    assert {(p.method, p.reason) for p in plans} == {("l2", "quantized without data")}
    assert all(0 < (r.relative_error or 0) < 0.2 for r in results)


def test_activations_of_convolutions_need_data(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "only")]
    net = save(tmp_path, nodes, (["n", 8, 9, 9], ["n", 32, 7, 7]), [constant("w", 32, 8, 3, 3)])
    with pytest.raises(UsageError, match="8-bit activations of convolutions need"):
        quantize(net, QuantizeOptions(activations=8), None)


def test_activations_of_products_need_none(tmp_path: Path) -> None:
    net = small_net(tmp_path)
    plans, _, _ = quantize(net, QuantizeOptions(activations=8), None)
    assert "head" in {plan.layer for plan in plans}
    assert any("convolutions need --data" in note for note in net.notes)


def test_values_that_overflow_are_bad_data(tmp_path: Path) -> None:
    data = samples()
    feed = {"x": (data.feeds[0]["x"] * 1e37).astype(np.float32)}
    bad = Samples(feeds=(feed,), labels=None, count=32, source="huge", sha256="")
    with pytest.raises(DataInvalid, match=r"layer '\w+' is not finite"):
        quantize(small_net(tmp_path), QuantizeOptions(), bad)


def test_half_precision(tmp_path: Path) -> None:
    model, data = small_net(tmp_path, np.float16), samples(dtype=np.float16)
    expected = outputs(model, data)
    quantize(model, QuantizeOptions(bits="4"), data)
    weights = {t.name: t.data_type for t in model.to_proto().graph.initializer}
    assert all(weights[name] == onnx.TensorProto.FLOAT16 for name in model.quantized)
    assert relative(expected, outputs(model, data)) < 0.25


def test_small_layers_stay_float(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "large"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "small"),
    ]
    constants = [constant("w", 48, 24), constant("v", 24, 1)]
    model = save(tmp_path, nodes, ([None, 48], [None, 1]), constants)
    plans, results, skips = quantize(model, QuantizeOptions(bits="2"), samples(64, 48))
    assert [p.layer for p in plans] == ["large"]
    assert [s.layer for s in skips] == ["small"]
    assert "too small: packed it would take" in skips[0].reason
    assert by_name(results)["small"].action == "kept"


def test_embedding_gets_a_finer_grid(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], "table"),
        helper.make_node("MatMul", ["e", "w"], ["y"], "head"),
    ]
    constants = [constant("table", 50, 32), constant("w", 32, 40)]
    dtypes = (onnx.TensorProto.INT64, onnx.TensorProto.FLOAT)
    model = save(tmp_path, nodes, ([None, 4], [None, 4, 40]), constants, dtypes)
    ids = RNG(3).integers(0, 50, (16, 4))
    data = Samples(feeds=({"x": ids},), labels=None, count=16, source="ids", sha256="")
    plans, _, _ = quantize(model, QuantizeOptions(bits="2"), data)
    found = {p.layer: (p.grid, p.method) for p in plans}
    assert found == {"table": ("4", "l2"), "head": ("2", "hessian")}
    assert "an embedding table" in plans[0].reason


def test_shared_weight_is_quantized_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    model = save(tmp_path, nodes, ([None, 40], [None, 40]), [constant("w", 40, 40)])
    data = samples(64, 40)
    expected = outputs(model, data)
    quantize(model, QuantizeOptions(bits="4"), data)
    assert len(model.quantized) == 1
    assert relative(expected, outputs(model, data)) < 0.3


def test_dead_channels_and_zero_weights(tmp_path: Path) -> None:
    """Scales stay positive, because integer kernels divide by them."""
    dead = constant("w", 40, 48)
    values = numpy_helper.to_array(dead).copy()
    values[3] = 0.0
    zeros = numpy_helper.from_array(np.zeros((40, 40), np.float32), "v")
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "dead", transB=1),
        helper.make_node("MatMul", ["h", "v"], ["y"], "zeros"),
    ]
    constants = [numpy_helper.from_array(values, "w"), zeros]
    for data in (samples(64, 48), None):
        model = save(tmp_path, nodes, ([None, 48], [None, 40]), constants)
        plans, _, _ = quantize(model, QuantizeOptions(bits="4"), data)
        assert all((affine.scale > 0).all() for affine in model.quantized.values())
        assert not model.quantized["v"].to_dense().any()
        row = np.abs(model.quantized["w"].to_dense()[3]).max()
        assert row < 1e-2 * np.abs(values).max()
        assert {p.layer: p.reason for p in plans}["zeros"] == "all weights are zero"


def test_recurrent_cells_and_convolutions_over_time(tmp_path: Path) -> None:
    """Both have weights of three axes; a recurrent cell has one scale per direction and row."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv", pads=[1, 1]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[2, 0, 1]),
        helper.make_node("GRU", ["t", "w", "r"], ["y"], "cell", hidden_size=10),
    ]
    constants = [constant("k", 20, 16, 3), constant("w", 1, 30, 20), constant("r", 1, 30, 10)]
    model = save(tmp_path, nodes, ([4, 16, 6], [6, 1, 4, 10]), constants)
    data = Samples(
        feeds=({"x": RNG(0).normal(size=(4, 16, 6)).astype(np.float32)},),
        labels=None,
        count=4,
        source="normal",
        sha256="",
    )
    expected = outputs(model, data)
    plans, _, _ = quantize(model, QuantizeOptions(bits="4"), data)
    assert [p.method for p in plans] == ["hessian", "l2", "l2"]
    scales = {name: affine.scale.shape for name, affine in model.quantized.items()}
    assert scales == {"k": (20, 1, 1), "w": (1, 30, 1), "r": (1, 30, 1)}
    assert relative(expected, outputs(model, data)) < 0.3


def test_calibration_is_bounded_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecompress.pipeline.quantize.MOST_MACS", 1.0)
    model = small_net(tmp_path)
    quantize(model, QuantizeOptions(), samples(64))
    assert any("calibrated on 32 of 64 samples" in note for note in model.notes)


def test_nothing_left_to_quantize(tmp_path: Path) -> None:
    model = small_net(tmp_path)
    options = QuantizeOptions(activations=8, rules=(LayerRule(match="*", skip=True),))
    plans, results, skips = quantize(model, options, samples())
    assert not plans
    assert len(results) == len(skips) == 4
    assert not model.activation_ranges


def test_same_seed_same_codes(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        model = small_net(tmp_path)
        quantize(model, QuantizeOptions(bits="3"), samples())
        found.append(model.to_proto().SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_one_scale_per_tensor(tmp_path: Path) -> None:
    model = small_net(tmp_path)
    quantize(model, QuantizeOptions(bits="4", method="vecq", per_channel=False), None)
    assert {affine.scale.size for affine in model.quantized.values()} == {1}


def test_activation_ranges(tmp_path: Path) -> None:
    model, data = small_net(tmp_path), samples()
    quantize(model, QuantizeOptions(activations=8), data)
    ranges = model.activation_ranges
    assert {"x", "r1", "r2", "h3"} <= ranges.keys()
    assert ranges["r1"][0] == 0.0
    values = np.concatenate([feed["x"] for feed in data.feeds])
    assert values.min() <= ranges["x"][0] < -2.5
    assert 2.5 < ranges["x"][1] <= values.max()


def on_grids(folder: Path, grids: tuple[str, ...] = ("4", "3", "ternary", "4")) -> Model:
    """The small net with float32 weights on grids: codes times a scale for each channel."""
    model = small_net(folder)
    proto = model.to_proto()
    for index, (name, grid) in enumerate(zip(("w1", "w2", "w3", "w4"), grids, strict=True)):
        (place,) = [k for k, t in enumerate(proto.graph.initializer) if t.name == name]
        shape = tuple(proto.graph.initializer[place].dims)
        rng = RNG(index)
        codes = rng.choice(GRIDS[grid].codes, size=shape).astype(np.float32)
        scale = rng.uniform(0.01, 0.1, (shape[0], *(1,) * (len(shape) - 1))).astype(np.float32)
        proto.graph.initializer[place].CopyFrom(numpy_helper.from_array(codes * scale, name))
    onnx.save(proto, folder / "on_grids.onnx")
    return load_model(folder / "on_grids.onnx")


def initializers(model: Model) -> dict[str, np.ndarray[Any, Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.to_proto().graph.initializer}


@pytest.mark.parametrize("method", ["hessian", "l2", "vecq"])
@pytest.mark.parametrize("with_data", [True, False])
def test_weights_on_a_grid_are_packed_as_they_are(
    tmp_path: Path, method: str, with_data: bool
) -> None:
    """Truth: the weights, bit for bit; biases too, as nothing before them was rounded."""
    model = on_grids(tmp_path)
    before = initializers(model)
    options = QuantizeOptions(bits="4", method=method, per_channel=True)
    plans, results, skips = quantize(model, options, samples() if with_data else None)
    assert not skips
    assert [plan.method for plan in plans] == ["exact"] * 4
    assert [result.grid for result in results] == ["4", "3", "ternary", "4"]
    assert [result.reason for result in results] == [
        "",
        "on the grid 3 already",
        "on the grid ternary already",
        "",
    ]
    assert all((result.relative_error or 0) < 1e-6 for result in results)
    after = initializers(model)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert any("all quantized layers were on a grid already" in note for note in model.notes)


def test_a_grid_finer_than_asked_is_rounded(tmp_path: Path) -> None:
    model = on_grids(tmp_path)
    plans, _, _ = quantize(model, QuantizeOptions(bits="3"), samples())
    assert [plan.method for plan in plans] == ["hessian", "exact", "exact", "hessian"]
    assert any("2 of 4 quantized layers" in note for note in model.notes)


def test_codes_behind_a_rounded_layer_stay_and_their_bias_is_corrected(tmp_path: Path) -> None:
    model = on_grids(tmp_path, ("8", "3", "ternary", "4"))
    before = initializers(model)
    plans, _, _ = quantize(model, QuantizeOptions(bits="2"), samples())
    assert [plan.method for plan in plans] == ["hessian", "hessian", "exact", "hessian"]
    after = initializers(model)
    np.testing.assert_array_equal(after["w3"], before["w3"])
    assert not np.array_equal(after["b3"], before["b3"])


def test_coarse_weights_that_are_there_need_no_data(tmp_path: Path) -> None:
    model = on_grids(tmp_path, ("ternary", "2", "ternary", "2"))
    plans, _, _ = quantize(model, QuantizeOptions(bits="2"), None)
    assert {plan.method for plan in plans} == {"exact"}
    assert not any("without calibration data" in note for note in model.notes)
    mixed = on_grids(tmp_path, ("ternary", "2", "ternary", "4"))
    with pytest.raises(UsageError, match="needs calibration data"):
        quantize(mixed, QuantizeOptions(bits="2"), None)


def test_scales_of_channels_are_not_taken_where_one_is_asked(tmp_path: Path) -> None:
    options = QuantizeOptions(method="l2", per_channel=False)
    plans, _, _ = quantize(on_grids(tmp_path), options, None)
    assert {plan.method for plan in plans} == {"l2"}
