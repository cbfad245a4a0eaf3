"""Training without back-propagation beside back-propagation: a classifier, two physics networks.

    python -m benchmarks.training.backprop_free [--part classifier|heat|hjb ...] [--seeds 0,1]

Each row trains the same tensorized network from the same start. Classifier: Fashion-MNIST,
784-64-10, both layers sums of two Kronecker products; accuracy after the last step on the 10,000
test images. Physics: root mean square of the residual (derivatives by autograd for all) and
relative error to the known solution, at 2,000 fresh points. What a row cost is its number of
evaluations, each a forward pass of one batch (of back-propagation a backward pass too).

Settings are chosen first, in whole runs with a seed of their own that no result has: of the
classifier by the accuracy on 10,000 training images that were held back (learned from: the other
50,000), of the physics networks by the residual at 1,000 points that no result sees. The known
solution and the test images choose nothing. Choices and results go to
``results/backprop_free.json``; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.training.fashion_images import Pictures, find_folder, normalised
from benchmarks.training.low_precision import accuracy, kronecker
from edgecompress.core.options import FixedRanks
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.architectures.physics import tanh_network
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.output_losses import CrossEntropy, MeanSquare
from edgecompress.training.physics import (
    CentralDifferences,
    Equation,
    HamiltonJacobiBellman,
    HeatEquation,
    by_autograd,
    draw_points,
    relative_error,
)
from edgecompress.training.schedule import rate_at
from edgecompress.training.subspace_newton import SubspaceNewton, SubspaceOptions
from edgecompress.training.tensorize import tensorize

RESULTS = Path(__file__).parent / "results" / "backprop_free.json"
EQUATIONS: dict[str, Equation] = {"heat": HeatEquation(), "hjb": HamiltonJacobiBellman(20)}
POINTS = {"heat": 200, "hjb": 100}
METHODS = ("back-propagation", "subspace")
CHOOSING_SEED = 100
HELD_BACK = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one method trains one network.

    Attributes:
        steps: Of the run.
        rate: At the start; falls to zero along half a cosine.
        batch: Images, or points.
        directions: Of the subspace; 0 for back-propagation.
    """

    steps: int
    rate: float
    batch: int
    directions: int = 0


def settings_of(part: str, method: str) -> tuple[Setting, ...]:
    """What is chosen from, at equal costs."""
    points = POINTS.get(part, 0)
    if method == "back-propagation":
        steps = {"classifier": 2000, "heat": 600, "hjb": 600}[part]
        rates = (5e-3, 1e-2, 2e-2, 5e-2) if part == "classifier" else (5e-3, 2e-2)
        return tuple(Setting(steps=steps, rate=r, batch=points or 128) for r in rates)
    if part == "classifier":
        shapes = ((120, 1024, 240), (360, 1024, 80))
        return tuple(Setting(steps=s, rate=1.0, batch=b, directions=d) for d, b, s in shapes)
    steps = {"heat": 100, "hjb": 120}[part]
    return (Setting(steps=steps, rate=1.0, batch=points, directions=40),)


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
    setting: Setting,
    problem: Callable[[], tuple[Callable[[], Tensor], Any, Callable[[Tensor], Tensor]]],
    seed: int,
) -> int:
    """Train; ``problem()`` gives the outputs of a fresh batch, their loss as the subspace method
    takes it, and as a function. Returns evaluations of the batch."""
    parameters = list(network.parameters())
    optimizer: Any
    if method == "back-propagation":
        optimizer = torch.optim.Adam(parameters, lr=setting.rate)
    else:
        options = SubspaceOptions(directions=setting.directions)
        optimizer = SubspaceNewton(parameters, setting.rate, options, seed=seed)
    for step in range(setting.steps):
        optimizer.param_groups[0]["lr"] = rate_at(setting.rate, step, setting.steps)
        outputs, judged, loss = problem()
        if method == "back-propagation":
            optimizer.zero_grad()
            loss(outputs()).backward()
            optimizer.step()
        else:
            optimizer.step(outputs, judged)
    return getattr(optimizer, "evaluations", setting.steps)


def run_classifier(
    method: str, setting: Setting, seed: int, data: tuple[Pictures, Pictures], *, choosing: bool
) -> dict[str, Any]:
    """One row."""
    (images, labels), test = data
    if choosing:
        mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(HELD_BACK))
        held, rest = mixed[:HELD_BACK], mixed[HELD_BACK:]
        test = images[held], labels[held]
        images, labels = images[rest], labels[rest]
    network = classifier(torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed + 1)

    def problem() -> Any:
        rows = torch.randint(len(labels), (setting.batch,), generator=draws)
        x, y = images[rows], labels[rows]
        return (
            lambda: network(x),
            CrossEntropy(y),
            lambda outputs: cross_entropy(outputs, y),
        )

    evaluations = descend(network, method, setting, problem, seed)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "evaluations": evaluations,
        "accuracy": accuracy(network, test),
        "judged_on": f"{len(test[1])} {'held-back' if choosing else 'test'} images",
    }


