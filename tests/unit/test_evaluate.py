"""Accuracy, fidelity and timing of small graphs whose answers are known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from edgecompress.core.errors import DataInvalid, Unsupported, UsageError, VerificationFailed
from edgecompress.core.options import Gates
from edgecompress.core.samples import Samples
from edgecompress.graph.model import Model, load_model
from edgecompress.pipeline.evaluate import evaluate, fidelity
from edgecompress.pipeline.scores import score_axis
from edgecompress.pipeline.timing import interleaved_medians


@pytest.fixture
def model(tmp_path):
    """Makes a model y = x * factor over (n, 3), or with another body."""
    count = iter(range(100))

    def make(factor: str = "{1.0}", body: str = "y = Mul(x, c)", name: str = "x") -> Model:
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] {name}) => (float[N,M] y) <float[{factor.count(",") + 1}] c = {factor}>
        {{ {body.replace("x", name) if name != "x" else body} }}"""
        path = Path(tmp_path) / f"{next(count)}.onnx"
        onnx.save(onnx.parser.parse_model(text), path)
        return load_model(path, normalize=False)

    return make


def samples(x: np.ndarray, labels: list[int] | None = None, *, batch: int = 64) -> Samples:
    x = x.astype(np.float32)
    return Samples(
        feeds=tuple({"x": x[start : start + batch]} for start in range(0, len(x), batch)),
        labels=None if labels is None else np.array(labels),
        count=len(x),
        source="by hand",
        sha256="",
    )


X = np.array([[1, 2, 3], [9, 1, 1], [0, 5, 1], [2, 2, 8]])


def test_accuracy_of_one_model(model) -> None:
    report = evaluate(model(), None, samples(X, [2, 0, 1, 0], batch=3))
    assert report.accuracy == 0.75
    assert report.samples == 4
    assert report.fidelity is None
    assert report.latency_ratio is None
    assert report.latency_s is not None
    assert report.latency_s > 0


def test_two_models_side_by_side(model) -> None:
    """y' = y * (1, 1, -1): the squared error is 4 (9 + 1 + 1 + 64) of 195."""
    report = evaluate(model("{1.0, 1.0, -1.0}"), model(), samples(X, [2, 0, 1, 2], batch=3))
    assert report.reference_accuracy == 1.0
    assert report.accuracy == 0.5
    close = report.fidelity
    assert close is not None
    assert close.relative_l2 == pytest.approx(np.sqrt(300 / 195))
    assert close.sqnr_db == pytest.approx(-10 * np.log10(300 / 195))
    assert close.top1_agreement == 0.5
    assert report.latency_ratio is not None
    assert report.reference_latency_s is not None
    assert report.latency_ratio == pytest.approx(report.latency_s / report.reference_latency_s)


def test_equal_models(model) -> None:
    report = evaluate(model(), model(), samples(X))
    assert report.fidelity is not None
    assert report.fidelity.relative_l2 == 0
    assert report.fidelity.sqnr_db == 300
    assert report.accuracy is None


def test_gates(model) -> None:
    gates = Gates(max_size_bytes=10, max_drop=0.6, min_accuracy=0.6)
    report = evaluate(model("{1.0, 1.0, -1.0}"), model(), samples(X, [2, 0, 1, 2]), gates=gates)
    assert [(gate.name, gate.met) for gate in report.gates] == [
        ("max-size", False),
        ("max-drop", True),
        ("min-accuracy", False),
    ]
    with pytest.raises(UsageError, match="needs data with labels"):
        evaluate(model(), None, samples(X), gates=Gates(min_accuracy=0.5))


def test_labels_that_do_not_fit(model) -> None:
    with pytest.raises(DataInvalid, match="the largest is 3, and the model gives 3 scores"):
        evaluate(model(), None, samples(X, [0, 1, 2, 3]))
    with pytest.raises(DataInvalid, match=r"the first output is \(3, 4\) for 4 samples"):
        evaluate(model(body="y = Transpose(x)"), None, samples(X, [0, 1, 2, 0]))


ONE_SCORE = {
    "logits": "y = ReduceSum<keepdims = 0>(x, axis)",
    "a column of logits": "y = ReduceSum<keepdims = 1>(x, axis)",
    "probabilities": "t = ReduceSum<keepdims = 0>(x, axis)\ny = Sigmoid(t)",
}


@pytest.mark.parametrize("body", ONE_SCORE.values(), ids=ONE_SCORE)
def test_one_score_tells_two_classes_apart(tmp_path: Path, body: str) -> None:
    """Sums 2, -1, 0.5, -3 and 1 mean 1, 0, 1, 0 and 1, whether as logits or as probabilities."""
    shape = "N,1" if "keepdims = 1" in body else "N"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2] x) => (float[{shape}] y) <int64[1] axis = {{1}}> {{ {body} }}"""
    path = tmp_path / "one.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    one = load_model(path, normalize=False)
    x = np.array([[1, 1], [-2, 1], [0, 0.5], [-1, -2], [3, -2]])
    assert evaluate(one, None, samples(x, [1, 0, 0, 0, 1], batch=2)).accuracy == 0.8
    assert evaluate(one, one, samples(x, [1, 0, 1, 0, 1])).reference_accuracy == 1.0
    close = evaluate(one, one, samples(x)).fidelity
    assert close is not None
    assert close.top1_agreement is None
    with pytest.raises(DataInvalid, match="the largest is 2, and the model gives 1 scores"):
        evaluate(one, None, samples(x, [1, 0, 2, 0, 1]))


def test_nan_is_not_close(model) -> None:
    roots = "t = Mul(x, c)\ny = Sqrt(t)"
    turned = model("{1.0, 1.0, -1.0}", body=roots)
    with pytest.raises(VerificationFailed, match="NaN or infinite at 4 of 12 places"):
        evaluate(turned, model(body=roots), samples(X))


def test_models_that_do_not_compare(model) -> None:
    with pytest.raises(Unsupported, match="outputs of different shapes"):
        evaluate(model(body="y = Transpose(x)"), model(), samples(X))
    with pytest.raises(UsageError, match="take different inputs: x float32 and q float32"):
        evaluate(model(), model(name="q"), samples(X))


def test_fidelity_of_maps_and_integers() -> None:
    """Scores of a map lie along axis 1; integer outputs count in the error only."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 4, 5, 5)).astype(np.float32)
    b = a.copy()
    b[0, :, 0, 0] = np.roll(b[0, :, 0, 0], 1)
    whole = Samples(feeds=({"x": np.zeros((2, 1))},), labels=None, count=2, source="", sha256="")
    result = fidelity([[a, np.array([3])]], [[b, np.array([4])]], whole)
    assert result.top1_agreement == pytest.approx(49 / 50)
    expected = np.sqrt(
        (((a - b).astype(float) ** 2).sum() + 1) / ((a.astype(float) ** 2).sum() + 9)
    )
    assert result.relative_l2 == pytest.approx(expected)
    assert score_axis(np.zeros((2, 1, 5, 5), np.float32)) is None
    assert score_axis(np.zeros((2, 5), np.int64)) is None
    assert score_axis(np.float32(1).reshape(())) is None


def test_medians_in_turns() -> None:
    fast, slow = interleaved_medians([lambda: time.sleep(0.002), lambda: time.sleep(0.006)])
    assert 2 < slow / fast < 4
