"""The figures in the documentation are those of the committed benchmark run."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "decomposition"


def test_documentation_has_the_results() -> None:
    page = (ROOT / "docs" / "decomposition.md").read_text()
    assert (FOLDER / "results.md").read_text().strip() in page


def test_bars_hold_in_the_results() -> None:
    facts = json.loads((FOLDER / "results.json").read_text())
    assert facts["draws"] >= 3
    assert facts["test_samples"] == 1000
    for share, bar in ((0.7, 0.7), (0.5, 2.5)):
        runs = [r for r in facts["runs"] if r["share"] == share and r["draw"] is not None]
        assert len(runs) == facts["draws"]
        assert max(run["macs"] for run in runs) <= share
        lost = 100 * mean(run["float_accuracy"] - run["accuracy"] for run in runs)
        assert lost <= bar
        plain = [r for r in facts["runs"] if r["share"] == share and r["draw"] is None]
        assert plain
        assert max(r["accuracy"] for r in plain) < min(r["accuracy"] for r in runs)
