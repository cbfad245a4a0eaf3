"""The kept figures of other tools, asked for again; only where a Python that has them is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import onnx
import pytest

LATENCY = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"
KEPT = Path(__file__).resolve().parents[1] / "unit" / "data" / "vela.json"


def python_with(variable: str, package: str) -> str:
    python = os.environ.get(variable, "")
    if not python:
        pytest.skip(f"{variable} is not set: the path of a Python that has {package}")
    return python


@pytest.fixture
def latency(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(LATENCY))
    import peers
    import vela

    yield {"peers": peers, "vela": vela}
    for name in ("peers", "vela", "layered", "networks"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("network", "config"),
    [("mobilenet_v2", "ethos-u55-256"), ("odd_shapes", "ethos-u65-512")],
)
def test_vela_still_says_what_is_kept(
    network: str, config: str, latency: dict[str, ModuleType]
) -> None:
    python = python_with("EDGECOMPRESS_VELA_PYTHON", "ethos-u-vela")
    run = latency["vela"].live(python, (network, "uniform", config))
    (kept,) = (
        one
        for one in json.loads(KEPT.read_text())["runs"]
        if (one["network"], one["weights"], one["config"]) == (network, "uniform", config)
    )
    if run["vela"] == kept["vela"]:
        assert run == kept
    assert abs(latency["vela"].compared(run)["error_npu"]) <= 0.05


def test_zigzag_counts_more_cycles_than_the_multipliers_need(
    latency: dict[str, ModuleType], tmp_path: Path
) -> None:
    """The same network on 32 x 32 multipliers: 1.814 GMAC over 1024 a cycle is the least."""
    python = python_with("EDGECOMPRESS_ZIGZAG_PYTHON", "zigzag-dse")
    path = tmp_path / "resnet18.onnx"
    networks = sys.modules["networks"]
    onnx.save(latency["peers"].with_kernel_shapes(networks.resnet18()), path)
    command = [python, str(LATENCY / "zigzag_run.py"), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cycles = json.loads(done.stdout)["cycles"]
    assert 1_814_073_344 / 1024 <= cycles <= 3 * 1_814_073_344 / 1024
