"""Runs that `test_distributed_training` does in one process and, started by torchrun, in two.

``python -m torch.distributed.run --nproc-per-node 2 distributed_cases.py FOLDER`` writes what each
process found to ``FOLDER/RANK.pt``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_cases import FEATURES, clusters, tensor_train_network

from edgecompress.core.training import AdaptationOptions, TrainOptions
from edgecompress.training.adaptation.adaptation import RankAdaptation
from edgecompress.training.distributed import joined_team
from edgecompress.training.loop import train_network
from edgecompress.training.progress import RunOptions, TrainingProgress, live_ranks
from edgecompress.training.session import open_session
from edgecompress.training.steps import batch_gradients

ADAPTING = AdaptationOptions(strength=0.5, warm_up=(0.0, 0.2), settle=0.6, target_params=330)
OPTIONS = TrainOptions(adaptation=ADAPTING, epochs=25, batch=49, learning_rate=1e-2)
"""180 training samples: batches of 49, 49, 49 and 33, shares of 25 and 24, of 17 and 16."""
SAMPLES = 200


def first_gradients(device: str = "cpu") -> dict[str, Tensor]:
    """Of a batch whose halves differ in size, float64."""
    network = tensor_train_network().double()
    run = RunOptions(device=device)
    with joined_team(run.device) as team:
        session = open_session(network, clusters(SAMPLES), OPTIONS, run, team)
        rows = session.train.order(0, 0)[:7]
        loss = batch_gradients(session, rows, session.train.weight(rows))
        assert session.adaptation is not None
        found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        return {"loss": loss, **found}


def run_of(options: TrainOptions, network: nn.Module | None = None, **how: Any) -> dict[str, Any]:
    """Running losses of every step, ranks after every epoch, and the weights at the end."""
    curve: list[float] = []

    def tell(progress: TrainingProgress) -> None:
        curve.append(progress.loss)

    network = network or tensor_train_network()
    run = RunOptions(**{"device": "cpu", "on_progress": tell, "progress_s": 0.0, **how})
    result = train_network(network, clusters(SAMPLES), options, run=run)
    return {
        "curve": curve,
        "scores": [fact.score for fact in result.history],
        "ranks": [repr(fact.ranks) for fact in result.history],
        "live": repr(live_ranks(network)),
        "weights": {name: p.detach() for name, p in result.network.named_parameters()},
        "memory": [fact.memory_bytes for fact in result.history],
    }


def wide_network() -> nn.Module:
    """A dense layer that is large enough to be spread, before tensorized ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(FEATURES, 4096),
            nn.ReLU(),
            nn.Linear(4096, FEATURES),
            tensor_train_network(),
        )


SPREAD = replace(
    OPTIONS, adaptation=replace(ADAPTING, target_params=136_000), epochs=6, learning_rate=2e-3
)


def spread(folder: Path, shard: bool) -> dict[str, Any]:
    """FSDP2, stopped after three epochs and resumed."""
    asked = count(1)
    path = folder / "spread.state"
    how = {"shard": shard, "checkpoint": path, "resume": True}
    if not shard:
        return run_of(SPREAD, wide_network())
    first = run_of(SPREAD, wide_network(), stop=lambda: next(asked) == 3, **how)
    second = run_of(SPREAD, wide_network(), **how)
    return {**second, "curve": first["curve"] + second["curve"]}


def stopped_run(folder: Path) -> dict[str, Any]:
    """The plain run, stopped after seven epochs and resumed."""
    asked = count(1)
    how = {"checkpoint": folder / "run.state", "resume": True}
    run_of(OPTIONS, stop=lambda: next(asked) == 7, **how)
    return run_of(OPTIONS, **how)


def disturbed_run() -> dict[str, Any]:
    """The plain run, in which the second process would decide nothing by itself."""
    decide = RankAdaptation.end_epoch
    if os.environ.get("RANK") == "1":
        RankAdaptation.end_epoch = lambda *_, **__: ()  # type: ignore[method-assign]
    try:
        return run_of(OPTIONS)
    finally:
        RankAdaptation.end_epoch = decide  # type: ignore[method-assign]


def all_cases(folder: Path, *, several: bool) -> dict[str, Any]:
    """Everything that the tests compare."""
    bayesian = replace(OPTIONS, adaptation=replace(ADAPTING, inference="bayesian"), epochs=6)
    blind = replace(OPTIONS, optimizer="zeroth-order", adaptation=None, epochs=2)
    few = replace(OPTIONS, batch=1, epochs=1)
    cases = {
        "gradients": first_gradients(),
        "run": run_of(OPTIONS),
        "bayesian": run_of(bayesian),
        "zeroth-order": run_of(blind),
        "single samples": run_of(few),
        "spread": spread(folder, shard=several),
    }
    if several:
        cases["stopped"] = stopped_run(folder)
        cases["disturbed"] = disturbed_run()
    return cases


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    with joined_team("cpu") as everyone:
        torch.save(all_cases(target, several=True), target / f"{everyone.rank}.pt")
