"""The example workflow works as it stands: its steps are run as scripts on the sample model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WORKFLOW = ROOT / "docs" / "examples" / "ci.yml"
STEP = re.compile(
    r"^      - name: (?P<name>.+)\n(?:        if: .+\n)?"
    r"        run: \|\n(?P<script>(?:          .*\n)+)",
    re.MULTILINE,
)


def steps() -> dict[str, str]:
    text = WORKFLOW.read_text(encoding="utf-8")
    return {
        match["name"]: re.sub(r"(?m)^ {10}", "", match["script"]) for match in STEP.finditer(text)
    }


def environment(folder: Path) -> dict[str, str]:
    text = WORKFLOW.read_text(encoding="utf-8")
    variables = dict(re.findall(r"^      ([A-Z]+): (.+)$", text, re.MULTILINE))
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "edgecompress"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgecompress "$@"\n')
    program.chmod(0o755)
    return {
        **os.environ,
        **{name: str(ROOT / value) for name, value in variables.items()},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }


def run(script: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # The shell that the service uses for a run step.
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def test_the_steps_are_found() -> None:
    assert list(steps()) == [
        "Install",
        "Compress within limits",
        "Check the written file on its own",
        "Show the report",
    ]


@pytest.mark.usefixtures("sample_models")
def test_the_steps_run(tmp_path: Path) -> None:
    variables = environment(tmp_path)
    for name, script in steps().items():
        if name != "Install":
            done = run(script, tmp_path, variables)
            assert done.returncode == 0, f"{name}: {done.stderr}"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [gate["met"] for gate in report["gates"]] == [True] * 4
    summary = (tmp_path / "summary.md").read_text()
    assert summary == (tmp_path / "out" / "report.md").read_text()
    assert "| max-size | 40,000 bytes |" in summary
    check = steps()["Check the written file on its own"]
    assert "--max-latency 200us" in check
    done = run(check.replace("--max-latency 200us", "--max-latency 1ns"), tmp_path, variables)
    assert done.returncode == 3, "a limit that does not hold stops the job"
    assert "error: gate not met: max-latency is " in done.stderr
