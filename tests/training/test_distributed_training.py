"""Two processes on this machine train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_cases import all_cases

from edgecompress.core.errors import UsageError
from edgecompress.training.distributed import Team, is_first_process, joined_team

CASES = ("run", "bayesian", "zeroth-order", "single samples", "spread")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    folder = tmp_path_factory.mktemp("two")
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(HERE / "distributed_cases.py"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds."""
    return all_cases(tmp_path_factory.mktemp("one"), several=False)


def test_first_gradients_are_those_of_one_process(
    one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    """float64; a batch of seven, split four to three."""
    assert len(one["gradients"]) == 7  # the loss, four cores, two biases
    for name, expected in one["gradients"].items():
        for process in two:
            found = process["gradients"][name]
            assert found.dtype == torch.float64
            error = (found - expected).norm() / expected.norm()
            assert error <= 1e-6, name


@pytest.mark.parametrize("case", CASES)
def test_loss_curve_is_that_of_one_process(
    case: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    expected, found = one[case]["curve"], two[0][case]["curve"]
    assert len(expected) == len(found)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(two[0][case]["scores"], one[case]["scores"], atol=0.051)
    assert two[0][case]["scores"] == two[1][case]["scores"]


def test_the_plain_run_is_a_hundred_steps_in_which_ranks_fall(one: dict[str, Any]) -> None:
    assert len(one["run"]["curve"]) == 100
    assert len(set(one["run"]["ranks"])) > 1


@pytest.mark.parametrize("case", [*CASES, "stopped", "disturbed"])
def test_ranks_and_weights_are_the_same_in_all_processes(
    case: str, two: list[dict[str, Any]]
) -> None:
    first, second = (process[case] for process in two)
    assert first["ranks"] == second["ranks"]
    assert first["live"] == second["live"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name


@pytest.mark.parametrize("case", CASES)
def test_rank_decisions_are_those_of_one_process(
    case: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    assert two[0][case]["ranks"] == one[case]["ranks"]


def test_a_process_that_decides_otherwise_follows_the_first(two: list[dict[str, Any]]) -> None:
    """As it would after rounding differently on another processor."""
    for process in two:
        assert process["disturbed"]["ranks"] == process["run"]["ranks"]
        for name, weight in process["run"]["weights"].items():
            assert torch.equal(weight, process["disturbed"]["weights"][name]), name


def test_only_the_first_process_reports(two: list[dict[str, Any]]) -> None:
    assert [len(process["run"]["curve"]) for process in two] == [100, 0]


def test_resumed_run_of_two_has_the_bits_of_an_uninterrupted_one(
    two: list[dict[str, Any]],
) -> None:
    for process in two:
        for name, weight in process["run"]["weights"].items():
            assert torch.equal(weight, process["stopped"]["weights"][name]), name


def test_spread_layers_take_half_the_memory(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    """All but the factors and small layers are spread: 135,184 of at most 135,652 numbers."""
    for process in two:
        ratio = process["spread"]["memory"][-1] / one["spread"]["memory"][-1]
        assert 0.5 <= ratio < 0.51
    weights = two[0]["spread"]["weights"]
    assert weights["0.weight"].shape == (4096, 16)  # the result is whole


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_process()
    with joined_team("cpu") as team:
        assert (team.rank, team.size, team.first) == (0, 1, True)
        rows = torch.arange(5)
        assert torch.equal(team.share(rows), rows)
        assert torch.equal(team.gather(rows), rows)


def test_shares_of_a_batch_cover_it_in_order() -> None:
    rows = torch.arange(7)
    parts = [Team(rank, 3, torch.device("cpu")).share(rows) for rank in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "64")
    monkeypatch.setenv("LOCAL_RANK", "63")
    with (
        pytest.raises(UsageError, match="no CUDA device 63"),
        joined_team("cuda"),
    ):
        pass


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_cuda_devices_give_the_gradients_of_one(one: dict[str, Any], tmp_path: Path) -> None:
    code = (
        "import os, sys, torch; from distributed_cases import first_gradients as f; g = f('cuda');"
        "torch.save({k: v.cpu() for k, v in g.items()}, sys.argv[1] + os.environ['RANK'])"
    )
    script = tmp_path / "case.py"
    script.write_text(code)
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", str(script), str(tmp_path / "g")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=300)
    for rank in range(2):
        found = torch.load(tmp_path / f"g{rank}", weights_only=True)
        for name, expected in one["gradients"].items():
            assert (found[name] - expected).norm() <= 1e-6 * expected.norm(), name


INTERRUPTED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from distributed_cases import OPTIONS, tensor_train_network, clusters, SAMPLES
from edgecompress.training.loop import train_network
from edgecompress.training.progress import RunOptions

class Hears:
    steps = 0

def tell(progress):
    Hears.steps += 1
    if Hears.steps == 10:
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
run = RunOptions(device="cpu", checkpoint=Path(sys.argv[1]), on_progress=tell, progress_s=0.0)
try:
    train_network(tensor_train_network(), clusters(SAMPLES), OPTIONS, run=run)
except KeyboardInterrupt:
    Path(sys.argv[1] + ".heard").write_text("")
"""


def test_one_process_that_is_interrupted_stops_all_after_the_same_step(tmp_path: Path) -> None:
    """Only the first process gets the signal; the other ends with it and does not wait for ever."""
    script, state = tmp_path / "case.py", tmp_path / "run.state"
    script.write_text(INTERRUPTED)
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(script), str(state)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (tmp_path / "run.state.heard").exists()
    place = torch.load(state, weights_only=True)["place"]
    assert place["updates"] == 11  # heard after the tenth step, known to all after the next
