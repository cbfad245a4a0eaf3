"""Help is quick: it loads nothing heavy and takes less than 150 ms of processor time."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import pytest

HEAVY = {
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "torch",
    "pydantic",
    "rich",
    "jinja2",
    "matplotlib",
    "PIL",
    "scipy",
    "sympy",
}
LIMIT_S = 0.150


def run(*arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-m", "edgecompress", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("compress", "--help"),
        ("estimate-latency", "--help"),
        ("targets", "--help"),
        ("nonsense",),
    ],
)
def test_nothing_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, flags=("-X", "importtime"))
    modules = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert "edgecompress.cli.entry" in modules
    assert not {module.split(".")[0] for module in modules} & HEAVY


def test_importing_the_package_is_light() -> None:
    code = "import sys, edgecompress; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {module.split(".")[0] for module in done.stdout.split()} & HEAVY


def test_help_takes_less_than_150_ms_of_processor_time() -> None:
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < LIMIT_S, f"{os.cpu_count()} cores, {times}"
