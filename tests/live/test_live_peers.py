"""The kept figures of other tools, asked for again; only where asked for, see CONTRIBUTING.md.

``EDGECOMPRESS_VELA_PYTHON`` and ``EDGECOMPRESS_ZIGZAG_PYTHON`` name a Python that has the tool.
With ``EDGECOMPRESS_LIVE=1`` a tool without one is installed, at the pinned version, into a virtual
environment in a temporary folder: that needs a package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import onnx
import pytest

LATENCY = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"
KEPT = Path(__file__).resolve().parents[1] / "unit" / "data" / "vela.json"


# ZigZag imports six and does not ask for it.
PINNED = {
    "vela": ("EDGECOMPRESS_VELA_PYTHON", ("ethos-u-vela==5.2.0",)),
    "zigzag": ("EDGECOMPRESS_ZIGZAG_PYTHON", ("zigzag-dse==3.9.1", "six==1.17.0")),
}
PythonWith = Callable[[str], str]


@pytest.fixture(scope="session")
def python_with(tmp_path_factory: pytest.TempPathFactory) -> PythonWith:
    """The path of a Python that has a tool; the test is skipped where none is asked for."""
    made: dict[str, str] = {}

    def find(tool: str) -> str:
        variable, packages = PINNED[tool]
        if named := os.environ.get(variable, ""):
            return named
        if os.environ.get("EDGECOMPRESS_LIVE") != "1":
            pytest.skip(
                f"{variable} is not set: the path of a Python that has {packages[0]};"
                " EDGECOMPRESS_LIVE=1 installs it"
            )
        if tool not in made:
            folder = tmp_path_factory.mktemp(tool)
            venv.create(folder, with_pip=True, symlinks=True)
            python = str(folder / "bin" / "python")
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
            made[tool] = python
        return made[tool]

    return find


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
    network: str, config: str, latency: dict[str, ModuleType], python_with: PythonWith
) -> None:
    python = python_with("vela")
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
    latency: dict[str, ModuleType], python_with: PythonWith, tmp_path: Path
) -> None:
    """The same network on 32 x 32 multipliers: 1.814 GMAC over 1024 a cycle is the least."""
    python = python_with("zigzag")
    path = tmp_path / "resnet18.onnx"
    networks = sys.modules["networks"]
    onnx.save(latency["peers"].with_kernel_shapes(networks.resnet18()), path)
    command = [python, str(LATENCY / "zigzag_run.py"), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cycles = json.loads(done.stdout)["cycles"]
    assert 1_814_073_344 / 1024 <= cycles <= 3 * 1_814_073_344 / 1024
