"""``estimate-latency --training-step`` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecompress.cli import main

MODEL = str(Path(__file__).parents[2] / "sample_models" / "digits_cnn.onnx")
STEP = ["estimate-latency", MODEL, "--target", "systolic-ws-32", "--training-step"]


def run(*words: str) -> int:
    return main([*STEP, *words])


def test_phases_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--optimizer", "momentum", "--gradient-bits", "8", "--master-bits", "16") == 0
    text = capsys.readouterr().out
    for word in ("forward", "backward", "weight gradient", "update", "state of momentum"):
        assert word in text
    assert "16-bit masters" in text


def test_json_has_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--output-format", "json", "--assume-bits", "8/4") == 0
    report = json.loads(capsys.readouterr().out)["reports"][0]
    assert report["options"] == {
        "optimizer": "sgd",
        "gradient_bits": 16,
        "master_bits": 0,
        "state_bits": 32,
    }
    assert report["memory"]["parameter_bytes"] == report["parameters"] / 2


@pytest.mark.parametrize("words", [("--max-latency", "1ns"), ("--strict",)])
def test_limits_hold_for_a_step(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 3
    assert "NOT MET" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--per-layer",), "by phase"),
        (("--master-bits", "1"), "2 to 64 bits"),
        (("--sweep", "dram.bandwidth=1:2:2"), "a sweep has no"),
    ],
)
def test_what_does_not_go_together(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_options_of_the_step_without_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["estimate-latency", MODEL, "--target", "systolic-ws-32", "--optimizer", "adam"]
    assert main(words) == 2
    assert "--training-step" in capsys.readouterr().err
