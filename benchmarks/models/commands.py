"""One command of the tool on one model, with its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = ROOT / "tests" / "models" / "expected_outcomes.toml"
COMMANDS = ("decompose", "quantize", "estimate-latency", "compress")
WRITING = ("decompose", "quantize", "compress")
TARGET = "systolic-ws-32"
ENTRY = "import sys; from edgecompress.cli import main; sys.exit(main())"
LIMIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the checked-in table says about a model.

    Attributes:
        model: File name in ``models/``.
        options: Given to every command.
        slice: Whether every test run takes it, not only the full one.
        codes: Exit code by command.
        reasons: What a refusal has to say, by command; empty where there is none.
    """

    model: str
    options: tuple[str, ...]
    slice: bool
    codes: dict[str, int]
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that ended.

    Attributes:
        code: Exit code.
        error: The lines on stderr that start with ``error:`` or ``hint:``.
        seconds: Wall clock.
        report: The JSON report, or None.
        output: The file that was asked for; it exists only after success.
    """

    code: int
    error: str
    seconds: float
    report: dict[str, Any] | None
    output: Path


def expected_outcomes() -> list[Expected]:
    """The checked-in table."""
    with EXPECTED.open("rb") as file:
        table = tomllib.load(file)
    return [
        Expected(
            model=name,
            options=tuple(row.get("options", ())),
            slice=row.get("slice", False),
            codes={command: row[command] for command in COMMANDS},
            reasons=row.get("reasons", {}),
        )
        for name, row in table.items()
    ]


def arguments(command: str, model: Path, output: Path, options: tuple[str, ...]) -> list[str]:
    """The command line, without the program's name: data-free, 4 bits."""
    report = ["--report", f"{output}.json"]
    match command:
        case "estimate-latency":
            return [command, str(model), "--target", TARGET, *report, *options]
        case "decompose":
            own = ["--energy", "0.95"]
        case "quantize":
            own = ["--bits", "4"]
        case _:
            own = ["--bits", "4", "--target", TARGET]
    return [command, str(model), "--output", str(output), *own, *report, *options]


def run(command: str, model: Path, folder: Path, options: tuple[str, ...] = ()) -> Done:
    """Run a command in a process of its own."""
    output = folder / f"{model.stem}.{command}.onnx"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, *arguments(command, model, output, options)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    report = Path(f"{output}.json")
    lines = [
        line for line in done.stderr.splitlines() if line.startswith(("error:", "hint:", "  "))
    ]
    return Done(
        code=done.returncode,
        error="\n".join(lines),
        seconds=time.monotonic() - start,
        report=json.loads(report.read_text(encoding="utf-8")) if report.exists() else None,
        output=output,
    )
