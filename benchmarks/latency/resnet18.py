"""Predicted latency of ResNet-18 on every target, and how long the estimate itself takes.

python benchmarks/latency/resnet18.py

Times are CPU times of one thread, from the loaded graph to the report. Targets that read the values
of weights (coded streams, zero skipping) take longer; what measuring all 11.7 million weights takes
is given apart, for the float network and for the same with random ternary codes, packed.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
from networks import resnet18

from edgecompress.core.grids import GRIDS
from edgecompress.core.tensors import Affine
from edgecompress.core.work import WeightValues
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost, weight_values
from edgecompress.hardware.target import list_targets, load_target
from edgecompress.pipeline.estimate import estimate_latency

COMMAND = "python benchmarks/latency/resnet18.py"
RESULTS = Path(__file__).parent / "results" / "resnet18.json"
RUNS = 9


def timed(run: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """First and median time in ms, and what came out."""
    times, found = [], None
    for _ in range(RUNS):
        cost.cache_clear()
        start = time.process_time()
        found = run()
        times.append((time.process_time() - start) * 1e3)
    median = round(statistics.median(times), 1)
    return {"first": round(times[0], 1), "median": median, "runs": RUNS}, found


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
            rows.append(
                {
                    "target": name,
                    "latency_ms": round(report.latency_s * 1e3, 4),
                    "throughput_per_s": round(report.throughput_per_s, 2),
                    "macs": report.macs,
                    "weight_values": weight_values(target),
                    "estimate_ms": took,
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
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"command": COMMAND, "results": rows, "reading_ms": measuring}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
