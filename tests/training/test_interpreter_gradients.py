"""Gradients of the interpreter against finite differences, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interpreter_cases import CASES, Case, model_from, model_of, tensors
from torch import Tensor
from torch.autograd import gradcheck

from edgecompress.graph.model import load_model
from edgecompress.training.interpreter.interpreter import Interpreter

ALONG_RELATIVE = 1e-5
"""Central difference of step 1e-6 in float64 along one direction: 1e-12 by curvature, 1e-10 by
cancellation, more where a unit turns on or off within the step."""


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_an_operator(name: str, full: bool) -> None:
    """Every entry of the Jacobian; in an ordinary run along random directions on both sides."""
    case = CASES[name]
    interpreter = Interpreter(model_of(case.proto()), dtype=torch.float64)
    feed = tensors(case.feed(), torch.float64)
    trained = [key for key in feed if not (case.given and key in case.given)]

    def output(*values: Tensor) -> Any:
        return interpreter(feed | dict(zip(trained, values, strict=True)))["y"]

    values = [feed[key].requires_grad_() for key in trained]
    assert output(*values).requires_grad
    assert gradcheck(output, values, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=not full)


def directional(
    interpreter: Interpreter, feed: dict[str, Tensor], wanted: str, seed: int
) -> tuple[float, float]:
    """Slope of a scalar of an output along a random direction of all weights: by gradient, by
    central difference."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    weights = list(interpreter.weights.values())
    start = interpreter(feed, [wanted])[wanted]
    mixed = draw(start)
    gradients = torch.autograd.grad((start * mixed).sum(), weights, allow_unused=True)
    size = [float(weight.detach().abs().mean()) for weight in weights]
    ways = [draw(w) * s for w, s in zip(weights, size, strict=True)]
    by_gradient = sum(
        float((g * way).sum()) for g, way in zip(gradients, ways, strict=True) if g is not None
    )
    step, ends = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            moved = {
                name: weight + sign * step * way
                for (name, weight), way in zip(interpreter.weights.items(), ways, strict=True)
            }
            ends.append(float((interpreter(feed | moved, [wanted])[wanted] * mixed).sum()))
    return by_gradient, (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize(
    ("name", "shapes", "wanted"),
    [
        ("fashion_cnn_alt", {"input": (2, 1, 28, 28)}, None),
        ("resnet20_cifar10_bn_op11", {"input": (2, 3, 32, 32)}, None),
        ("stories260k", {"ids": (2, 5)}, None),
        ("dtln_1", {"input_2": (1, 1, 257), "input_3": (1, 2, 128, 2)}, None),
        ("dtln_2", {"input_4": (1, 1, 512), "input_5": (1, 2, 128, 2)}, None),
        ("silero_vad_half", {"input": (2, 512), "state": (2, 2, 128)}, None),
        ("vdsr", {"input": (1, 1, 9, 11)}, None),
        ("ppocr_ch_v1.1_det", {"image": (1, 3, 32, 64)}, "sigmoid"),
    ],
)
def test_gradient_of_a_real_model(
    name: str, shapes: dict[str, tuple[int, ...]], wanted: str | None, data_dir: Path
) -> None:
    model = load_model(data_dir / "models" / f"{name}.onnx", normalize=False)
    interpreter = Interpreter(model, dtype=torch.float64)
    rng = np.random.default_rng(1)
    if name == "stories260k":
        feed = {"ids": torch.from_numpy(rng.integers(0, 512, shapes["ids"]))}
    else:
        feed = {key: torch.from_numpy(rng.normal(size=shape)) for key, shape in shapes.items()}
    output = model.outputs()[0].name
    if wanted is not None:  # what enters the last activation, which is saturated
        last = next(node for node in reversed(model.ir.graph) if node.op_type == "Sigmoid")
        output = last.inputs[0].name or ""
    by_gradient, by_difference = directional(interpreter, feed, output, seed=2)
    assert by_gradient == pytest.approx(by_difference, rel=ALONG_RELATIVE)
    assert by_gradient != 0


MIXED = """
<ir_version: 10, opset_import: ["" : 21]>
graph (float[n,4] x) => (float[n,2,2] y)
<float[4] scale = {1, 2, 3, 4}, float[1] factor = {2}, int64[1] zero = {0}>
{
    shape = Shape (x)
    floats = Cast <to = 1> (shape)
    doubled = Mul (floats, factor)
    whole = Cast <to = 7> (doubled)
    rows = Gather (shape, zero)
    two = Constant <value_ints = [2, 2]> ()
    form = Concat <axis = 0> (rows, two)
    scaled = Mul (x, scale)
    y = Reshape (scaled, form)
}
"""


def test_no_gradient_runs_through_shapes() -> None:
    interpreter = Interpreter(model_from(MIXED))
    assert set(interpreter.weights) == {"scale"}
    found = interpreter({"x": torch.ones(3, 4)}, ["y", "whole", "form", "doubled"])
    assert [name for name, value in found.items() if value.requires_grad] == ["y"]
    assert found["whole"].tolist() == [6, 8]
    assert found["form"].tolist() == [3, 2, 2]
    found["y"].sum().backward()
    assert interpreter.weights["scale"].grad is not None
    assert interpreter.weights["scale"].grad.tolist() == [3.0] * 4


SHARED = """
<ir_version: 10, opset_import: ["" : 21]>
graph (float[2] x) => (float[2] y) <float[2] w = {3, 5}>
{
    a = Mul (x, w)
    y = Mul (a, w)
}
"""


def test_a_shared_weight_is_one_parameter() -> None:
    interpreter = Interpreter(model_from(SHARED))
    assert len(list(interpreter.parameters())) == 1
    interpreter({"x": torch.tensor([1.0, 2.0])})["y"].sum().backward()
    assert interpreter.weights["w"].grad is not None
    assert interpreter.weights["w"].grad.tolist() == [2 * 3 * 1, 2 * 5 * 2]  # d(x w^2)/dw = 2 x w


def test_nothing_is_changed_in_place() -> None:
    """Values that were fed stay as they were, whatever runs on them."""
    for case in CASES.values():
        interpreter = Interpreter(model_of(case.proto()))
        feed = tensors(case.feed())
        before = {name: value.clone() for name, value in feed.items()}
        interpreter(dict(feed))
        assert all(torch.equal(feed[name], before[name]) for name in feed)


ROUNDED = Case(
    inputs="float[6] x, float s",
    body="z = Constant <value = int8 {3}> () q = QuantizeLinear (x, s, z)"
    " y = DequantizeLinear (q, s, z)",
    given={
        "x": np.float32([-99.0, -0.26, 0.3, 0.76, 12.2, 99.0]),
        "s": np.float32(0.5),
    },
)


def test_rounding_passes_gradients_where_asked() -> None:
    """1 within the range of the codes and 0 outside; of the scale, what Esser et al. 2020 derive:
    the code less x / scale within, the code at the end outside."""
    feed = tensors(ROUNDED.feed())
    plain = Interpreter(model_of(ROUNDED.proto()))
    through = Interpreter(model_of(ROUNDED.proto()), straight_through=True)
    x, scale = feed["x"].requires_grad_(), feed["s"].requires_grad_()
    y = through({"x": x, "s": scale})["y"]
    torch.testing.assert_close(y, plain(dict(feed))["y"], rtol=0, atol=0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]
    codes = np.round(np.array([-0.52, 0.6, 1.52, 24.4])) - [-0.52, 0.6, 1.52, 24.4]
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx((-128 - 3) + (127 - 3) + codes.sum(), abs=1e-5)
