"""``explore`` and ``estimate-latency --sweep`` on the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupts import hear_interrupts

from edgecompress.cli.entry import main
from edgecompress.hardware.parts import PART_FOLDER
from edgecompress.hardware.target import load_target

SMALL = ("--vary", "array_rows=1,2,4", "--vary", "array_columns=1:2", "--vary", "omega_pixels=4,6")


@pytest.fixture
def model(sample_models: Path) -> str:
    return str(sample_models / "digits_cnn.onnx")


def explore(model: str, *more: str) -> int:
    return main(["explore", model, "--target", "winocnn-zcu102-w6", *SMALL, *map(str, more)])


def test_a_target_comes_out_that_is_ready(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, report = tmp_path / "mine.toml", tmp_path / "r.json"
    files = ("--write-target", str(target), "--report", str(report))
    assert explore(model, "--part", "xczu3eg", "--pick", "balanced", *files) == 0
    shown = capsys.readouterr()
    assert "Best for" in shown.out
    assert "exploring" in shown.err
    found = load_target(target)
    assert (found.name, found.part) == ("mine", "xczu3eg")
    document = json.loads(report.read_text())
    best = next(point for point in document["front"] if "balanced" in point["picks"])
    assert best["values"]["parameters.array_rows"] == found.parameters.model_dump()["array_rows"]
    assert main(["targets", "check", str(target)]) == 0
    capsys.readouterr()
    assert (
        main(["estimate-latency", model, "--target", str(target), "--output-format", "json"]) == 0
    )
    latency = json.loads(capsys.readouterr().out)
    assert latency["reports"][0]["latency_s"] == pytest.approx(best["latency_s"][0])


def test_a_part_of_ones_own_is_not_named_in_the_target(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, target = tmp_path / "board.toml", tmp_path / "mine.toml"
    own = (PART_FOLDER / "xczu3eg.toml").read_text().replace('"xczu3eg"', '"my-board"')
    part.write_text(own)
    assert explore(model, "--part", str(part), "--write-target", str(target), "--quiet") == 0
    assert load_target(target).part == ""
    assert main(["targets", "check", str(target)]) == 0
    assert "valid" in capsys.readouterr().out


def test_nothing_fits(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.toml"
    assert explore(model, "--max-dsp", "10", "--write-target", str(target)) == 3
    shown = capsys.readouterr()
    assert "more than 10 DSP" in shown.out
    assert "error: nothing fits the limits" in shown.err
    assert not target.exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--vary", "rows=1:4"), 2, "has no number 'rows'"),
        (("--weight", "1", "--weight", "2"), 2, "2 weights for 1 networks"),
        (("--part", "xcvu9p"), 7, "no part 'xcvu9p'"),
        (("--max-bandwidth", "8"), 2, "--max-bandwidth"),
        (("--write-target", "no/such/folder.toml"), 8, "no such folder"),
        (("--pick", "speed"), 2, "--pick"),
    ],
)
def test_what_is_refused(
    more: tuple[str, ...], code: int, said: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explore(model, *more) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_a_family_without_resources(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explore", model, "--target", "roofline-generic", "--vary", "clock=100,200"]
    assert main([*arguments, "--max-dsp", "9"]) == 5
    assert "so no part can limit it" in capsys.readouterr().err


def test_an_interrupt_leaves_a_state_that_a_rerun_takes_up(model: str, tmp_path: Path) -> None:
    state, report = tmp_path / "state.jsonl", tmp_path / "r.json"
    command = [sys.executable, "-m", "edgecompress", "explore", model, "--quiet"]
    command += ["--target", "winocnn-zcu102-w6", "--vary", "array_rows=1:16"]
    command += ["--vary", "array_columns=1:8", "--vary", "weight_buffer_words=100:2000:40"]
    command += ["--state", str(state), "--report", str(report)]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - nothing runs beside it in the child
    )
    for _ in range(600):
        if state.exists() and state.read_text().count("\n") >= 2:
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    kept = state.read_text()
    assert not report.exists()
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout
    assert state.read_text().startswith(kept)
    assert json.loads(report.read_text())["tried_points"] == 16 * 8 * 40


def test_a_sweep(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "s.html"
    command = ["estimate-latency", model, "--target", "systolic-ws-32"]
    sweep = ["--sweep", "dram.bandwidth=1:20:4log"]
    assert main([*command, *sweep, "--report", str(html), "--output-format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgecompress.sweep-report/1"
    times = document["series"][0]["latency_s"]
    assert times == sorted(times, reverse=True)
    assert "<svg " in html.read_text()
    assert main([*command, *sweep, "--max-latency", "1ms"]) == 2
    assert "a sweep has no operators and no limits" in capsys.readouterr().err


def test_the_state_and_the_target_are_two_files(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "both.toml")
    assert explore(model, "--state", path, "--write-target", path) == 8
    assert "would overwrite another file of this run" in capsys.readouterr().err
