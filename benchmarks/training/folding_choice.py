"""How a layer of paired modes is best folded: accuracy, MACs, matrix rank and step time.

Fashion-MNIST, 784-512-10. The first layer is a sum of Kronecker products, folded in many ways at
about the same parameters (the whole network within 13,568, a thirtieth of the dense one); the head
stays dense unless said. One recipe for all: Adam, half a cosine, ranks fixed. Accuracy is read on
5,000 held-back training images, which decide, and on the 10,000 test images.

    python -m benchmarks.training.folding_choice accuracy --seeds 0,1
    python -m benchmarks.training.folding_choice time

`EDGECOMPRESS_DATA` names the folder that holds `datasets/fashion_mnist`. Finished runs are added to
the result file at once and are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.training.fashion_images import find_folder, hold_back, normalised
from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.ttm import TensorTrainMatrix
from edgecompress.training.factorized.ttm_folding import attainable_rank

RESULTS = Path(__file__).parent / "results" / "folding_choice.json"
HELD_BACK = 5000
EPOCHS, BATCH, RATE, DROPOUT = 15, 128, 5e-3, 0.1
BLOCKS, STEPS, WARM = 25, 15, 4


@dataclass(frozen=True, slots=True)
class Choice:
    """One network: the folding and rank of the first layer; a head of rank 0 is dense."""

    rows: Shape
    columns: Shape
    rank: int
    head_rank: int = 0


CHOICES = (
    Choice((64, 8), (8, 98), 6),
    Choice((64, 8), (7, 112), 5),
    Choice((128, 4), (4, 196), 6),
    Choice((128, 4), (7, 112), 5),
    Choice((256, 2), (2, 392), 6),
    Choice((32, 16), (14, 56), 5),
    Choice((16, 32), (28, 28), 5),
    Choice((8, 64), (98, 8), 6),
    Choice((4, 128), (196, 4), 6),
    Choice((64, 8), (8, 98), 9, 8),
    Choice((64, 8), (7, 112), 8, 8),
    Choice((512, 1), (1, 784), 6),
)
HEAD = Folding((5, 2), (16, 32))


class Layer(nn.Module):
    """A factorized linear layer."""

    def __init__(self, folding: Folding, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = TensorTrainMatrix(folding, (rank,))
        self.weight.reset((2 / folding.shape[1]) ** 0.5, generator)
        self.bias = nn.Parameter(torch.zeros(folding.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.multiply(x, self.bias)


def make_network(choice: Choice | None, seed: int) -> nn.Sequential:
    """784-512-10; None is the dense network."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    first: nn.Module = nn.Linear(784, 512)
    head: nn.Module = nn.Linear(512, 10)
    if choice is not None:
        first = Layer(Folding(choice.rows, choice.columns), choice.rank, generator)
        if choice.head_rank:
            head = Layer(HEAD, choice.head_rank, generator)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(DROPOUT), head)


def facts(choice: Choice | None) -> dict[str, Any]:
    """What is known without a run."""
    parameters = sum(p.numel() for p in make_network(choice, 0).parameters())
    if choice is None:
        return {"parameters": parameters, "macs": 784 * 512, "matrix_rank": 512}
    folding = Folding(choice.rows, choice.columns)
    ways = TensorTrainMatrix.orders(folding, (choice.rank,), BATCH)
    return {
        "parameters": parameters,
        "macs": min(way.macs for way in ways) // BATCH,
        "matrix_rank": attainable_rank(choice.rows, choice.columns, choice.rank),
    }


def train(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
    """In place."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    generator = torch.Generator().manual_seed(seed)
    steps = len(x) // BATCH
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps):
            share = (epoch * steps + step) / (EPOCHS * steps)
            optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + cos(pi * share))
            chosen = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    network.eval()
    return round(100 * float((network(x).argmax(1) == y).double().mean()), 2)


def measure_accuracy(found: dict[str, Any], seeds: list[int], wanted: list[int]) -> None:
    """Runs what the result file does not have, seed by seed."""
    folder = find_folder()
    if folder is None:
        return
    everything, test = normalised(folder)
    training, held = hold_back(everything, HELD_BACK)
    for seed in seeds:
        for choice in [c for k, c in enumerate((*CHOICES, None)) if not wanted or k in wanted]:
            name = f"{label(choice)} seed {seed}"
            if name in found["accuracy"]:
                continue
            network = make_network(choice, seed)
            train(network, *training, seed)
            found["accuracy"][name] = {
                "choice": asdict(choice) if choice else None,
                "seed": seed,
                **facts(choice),
                "held_back_accuracy": accuracy(network, *held),
                "test_accuracy": accuracy(network, *test),
            }
            print(name, found["accuracy"][name], flush=True)
            write(found)


def measure_time(found: dict[str, Any]) -> None:
    """Step time against the dense network's: blocks of steps take turns, 10th percentile."""
    for batch in (64, 16, 1):
        x, y = torch.randn(batch, 784), torch.randint(0, 10, (batch,))
        networks = {label(choice): make_network(choice, 0) for choice in (None, *CHOICES)}
        steps = {name: stepper(network, x, y) for name, network in networks.items()}
        taken: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(BLOCKS):
            for name, step in steps.items():
                for _ in range(WARM):
                    step()
                for _ in range(STEPS):
                    began = time.perf_counter()
                    step()
                    taken[name].append(time.perf_counter() - began)
        dense = np.percentile(taken["dense"], 10)
        for name, values in taken.items():
            row = found["time"].setdefault(name, {})
            row[f"batch {batch}"] = {
                "step_s": float(f"{np.percentile(values, 10):.3g}"),
                "of_dense": round(float(np.percentile(values, 10) / dense), 3),
            }
            print(batch, name, row[f"batch {batch}"], flush=True)
    found["time_method"] = {"blocks": BLOCKS, "steps": STEPS, "percentile": 10, "threads": 1}
    write(found)


def stepper(network: nn.Module, x: Tensor, y: Tensor) -> Any:
    """A training step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def label(choice: Choice | None) -> str:
    if choice is None:
        return "dense"
    rows, columns = ("x".join(map(str, part)) for part in (choice.rows, choice.columns))
    head = f", head rank {choice.head_rank}" if choice.head_rank else ""
    return f"out {rows} in {columns} rank {choice.rank}{head}"


def write(found: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("accuracy", "time"))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--only", default="", help="numbers of choices, from 0")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"accuracy": {}, "time": {}}
    if RESULTS.exists():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
    found["recipe"] = {"epochs": EPOCHS, "batch": BATCH, "rate": RATE, "dropout": DROPOUT}
    if arguments.what == "time":
        measure_time(found)
    else:
        only = [int(k) for k in arguments.only.split(",") if k]
        measure_accuracy(found, [int(seed) for seed in arguments.seeds.split(",")], only)


if __name__ == "__main__":
    main()
