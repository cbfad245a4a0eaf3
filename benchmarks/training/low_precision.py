"""Fashion-MNIST, 784-512-10: factors, masters and optimiser state of a few bits beside float32.

    python -m benchmarks.training.low_precision [--epochs N] [--seeds 0,1] [--case PLACE ...]

The same tensorized network from the same start, with the same images in the same order, is trained
in float32 and at several widths; no rank changes. Accuracy is that of the last epoch on the 10,000
test images, by which nothing was chosen. What is stored is compared with the dense network in
float32 under the same optimiser, Adam: 4 bytes for a parameter, 16 with its gradient and its two
moments. Activations are those that the forward pass leaves for the backward pass in float32,
few-bit ones a quarter of them. Step times are of the simulation beside float, taken in turns. Every
finished run is added to ``results/low_precision.json`` at once; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.training.fashion_images import Pictures, find_folder, normalised
from edgecompress.core.training import PrecisionOptions
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.ttm import TensorTrainMatrix
from edgecompress.training.layers import TensorizedLinear
from edgecompress.training.low_precision import (
    PreciseOptimizer,
    apply_precision,
    dense_bits,
    factor_bits_at,
    stored_bits,
    use_factor_bits,
)
from edgecompress.training.memory import predict_memory

RESULTS = Path(__file__).parent / "results" / "low_precision.json"
DENSE_COUNT = 784 * 512 + 512 + 512 * 10 + 10
ADAM_MOMENTS = 2
BATCH = 128
BATCHES = (1, 16, 64)
"""Of the totals with activations."""
TIMED_STEPS = 300
RATE = 5e-3
DROPOUT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to store things.

    Attributes:
        name: In the results.
        rank: Terms of both Kronecker sums.
        options: Widths; None: float32.
    """

    name: str
    rank: int
    options: PrecisionOptions | None


NARROW = PrecisionOptions(master_bits=16, state_bits=16)
CASES = (
    Case(name="float", rank=8, options=None),
    Case(name="8-bit, then 4-bit, 16-bit masters, bfloat16 state", rank=8, options=NARROW),
    Case(
        name="4-bit, 16-bit masters, bfloat16 state",
        rank=8,
        options=replace(NARROW, wide_share=0.0),
    ),
    Case(name="8-bit, then 4-bit, float masters and state", rank=8, options=PrecisionOptions()),
    Case(
        name="8-bit, then 4-bit, stochastic rounding throughout",
        rank=8,
        options=replace(NARROW, rounding="stochastic"),
    ),
    Case(
        name="8-bit, then 3-bit, 16-bit masters, bfloat16 state",
        rank=8,
        options=replace(NARROW, factor_bits=3),
    ),
    Case(
        name="4-bit, no masters, bfloat16 state",
        rank=8,
        options=replace(NARROW, master_bits=0),
    ),
    Case(name="float", rank=6, options=None),
    Case(name="8-bit, then 4-bit, 16-bit masters, bfloat16 state", rank=6, options=NARROW),
)


def kronecker(folding: Folding, rank: int, generator: torch.Generator) -> TensorizedLinear:
    """A layer of two paired cores, He's variance."""
    factorization = TensorTrainMatrix(folding, (rank,))
    factorization.reset((2 / folding.shape[1]) ** 0.5, generator)
    return TensorizedLinear(factorization, torch.zeros(folding.shape[0]))


def make_network(rank: int, generator: torch.Generator) -> nn.Sequential:
    """784-512-10."""
    return nn.Sequential(
        kronecker(Folding(rows=(16, 32), columns=(28, 28)), rank, generator),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        kronecker(Folding(rows=(2, 5), columns=(32, 16)), rank, generator),
    )


def dense_network() -> nn.Sequential:
    """784-512-10, what the factors are compared with."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(512, 10))


@torch.no_grad()
def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Share of images, in percent."""
    network.eval()
    images, labels = pictures
    right = sum(
        int((network(x).argmax(1) == y).sum())
        for x, y in zip(images.split(1000), labels.split(1000), strict=True)
    )
    network.train()
    return 100 * right / len(labels)


def activation_bytes(network: nn.Module, batch: int) -> int:
    """What the forward pass of a network in float32 leaves for the backward pass."""
    pictures = torch.zeros(batch, 784), torch.zeros(batch, dtype=torch.long)
    step = predict_memory(
        network,
        pictures,
        lambda model, given: cross_entropy(model(given[0]), given[1]),
        lambda parameters: torch.optim.Adam(parameters, lr=RATE, foreach=False),
    )
    return step.activation_bytes


def totals(case: Case, training_bytes: float) -> dict[str, Any]:
    """Parameters, gradients, state and activations of the dense network and of ours, by batch."""
    ours = make_network(case.rank, torch.Generator().manual_seed(0))
    dense = dense_network()
    share = 1.0 if case.options is None else case.options.activation_bits / 32
    found: dict[str, Any] = {}
    for batch in BATCHES:
        before = dense_bits(DENSE_COUNT, ADAM_MOMENTS) / 8 + activation_bytes(dense, batch)
        activations = share * activation_bytes(ours, batch)
        after = training_bytes + activations
        found[str(batch)] = {
            "dense_bytes": before,
            "bytes": after,
            "activation_bytes": activations,
            "factor": round(before / after, 1),
        }
    return found


