"""Ranks planted in data and found again: a 64 -> 64 tensor train, modes [8, 8 | 8, 8].

The truth has ranks (3, 3, 3); training starts from (8, 16, 8) on 4,000 samples with noise of
standard deviation 0.1 (outputs have about 1). Two schemes on the same data, start and schedule:

- ours: the gauge balanced every two epochs, singular values below a share of their bond's
  largest cut physically while it trains, the penalty lifted for the last 15 % of the run;
- published: the same prior, no balancing, nothing cut; a rank counts when its variance is above
  an absolute threshold, as in the code released with Hawkins, Liu and Zhang 2022.

    python benchmarks/training/planted_ranks.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import torch
from torch import Tensor

from edgecompress.core.training import AdaptationOptions, Inference, Prior
from edgecompress.training.adaptation import RankAdaptation
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.tt import TensorTrain

FOLDING = Folding(rows=(8, 8), columns=(8, 8))
TRUE_RANKS, START_RANKS = (3, 3, 3), (8, 16, 8)
STD = 1 / 8  # 64 inputs of variance 1 then make outputs of variance 1
NOISE = 0.1
SAMPLES, HELD_BACK, BATCH = 4000, 2000, 100
RATE = 1e-2
NEVER = 10**9
Form = tuple[Prior, Inference]
FORMS: tuple[Form, ...] = (
    ("log-uniform", "map"),
    ("half-cauchy", "map"),
    ("log-uniform", "bayesian"),
)


@dataclass(frozen=True, slots=True)
class Data:
    """What the planted weight makes of random inputs; held-back outputs are without noise."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor


def planted(seed: int) -> tuple[Data, torch.Generator]:
    """Data of a random train of the true ranks, and the generator that goes on from there."""
    generator = torch.Generator().manual_seed(seed)
    truth = TensorTrain(FOLDING, TRUE_RANKS)
    truth.reset(STD, generator)
    weight = truth.dense().detach()
    x = torch.randn(SAMPLES, 64, generator=generator)
    noise = NOISE * torch.randn(SAMPLES, 64, generator=generator)
    held = torch.randn(HELD_BACK, 64, generator=generator)
    return Data(x, x @ weight.T + noise, held, held @ weight.T), generator


@dataclass(frozen=True, slots=True)
class Found:
    """The network at the end of a run.

    Attributes:
        train: It.
        error: Relative mean squared error on held-back inputs.
        variances: Of the ranks of each bond.
    """

    train: TensorTrain
    error: float
    variances: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How ranks are found; see `AdaptationOptions`."""

    cut_at: float
    balance_epochs: int
    settle: float
    prior: Prior = "log-uniform"
    inference: Inference = "map"


def run(seed: int, scheme: Scheme, epochs: int) -> Found:
    """Train on the data of one seed."""
    data, generator = planted(seed)
    train = TensorTrain(FOLDING, START_RANKS)
    train.reset(STD, generator)
    options = AdaptationOptions(
        prior=scheme.prior,
        inference=scheme.inference,
        strength=1.0,
        balance_epochs=scheme.balance_epochs,
        cut_at=scheme.cut_at,
        warm_up=(0.0, 0.05),
        settle=scheme.settle,
    )
    adaptation = RankAdaptation(train, options, samples=SAMPLES, epochs=epochs)
    optimizer = torch.optim.Adam(train.parameters(), lr=RATE)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + cos(pi * epoch / epochs))
        order = torch.randperm(SAMPLES, generator=generator)
        total = 0.0
        for start in range(0, SAMPLES, BATCH):
            rows = order[start : start + BATCH]
            fit = (train.multiply(data.x[rows]) - data.y[rows]).square().mean()
            optimizer.zero_grad()
            (fit + adaptation.penalty()).backward()
            optimizer.step()
            adaptation.after_step()
            total += fit.item() * len(rows)
        if scheme.balance_epochs != NEVER:
            adaptation.end_epoch(epoch, optimizer, loss=total / SAMPLES)
    train.eval()
    with torch.no_grad():
        wrong = (train.multiply(data.held_x) - data.held_y).square().mean()
    variances = tuple(adaptation.variances("").variances)
    return Found(train, (wrong / data.held_y.square().mean()).item(), variances)


def published(seed: int, thresholds: Sequence[float], epochs: int) -> dict[str, object]:
    """Ranks by the published rule, and by rounding its result afterwards."""
    found = run(seed, Scheme(cut_at=0.0, balance_epochs=NEVER, settle=1.0), epochs)
    ranks = {f"{t:g}": [int((v > t).sum()) for v in found.variances] for t in thresholds}
    found.train.balance()
    spectra = [found.train.spectrum(bond) for bond in range(3)]
    rounded = {f"{t:g}": [int((s > t * s.max()).sum()) for s in spectra] for t in thresholds}
    return {"ranks": ranks, "ranks_when_rounded": rounded, "relative_mse": found.error}


def ours(seed: int, threshold: float, epochs: int, form: Form) -> dict[str, object]:
    """Ranks that are left after cutting at a threshold."""
    prior, inference = form
    scheme = Scheme(
        cut_at=threshold, balance_epochs=2, settle=0.85, prior=prior, inference=inference
    )
    found = run(seed, scheme, epochs)
    return {"ranks": list(found.train.ranks), "relative_mse": found.error}


def measure(seeds: Sequence[int], thresholds: Sequence[float], epochs: int) -> dict[str, object]:
    """Both schemes on every seed."""
    runs: list[dict[str, object]] = []
    exact: dict[str, int] = {}
    for seed in seeds:
        row: dict[str, object] = {"seed": seed, "published": published(seed, thresholds, epochs)}
        for prior, inference in FORMS:
            for threshold in thresholds:
                key = f"ours, {prior}, {inference}, {threshold:g}"
                found = ours(seed, threshold, epochs, (prior, inference))
                row[key] = found
                exact[key] = exact.get(key, 0) + (found["ranks"] == list(TRUE_RANKS))
        for threshold in thresholds:
            key = f"published, {threshold:g}"
            ranks = row["published"]["ranks"][f"{threshold:g}"]  # type: ignore[index]
            exact[key] = exact.get(key, 0) + (ranks == list(TRUE_RANKS))
        runs.append(row)
    return {
        "true_ranks": TRUE_RANKS,
        "start_ranks": START_RANKS,
        "samples": SAMPLES,
        "noise": NOISE,
        "epochs": epochs,
        "seeds": list(seeds),
        "exact": exact,
        "runs": runs,
    }


def main() -> None:
    """Measure and write the result."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=here / "results" / "planted_ranks.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    result = measure(seeds, (1e-3, 1e-4), arguments.epochs)
    result["seconds"] = round(time.perf_counter() - began, 1)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
