"""The committed results are complete, agree with each other and with the pages made from them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks.first_screen import measure as first_screen
from benchmarks.first_screen import render as first_screen_page
from benchmarks.models import render as models_page
from benchmarks.robustness.check import BOUNDS, COMMANDS, DOCUMENTED_REFUSALS
from benchmarks.robustness.measure import OUTCOMES, SUMMARY
from benchmarks.verify_data import differences, expected
from edgecompress import __version__

BENCHMARKS = ROOT / "benchmarks"


def read(path: Path) -> dict[str, object]:
    """A JSON file."""
    document: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_every_data_file_has_a_sha256() -> None:
    files = expected()
    assert len(files) == 44
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in files.values())


def test_verify_data_names_what_is_missing_and_what_differs(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vdsr.onnx").write_bytes(b"something else")
    lines = differences(tmp_path)
    assert "different: models/vdsr.onnx" in lines
    assert "missing: models/dtln_1.onnx" in lines
    assert len(lines) == len(expected())


def test_data_folder_is_the_one_that_was_measured(data_dir: Path) -> None:
    assert differences(data_dir) == []


def test_robustness_summary_counts_the_list() -> None:
    lines = OUTCOMES.read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t") == ["model", *COMMANDS]
    rows = [line.split("\t") for line in lines[1:]]
    assert rows == sorted(rows)
    counts: dict[str, Counter[str]] = {}
    for name, *codes in rows:
        for command, code in zip(COMMANDS, codes, strict=True):
            counts.setdefault(f"{name.partition('/')[0]} {command}", Counter())[code] += 1
    summary = read(SUMMARY)
    assert summary["exit_codes"] == {key: dict(found) for key, found in counts.items()}
    assert {int(code) for found in counts.values() for code in found} <= {0, *DOCUMENTED_REFUSALS}
    assert summary["problems"] == 0
    assert summary["bounds"] == BOUNDS


@pytest.mark.parametrize("folder", ["models", "first_screen", "robustness"])
def test_results_are_of_this_version(folder: str) -> None:
    name = "summary.json" if folder == "robustness" else "results.json"
    versions = read(BENCHMARKS / folder / name)["versions"]
    assert isinstance(versions, dict)
    assert versions["edgecompress"] == __version__


def test_first_screen_has_both_networks_and_every_setting() -> None:
    document = read(first_screen.RESULTS)
    networks = document["networks"]
    assert isinstance(networks, dict)
    assert len(networks) == 2
    for rows in networks.values():
        assert list(rows) == list(first_screen.SETTINGS)
        for row in rows.values():
            assert len(row["accuracy"]) == document["calibration_draws"] == 3
            assert row["samples"] >= 250
            assert max(row["bytes"]) < row["float_bytes"] / 3


def test_pages_are_what_the_results_give() -> None:
    readme = first_screen_page.README.read_text(encoding="utf-8")
    assert first_screen_page.table(read(first_screen.RESULTS)) in readme
    page = models_page.PAGE.read_text(encoding="utf-8")
    assert page == models_page.page(read(models_page.RESULTS))


def test_eight_bit_activations_save_the_time_that_they_promise() -> None:
    """ResNet-20 in onnxruntime, one thread: at most 0.6 of the float time (VNNI)."""
    document = read(BENCHMARKS / "first_screen" / "results.json")
    networks: dict[str, dict[str, dict[str, float]]] = document["networks"]  # type: ignore[assignment]
    (rows,) = (rows for name, rows in networks.items() if name.startswith("ResNet-20"))
    assert rows["4 bit, 8-bit activations"]["onnxruntime_time_ratio"] <= 0.6
