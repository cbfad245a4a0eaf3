"""Models from elsewhere: a valid graph with equal outputs, or the refusal that is on the list.

Without ``--full`` a seeded slice runs: models that are compressed, and as many that are refused.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from benchmarks.robustness.check import COMMANDS, check
from benchmarks.robustness.corpora import Case, node_cases, node_names, odd_cases, unpack_odd
from benchmarks.robustness.measure import OUTCOMES

SLICE = 300
"""Models of each corpus in an ordinary test run."""


def listed() -> dict[str, dict[str, int]]:
    """Model -> command -> exit code, as checked in."""
    with OUTCOMES.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {row["model"]: {c: int(row[c]) for c in COMMANDS} for row in rows}


LISTED = listed()


def chosen(corpus: str, full: bool) -> list[str]:
    """Names in a corpus to run, without the name of the corpus."""
    names = sorted(name for name in LISTED if name.startswith(f"{corpus}/"))
    if not full:
        done = [name for name in names if LISTED[name]["compress"] == 0]
        refused = [name for name in names if name not in done]
        draw = random.Random(0)
        taken = draw.sample(done, min(SLICE // 2, len(done)))
        rest = min(SLICE - len(taken), len(refused))
        names = taken + draw.sample(refused, rest)
    return [name.partition("/")[2] for name in names]


def problems(case: Case, folder: Path) -> list[str]:
    """What is wrong with the case, one line each."""
    lines = []
    for command in COMMANDS:
        outcome = check(case, command, folder)
        if outcome.problem:
            lines.append(f"{case.name} {command}: {outcome.problem}")
        if outcome.code != LISTED[case.name][command]:
            lines.append(f"{case.name} {command}: {outcome.code} {outcome.message}")
    return lines


@pytest.mark.slow
def test_odd_files(data_dir: Path, tmp_path: Path, full: bool) -> None:
    unpack_odd(data_dir, tmp_path)
    names = chosen("odd", full)
    assert len(names) == (365 if full else SLICE)
    found = [line for case in odd_cases(names, tmp_path) for line in problems(case, tmp_path)]
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_node_models(tmp_path: Path, full: bool) -> None:
    names = chosen("node", full)
    found = [line for case in node_cases(names, tmp_path) for line in problems(case, tmp_path)]
    assert not found, "\n".join(found)


def test_the_list_has_every_model() -> None:
    """1,394 node models at least, all in the suite that is installed, and every odd file."""
    nodes = {name.removeprefix("node/") for name in LISTED if name.startswith("node/")}
    assert len(nodes) >= 1394
    assert nodes <= set(node_names())
    assert sum(name.startswith("odd/") for name in LISTED) == 365
