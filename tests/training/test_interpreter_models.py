"""Real models in torch: equal to onnxruntime, run in parts, written back."""

from __future__ import annotations

import copy
import json
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from interpreter_cases import model_from, model_of, tensors
from oracle import run_unoptimized
from quantized_models import affine, packed, quantized_model
from tolerance import INTERPRETER_HALF_RELATIVE, INTERPRETER_RELATIVE

from benchmarks.training.interpreter import (
    CODED,
    HALF_RELATIVE,
    OPEN_SIZES,
    RELATIVE,
    RESULTS,
    feed_of,
    largest_difference,
    tensors_as_given,
)
from edgecompress.graph.model import load_model
from edgecompress.training.interpreter.interpreter import Interpreter


@pytest.mark.parametrize("name", OPEN_SIZES)
def test_float_model(name: str, data_dir: Path, full: bool) -> None:
    """As the file says, and (whole suite) as it is brought into the form that is compressed."""
    path = data_dir / "models" / f"{name}.onnx"
    limit = INTERPRETER_HALF_RELATIVE if "fp16" in name else INTERPRETER_RELATIVE
    for normalize in (False, True) if full else (False,):
        interpreter = Interpreter(load_model(path, normalize=normalize))
        for seed, shapes in enumerate(OPEN_SIZES[name]):
            feed = feed_of(path, shapes, seed)
            with torch.no_grad():
                found = [value.numpy() for value in interpreter(tensors_as_given(feed)).values()]
            assert largest_difference(run_unoptimized(str(path), feed), found) <= limit


def test_committed_results_hold_the_promise() -> None:
    """The results of the benchmark: every model within tolerance, nothing wrong anywhere."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert results["models"].keys() == OPEN_SIZES.keys()
    assert (RELATIVE, HALF_RELATIVE) == (INTERPRETER_RELATIVE, INTERPRETER_HALF_RELATIVE)
    for name, row in results["models"].items():
        limit = HALF_RELATIVE if "fp16" in name else RELATIVE
        assert max(row["as_is"], row["normalized"]) <= limit, name
    for corpus in ("odd_files", "backend_suite"):
        counts = results[corpus]
        assert counts["equal"] + counts["refused"] == counts["files"]
    assert results["training_step"][0]["ratio_median"] <= 1.3


def test_every_float_model_is_in_the_table(data_dir: Path) -> None:
    files = {path.stem for path in (data_dir / "models").glob("*.onnx")}
    assert files == OPEN_SIZES.keys() | CODED.keys()


@pytest.mark.parametrize("name", CODED)
def test_quantized_model_to_the_code(name: str, data_dir: Path) -> None:
    path = data_dir / "models" / f"{name}.onnx"
    feed = feed_of(path, CODED[name], 0)
    for through in (False, True):
        interpreter = Interpreter(load_model(path, normalize=False), straight_through=through)
        with torch.no_grad():
            found = [value.numpy() for value in interpreter(tensors_as_given(feed)).values()]
        expected = run_unoptimized(str(path), feed)
        assert (
            largest_difference(
                expected, [f.astype(e.dtype) for e, f in zip(expected, found, strict=True)]
            )
            == 0
        )


TWO_LAYERS = """
graph (float[2,3,6,6] x) => (float[2,5] y) <int64[2] axes = {2, 3}>
{
    c = Conv <pads = [1,1,1,1]> (x, kernel)
    r = Relu (c)
    m = ReduceMean <keepdims = 0> (r, axes)
    y = MatMul (m, matrix)
}
"""


@pytest.mark.parametrize("grid", ["ternary", "2", "3", "4", "8"])
@pytest.mark.parametrize("activations", [False, True])
def test_packed_codes_are_decoded(grid: str, activations: bool) -> None:
    """The files that the quantizers write: look-ups, scales, codes of activations."""
    weights = {"kernel": affine((8, 3, 3, 3), grid), "matrix": affine((8, 5), grid, axis=1)}
    model = quantized_model(TWO_LAYERS, weights)
    if activations:
        model.activation_ranges.update({"x": (-3.0, 3.0)})
    proto = onnx.load_from_string(packed(model, activations=activations))
    feed = {"x": np.random.default_rng(3).normal(size=(2, 3, 6, 6)).astype(np.float32)}
    (expected,) = run_unoptimized(proto, feed)
    for through in (False, True):
        interpreter = Interpreter(model_of(proto), straight_through=through)
        x = torch.from_numpy(feed["x"]).requires_grad_()
        y = interpreter({"x": x})["y"]
        assert largest_difference([expected], [y.detach().numpy()]) <= INTERPRETER_RELATIVE
        if through:
            y.sum().backward()
            assert x.grad is not None
            assert x.grad.any()


def test_what_enters_the_last_activation_of_a_saturated_model(data_dir: Path) -> None:
    """The detector's map is near zero on noise; the numbers before its sigmoid are not."""
    path = data_dir / "models" / "ppocr_ch_v1.1_det.onnx"
    model = load_model(path, normalize=False)
    last = next(node for node in reversed(model.ir.graph) if node.op_type == "Sigmoid")
    name = last.inputs[0].name or ""
    proto = onnx.load(path)
    proto.graph.output.append(onnx.ValueInfoProto(name=name))
    feed = feed_of(path, {"image": (1, 3, 64, 96)}, 0)
    with torch.no_grad():
        found = Interpreter(model)(tensors(feed), [name])[name].numpy()
    expected = run_unoptimized(proto, feed)[-1]
    assert np.abs(expected).max() > 1
    assert largest_difference([expected], [found]) <= INTERPRETER_RELATIVE


