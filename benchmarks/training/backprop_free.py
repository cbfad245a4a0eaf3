"""Training without back-propagation beside back-propagation: a classifier, two physics networks.

    python -m benchmarks.training.backprop_free [--part classifier|heat|hjb ...] [--seeds 0,1]

Each row trains the same tensorized network from the same start. Classifier: Fashion-MNIST,
784-64-10, both layers sums of two Kronecker products; accuracy after the last step on the 10,000
test images. Physics: root mean square of the residual (derivatives by autograd for all) and
relative error to the known solution, at 2,000 fresh points. Results go to
``results/backprop_free.json``; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.training.low_precision import Pictures, accuracy, kronecker, load_pictures
from edgecompress.core.options import FixedRanks
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.architectures.physics import tanh_network
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.physics import (
    CentralDifferences,
    Equation,
    HamiltonJacobiBellman,
    HeatEquation,
    by_autograd,
    draw_points,
    relative_error,
)
from edgecompress.training.output_losses import CrossEntropy, MeanSquare
from edgecompress.training.subspace_newton import SubspaceNewton, SubspaceOptions
from edgecompress.training.tensorize import tensorize
from edgecompress.training.zeroth_order import ZerothOrder, ZerothOrderOptions

RESULTS = Path(__file__).parent / "results" / "backprop_free.json"
EQUATIONS: dict[str, Equation] = {"heat": HeatEquation(), "hjb": HamiltonJacobiBellman(20)}
POINTS = {"heat": 200, "hjb": 100}
METHODS = ("back-propagation", "subspace", "simultaneous perturbation")
STEPS = {
    ("classifier", "back-propagation"): 2000,
    ("classifier", "subspace"): 700,
    ("classifier", "simultaneous perturbation"): 1500,
    ("heat", "back-propagation"): 1000,
    ("heat", "subspace"): 150,
    ("heat", "simultaneous perturbation"): 300,
    ("hjb", "back-propagation"): 600,
    ("hjb", "subspace"): 200,
    ("hjb", "simultaneous perturbation"): 200,
}
RATES = {"back-propagation": 5e-3, "subspace": 1.0, "simultaneous perturbation": 5e-3}
BATCHES = {"back-propagation": 128, "subspace": 1024, "simultaneous perturbation": 512}
DIRECTIONS = {"subspace": 40, "simultaneous perturbation": 32}


def classifier(generator: torch.Generator) -> nn.Module:
    """784-64-10 in 1,082 parameters."""
    return nn.Sequential(
        kronecker(Folding(rows=(8, 8), columns=(28, 28)), 2, generator),
        nn.ReLU(),
        kronecker(Folding(rows=(2, 5), columns=(8, 8)), 2, generator),
    )


def physics_network(equation: Equation, generator: torch.Generator) -> nn.Module:
    """coordinates-64-64-1 with tanh, tensorized where that saves."""
    network = tanh_network((equation.coordinates, 64, 64, 1), generator)
    options = TensorizeOptions(format="ttm", ranks=FixedRanks((4,)), cores=2)
    tensorize(network, options, generator=generator, pretrained=False)
    return network


def descend(
    network: nn.Module,
    method: str,
    steps: int,
    problem: Callable[[bool], tuple[Callable[[], Tensor], Any, Callable[[Tensor], Tensor]]],
    seed: int,
) -> int:
    """Train; ``problem(graph)`` gives the outputs of a fresh batch, their loss as the subspace
    method takes it, and as a function. Returns evaluations of the batch."""
    parameters = list(network.parameters())
    optimizer: Any
    if method == "back-propagation":
        optimizer = torch.optim.Adam(parameters, lr=RATES[method])
    elif method == "subspace":
        options = SubspaceOptions(directions=DIRECTIONS[method])
        optimizer = SubspaceNewton(parameters, RATES[method], options, seed=seed)
    else:
        wide = ZerothOrderOptions(directions=DIRECTIONS[method])
        optimizer = ZerothOrder(parameters, RATES[method], wide, seed=seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.5 * RATES[method] * (1 + cos(pi * step / steps))
        outputs, judged, loss = problem(method == "back-propagation")
        if method == "back-propagation":
            optimizer.zero_grad()
            loss(outputs()).backward()
            optimizer.step()
        elif method == "subspace":
            optimizer.step(outputs, judged)
        else:
            optimizer.step(lambda outputs=outputs, loss=loss: loss(outputs()))
    return getattr(optimizer, "evaluations", steps)


def run_classifier(
    method: str, steps: int, seed: int, data: tuple[Pictures, Pictures]
) -> dict[str, Any]:
    """One row."""
    (images, labels), test = data
    network = classifier(torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed + 1)

    def problem(graph: bool) -> Any:
        rows = torch.randint(len(labels), (BATCHES[method],), generator=draws)
        x, y = images[rows], labels[rows]
        return (
            lambda: network(x),
            CrossEntropy(y),
            lambda outputs: cross_entropy(outputs, y),
        )

    evaluations = descend(network, method, steps, problem, seed)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "batch": BATCHES[method],
        "evaluations": evaluations,
        "accuracy": accuracy(network, test),
        "test_images": len(test[1]),
    }


def run_physics(name: str, method: str, steps: int, seed: int) -> dict[str, Any]:
    """One row."""
    equation, count = EQUATIONS[name], POINTS[name]
    network = physics_network(equation, torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed + 1)
    fresh = draw_points(equation, 2000, torch.Generator().manual_seed(99))

    def problem(graph: bool) -> Any:
        points = draw_points(equation, count, draws)
        way = by_autograd if graph else CentralDifferences()
        return (
            lambda: equation.residual(network, points, way),
            MeanSquare(),
            lambda outputs: outputs.square().mean(),
        )

    def residual() -> float:
        found = [
            equation.residual(network, part, by_autograd).detach() for part in fresh.split(500)
        ]
        return float(torch.cat(found).square().mean().sqrt())

    begin = residual()
    evaluations = descend(network, method, steps, problem, seed)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "points": count,
        "evaluations": evaluations,
        "derivatives": "autograd" if method == "back-propagation" else "central differences",
        "residual_start": begin,
        "residual": residual(),
        "relative_error": relative_error(equation, network, fresh),
        "test_points": len(fresh),
    }


def write(path: Path, row: dict[str, Any]) -> None:
    """Add a row."""
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"runs": [*rows, row]}, indent=1)
    path.with_suffix(".part").write_text(f"{text}\n")
    path.with_suffix(".part").replace(path)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=("classifier", "heat", "hjb"))
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, help="in place of each row's own")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    folder = Path(os.environ.get("EDGECOMPRESS_DATA", "data")) / "datasets" / "fashion_mnist"
    torch.set_num_threads(1)
    parts = asked.part or ["classifier", "heat", "hjb"]
    data = load_pictures(folder) if "classifier" in parts and folder.is_dir() else None
    for seed in map(int, asked.seeds.split(",")):
        for part in parts:
            if part == "classifier" and data is None:
                sys.stderr.write(f"skipped: no {folder}; set EDGECOMPRESS_DATA\n")
                continue
            for method in asked.method or METHODS:
                steps = asked.steps or STEPS[part, method]
                key = {"part": part, "method": method, "seed": seed, "steps": steps}
                done = json.loads(asked.output.read_text())["runs"] if asked.output.exists() else []
                if any(key.items() <= row.items() for row in done):
                    continue
                begin = time.perf_counter()
                if data is not None and part == "classifier":
                    facts = run_classifier(method, steps, seed, data)
                else:
                    facts = run_physics(part, method, steps, seed)
                row = {**key, **facts, "seconds": round(time.perf_counter() - begin, 1)}
                write(asked.output, row)
                sys.stderr.write(f"{json.dumps(row)}\n")


if __name__ == "__main__":
    main()
