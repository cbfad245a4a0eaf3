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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("weight_buffer_bytes = 131072", "weight_buffer_bytes = 8"), "does not hold what the"),
        (("activation_buffer_bytes = 262144", "activation_buffer_bytes = 63"), "64 bytes"),
    ],
)
def test_a_buffer_that_holds_no_operands_is_odd(
    change: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    text = (TARGET_FOLDER / "systolic-ws-32.toml").read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    assert main(["targets", "check", str(path)]) == 0
    assert said in capsys.readouterr().out.replace("\n  ", " ")
    assert main(["targets", "check", str(path), "--strict"]) == 3


def test_a_part_that_is_none_does_not_look_as_if_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    text = (TARGET_FOLDER / "systolic-ws-32.toml").read_text()
    path.write_text(text.replace("activation_bits = 8", 'activation_bits = 8\npart = "xcvu9p"', 1))
    assert main(["targets", "check", str(path), "--output-format", "json"]) == 7
    found = json.loads(capsys.readouterr().out)["targets"][0]
    assert found["part"] == ""
    assert "part: no part 'xcvu9p'" in found["problems"][0]


def test_a_file_that_is_not_there_is_no_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["targets", "check", "none.toml"]) == 8
    assert capsys.readouterr().err == "error: none.toml: no such file\n"
    assert main(["targets", "check", str(tmp_path)]) == 8
    assert "a folder, not a file" in capsys.readouterr().err
    assert main(["targets", "check", "none"]) == 7
    assert "one of bitfusion-45nm" in capsys.readouterr().err


def test_empty_text_is_said_in_our_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    text = (TARGET_FOLDER / "systolic-ws-32.toml").read_text()
    path.write_text(text.replace('kinds = ["conv", "matmul"]', "part = 3\nkinds = []"))
    assert main(["targets", "check", str(path), "--output-format", "json"]) == 7
    problems = json.loads(capsys.readouterr().out)["targets"][0]["problems"]
    assert "kinds: should not be empty" in problems
    assert "part: should be a valid string, not 3" in problems


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
