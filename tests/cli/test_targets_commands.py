"""``targets check`` and ``targets calibrate`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecompress.cli.entry import main
from edgecompress.graph.model import load_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import TARGET_FOLDER, load_target


def test_check_names_every_problem_and_ends_with_7(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    text = (TARGET_FOLDER / "systolic-ws-32.toml").read_text()
    path.write_text(text.replace("clock_hz = 500e6", "clock_mhz = 500"))
    assert main(["targets", "check", str(path), "systolic-os-32", "--output-format", "json"]) == 7
    shown = capsys.readouterr()
    assert "invalid: " in shown.err
    document = json.loads(shown.out)
    problems = document["targets"][0]["problems"]
    assert any(text.startswith("clock_mhz: unknown key") for text in problems)
    assert any(text == "clock_hz: missing" for text in problems)
    assert document["targets"][1]["problems"] == []
    assert main(["targets", "check", "systolic-os-32"]) == 0


def test_what_looks_off_is_a_warning_unless_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    text = (TARGET_FOLDER / "systolic-ws-32.toml").read_text()
    path.write_text(text.replace("clock_hz = 500e6", "clock_hz = 500e9"))
    assert main(["targets", "check", str(path)]) == 0
    assert "is the clock in hertz?" in capsys.readouterr().out
    assert main(["targets", "check", str(path), "--strict"]) == 3
    assert "error: odd: " in capsys.readouterr().err
    assert main(["targets", "check", "systolic-ws-32", "--strict"]) == 0
    assert main(["targets", "check", "none"]) == 7


def test_calibrate_writes_a_target_that_predicts_the_times(
    sample_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(sample_models / "digits_cnn.onnx")
    base = load_target("systolic-ws-32")
    works = derive_work(load_model(model, normalize=False), {})
    csv, output = tmp_path / "times.csv", tmp_path / "mine.toml"
    timed = [(work.name, cost(work, base).latency_s) for work in works]
    csv.write_text(
        "layer,seconds\n" + "".join(f"{name},{2e-6 + s!r}\n" for name, s in timed if s > 0)
    )
    command = ["targets", "calibrate", "systolic-ws-32", "--measurements", str(csv)]
    assert main([*command, "--model", model, "-o", str(output)]) == 0
    assert "overhead of an operator" in capsys.readouterr().out
    found = load_target(output)
    assert found.name == "mine"
    assert found.operator_overhead_s == pytest.approx(2e-6, rel=1e-2)
    assert main(["targets", "check", str(output)]) == 0
    assert main([*command, "--model", model, "-o", str(csv)]) == 8
    csv.write_text("layer,seconds\nnone,1\n")
    assert main([*command, "--model", model]) == 6
    assert "0 of 1 operators can be used" in capsys.readouterr().err
