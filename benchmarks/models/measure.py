"""Every model of the data folder by each of the four commands.

    python -m benchmarks.models.measure [MODEL ...]          (make bench-models)

Writes ``results.json`` beside this file; `render` makes ``results.md`` from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

import edgecompress
from benchmarks.models.commands import COMMANDS, Done, Expected, expected_outcomes, run
from benchmarks.robustness.corpora import environment_data

RESULTS = Path(__file__).with_name("results.json")
LOW_BIT = ("ternary", "2", "3", "4")


def share_below_8_bits(report: dict[str, Any]) -> float:
    """Weights on a grid below 8 bits over all weights, those outside layers included."""
    low = sum(r["parameters_after"] for r in report["layers"] if r["grid"] in LOW_BIT)
    total = sum(r["parameters_after"] for r in report["layers"])
    inside = {r["name"] for r in report["layers"]}
    total += sum(s["parameters"] for s in report["skips"] if s["layer"] not in inside)
    return low / total if total else 0.0


def exceptions(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers that stay at 8 bits or above, and weights that are no layer, by reason."""
    found: Counter[str] = Counter()
    count: Counter[str] = Counter()
    inside = {r["name"] for r in report["layers"]}
    rows = [
        (r["parameters_after"], r["reason"]) for r in report["layers"] if r["grid"] not in LOW_BIT
    ]
    rows += [(s["parameters"], s["reason"]) for s in report["skips"] if s["layer"] not in inside]
    for parameters, reason in rows:
        found[reason] += parameters
        count[reason] += 1
    ranked = sorted(found, key=lambda reason: (-found[reason], reason))
    return [{"reason": r, "places": count[r], "parameters": found[r]} for r in ranked]


def describe(command: str, done: Done) -> dict[str, Any]:
    """What the results keep of one command."""
    row: dict[str, Any] = {"code": done.code}
    if done.code:
        return row | {"error": done.error.replace(f"{environment_data() / 'models'}/", "")}
    report = done.report
    if report is None:
        return row | {"error": "no report"}
    if command == "estimate-latency":
        first = report["reports"][0]
        return row | {
            "latency_s": first["latency_s"],
            "macs": first["macs"],
            "assumptions": len(first["assumptions"]),
        }
    verification = report["verification"]
    fidelity = verification["fidelity"] or {}
    return row | {
        "bytes_before": report["input"]["size_bytes"],
        "bytes_after": report["output"]["size_bytes"],
        "ratio": report["input"]["size_bytes"] / report["output"]["size_bytes"],
        "share_below_8_bits": share_below_8_bits(report),
        "layers": dict(sorted(Counter(r["action"] for r in report["layers"]).items())),
        "exceptions": exceptions(report) if command == "quantize" else [],
        "relative_l2": fidelity.get("relative_l2"),
    }


def measure(expected: Expected, models: Path) -> dict[str, Any]:
    """All four commands on one model."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        for command in COMMANDS:
            done = run(command, models / expected.model, Path(name), expected.options)
            rows[command] = describe(command, done)
            print(f"{expected.model} {command}: {done.code} {done.seconds:.1f} s", file=sys.stderr)
            if done.code != expected.codes[command]:
                print(f"  expected {expected.codes[command]}: {done.error}", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help="only these; the rest keeps its results")
    wanted = parser.parse_args().models
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results = before.get("models", {}) if wanted else {}
    for expected in expected_outcomes():
        if not wanted or expected.model in wanted:
            results[expected.model] = measure(expected, environment_data() / "models")
            RESULTS.write_text(json.dumps(document(results), indent=1) + "\n", encoding="utf-8")


def document(results: dict[str, Any]) -> dict[str, Any]:
    """The results with what they were made with; models in the order of the table."""
    names = [expected.model for expected in expected_outcomes()]
    return {
        "schema": "edgecompress.model-results/1",
        "command": "python -m benchmarks.models.measure",
        "versions": {
            "edgecompress": edgecompress.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": ort.__version__,
        },
        "models": {name: results[name] for name in names if name in results},
    }


if __name__ == "__main__":
    main()
