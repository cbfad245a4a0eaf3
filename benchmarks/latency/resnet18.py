"""Predicted latency of ResNet-18 on every target, and how long the estimate itself takes.

python benchmarks/latency/resnet18.py

Times are CPU times of one thread, from the loaded graph to the report, for the float network and
for the same with random ternary codes, packed. Targets that read the values of weights (coded
streams, zero skipping) take longer, though large weights are measured on a sample: what reading
takes is given apart, and what the sample does to the figures, against all 11.7 million weights.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import onnx
from networks import resnet18

from edgecompress.core.grids import GRIDS
from edgecompress.core.tensors import Affine
from edgecompress.core.work import WeightValues, Work
from edgecompress.graph import code_sample, weight_statistics
from edgecompress.graph.code_sample import SAMPLED
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost, estimate, weight_values
from edgecompress.hardware.target import list_targets, load_target
from edgecompress.pipeline.estimate import estimate_latency

COMMAND = "python benchmarks/latency/resnet18.py"
RESULTS = Path(__file__).parent / "results" / "resnet18.json"
RUNS = 9
REAL = ("dtln_2.onnx", "mlperf_ad_autoencoder.onnx", "shufflenet_v2_int8_qlinear.onnx")
"""Of the folder ``models`` of EDGECOMPRESS_DATA: those with the largest weights."""


def timed(run: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """First, median and wall-clock median time in ms, and what came out."""
    times, walls, found = [], [], None
    for _ in range(RUNS):
        cost.cache_clear()
        start, wall = time.process_time(), time.perf_counter()
        found = run()
        walls.append((time.perf_counter() - wall) * 1e3)
        times.append((time.process_time() - start) * 1e3)
    median = round(statistics.median(times), 1)
    waited = round(statistics.median(walls), 1)
    first = round(times[0], 1)
    return {"first": first, "median": median, "wall_median": waited, "runs": RUNS}, found


def ternary(source: Path, output: Path) -> Model:
    """The network with random ternary codes, written and read again."""
    model = load_model(source)
    rng = np.random.default_rng(0)
    for layer in model.find_layers().layers:
        name = model.weight_name(layer)
        value = model.ir.graph.initializers[name].const_value
        if value is None:
            raise TypeError(name)
        shape = tuple(int(size) for size in value.shape.numpy())
        codes = rng.choice(GRIDS["ternary"].codes, shape)
        model.quantized[name] = Affine(
            codes, np.ones((1,) * len(shape), np.float32), GRIDS["ternary"]
        )
    pack(model, activations=False, keep_names=False)
    save_model(model, output)
    return load_model(output, normalize=False)


def all_weights(model: Model, level: WeightValues) -> tuple[Work, ...]:
    """The operators of a graph, every weight measured whole."""
    with (
        patch.object(weight_statistics, "EXACT_CODES", 1 << 62),
        patch.object(code_sample, "EXACT_CODES", 1 << 62),
    ):
        return derive_work(model, {}, statistics=level)


def sample_errors(model: Model) -> dict[str, Any]:
    """Largest differences of the statistics of a sample from those of all weights, and of the
    latencies, relative."""
    found: dict[str, Any] = {"sampled_weights": 0, "entropy_bits": 0.0, "zero_share": 0.0}
    found |= {"winograd_zero_share": 0.0, "latency": {}}
    sampled = {level: derive_work(model, {}, statistics=level) for level in ("codes", "winograd")}
    exact = {level: all_weights(model, level) for level in ("codes", "winograd")}
    for one, other in zip(sampled["winograd"], exact["winograd"], strict=True):
        if one.weights is None or other.weights is None:
            continue
        found["sampled_weights"] += SAMPLED in one.assumed
        pairs = [
            ("entropy_bits", one.weights.entropy_bits, other.weights.entropy_bits),
            ("zero_share", one.weights.zero_share, other.weights.zero_share),
        ]
        shares = (one.weights.winograd_zero_shares, other.weights.winograd_zero_shares)
        pairs += [("winograd_zero_share", a[1], b[1]) for a, b in zip(*shares, strict=True)]
        for name, a, b in pairs:
            found[name] = round(max(found[name], abs(a - b)), 4)
    for name in list_targets():
        target = load_target(name)
        level = weight_values(target)
        if level != "none":
            times = [
                sum(one.latency_s for one in estimate(works[level], target))
                for works in (sampled, exact)
            ]
            found["latency"][name] = round(times[0] / times[1] - 1, 5)
    return found


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.onnx"
        onnx.save(resnet18(), path)
        model = load_model(path, normalize=False)
        packed = ternary(path, Path(folder) / "ternary.onnx")
        for name in list_targets():
            target = load_target(name)
            took, report = timed(lambda target=target: estimate_latency(model, target))
            took_packed, _ = timed(lambda target=target: estimate_latency(packed, target))
            rows.append(
                {
                    "target": name,
                    "latency_ms": round(report.latency_s * 1e3, 4),
                    "throughput_per_s": round(report.throughput_per_s, 2),
                    "macs": report.macs,
                    "weight_values": weight_values(target),
                    "estimate_ms": took,
                    "estimate_ternary_ms": took_packed,
                }
            )
            print(rows[-1])
        measuring = {
            weights: {
                level: timed(
                    lambda graph=graph, level=level: derive_work(graph, {}, statistics=level)
                )[0]
                for level in get_args(WeightValues)
            }
            for weights, graph in (("float", model), ("ternary", packed))
        }
        print(measuring)
        errors = {"float": sample_errors(model), "ternary": sample_errors(packed)}
        folder_of_models = os.environ.get("EDGECOMPRESS_DATA", "")
        for name in REAL if folder_of_models else ():
            real = load_model(Path(folder_of_models) / "models" / name, normalize=False)
            errors[name] = sample_errors(real)
        print(errors)
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"command": COMMAND, "results": rows, "reading_ms": measuring, "sample": errors}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
