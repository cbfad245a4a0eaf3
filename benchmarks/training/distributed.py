"""Two processes beside one: first gradients, loss curves, rank decisions, memory of spread layers.

    python -m benchmarks.training.distributed [--samples 2800] [--steps 100]

Fashion-MNIST, 784-512-10 in tensor trains, global batch 128, two gloo processes on this machine
that ``torch.distributed.run`` starts; the same calls in one process. Times are for information:
both processes share the processor that the single one has for itself. `EDGECOMPRESS_DATA` names the
folder that holds `datasets/fashion_mnist`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training.resume import samples
from edgecompress.core.options import FixedRanks
from edgecompress.core.training import AdaptationOptions, TensorizeOptions, TrainOptions
from edgecompress.training.architectures import SampleShape, load_architecture
from edgecompress.training.batches import TrainingData
from edgecompress.training.distributed import joined_team
from edgecompress.training.loop import train_network
from edgecompress.training.progress import RunOptions, TrainingProgress
from edgecompress.training.session import open_session
from edgecompress.training.steps import batch_gradients
from edgecompress.training.tensorize import tensorize

RESULTS = Path(__file__).parent / "results" / "distributed.json"
ADAPTING = AdaptationOptions(strength=0.3, warm_up=(0.0, 0.3), target_params=12_000)
BATCH = 128
SPREAD_EPOCHS = 2


def network_of(format: str) -> nn.Module:
    """784-512-10, the wide layer dense or as factors."""
    shape = SampleShape(inputs=((784,),), dtypes=("float32",), classes=10)
    generator = torch.Generator().manual_seed(0)
    network = load_architecture("mlp").build(shape, generator)
    tensorize(
        network, TensorizeOptions(format=format, ranks=FixedRanks((20,))), generator=generator
    )
    return network


def first_gradients(data: TrainingData, options: TrainOptions) -> dict[str, Tensor]:
    """float64, of a batch of 127: shares of 64 and 63."""
    run = RunOptions(device="cpu")
    network = network_of("tt").double()
    with joined_team("cpu") as team:
        session = open_session(network, data, options, run, team)
        rows = session.train.order(0, 0)[: BATCH - 1]
        batch_gradients(session, rows, session.train.weight(rows))
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def run_of(data: TrainingData, options: TrainOptions, format: str, shard: bool) -> dict[str, Any]:
    """A run: running mean losses of every step, ranks and memory of every epoch."""
    curve: list[float] = []

    def tell(progress: TrainingProgress) -> None:
        curve.append(progress.loss)

    run = RunOptions(device="cpu", on_progress=tell, progress_s=0.0, shard=shard)
    result = train_network(network_of(format), data, options, run=run)
    return {
        "curve": curve,
        "ranks": [repr(fact.ranks) for fact in result.history],
        "parameters": [fact.parameters for fact in result.history],
        "accuracy": [fact.score for fact in result.history],
        "memory_bytes": result.history[-1].memory_bytes,
        "s_per_step": result.elapsed_s / result.steps,
    }


def everything(count: int, steps: int, *, shard: bool) -> dict[str, Any]:
    data = samples(count)
    if data is None:
        raise SystemExit("no data")
    per_epoch = ceil(0.9 * count / BATCH)
    options = TrainOptions(adaptation=ADAPTING, batch=BATCH, epochs=ceil(steps / per_epoch))
    dense = replace(options, adaptation=None, epochs=SPREAD_EPOCHS)
    return {
        "gradients": first_gradients(data, options),
        "tensor trains": run_of(data, options, "tt", shard=False),
        "dense layer": run_of(data, dense, "none", shard=shard),
    }


def judged(one: dict[str, Any], two: list[dict[str, Any]]) -> dict[str, Any]:
    """What the two have in common, as plain numbers."""
    found: dict[str, Any] = {
        "gradient_error": max(
            float((process["gradients"][name] - g).norm() / g.norm())
            for name, g in one["gradients"].items()
            for process in two
        )
    }
    for case in ("tensor trains", "dense layer"):
        alone, first = one[case], two[0][case]
        pairs = zip(alone["curve"], first["curve"], strict=True)
        found[case] = {
            "steps": len(alone["curve"]),
            "largest_loss_difference": max(abs(a - b) for a, b in pairs),
            "last_loss": [alone["curve"][-1], first["curve"][-1]],
            "same_ranks_in_all": all(alone["ranks"] == p[case]["ranks"] for p in two),
            "parameters": alone["parameters"],
            "accuracy": [alone["accuracy"], first["accuracy"]],
            "memory_bytes": [alone["memory_bytes"], *(p[case]["memory_bytes"] for p in two)],
            "s_per_step": [alone["s_per_step"], first["s_per_step"]],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2800)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="of a process that was launched")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if samples(1) is None:
        return
    if arguments.folder is not None:
        with joined_team("cpu") as team:
            found = everything(arguments.samples, arguments.steps, shard=True)
            torch.save(found, arguments.folder / f"{team.rank}.pt")
        return
    one = everything(arguments.samples, arguments.steps, shard=False)
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launcher, "--nproc-per-node", "2", "-m", "benchmarks.training.distributed"]
        command += ["--samples", str(arguments.samples), "--steps", str(arguments.steps)]
        subprocess.run(
            [*command, "--folder", folder], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True
        )
        two = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    document = {
        "samples": arguments.samples,
        "batch": BATCH,
        "processes": [1, 2],
        "torch": torch.__version__,
        **judged(one, two),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
