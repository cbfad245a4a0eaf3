"""Time of one tensorized layer, every way to run it, beside the dense layer.

    python benchmarks/training/layer_speed.py [--rounds 200] [--output FILE]

Forward and backward pass with gradients of the input, the bias and the weight or cores, and the
forward pass alone; one thread, all variants in one process in turn, p10 and median of CPU time
over the rounds. The constants of `edgecompress.training.factorized.costs` rest on the result:
`chosen` names the order that they pick.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from edgecompress.training.factorized import load_format
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.kron import kron_multiply
from edgecompress.training.factorized.ttm import TensorTrainMatrix
from edgecompress.training.factorized.two_sided import TwoSided

RESULTS = Path(__file__).parent / "results" / "layer_speed.json"
BATCHES = (1, 4, 16, 64, 256)
LAYERS: tuple[tuple[str, Folding, int], ...] = (
    ("tt", Folding((16, 32), (28, 28)), 20),
    ("ttm", Folding((16, 32), (28, 28)), 8),
    ("ttm", Folding((64, 8), (7, 112)), 5),
    ("cp", Folding((16, 32), (28, 28)), 50),
    ("tucker", Folding((16, 32), (28, 28)), 10),
    ("tt", Folding((32, 64), (64, 32)), 32),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """CPU time of a call in microseconds."""

    p10_us: float
    median_us: float


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1, repeats: int = 3
) -> dict[str, Spread]:
    """All calls in turn, in an order drawn anew each round, so that all see the same machine; a
    call is repeated within its turn, as steps of a training are, and its first ones do not count.
    """
    for call in calls.values():
        for _ in range(10):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, turns = list(calls.items()), random.Random(0)
    for _ in range(rounds):
        turns.shuffle(order)
        for name, call in order:
            for _ in range(warm):
                call()
            for _ in range(repeats):
                start = time.thread_time_ns()
                call()
                times[name].append((time.thread_time_ns() - start) / 1e3)
    return {
        name: Spread(round(sorted(taken)[len(taken) // 10], 1), round(median(taken), 1))
        for name, taken in times.items()
    }


def variants(kind: str, folding: Folding, rank: int, batch: int) -> dict[str, nn.Module]:
    """The dense layer, the format as it chooses, and each order it can be made to take."""
    out, inner = folding.shape
    made: dict[str, nn.Module] = {"dense": nn.Linear(inner, out)}
    factors = _factors(kind, folding, rank)
    made["as chosen"] = _Layer(factors)
    for order in factors.orders(folding, factors.ranks, batch):
        for kept in KEPT[order.name]:
            layer = _factors(kind, folding, rank)
            if isinstance(layer, TwoSided):
                made[f"{order.name}, {kept}"] = _Layer(_forced(layer, order.name, kept))
            elif isinstance(layer, TensorTrainMatrix) and len(folding.rows) == 2:
                keep = kept != "recomputed"
                made[f"{order.name}, {kept}"] = _Layer(_Kronecker(layer, order.name, keep))
    return made


KEPT = {
    "fused": ("recomputed", "narrow state kept", "halves kept"),
    "pieces": ("recomputed", "states kept"),
    "columns": ("recomputed",),
    "rebuild": ("recomputed",),
    "last-first": ("recomputed", "state kept"),
    "first-first": ("recomputed",),
}


class _Kronecker(nn.Module):
    """Two paired cores in a given order."""

    def __init__(self, factors: TensorTrainMatrix, order: str, keep: bool) -> None:
        super().__init__()
        self.factors, self.order, self.keep = factors, order, keep
        self.folding = factors.folding

    def multiply(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        first, last = self.factors.factors()
        return kron_multiply(x, bias, first, last, self.order, keep=self.keep)


class _Layer(nn.Module):
    def __init__(self, factors: Factorization | _Kronecker) -> None:
        super().__init__()
        self.factors, self.bias = factors, nn.Parameter(torch.zeros(factors.folding.shape[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factors.multiply(x, self.bias)


def _factors(kind: str, folding: Folding, rank: int) -> Factorization:
    cls = load_format(kind)
    made = cls(folding, tuple(min(rank, most) for most in cls.max_ranks(folding)))
    made.reset(0.05, torch.Generator().manual_seed(0))
    return made


def _forced(factors: Factorization, order: str, kept: str) -> Factorization:
    cls = type(factors)
    routes: dict[int, Any] = {}
    way = {"order": order, "keep": kept != "recomputed", "whole": kept == "halves kept"}

    class Forced(cls):  # type: ignore[misc, valid-type]
        def route(self, batch: int) -> Any:
            if batch not in routes:
                routes[batch] = dataclasses.replace(super().route(batch), **way)
            return routes[batch]

    factors.__class__ = Forced
    return factors


def measure(kind: str, folding: Folding, rank: int, batch: int, rounds: int) -> dict[str, Any]:
    """Times of all variants on one batch."""
    x = torch.randn(batch, folding.shape[1], requires_grad=True)
    gradient = torch.randn(batch, folding.shape[0])
    layers = variants(kind, folding, rank, batch)

    def step(layer: nn.Module) -> None:
        layer(x).backward(gradient)
        x.grad = None
        for parameter in layer.parameters():
            parameter.grad = None

    both = interleaved({n: lambda m=m: step(m) for n, m in layers.items()}, rounds)
    with torch.no_grad():
        ahead = interleaved({n: lambda m=m: m(x) for n, m in layers.items()}, rounds)
    chosen = layers["as chosen"]
    order = "its own"
    if isinstance(chosen, _Layer) and isinstance(chosen.factors, TwoSided):
        route = chosen.factors.route(batch)
        order = f"{route.order}{', kept' if route.keep or route.whole else ''}"
    return {
        "format": kind,
        "rows": folding.rows,
        "columns": folding.columns,
        "rank": rank,
        "batch": batch,
        "chosen": order,
        "forward_backward": {name: dataclasses.asdict(spread) for name, spread in both.items()},
        "forward": {name: dataclasses.asdict(spread) for name, spread in ahead.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind, folding, rank in LAYERS:
        for batch in BATCHES:
            row = measure(kind, folding, rank, batch, options.rounds)
            rows.append(row)
            dense = row["forward_backward"]["dense"]["p10_us"]
            shown = ", ".join(
                f"{name} {spread['p10_us'] / dense:.2f}"
                for name, spread in row["forward_backward"].items()
            )
            print(f"{kind} {folding.shape} batch {batch} [{row['chosen']}]: {shown}", flush=True)
    result = {"torch": torch.__version__, "threads": 1, "rounds": options.rounds, "layers": rows}
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
