"""Commands on a sample model: they compose through files, and plans replay to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest

import edgecompress

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edgecompress", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code, done.stderr
    return done


def test_commands_compose_and_plans_replay(sample_models: Path, tmp_path: Path) -> None:
    model = sample_models / "digits_cnn.onnx"
    data = ("--data", sample_models / "digits_calibration.npz", "--calibration", "64")
    thin, small, again = (tmp_path / f"{name}.onnx" for name in ("thin", "small", "again"))
    run("decompose", model, "-o", thin, *data, "--target-macs", "60%")
    run("quantize", thin, "-o", small, *data, "--bits", "3", "--report", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["command"] == "quantize"
    assert report["output"]["size_bytes"] == small.stat().st_size
    run("quantize", thin, "-o", again, *data, "--plan", tmp_path / "small.plan.json")
    assert again.read_bytes() == small.read_bytes()
    plans = [
        json.loads((tmp_path / f"{name}.plan.json").read_text()) for name in ("small", "again")
    ]
    assert plans[0] == plans[1]
    shown = json.loads(run("inspect", small, "--output-format", "json").stdout)
    assert {layer["weight_bits"] for layer in shown["layers"]} == {3}
    latency = run("estimate-latency", small, "--target", "systolic-ws-32", "--per-layer").stdout
    assert "Predicted on systolic-ws-32" in latency


def test_an_output_is_the_same_twice(sample_models: Path, tmp_path: Path) -> None:
    model = sample_models / "digits_cnn.onnx"
    for name, seed in (("a", "0"), ("b", "random")):
        output = tmp_path / f"{name}.onnx"
        command = [sys.executable, "-m", "edgecompress", "quantize", str(model), "-o", str(output)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, capture_output=True, env=environment)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_python_functions(sample_models: Path, tmp_path: Path) -> None:
    model = sample_models / "digits_cnn.onnx"
    output = tmp_path / "o.onnx"
    options = edgecompress.QuantizeOptions(bits="4")
    gates = edgecompress.Gates(max_size_bytes=10)
    report = edgecompress.quantize(model, output, options, gates=gates)
    assert report.output
    assert report.output.size_bytes == output.stat().st_size
    assert [gate.met for gate in report.gates] == [False]
    plan = edgecompress.plan(model, decompose=None, quantize=options)
    assert {layer.grid for layer in plan.layers} >= {"4"}
    (latency,) = edgecompress.estimate_latency(output, ["roofline-generic"])
    assert latency.latency_s > 0
    test = str(sample_models / "digits_test.npz")
    evaluation = edgecompress.evaluate(output, test, reference=model, limit=50)
    assert evaluation.samples == 50
    assert len(edgecompress.inspect(output).layers) == len(report.layers)
    assert edgecompress.load(model).find_layers().layers
    with pytest.raises(edgecompress.EdgeCompressError):
        edgecompress.quantize(model, output, options)


def test_every_public_name_is_there() -> None:
    for name in edgecompress.__all__:
        assert getattr(edgecompress, name) is not None
    assert set(dir(edgecompress)) >= set(edgecompress.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = edgecompress.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["text", "json", "markdown"])
def test_targets(form: str) -> None:
    listed = run("targets", "list", "--output-format", form).stdout
    assert "winocnn-zcu102-w4" in listed
    shown = run("targets", "show", "winocnn-zcu102-w4").stdout
    assert "clock_hz" in shown
    assert "[sources]" in shown
    assert "no target 'x'" in run("targets", "show", "x", code=7).stderr


def test_schemas_are_printed() -> None:
    shown = json.loads(run("schema", "latency-report").stdout)
    assert shown["properties"]["schema"]["const"] == "edgecompress.latency-report/1"


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout


def test_a_limit_that_the_outputs_do_not_show_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    """One output per sample has no largest entry, so --max-drop cannot be held."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((64, 64)), "v": rng.standard_normal((64, 1))}
    graph = onnx.parser.parse_graph(
        "g (float[n, 64] x) => (float[n, 1] y){ h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
    )
    graph.initializer.extend(
        onnx.numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in weights.items()
    )
    opset = onnx.helper.make_opsetid("", 21)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    refused = run(
        *("quantize", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx"),
        *("--data", "random:1", "--max-drop", "1%"),
        code=2,
    )
    assert "needs a model that gives scores" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_external_data_count_as_part_of_the_model(sample_models: Path, tmp_path: Path) -> None:
    proto = onnx.load(sample_models / "digits_cnn.onnx")
    model, data = tmp_path / "m.onnx", tmp_path / "m.data"
    onnx.save(proto, model, save_as_external_data=True, location=data.name, size_threshold=100)
    run("quantize", model, "-o", tmp_path / "o.onnx", "--report", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    whole = model.stat().st_size + data.stat().st_size
    assert report["input"]["size_bytes"] == whole
    both = hashlib.sha256(model.read_bytes() + data.read_bytes()).hexdigest()
    assert report["input"]["sha256"] == both
    plan = json.loads((tmp_path / "o.plan.json").read_text())
    assert plan["input_sha256"] == both
