"""A recommender with the five largest tables of Criteo's challenge, which are never made.

Clicks are drawn from a known model (`training/synthetic_clicks.py`), whose area under the curve is
the ceiling. Every batch is fresh. Tables start as tensor trains of paired modes with three cores;
ranks stay, or are found (``--target-ratio``). The logit is one layer over the dense vector and the
pairwise products (``--top``: hidden widths before it), so that the network contains the truth.

    python -m benchmarks.training.recommender
    python -m benchmarks.training.recommender --rank 6 --target-ratio 60000
    python -m benchmarks.training.recommender --divide 1000 --batch 2048 --steps 5000

The last one is the same problem at a thousandth of the rows. Learning goes by samples for each
parameter of the tables: with about 2,000 the gap to the ceiling closes at either size. The whole
takes 11 minutes of one core at width 32; Hawkins et al. 2022 train at width 128.

Reports table parameters against dense ones, the area under the curve beside the ceiling, steps per
second, and peak memory of the process and of a step. Needs no data set.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from edgecompress.core.options import FixedRanks, LayerRule
from edgecompress.core.training import AdaptationOptions, TensorizeOptions
from edgecompress.training.adaptation import RankAdaptation
from edgecompress.training.architectures import SampleShape
from edgecompress.training.architectures.recommender import Recommender, build
from edgecompress.training.memory import measure_memory
from edgecompress.training.synthetic_clicks import CRITEO_KAGGLE_LARGEST, ClickModel, Clicks
from edgecompress.training.tasks import area_under_curve
from edgecompress.training.tensorize import factorizations, tensorize

RESULTS = Path(__file__).parent / "results" / "recommender.json"
WIDTH = 32
"""Numbers of a row. Source: a choice, for the time that a run takes; the published width is 128."""
ROUNDS = 20
PART = 8192
WARM_UP = 50
"""Steps over which the rate rises."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rank", type=int, default=3)
    parser.add_argument("--target-ratio", type=float, help="find ranks down to this ratio")
    parser.add_argument("--planted-rank", type=int, default=2)
    parser.add_argument("--spread", type=float, default=3.0, help="deviation of the true logit")
    parser.add_argument("--rate", type=float, default=5e-2)
    parser.add_argument("--table-std", type=float, default=0.3)
    parser.add_argument("--top", type=int, nargs="*", default=[], help="hidden widths")
    parser.add_argument("--test", type=int, default=200_000)
    parser.add_argument("--divide", type=int, default=1, help="smaller tables by this factor")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def table_rows(wish: argparse.Namespace) -> tuple[int, ...]:
    return tuple(rows // wish.divide for rows in CRITEO_KAGGLE_LARGEST)


def make_network(wish: argparse.Namespace, generator: torch.Generator) -> Recommender:
    """The published interaction with small layers; tables as factors."""
    tables = table_rows(wish)
    sample = SampleShape(
        inputs=((13,), (len(tables),)), dtypes=("float32", "int64"), cardinalities=tables
    )
    network = build(sample, generator, width=wish.width, bottom=(64,), top=tuple(wish.top))
    rules = tuple(LayerRule(match=f"{part}.*", skip=True) for part in ("bottom", "top"))
    options = TensorizeOptions(
        format="ttm", ranks=FixedRanks((wish.rank,)), cores=3, minimum_saving=-10.0, rules=rules
    )
    tensorize(network, options, generator=generator)
    for _, table in factorizations(network):
        table.reset_table(wish.table_std, generator)
    if not isinstance(network, Recommender):
        raise TypeError(type(network).__name__)
    return network


def table_count(network: Recommender) -> int:
    return sum(table.count for _, table in factorizations(network))


@torch.no_grad()
def judge(network: Recommender, test: Clicks) -> tuple[float, float]:
    """Area under the curve, and mean loss."""
    network.eval()
    parts = zip(test.features.split(PART), test.categories.split(PART), strict=True)
    logits = torch.cat([network(*part) for part in parts])
    network.train()
    loss = binary_cross_entropy_with_logits(logits, test.clicks)
    return area_under_curve(logits, test.clicks), float(loss)


def adapted(wish: argparse.Namespace, network: Recommender) -> RankAdaptation | None:
    """Ranks that the method finds, down to the wanted ratio."""
    if wish.target_ratio is None:
        return None
    dense = sum(table_rows(wish)) * wish.width
    others = sum(p.numel() for p in network.parameters()) - table_count(network)
    options = AdaptationOptions(target_params=others + int(dense / wish.target_ratio))
    return RankAdaptation(network, options, samples=wish.steps * wish.batch, epochs=ROUNDS)


def train(
    wish: argparse.Namespace, network: Recommender, truth: ClickModel, test: Clicks
) -> dict[str, Any]:
    """In place; history and speed."""
    generator = torch.Generator().manual_seed(wish.seed + 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=wish.rate, fused=True)
    adaptation = adapted(wish, network)
    held = Clicks(*(getattr(test, part)[:20_000] for part in Clicks.__slots__))
    each, history, spent, cpu = max(1, wish.steps // ROUNDS), [], 0.0, 0.0
    for step in range(each * ROUNDS):
        batch = truth.draw(wish.batch, generator)
        began, cpu_began = time.perf_counter(), time.process_time()
        for group in optimizer.param_groups:
            fall = 0.5 * (1 + cos(pi * step / (each * ROUNDS)))
            group["lr"] = wish.rate * fall * min(1.0, (step + 1) / WARM_UP)
        optimizer.zero_grad(set_to_none=True)
        loss = binary_cross_entropy_with_logits(
            network(batch.features, batch.categories), batch.clicks
        )
        whole: Tensor = loss if adaptation is None else loss + adaptation.penalty()
        whole.backward()
        optimizer.step()
        if adaptation is not None:
            adaptation.after_step()
        spent += time.perf_counter() - began
        cpu += time.process_time() - cpu_began
        if (step + 1) % each == 0:
            curve, held_loss = judge(network, held)
            if adaptation is not None:
                adaptation.end_epoch(
                    step // each, optimizer, loss=float(loss.detach()), validation_loss=held_loss
                )
            row = {
                "step": step + 1,
                "auc": round(curve, 4),
                "loss": round(held_loss, 4),
                "table_parameters": table_count(network),
            }
            history.append(row)
            row["samples"] = (step + 1) * wish.batch
            print(row, f"{spent / (step + 1) * 1e3:.1f} ms a step", flush=True)
    return {
        "history": history,
        "steps_per_second": round(each * ROUNDS / spent, 1),
        "steps_per_cpu_second": round(each * ROUNDS / cpu, 1),
    }


def draw_in_parts(truth: ClickModel, count: int, generator: torch.Generator) -> Clicks:
    """Samples by the thousand, so that their rows are never in memory together."""
    sizes = [min(PART, count - start) for start in range(0, count, PART)]
    parts = [truth.draw(size, generator) for size in sizes]
    fields = Clicks.__slots__
    return Clicks(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def step_memory(network: Recommender, batch: Clicks) -> dict[str, int]:
    """Bytes of one training step by the allocator."""

    def loss(part: nn.Module, tensors: tuple[Tensor, ...]) -> Tensor:
        features, categories, clicks = tensors
        return binary_cross_entropy_with_logits(part(features, categories), clicks)

    tensors = (batch.features, batch.categories, batch.clicks)
    return asdict(measure_memory(network, tensors, loss, torch.optim.Adam))


def main() -> None:
    wish = arguments()
    torch.set_num_threads(1)
    base_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = torch.Generator().manual_seed(wish.seed)
    network = make_network(wish, generator)
    foldings = tuple(table.folding for _, table in factorizations(network))
    truth = ClickModel(table_rows(wish), foldings, wish.planted_rank, generator, spread=wish.spread)
    test = draw_in_parts(truth, wish.test, generator)
    ceiling = area_under_curve(test.probability, test.clicks)
    began = time.perf_counter()
    run = train(wish, network, truth, test)
    wall_s = time.perf_counter() - began
    reached = judge(network, test)[0]
    dense = sum(table_rows(wish)) * wish.width
    found = {
        "settings": {k: str(v) for k, v in vars(wish).items() if k != "output"},
        "tables": table_rows(wish),
        "width": wish.width,
        "dense_table_parameters": dense,
        "table_parameters": table_count(network),
        "ratio": round(dense / table_count(network)),
        "ranks": [list(table.ranks) for _, table in factorizations(network)],
        "parameters": sum(p.numel() for p in network.parameters()),
        "test_samples": wish.test,
        "auc": round(reached, 4),
        "auc_of_generating_model": round(ceiling, 4),
        "auc_gap": round(ceiling - reached, 4),
        "wall_s": round(wall_s, 1),
        "rss_at_start_bytes": base_rss * 1024,
        "rss_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "step_memory_bytes": step_memory(network, truth.draw(wish.batch, generator)),
        "dense_tables_bytes": 4 * dense,
        **run,
    }
    print({k: v for k, v in found.items() if k != "history"})
    wish.output.parent.mkdir(exist_ok=True)
    runs = json.loads(wish.output.read_text(encoding="utf-8")) if wish.output.exists() else {}
    runs[f"rows divided by {wish.divide}, width {wish.width}"] = found
    wish.output.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
