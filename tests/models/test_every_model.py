"""Every real model by each of the four commands: a verified file, or the documented refusal.

What to expect is in ``expected_outcomes.toml``. Without ``--full`` the models marked ``slice`` run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest

from benchmarks.models.commands import COMMANDS, WRITING, Expected, expected_outcomes, run

TABLE = expected_outcomes()
RESULTS = Path(__file__).parents[2] / "benchmarks" / "models" / "results.json"
SAME_SIZE = 0.02
"""Sizes of another machine: its ranks may differ by one where two are equally good."""


def results() -> dict[str, Any]:
    """The committed results by model."""
    models: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["models"]
    return models


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("expected", TABLE, ids=lambda expected: expected.model)
def test_model(
    expected: Expected, command: str, data_dir: Path, tmp_path: Path, full: bool
) -> None:
    if not (full or expected.slice):
        pytest.skip("not in the slice; --full runs it")
    done = run(command, data_dir / "models" / expected.model, tmp_path, expected.options)
    assert done.code == expected.codes[command], done.error
    if done.code:
        assert expected.reasons.get(command, "") in done.error
        assert done.error.startswith("error: ")
        assert not done.output.exists()
        return
    assert done.report is not None
    if command in WRITING:
        onnx.checker.check_model(str(done.output), full_check=True)
        ort.InferenceSession(str(done.output), providers=["CPUExecutionProvider"])
        assert done.report["verification"]["checker"]
        size = done.report["output"]["size_bytes"]
        assert size == done.output.stat().st_size
        committed = results()[expected.model][command]["bytes_after"]
        assert size == pytest.approx(committed, rel=SAME_SIZE)


def test_every_file_is_in_the_table(data_dir: Path) -> None:
    files = {path.name for path in (data_dir / "models").iterdir() if path.suffix != ".gz"}
    assert files == {expected.model for expected in TABLE}


def test_every_refusal_has_a_reason() -> None:
    refused = {(e.model, c) for e in TABLE for c in COMMANDS if e.codes[c]}
    assert refused == {(e.model, c) for e in TABLE for c in e.reasons if e.reasons[c].strip()}


def test_results_are_those_that_the_table_expects() -> None:
    """The committed results were made with this table and hold the promise about sizes."""
    models = results()
    found = {name: {c: rows[c]["code"] for c in COMMANDS} for name, rows in models.items()}
    assert found == {expected.model: expected.codes for expected in TABLE}


def test_two_thirds_of_the_float_models_come_out_small() -> None:
    """At 4 bits: 80 % of the weights below 8 bits, and 4x smaller (3x below 150 kB)."""
    models = results()
    quantized = [e.model for e in TABLE if "int8" in e.model]
    floats = {name: rows["quantize"] for name, rows in models.items() if name not in quantized}
    small = [
        name
        for name, row in floats.items()
        if row["code"] == 0
        and row["share_below_8_bits"] >= 0.8
        and row["ratio"] >= (3 if row["bytes_before"] < 150_000 else 4)
    ]
    assert len(small) >= 2 / 3 * len(floats), sorted(set(floats) - set(small))
