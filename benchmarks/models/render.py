"""The table of the real models, from ``results.json``.

python -m benchmarks.models.render [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results.json", HERE / "results.md"
HEAD = """# Real models

Every model by each of the four commands, data-free: `decompose --energy 0.95`, `quantize` and
`compress` at 4 bits, `estimate-latency` on `systolic-ws-32`. A number in a
command's column is the exit code of a refusal: see `docs/exit-codes.md`. Written by
`make bench-models`.

| model | decompose | quantize | estimate | compress | file at 4 bit | ratio | below 8 bit | error |
|---|---|---|---|---|---|---|---|---|
"""


ERRORS = (
    "The error is the relative L2 error of the outputs on 16 random inputs, without calibration "
    "data: where it is large, the outputs are near zero on noise or the network needs `--data`; "
    "accuracy on real data is in `../quantization` and `../first_screen`."
)


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    models = document["models"]
    parts = [HEAD, *(_row(name, rows) for name, rows in models.items()), "\n"]
    done = [rows["quantize"] for rows in models.values() if not rows["quantize"]["code"]]
    parts.append(f"{len(done)} of {len(models)} files come out of `quantize --bits 4`. {ERRORS}\n")
    parts.append("\n## What stays at 8 bits or above, and why\n\n")
    for name, rows in models.items():
        parts += _exceptions(name, rows)
    parts.append("\n## Refusals\n\n")
    for name, rows in models.items():
        parts += _refusals(name, rows)
    return "".join(parts)


def _row(name: str, rows: dict[str, Any]) -> str:
    order = ("decompose", "quantize", "estimate-latency", "compress")
    codes = ["done" if not rows[c]["code"] else str(rows[c]["code"]) for c in order]
    small = rows["quantize"]
    facts = ["", "", "", ""]
    if not small["code"]:
        share = small["share_below_8_bits"]
        facts = [
            f"{small['bytes_after']:,} B",
            f"{small['ratio']:.2f}",
            f"{100 * share:.1f} %",
            f"{small['relative_l2']:.2g}",
        ]
    return f"| {' | '.join((name, *codes, *facts))} |\n"


def _exceptions(name: str, rows: dict[str, Any]) -> list[str]:
    found = rows["quantize"].get("exceptions", [])
    return [
        f"- {name}: {e['parameters']:,} weights in {e['places']} "
        f"{'place' if e['places'] == 1 else 'places'}: {e['reason']}\n"
        for e in found
        if e["parameters"]
    ]


def _refusals(name: str, rows: dict[str, Any]) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for command, row in rows.items():
        if row["code"]:
            text = row["error"].removeprefix("error: ").replace("\nhint: ", "; ")
            text = " ".join(text.removeprefix(f"{name}: ").split())
            by_text.setdefault(f"{row['code']}: {text}", []).append(command)
    return [f"- {name}, {', '.join(commands)}: {text}\n" for text, commands in by_text.items()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    text = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(
            "benchmarks/models/results.md is not what results.json gives: run the render script"
        )


if __name__ == "__main__":
    main()
