"""How fast an exploration is: layer configurations a second on one core.

    python benchmarks/latency/explore.py

A layer configuration is a different operator of the network (equal shapes count once) on a
configuration that can be built and fits the part. The time is that of the whole exploration but for
reading the model: building and dropping configurations, prices, front.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import onnx
from networks import resnet18

from edgecompress.core.work import AssumedBits
from edgecompress.pipeline import explore as exploring
from edgecompress.pipeline.explore import ExploreRequest, explore

COMMAND = "python benchmarks/latency/explore.py"
RESULTS = Path(__file__).parent / "results" / "explore.json"
SEARCHES = (
    ("winocnn-zcu102-w6", "xczu9eg", None),
    ("lutmac-ultra96", "xczu3eg", 2000),
    ("tdla-z7020", "xc7z020", 1000),
    ("bitserial-pynq-z1", "xc7z020", 1000),
    ("systolic-os-32", "xczu9eg", None),
)
"""(base, part, points drawn of the default grid; None: all)."""


def measure(model: Path, target: str, part: str, points: int | None) -> dict[str, object]:
    started: list[float] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "exploring" and not started:
            started.append(time.process_time())

    report, _ = explore(
        ExploreRequest(
            models=(str(model),),
            target=target,
            part=part,
            points=points,
            assumed_bits=AssumedBits(activations=8, weights=2) if points else None,
            progress=progress,
        )
    )
    seconds = time.process_time() - started[0]
    return {
        "target": target,
        "part": part,
        "grid_points": report.grid_points,
        "tried_points": report.tried_points,
        "refined_points": report.refined_points,
        "feasible_points": report.feasible_points,
        "layer_configurations": report.layer_configurations,
        "front": len(report.front),
        "seconds": round(seconds, 2),
        "layer_configurations_per_s": round(report.layer_configurations / seconds),
    }


def main() -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "resnet18.onnx"
        onnx.save(resnet18(), model)
        rows = [measure(model, *search) for search in SEARCHES]
    for row in rows:
        print(
            f"{row['target']} on {row['part']}: {row['feasible_points']:,} of "
            f"{row['tried_points']:,} points and {row['refined_points']:,} beside the grid, "
            f"{row['layer_configurations']:,} layer configurations "
            f"in {row['seconds']} s: {row['layer_configurations_per_s']:,}/s"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"command": COMMAND, "chunk": exploring.CHUNK_POINTS, "results": rows}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
