"""A run that was interrupted ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import bits_of, clusters, dense_network, tensor_train_network

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.training import AdaptationOptions, PrecisionOptions, TrainOptions
from edgecompress.training.loop import train_network
from edgecompress.training.progress import RunOptions, TrainingProgress, TrainingResult

ADAPTING = AdaptationOptions(strength=0.5, warm_up=(0.0, 0.2), settle=0.6, target_params=330)
OPTIONS = TrainOptions(adaptation=ADAPTING, epochs=6, batch=32, learning_rate=1e-2, patience=50)
VARIANTS = {
    "adam": OPTIONS,
    "momentum": replace(OPTIONS, optimizer="momentum", patience=None),
    "bayesian": replace(OPTIONS, adaptation=replace(ADAPTING, inference="bayesian")),
    "half-cauchy": replace(OPTIONS, adaptation=replace(ADAPTING, prior="half-cauchy")),
    "fixed ranks": replace(OPTIONS, adaptation=None, optimizer="adamw", weight_decay=0.01),
    "low precision": replace(OPTIONS, precision=PrecisionOptions()),
    "narrow state": replace(
        OPTIONS,
        precision=PrecisionOptions(master_bits=12, state_bits=16, rounding="stochastic"),
    ),
    "zeroth-order": replace(OPTIONS, optimizer="zeroth-order", learning_rate=None),
    "spsa": replace(OPTIONS, optimizer="spsa", epochs=3, batch=128),
}


def _train(options: TrainOptions, **how: object) -> TrainingResult:
    run = RunOptions(device="cpu", **how)  # type: ignore[arg-type]
    return train_network(tensor_train_network(dropout=0.2), clusters(), options, run=run)


def _facts(result: TrainingResult) -> list[object]:
    return [replace(fact, elapsed_s=0.0) for fact in result.history]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_part_of_the_state_continues(variant: str, tmp_path: Path) -> None:
    """Stopped after several numbers of steps, in the middle of epochs and at their ends."""
    options = VARIANTS[variant]
    whole = _train(options)
    for stops in ((3, 7, 11), (5, 23)):
        path = tmp_path / f"{len(stops)}.state"
        asked = count(1)
        for _ in range(len(stops) + 1):
            last = _train(
                options, checkpoint=path, resume=True, stop=partial(_is_next_in, asked, stops)
            )
        assert last.stopped == whole.stopped
        assert bits_of(last.network) == bits_of(whole.network)
        assert _facts(last) == _facts(whole)
        assert last.best_epoch == whole.best_epoch


def _is_next_in(asked: Iterator[int], stops: tuple[int, ...]) -> bool:
    return next(asked) in stops


CHILD = """
import sys
from pathlib import Path
from test_checkpoint_resume import VARIANTS, RunOptions, _train
import torch
result = _train(
    VARIANTS["bayesian"], checkpoint=Path(sys.argv[1]), resume=True, checkpoint_steps=1
)
torch.save(dict(result.network.named_parameters()), sys.argv[2])
"""


def _child(path: Path, out: Path) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1]), str(here.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(out)], env=environment)


def test_killed_process_continues_with_the_same_bits(tmp_path: Path) -> None:
    path, out = tmp_path / "run.state", tmp_path / "out.pt"
    process = _child(path, out)
    limit = time.monotonic() + 120
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(np.random.default_rng().uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    assert not out.exists()
    reached = torch.load(path, weights_only=True)["place"]
    assert 1 <= reached["updates"] < 42

    again = _child(path, out)
    assert again.wait(timeout=300) == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = _train(VARIANTS["bayesian"])
    torch.set_num_threads(threads)
    found = torch.load(out, weights_only=True)
    expected = dict(whole.network.named_parameters())
    assert found.keys() == expected.keys()
    for name, parameter in expected.items():
        assert torch.equal(found[name], parameter), name
    left = {file.name for file in tmp_path.iterdir() if not file.name.startswith(".run.state")}
    assert left == {"run.state", "out.pt"}


def test_interrupt_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    heard: list[int] = []

    def tell(progress: TrainingProgress) -> None:
        if (progress.epoch, progress.step) == (2, 3) and not heard:
            heard.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _train(OPTIONS, checkpoint=path, on_progress=tell, progress_s=0.0)
    finally:
        signal.signal(signal.SIGINT, before)
    place = torch.load(path, weights_only=True)["place"]
    assert (place["epoch"], place["step"]) == (1, 3)
    resumed = _train(OPTIONS, checkpoint=path, resume=True)
    assert bits_of(resumed.network) == bits_of(_train(OPTIONS).network)


def test_finished_run_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    first = _train(OPTIONS, checkpoint=path)
    written = path.read_bytes()
    told: list[TrainingProgress] = []
    again = _train(OPTIONS, checkpoint=path, resume=True, on_progress=told.append)
    assert bits_of(again.network) == bits_of(first.network)
    assert _facts(again) == _facts(first)
    assert path.read_bytes() == written
    assert not told


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    first = _train(OPTIONS, checkpoint=path)
    other = _train(replace(OPTIONS, seed=1), checkpoint=path)
    assert bits_of(other.network) != bits_of(first.network)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"checkpoint_epochs": 2}, [2, 4, 6]),
        ({"checkpoint_epochs": 4}, [4, 6]),  # the last one always
        ({"checkpoint_epochs": 100, "checkpoint_minutes": 0.0}, [*range(6), 6]),
    ],
)
def test_checkpoints_come_when_asked(
    how: dict[str, object],
    expected: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epochs: list[int] = []

    def note(path: Path, state: dict[str, dict[str, int]]) -> None:
        if state["place"]["epoch"] not in epochs:
            epochs.append(state["place"]["epoch"])

    monkeypatch.setattr("edgecompress.training.loop.write_checkpoint", note)
    _train(OPTIONS, checkpoint=tmp_path / "run.state", **how)
    assert epochs == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.5}, "other options: learning_rate 0.01, now 0.5"),
        ({"epochs": 7, "seed": 3}, "other options: epochs 6, now 7; seed 0, now 3"),
        (
            {"adaptation": replace(ADAPTING, cut_at=0.5)},
            "other options: adaptation.cut_at 0.01, now 0.5",
        ),
        ({"adaptation": None}, "adaptation.cut_at 0.01, now unset"),
    ],
)
def test_other_options_are_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    _train(OPTIONS, checkpoint=path, stop=lambda: True)
    with pytest.raises(ConfigurationInvalid) as error:
        _train(replace(OPTIONS, **changes), checkpoint=path, resume=True)  # type: ignore[arg-type]
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_other_data_and_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    _train(OPTIONS, checkpoint=path, stop=lambda: True)
    run = RunOptions(device="cpu", checkpoint=path, resume=True)
    with pytest.raises(ConfigurationInvalid, match="a run with other training data"):
        train_network(tensor_train_network(), clusters(seed=9), OPTIONS, run=run)
    options = replace(OPTIONS, adaptation=None)
    _train(options, checkpoint=path, stop=lambda: True)
    with pytest.raises(ConfigurationInvalid, match="a run with another network"):
        train_network(dense_network(), clusters(), options, run=run)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text", b"\x80\x02}q\x00."])
def test_files_that_are_no_checkpoint_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    path.write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match="not the state of a training run"):
        _train(OPTIONS, checkpoint=path, resume=True)


def test_pickles_that_would_run_code_are_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'run'}",)

    path = tmp_path / "run.state"
    torch.save({"schema": "edgecompress.training-state/1", "key": Evil()}, path)
    with pytest.raises(ConfigurationInvalid, match="not the state of a training run"):
        _train(OPTIONS, checkpoint=path, resume=True)
    assert not (tmp_path / "run").exists()


def test_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputOutputFailed, match="cannot be written"):
        _train(OPTIONS, checkpoint=tmp_path / "none" / "run.state")
