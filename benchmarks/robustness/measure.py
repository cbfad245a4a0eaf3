"""Run every model of the corpora through `decompose` at full rank and `quantize` at 8 bits.

    python -m benchmarks.robustness.measure          (make bench-robustness)

Each gives a valid graph with outputs within the bound, or a documented refusal; anything else is
printed and ends this script with 1. ``outcomes.tsv`` beside it has the exit code of every model
under both commands, ``summary.json`` the counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import onnxruntime as ort

import edgecompress
from benchmarks.robustness.check import BOUNDS, COMMANDS, Outcome, check
from benchmarks.robustness.corpora import (
    environment_data,
    node_cases,
    node_names,
    odd_cases,
    unpack_odd,
)
from edgecompress.core.errors import EdgeCompressError

HERE = Path(__file__).resolve().parent
OUTCOMES, SUMMARY = HERE / "outcomes.tsv", HERE / "summary.json"
SLOW_S = 30.0
Row = dict[str, Outcome]


def measure(corpora: tuple[str, ...], words: tuple[str, ...]) -> dict[str, Row]:
    """Outcome by case and command; problems go to stderr as they are found."""
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = []
        if "odd" in corpora:
            names = unpack_odd(environment_data(), folder)
            cases.append(odd_cases([n for n in names if _wanted(n, words)], folder))
        if "node" in corpora:
            names = [n for n in node_names() if _wanted(n, words)]
            cases.append(node_cases(names, folder))
        for case in (c for group in cases for c in group):
            rows[case.name] = {}
            for command in COMMANDS:
                start = time.monotonic()
                outcome = _check(case, command, folder)
                rows[case.name][command] = outcome
                if time.monotonic() - start > SLOW_S:
                    print(f"slow: {case.name} {command}", file=sys.stderr)
                if outcome.problem:
                    print(f"{case.name} {command}: {outcome.problem}", file=sys.stderr)
    return rows


def _check(case, command: str, folder: Path) -> Outcome:  # type: ignore[no-untyped-def]
    """Like `check`; a traceback becomes exit code 1, so that the run goes on."""
    try:
        return check(case, command, folder)
    except Exception as bug:  # noqa: BLE001 - a bug is a result here
        return Outcome(code=1, problem=f"{type(bug).__name__}: {str(bug)[:300]}")


def _wanted(name: str, words: tuple[str, ...]) -> bool:
    return not words or any(word in name for word in words)


def summarize(rows: dict[str, Row]) -> dict[str, object]:
    """Counts by corpus, command and exit code, the reasons of refusals, and the largest errors."""
    counts: dict[str, Counter[str]] = {}
    errors: dict[str, float] = {}
    for name, row in rows.items():
        for command, outcome in row.items():
            key = f"{name.partition('/')[0]} {command}"
            counts.setdefault(key, Counter())[str(outcome.code)] += 1
            errors[key] = max(errors.get(key, 0.0), outcome.error or 0.0)
    return {
        "schema": "edgecompress.robustness/1",
        "command": "python -m benchmarks.robustness.measure",
        "versions": {"edgecompress": edgecompress.__version__, "onnxruntime": ort.__version__},
        "models": dict(sorted(Counter(name.partition("/")[0] for name in rows).items())),
        "bounds": BOUNDS,
        "exit_codes": {key: dict(sorted(c.items())) for key, c in sorted(counts.items())},
        "largest_relative_l2": {key: float(f"{e:.2g}") for key, e in sorted(errors.items())},
        "problems": sum(bool(o.problem) for row in rows.values() for o in row.values()),
        "refusals": {
            str(error.exit_code): error.__name__ for error in EdgeCompressError.__subclasses__()
        },
    }


def table(rows: dict[str, Row]) -> str:
    """One line a model: name and exit codes, tab-separated, sorted."""
    lines = ["\t".join(("model", *COMMANDS))]
    for name in sorted(rows):
        lines.append("\t".join((name, *(str(rows[name][c].code) for c in COMMANDS))))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="only models with one of these in the name")
    parser.add_argument("--corpus", choices=("odd", "node"), help="only this one")
    parser.add_argument("--messages", action="store_true", help="print every refusal")
    arguments = parser.parse_args()
    corpora = (arguments.corpus,) if arguments.corpus else ("odd", "node")
    words = tuple(arguments.words)
    rows = measure(corpora, words)
    if arguments.messages:
        for name, row in sorted(rows.items()):
            for command, outcome in row.items():
                print(f"{name}\t{command}\t{outcome.code}\t{outcome.error}\t{outcome.message}")
    summary = summarize(rows)
    if not words and not arguments.corpus:
        OUTCOMES.write_text(table(rows), encoding="utf-8")
        SUMMARY.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=2))
    sys.exit(1 if summary["problems"] else 0)


if __name__ == "__main__":
    main()