CHAIN = """
<ir_version: 10, opset_import: ["" : 21]>
graph (float[2,3] x) => (float[2,2] y)
<float[3,3] a = {1, 2, 0, 0, 1, 0, 0, 0, 1}, float[2,3] b = {1, 0, 0, 0, 1, 1}, float[1] k = {3}>
{
    h = MatMul (x, a)
    r = Relu (h)
    y = Gemm <transB = 1> (r, b)
    unread = Mul (y, k)
}
"""


def test_a_slice_runs_alone() -> None:
    interpreter = Interpreter(model_from(CHAIN))
    r = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    found = interpreter({"r": r}, ["y"])
    assert list(found) == ["y"]
    assert found["y"].tolist() == [[1.0, 5.0], [0.0, 1.0]]
    both = interpreter({"x": r}, ["h", "y", "x"])
    assert both["h"].tolist() == [[1.0, 4.0, 3.0], [0.0, 1.0, 0.0]]
    assert both["x"] is r


def test_a_fed_weight_stands_in() -> None:
    interpreter = Interpreter(model_from(CHAIN))
    r = torch.tensor([[1.0, 2.0, 3.0]])
    weight = torch.zeros(2, 3, requires_grad=True)
    y = interpreter({"r": r, "b": weight}, ["y"])["y"]
    assert y.tolist() == [[0.0, 0.0]]
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0]] * 2


