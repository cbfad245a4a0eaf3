"""The table of README.md, from ``results.json``.

python -m benchmarks.first_screen.render [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
README = Path(__file__).resolve().parents[2] / "README.md"
START = "<!-- first-screen: written by benchmarks/first_screen/render.py -->\n"
END = "<!-- /first-screen -->"
SHORT = {"winocnn-zcu102-w6": "WinoCNN", "systolic-ws-32": "systolic 32x32"}


def table(document: dict[str, Any]) -> str:
    """The table and the line under it."""
    targets = document["targets"]
    names = [f"{SHORT[target]}, predicted" for target in targets]
    head = ["network", "weights", "accuracy", "bytes", *names, "time in onnxruntime"]
    lines = [_line(head), _line(["---"] * len(head))]
    counts = []
    for network, rows in document["networks"].items():
        first = next(iter(rows.values()))
        counts.append(f"{first['samples']:,} ({network.partition(',')[0]})")
        times = [_milliseconds(first["float_latency_s"][target]) for target in targets]
        size = f"{first['float_bytes']:,}"
        accuracy = _percent([first["float_accuracy"]])
        lines.append(_line([network, "float", accuracy, size, *times, "1"]))
        lines += [
            _line(["", _named(name, row), *_facts(row, targets)]) for name, row in rows.items()
        ]
    draws = document["calibration_draws"]
    lines.append(
        f"\nAccuracy on {' and '.join(counts)} test samples that no setting was chosen on, mean of "
        f"{draws} draws of unlabelled calibration samples; no training. Ranks are chosen for the "
        f"{SHORT[targets[0]]} array; the other prediction shows what they cost elsewhere. Written "
        "by `make bench-first-screen`.\n"
    )
    return "\n".join(lines)


def _named(name: str, row: dict[str, Any]) -> str:
    """A setting, and that it changed no layer where it did not."""
    idle = "decomposed" in name and row["macs"] == row["float_macs"]
    return f"{name} (no layer gains: as it was)" if idle else name


def _facts(row: dict[str, Any], targets: list[str]) -> list[str]:
    size = sum(row["bytes"]) / len(row["bytes"])
    times = [_milliseconds(row["latency_s"][target]) for target in targets]
    ratio = f"{row['float_bytes'] / size:.1f}x"
    return [
        _percent(row["accuracy"]),
        f"{round(size):,} ({ratio} smaller)",
        *times,
        f"{row['onnxruntime_time_ratio']:.2f}",
    ]


def _percent(values: list[float]) -> str:
    return f"{100 * sum(values) / len(values):.1f} %"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:#.3g} ms"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit("README.md has no place for the table")
    made = before + START + table(json.loads(RESULTS.read_text(encoding="utf-8"))) + end + after
    if not parser.parse_args().check:
        README.write_text(made, encoding="utf-8")
    elif made != text:
        sys.exit("the table of README.md is not what results.json gives: run the render script")


if __name__ == "__main__":
    main()
