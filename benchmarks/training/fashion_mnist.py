"""Fashion-MNIST, 784-512-10: accuracy against parameters, ranks found against ranks fixed.

Trains the dense network and every format at 10, 20, 30 and 40 times fewer parameters (of the whole
network, biases included): once with ranks that the method finds under that target, once with one
fixed rank for all bonds, the largest that fits the same count. All share one recipe; the recipe
was chosen by the 5,000 training images that are held back, never by the 10,000 test images.

Every finished run is added to the result file at once, and what is there is not run again:

    python -m benchmarks.training.fashion_mnist --seeds 0,2,4 --output a.json
    python -m benchmarks.training.fashion_mnist --seeds 1,3 --output b.json
    python -m benchmarks.training.fashion_mnist --merge a.json b.json

`EDGECOMPRESS_DATA` names the folder that holds `datasets/fashion_mnist`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.training.fashion_images import Pictures, find_folder, hold_back, normalised
from edgecompress.core.options import FixedRanks, LayerRule
from edgecompress.core.training import AdaptationOptions, TensorizeOptions
from edgecompress.training.adaptation import RankAdaptation
from edgecompress.training.architectures import draw_weights
from edgecompress.training.factorized import format_names
from edgecompress.training.tensorize import factorizations, tensorize

RESULTS = Path(__file__).parent / "results" / "fashion_mnist.json"
DENSE_COUNT = 784 * 512 + 512 + 512 * 10 + 10
HELD_BACK = 5000
RATIOS = (10, 20, 30, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How every network is trained.

    Attributes:
        epochs: Passes over the 55,000 training images.
        batch: Images of a step.
        rate: Learning rate of Adam at the start; half a cosine to zero.
        dense_rate: The same for the dense network, whose best is lower.
        dropout: Of the hidden layer.
        smoothing: Of labels.
        strength: Of the rank penalty, in units of 1/N.
        start: Parameters at the start, as a multiple of the target.
        warm_up: Shares of the run at which the penalty begins and is whole.
        settle: Share of the run after which ranks stay.
    """

    epochs: int = 24
    batch: int = 128
    rate: float = 5e-3
    dense_rate: float = 1e-3
    dropout: float = 0.2
    smoothing: float = 0.0
    strength: float = 0.3
    start: float = 2.0
    warm_up: tuple[float, float] = (0.02, 0.2)
    settle: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One network to train.

    Attributes:
        format: A format, or ``dense``.
        ranks: ``found``, ``fixed`` or ``dense-head`` (fixed, the last layer dense); of the dense
            network ``none``.
        ratio: How many times fewer parameters.
        seed: Of the weights, the order of images and dropout.
    """

    format: str
    ranks: str
    ratio: int
    seed: int

    @property
    def target(self) -> int:
        """Parameters allowed."""
        return DENSE_COUNT // self.ratio


@dataclass(frozen=True, slots=True)
class Data:
    """Normalised images as rows, and labels: training, held back, test."""

    train: Pictures
    held: Pictures
    test: Pictures


def load(folder: Path, device: torch.device) -> Data:
    """The images, on a device."""
    train, test = normalised(folder)
    kept, held = hold_back(train, HELD_BACK)

    def placed(pictures: Pictures) -> Pictures:
        return pictures[0].to(device), pictures[1].to(device)

    return Data(placed(kept), placed(held), placed(test))


def make_network(run: Run, recipe: Recipe, generator: torch.Generator) -> nn.Module:
    """784-512-10 with its factors at their first ranks, on the CPU."""
    dropout = [nn.Dropout(recipe.dropout)] if recipe.dropout else []
    with torch.no_grad():
        network = draw_weights(
            nn.Sequential(nn.Linear(784, 512), nn.ReLU(), *dropout, nn.Linear(512, 10)), generator
        )
    if run.format == "dense":
        return network
    if run.ranks == "found":
        options = wish(run.format, largest_rank(run.format, int(run.target * recipe.start)))
    elif run.ranks == "dense-head":
        options = dense_head(run.format, run.target)
    else:
        options = fixed_ranks(run.format, run.target)
    tensorize(network, options, generator=generator)
    return network


def wish(format_name: str, rank: int) -> TensorizeOptions:
    """The same rank for all bonds, whether or not a layer saves by it."""
    return TensorizeOptions(format=format_name, ranks=FixedRanks((rank,)), minimum_saving=-10.0)


def dense_head(format_name: str, budget: int) -> TensorizeOptions:
    """The last layer dense and the hidden one at the largest rank that fits: the fastest step."""
    rules = (LayerRule(match="re:[23]", format="none"),)
    rank = 1
    while count(bare(replace(wish(format_name, rank + 1), rules=rules))) <= budget:
        rank += 1
    return replace(wish(format_name, rank), rules=rules)


def bare(options: TensorizeOptions) -> nn.Module:
    """The network without its dropout, for counting."""
    network = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    tensorize(network, options, generator=torch.Generator())
    return network


def fixed_ranks(format_name: str, budget: int) -> TensorizeOptions:
    """The largest common rank, and single bonds raised in turn while the budget allows it."""
    common = bare(wish(format_name, largest_rank(format_name, budget)))
    layers = {name: list(part.ranks) for name, part in factorizations(common)}
    largest = {name: part.max_ranks(part.folding) for name, part in factorizations(common)}

    def chosen() -> TensorizeOptions:
        rules = tuple(
            LayerRule(match=name if name == "0" else "re:[23]", ranks=tuple(ranks))
            for name, ranks in layers.items()
        )
        return replace(wish(format_name, 1), rules=rules)

    raised = True
    while raised:
        raised = False
        for name, ranks in layers.items():
            for bond, most in enumerate(largest[name]):
                ranks[bond] += 1
                if ranks[bond] <= most and count(bare(chosen())) <= budget:
                    raised = True
                else:
                    ranks[bond] -= 1
    return chosen()


def largest_rank(format_name: str, budget: int) -> int:
    """The largest common rank, clipped at each bond, that keeps the network within a budget."""
    low, high = 1, 512
    while low < high:
        middle = (low + high + 1) // 2
        if count(bare(wish(format_name, middle))) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def count(network: nn.Module) -> int:
    """Parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def train(run: Run, recipe: Recipe, data: Data) -> dict[str, Any]:
    """Train one network; what became of it."""
    torch.manual_seed(run.seed)
    generator = torch.Generator().manual_seed(run.seed)
    x, y = data.train
    network = make_network(run, recipe, generator).to(x.device)
    started = count(network)
    adaptation = None
    if run.ranks == "found":
        options = AdaptationOptions(
            strength=recipe.strength,
            target_params=run.target,
            warm_up=recipe.warm_up,
            settle=recipe.settle,
        )
        adaptation = RankAdaptation(network, options, samples=len(x), epochs=recipe.epochs)
    rate = recipe.dense_rate if run.format == "dense" else recipe.rate
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    optimizer.param_groups[0]["initial_lr"] = rate
    trainee = Trainee(network, optimizer, adaptation)
    began = time.perf_counter()
    for epoch in range(recipe.epochs):
        loss = train_epoch(trainee, (x, y), recipe, epoch, generator)
        if adaptation is not None:
            held_loss = judge(network, data.held)[1]
            adaptation.end_epoch(epoch, optimizer, loss=loss, validation_loss=held_loss)
    held, held_loss = judge(network, data.held)
    return {
        **asdict(run),
        "recipe": asdict(recipe),
        "parameters": count(network),
        "parameters_at_start": started,
        "layer_ranks": {name: list(part.ranks) for name, part in factorizations(network)},
        "train_loss": round(loss, 4),
        "held_back_loss": round(held_loss, 4),
        "held_back_accuracy": round(held, 4),
        "test_accuracy": round(judge(network, data.test)[0], 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


@dataclass(frozen=True, slots=True)
class Trainee:
    """What a training step touches."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    adaptation: RankAdaptation | None


def train_epoch(
    trainee: Trainee,
    images: Pictures,
    recipe: Recipe,
    epoch: int,
    generator: torch.Generator,
) -> float:
    """One pass over the images; the mean loss."""
    x, y = images
    network, optimizer, adaptation = trainee.network, trainee.optimizer, trainee.adaptation
    network.train()
    order = torch.randperm(len(x), generator=generator).to(x.device)
    steps = len(x) // recipe.batch
    total = torch.zeros((), device=x.device)
    for step in range(steps):
        passed = (epoch + step / steps) / recipe.epochs
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5 * (1 + cos(pi * passed))
        rows = order[step * recipe.batch : (step + 1) * recipe.batch]
        loss = cross_entropy(network(x[rows]), y[rows], label_smoothing=recipe.smoothing)
        total += loss.detach()
        if adaptation is not None:
            loss = loss + adaptation.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if adaptation is not None:
            adaptation.after_step()
    return total.item() / steps


@torch.no_grad()
def judge(network: nn.Module, images: Pictures) -> tuple[float, float]:
    """Share that is right, and mean loss."""
    network.eval()
    x, y = images
    scores = network(x)
    right = (scores.argmax(1) == y).float().mean().item()
    return right, cross_entropy(scores, y).item()


def planned(formats: Sequence[str], ratios: Sequence[int], seeds: Sequence[int]) -> Iterator[Run]:
    """Seed by seed, what the acceptance asks for first."""
    for seed in seeds:
        if "dense" in formats:
            yield Run(format="dense", ranks="none", ratio=1, seed=seed)
        for ratio in sorted(ratios, key=lambda ratio: abs(ratio - 30)):
            for name in (name for name in formats if name != "dense"):
                yield Run(format=name, ranks="found", ratio=ratio, seed=seed)
                yield Run(format=name, ranks="fixed", ratio=ratio, seed=seed)
                yield Run(format=name, ranks="dense-head", ratio=ratio, seed=seed)


def same(row: dict[str, Any], run: Run, recipe: Recipe) -> bool:
    """Whether a finished row is this run with this recipe."""
    wanted = json.loads(json.dumps({**asdict(run), "recipe": asdict(recipe)}))
    return all(row.get(key) == value for key, value in wanted.items())


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, for each format, way to its ranks and ratio."""
    groups: dict[tuple[str, str, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        recipe = json.dumps(row["recipe"], sort_keys=True)
        key = (row["format"], row["ranks"], row["ratio"], recipe)
        groups.setdefault(key, []).append(row)
    result = []
    for (name, ranks, ratio, _), members in sorted(groups.items(), key=lambda item: item[0]):
        test = [100 * row["test_accuracy"] for row in members]
        counts = [row["parameters"] for row in members]
        result.append(
            {
                "format": name,
                "ranks": ranks,
                "ratio": ratio,
                "seeds": sorted(row["seed"] for row in members),
                "parameters": [min(counts), max(counts)],
                "test_images": 10000,
                "test_accuracy_mean": round(mean(test), 2),
                "test_accuracy_stdev": round(stdev(test), 2) if len(test) > 1 else None,
                "held_back_accuracy_mean": round(
                    mean(100 * row["held_back_accuracy"] for row in members), 2
                ),
                "seconds_mean": round(mean(row["seconds"] for row in members), 1),
            }
        )
    return result


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Finished runs of a result file; none when it is not there."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text())["runs"]
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replace a result file at once."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"summary": summary(rows), "runs": list(rows)}, indent=1) + "\n")
    partial.replace(path)


def merge(sources: Sequence[Path], output: Path) -> None:
    """Rows of several files, each run once."""
    rows = read_rows(output)
    for source in sources:
        for row in read_rows(source):
            if not any(
                all(
                    row[key] == other[key] for key in ("format", "ranks", "ratio", "seed", "recipe")
                )
                for other in rows
            ):
                rows.append(row)
    write(output, rows)


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers."""
    return [int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--formats", type=lambda text: text.split(","), default=["dense", *format_names()]
    )
    parser.add_argument("--ratios", type=numbers, default=list(RATIOS))
    parser.add_argument("--ranks", type=lambda text: text.split(","), default=("found", "fixed"))
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--set", default="{}", help="other fields of the recipe, as JSON")
    parser.add_argument("--quick", action="store_true", help="one epoch, ratio 30, first seed")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="result files to add")
    return parser.parse_args()


def main() -> None:
    """Run what is missing."""
    asked = arguments()
    if asked.merge:
        merge(asked.merge, asked.output)
        return
    folder = find_folder()
    if folder is None:
        return
    torch.set_num_threads(asked.threads)
    recipe = replace(Recipe(epochs=asked.epochs), **json.loads(asked.set))
    runs = list(planned(asked.formats, asked.ratios, asked.seeds))
    if asked.quick:
        recipe = replace(recipe, epochs=1)
        runs = list(planned(asked.formats, [30], asked.seeds[:1]))
    data = load(folder, asked.device)
    rows = read_rows(asked.output)
    for run in runs:
        unwanted = run.format != "dense" and run.ranks not in asked.ranks
        if unwanted or any(same(row, run, recipe) for row in rows):
            continue
        rows.append(train(run, recipe, data))
        write(asked.output, rows)
        sys.stderr.write(f"{json.dumps(rows[-1])}\n")


if __name__ == "__main__":
    main()
