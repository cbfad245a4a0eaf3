"""Predicted latency of ResNet-18 on every target, and how long the estimate itself takes.

python benchmarks/latency/resnet18.py
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import onnx
from networks import resnet18

from edgecompress.graph.model import load_model
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import list_targets, load_target
from edgecompress.pipeline.estimate import estimate_latency

COMMAND = "python benchmarks/latency/resnet18.py"
RESULTS = Path(__file__).parent / "results" / "resnet18.json"
RUNS = 9


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.onnx"
        onnx.save(resnet18(), path)
        model = load_model(path, normalize=False)
        for name in list_targets():
            target = load_target(name)
            times = []
            for _ in range(RUNS):
                cost.cache_clear()
                start = time.perf_counter()
                report = estimate_latency(model, target)
                times.append(time.perf_counter() - start)
            rows.append(
                {
                    "target": name,
                    "latency_ms": round(report.latency_s * 1e3, 4),
                    "throughput_per_s": round(report.throughput_per_s, 2),
                    "macs": report.macs,
                    "estimate_ms": {
                        "first": round(times[0] * 1e3, 1),
                        "median": round(statistics.median(times) * 1e3, 1),
                        "runs": RUNS,
                    },
                }
            )
            print(rows[-1])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"command": COMMAND, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