def run_physics(
    name: str, method: str, setting: Setting, seed: int, *, choosing: bool
) -> dict[str, Any]:
    """One row."""
    equation = EQUATIONS[name]
    network = physics_network(equation, torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed + 1)
    count = 1000 if choosing else 2000
    fresh = draw_points(equation, count, torch.Generator().manual_seed(98 if choosing else 99))
    # Twenty second derivatives by autograd in every step would take an hour.
    exact = method == "back-propagation" and name == "heat"
    way = by_autograd if exact else CentralDifferences()

    def problem() -> Any:
        points = draw_points(equation, setting.batch, draws)
        return (
            lambda: equation.residual(network, points, way),
            MeanSquare(torch.zeros(len(points))),
            lambda outputs: outputs.square().mean(),
        )

    def residual() -> float:
        found = [
            equation.residual(network, part, by_autograd).detach() for part in fresh.split(250)
        ]
        return float(torch.cat(found).square().mean().sqrt())

    begin = residual()
    evaluations = descend(network, method, setting, problem, seed)
    row = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "evaluations": evaluations,
        "derivatives": "autograd" if exact else "central differences",
        "residual_start": begin,
        "residual": residual(),
        "judged_on": f"{len(fresh)} points",
    }
    if not choosing:
        row["relative_error"] = relative_error(equation, network, fresh)
    return row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was run."""
    return json.loads(path.read_text())["runs"] if path.exists() else []


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows, and a summary over seeds."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        if not row["choosing"]:
            groups.setdefault((row["part"], row["method"], row["steps"]), []).append(row)
    measures = ("accuracy", "residual", "relative_error")
    summary = [
        {
            "part": part,
            "method": method,
            "steps": steps,
            "seeds": sorted(row["seed"] for row in group),
            **{
                f"{measure}_mean": sum(row[measure] for row in group) / len(group)
                for measure in measures
                if measure in group[0]
            },
        }
        for (part, method, steps), group in groups.items()
    ]
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"summary": summary, "runs": rows}, indent=1)
    path.with_suffix(".part").write_text(f"{text}\n")
    path.with_suffix(".part").replace(path)


def run_once(
    key: dict[str, Any], setting: Setting, data: tuple[Pictures, Pictures] | None, path: Path
) -> dict[str, Any]:
    """The row of this run: from the file, or run now and added to it."""
    key = {**key, **asdict(setting)}
    for row in read_rows(path):
        if key.items() <= row.items():
            return row
    part, method, seed, choosing = (key[n] for n in ("part", "method", "seed", "choosing"))
    if part == "classifier" and data is not None:
        facts = run_classifier(method, setting, seed, data, choosing=choosing)
    else:
        facts = run_physics(part, method, setting, seed, choosing=choosing)
    row = {**key, **facts}
    write(path, [*read_rows(path), row])
    sys.stderr.write(f"{json.dumps(row)}\n")
    return row


def chosen(part: str, method: str, data: tuple[Pictures, Pictures] | None, path: Path) -> Setting:
    """The setting that held-back images or points speak for."""
    trials = settings_of(part, method)
    if len(trials) == 1:
        return trials[0]
    key = {"part": part, "method": method, "seed": CHOOSING_SEED, "choosing": True}
    rows = [run_once(key, trial, data, path) for trial in trials]
    loss = [-row["accuracy"] if part == "classifier" else row["residual"] for row in rows]
    return trials[min(range(len(trials)), key=lambda k: loss[k] if isfinite(loss[k]) else inf)]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=("classifier", "heat", "hjb"))
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    parts = asked.part or ["classifier", "heat", "hjb"]
    folder = find_folder() if "classifier" in parts else None
    data = None if folder is None else normalised(folder)
    for part in parts:
        if part == "classifier" and data is None:
            continue
        for method in asked.method or METHODS:
            setting = chosen(part, method, data, asked.output)
            for seed in map(int, asked.seeds.split(",")):
                key = {"part": part, "method": method, "seed": seed, "choosing": False}
                run_once(key, setting, data, asked.output)


if __name__ == "__main__":
    main()
