"""The committed latency figures: their form, and that the code still gives them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"


def committed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    assert content["command"] == f"python benchmarks/latency/{name}.py"
    return content


def test_winocnn_figures_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import winocnn

    from edgecompress.hardware.target import load_target

    for row in committed("winocnn")["results"]:
        assert winocnn.measure(load_target(row["target"])) == row
    sys.modules.pop("networks")
    sys.modules.pop("winocnn")


def test_winocnn_meets_the_published_figures() -> None:
    rows = {row["target"]: row for row in committed("winocnn")["results"]}
    assert rows["winocnn-zcu102-w6"]["gops"] == pytest.approx(3100, rel=0.03)
    assert rows["winocnn-zcu102-w6"]["gops_per_dsp"] == pytest.approx(1.33, rel=0.02)


def test_resnet18_figures_have_their_form() -> None:
    from edgecompress.hardware.target import list_targets

    rows = committed("resnet18")["results"]
    assert [row["target"] for row in rows] == list(list_targets())
    for row in rows:
        assert row["macs"] == 1_814_073_344
        assert row["latency_ms"] > 0
        for took in (row["estimate_ms"], row["estimate_ternary_ms"]):
            assert 0 < took["median"] < 20


def test_a_sample_of_the_weights_gives_the_figures_of_all() -> None:
    """The committed comparison: entropies within 0.03 bits, latencies within half a percent."""
    found = committed("resnet18")["sample"]
    assert found["float"]["sampled_weights"] == found["ternary"]["sampled_weights"] == 14
    assert len(found) >= 4
    for errors in found.values():
        assert errors["sampled_weights"] >= 2
        assert errors["entropy_bits"] <= 0.03
        assert errors["zero_share"] <= 0.01
        assert errors["winograd_zero_share"] <= 0.01
        assert errors["latency"]
        assert max(abs(error) for error in errors["latency"].values()) <= 0.005