@pytest.mark.parametrize(
    ("feeds", "wanted", "message"),
    [
        ({}, None, "value 'x' is needed and is not fed"),
        ({"x": torch.ones(2, 3)}, ["nothing"], "value 'nothing' is needed and is not in the graph"),
    ],
)
def test_what_is_missing_is_named(
    feeds: dict[str, torch.Tensor], wanted: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Interpreter(model_from(CHAIN))(feeds, wanted)


def test_weights_that_lead_nowhere_are_not_trained() -> None:
    assert set(Interpreter(model_from(CHAIN)).weights) == {"a", "b"}


def test_write_back_changes_what_was_trained() -> None:
    model = model_from(CHAIN)
    interpreter = Interpreter(model)
    assert interpreter.write_back(model) == 0
    with torch.no_grad():
        interpreter.weights["b"].add_(0.5)
    twin = model.clone()
    assert interpreter.write_back(twin) == 1
    assert interpreter.write_back(twin) == 0
    x = np.float32([[1, -2, 3], [0, 1, 0]])
    (expected,) = run_unoptimized(twin.to_proto(), {"x": x})
    assert interpreter({"x": torch.from_numpy(x)})["y"].tolist() == expected.tolist()


def test_write_back_drops_codes_that_no_longer_hold() -> None:
    weights = {"kernel": affine((8, 3, 3, 3), "4"), "matrix": affine((8, 5), "4", axis=1)}
    model = quantized_model(TWO_LAYERS, weights)
    interpreter = Interpreter(model)
    with torch.no_grad():
        interpreter.weights["matrix"].mul_(2)
    assert interpreter.write_back(model) == 1
    assert set(model.quantized) == {"kernel"}


def test_a_copy_is_independent() -> None:
    interpreter = Interpreter(model_from(CHAIN))
    twin = copy.deepcopy(interpreter)
    with torch.no_grad():
        twin.weights["b"].zero_()
    x = {"x": torch.ones(2, 3)}
    assert twin(x)["y"].tolist() == [[0.0, 0.0]] * 2
    assert interpreter(x)["y"].tolist() == [[1.0, 4.0]] * 2  # (1, 3, 1) times b


def test_write_back_names_what_is_missing() -> None:
    interpreter = Interpreter(model_from(CHAIN))
    with pytest.raises(ValueError, match="the model has no initializer 'b'"):
        interpreter.write_back(model_from(CHAIN.replace("b = {", "c = {").replace(", b)", ", c)")))
    other = model_from(
        CHAIN.replace("float[2,3] b = {1, 0, 0, 0, 1, 1}", "float[1,3] b = {1, 0, 0}")
    )
    with pytest.raises(ValueError, match=r"initializer 'b' has shape"):
        interpreter.write_back(other)


def test_weights_in_bodies_are_trained_and_written_back(data_dir: Path, tmp_path: Path) -> None:
    """The weights of silero_vad are Constants inside If."""
    path = data_dir / "models" / "silero_vad_half.onnx"
    model = load_model(path, normalize=False)
    interpreter = Interpreter(model)
    feed = feed_of(path, OPEN_SIZES["silero_vad_half"][1], 0)
    output = interpreter(tensors(feed))["output"]
    output.sum().backward()
    reached = [w for w in interpreter.weights.values() if w.grad is not None and w.grad.any()]
    assert len(reached) >= 12  # six convolutions with bias
    with torch.no_grad():
        for weight in interpreter.weights.values():
            weight.mul_(1.01)
    assert interpreter.write_back(model) == len(interpreter.weights)
    found = interpreter(tensors(feed))["output"].detach().numpy()
    expected, _ = run_unoptimized(model.to_proto(), feed)
    assert largest_difference([expected], [found]) <= INTERPRETER_RELATIVE
    assert np.abs(found - output.detach().numpy()).max() > 1e-4


def test_a_fed_weight_stands_in_within_a_body(data_dir: Path) -> None:
    path = data_dir / "models" / "silero_vad_half.onnx"
    interpreter = Interpreter(load_model(path, normalize=False))
    feed = tensors(feed_of(path, OPEN_SIZES["silero_vad_half"][1], 0))
    with torch.no_grad():
        before = interpreter(feed)["output"]
        doubled = {name: 2 * weight for name, weight in interpreter.weights.items()}
        fed = interpreter(feed | doubled)["output"]
        for weight in interpreter.weights.values():
            weight.mul_(2)
        after = interpreter(feed)["output"]
    assert torch.equal(fed, after)
    assert not torch.equal(fed, before)


@pytest.mark.parametrize(
    "name", ["resnet20_cifar10_bn_op11", "stories260k", "ppocr_ch_v1.1_det", "silero_vad"]
)
def test_numbers_stay_on_the_cpu(name: str, data_dir: Path) -> None:
    """On the device without data nothing can be read: shapes, bounds and conditions are not there,
    and everything that weights and inputs enter is."""
    path = data_dir / "models" / f"{name}.onnx"
    model = load_model(path, normalize=False)
    feed = tensors_as_given(feed_of(path, OPEN_SIZES[name][1], 0))
    expected = Interpreter(model)(feed)
    there = {k: value if k == "sr" else value.to("meta") for k, value in feed.items()}
    found = Interpreter(model, device="meta")(there)
    assert {value.device.type for value in found.values()} == {"meta"}
    shapes = {k: value.shape for k, value in found.items()}
    assert shapes == {k: value.shape for k, value in expected.items()}


def test_training_mode_changes_nothing(data_dir: Path) -> None:
    path = data_dir / "models" / "resnet20_cifar10_bn_op11.onnx"
    interpreter = Interpreter(load_model(path, normalize=False))
    feed = tensors(feed_of(path, {"input": (2, 3, 32, 32)}, 0))
    interpreter.eval()
    (before,) = interpreter(feed).values()
    interpreter.train()
    (after,) = interpreter(feed).values()
    assert torch.equal(before, after)
    frozen = {name for name in interpreter.weights if "running" in name}
    assert not frozen


def test_values_are_freed_on_the_way() -> None:
    body = " ".join(f"v{k + 1} = Relu (v{k})" for k in range(6))
    head = '<ir_version: 10, opset_import: ["" : 21]>'
    text = f"{head} graph (float[4] v0) => (float[4] v6) {{ {body} }}"
    interpreter = Interpreter(model_from(text))
    alive: list[int] = []
    made: list[weakref.ref[torch.Tensor]] = []
    relu = torch.relu

    def watched(x: torch.Tensor) -> torch.Tensor:
        y = relu(x)
        made.append(weakref.ref(y))
        alive.append(sum(ref() is not None for ref in made))
        return y

    from edgecompress.training.interpreter import activations

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setitem(activations._PLAIN, "Relu", watched)
        interpreter({"v0": torch.ones(4)})
    assert max(alive) == 2  # what is read and what is made


def test_double_precision_runs_throughout() -> None:
    interpreter = Interpreter(model_from(CHAIN), dtype=torch.float64)
    assert {weight.dtype for weight in interpreter.parameters()} == {torch.float64}
    assert interpreter({"x": torch.ones(2, 3)})["y"].dtype == torch.float64