def step_times(data: Pictures) -> dict[str, Any]:
    """Steps of a batch in float, on codes and dense in float, taken in turns in one process."""
    images, labels = data[0][:BATCH], data[1][:BATCH]
    stages: dict[str, Any] = {}
    for name, options, bits in (
        ("dense float", None, 0),
        ("float", None, 0),
        ("8-bit factors", NARROW, 8),
        ("4-bit factors", NARROW, 4),
        ("4-bit factors, stochastic rounding", replace(NARROW, rounding="stochastic"), 4),
    ):
        network = make_network(8, torch.Generator().manual_seed(0))
        if name.startswith("dense"):
            network = dense_network()
        optimizer: torch.optim.Optimizer
        if options is None:
            optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        else:
            apply_precision(network, options, seed=0)
            use_factor_bits(network, bits)
            inner = torch.optim.Adam(network.parameters(), lr=RATE)
            optimizer = PreciseOptimizer(inner, network, options, seed=0)
        stages[name] = (network, optimizer, [])
    for _ in range(TIMED_STEPS):
        for network, optimizer, seconds in stages.values():
            begin = time.process_time()
            optimizer.zero_grad()
            cross_entropy(network(images), labels).backward()
            optimizer.step()
            seconds.append(time.process_time() - begin)
    base = np.median(stages["float"][2])
    return {
        name: {
            "median_ms": round(1e3 * float(np.median(seconds)), 3),
            "p10_ms": round(1e3 * float(np.percentile(seconds, 10)), 3),
            "times_float": round(float(np.median(seconds) / base), 2),
            "steps": len(seconds),
            "batch": BATCH,
        }
        for name, (_, _, seconds) in stages.items()
    }


def train(case: Case, seed: int, epochs: int, data: tuple[Pictures, Pictures]) -> dict[str, Any]:
    """One run."""
    (images, labels), test = data
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = make_network(case.rank, generator)
    count = sum(p.numel() for p in network.parameters())
    if case.options is not None:
        apply_precision(network, case.options, seed=seed)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    if case.options is not None:
        optimizer = PreciseOptimizer(optimizer, network, case.options, seed=seed)
    steps_an_epoch = len(labels) // BATCH
    begin, step, curve = time.perf_counter(), 0, []
    steps = epochs * steps_an_epoch
    for epoch in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH)[:steps_an_epoch]:
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * RATE * (1 + cos(pi * step / steps))
            if case.options is not None:
                use_factor_bits(network, factor_bits_at(case.options, step, steps))
            optimizer.zero_grad()
            loss = cross_entropy(network(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            step += 1
        curve.append(accuracy(network, test))
        sys.stderr.write(f"{case.name} r={case.rank} seed {seed} epoch {epoch}: {curve[-1]:.2f}\n")
    stored = stored_bits(network, optimizer)
    return {
        "case": case.name,
        "rank": case.rank,
        "seed": seed,
        "epochs": epochs,
        "options": None if case.options is None else asdict(case.options),
        "parameters": count,
        "fewer": round(DENSE_COUNT / count, 2),
        "accuracy": curve[-1],
        "curve": curve,
        "test_images": len(test[1]),
        "stored": [asdict(part) for part in stored.parts],
        "parameter_bytes": stored.parameter_bits / 8,
        "parameter_factor": round(dense_bits(DENSE_COUNT, -1) / stored.parameter_bits, 1),
        "training_bytes": stored.training_bits / 8,
        "training_factor": round(dense_bits(DENSE_COUNT, ADAM_MOMENTS) / stored.training_bits, 1),
        "total": totals(case, stored.training_bits / 8),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Finished runs."""
    return json.loads(path.read_text())["runs"] if path.exists() else []


def write(path: Path, rows: Sequence[dict[str, Any]], times: dict[str, Any]) -> None:
    """Runs, a summary over seeds, and step times."""
    groups: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["rank"], row["epochs"]), []).append(row)
    summary = [
        {
            "case": case,
            "rank": rank,
            "epochs": epochs,
            "seeds": sorted(row["seed"] for row in group),
            "accuracy_mean": round(float(np.mean([row["accuracy"] for row in group])), 3),
            "accuracy_spread": round(float(np.std([row["accuracy"] for row in group], ddof=1)), 3)
            if len(group) > 1
            else None,
            **{key: group[0][key] for key in ("fewer", "parameter_factor", "training_factor")},
            "total_factor": {batch: of["factor"] for batch, of in group[0]["total"].items()},
        }
        for (case, rank, epochs), group in groups.items()
    ]
    path.parent.mkdir(exist_ok=True)
    document = {"summary": summary, "step_times": times, "runs": list(rows)}
    text = json.dumps(document, indent=1)
    path.with_suffix(".part").write_text(f"{text}\n")
    path.with_suffix(".part").replace(path)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--case", type=int, action="append", help="place in the list of cases")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    folder = find_folder()
    if folder is None:
        return
    torch.set_num_threads(1)
    data = normalised(folder)
    cases = [CASES[k] for k in asked.case] if asked.case else CASES
    times = step_times(data[0])
    write(asked.output, read_rows(asked.output), times)
    for seed in map(int, asked.seeds.split(",")):
        for case in cases:
            rows = read_rows(asked.output)
            key = (case.name, case.rank, seed, asked.epochs)
            if any((r["case"], r["rank"], r["seed"], r["epochs"]) == key for r in rows):
                continue
            row = train(case, seed, asked.epochs, data)
            write(asked.output, [*read_rows(asked.output), row], times)


if __name__ == "__main__":
    main()
