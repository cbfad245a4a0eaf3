"""A training step of a dense and of a tensor-train classifier, on arrays and on an embedded CPU.

    python -m benchmarks.latency.training_step

The network is 784-512-10, as in the published on-FPGA training (arXiv 2104.03420: 59 times faster
and 123 times less energy than an embedded CPU, both training the tensor-train network). Its tables
were not at hand; what is assumed here stands in the results: folding 28 x 28 to 16 x 32, rank 16,
4-bit factors, 8-bit activations, 16-bit gradients, and both devices by their cost models. So the
ratios stand beside the published ones and are not fitted to them. Writes
``results/training_step.json``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgecompress.core.training_step import TrainingStepOptions, TrainingStepReport
from edgecompress.core.work import AssumedBits
from edgecompress.graph.model import load_model
from edgecompress.hardware.target import load_target
from edgecompress.pipeline.estimate import Reading
from edgecompress.pipeline.training_step import estimate_training_step

COMMAND = "python -m benchmarks.latency.training_step"
RESULTS = Path(__file__).parent / "results" / "training_step.json"
PUBLISHED = {"speed": 59.0, "energy": 123.0, "memory": 292.0}  # arXiv 2104.03420, abstract
ROWS, COLUMNS = (28, 28), (16, 32)
RANK = 16
BATCHES = (1, 16, 64)
ARRAYS = ("lutmac-ultra96", "bitfusion-45nm")
CPU = "roofline-cortex-a53"


def dense(batch: int) -> onnx.ModelProto:
    """784-512-10."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    dense (float[{batch},784] x) => (float[{batch},10] y)
    <float[784,512] w1, float[512,10] w2>
    {{
        h = MatMul (x, w1)
        r = Relu (h)
        y = MatMul (r, w2)
    }}"""
    return with_weights(text, {"w1": (784, 512), "w2": (512, 10)})


def tensor_train(batch: int) -> onnx.ModelProto:
    """The same with the first layer as four factors, contracted with the input one by one."""
    (i1, i2), (j1, j2), r = ROWS, COLUMNS, RANK
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    tensor_train (float[{batch},784] x) => (float[{batch},10] y)
    <float[{i1},{r}] g1, float[{i2 * r},{r}] g2, float[{r},{j1 * r}] g3, float[{r},{j2}] g4,
     float[512,10] w2,
     int64[3] pixels = {{{batch},{i1},{i2}}}, int64[2] rows = {{{batch},{i2 * r}}},
     int64[3] columns = {{{batch},{j1},{r}}}, int64[2] units = {{{batch},512}}>
    {{
        folded = Reshape (x, pixels)
        first = Transpose <perm = [0, 2, 1]> (folded)
        a = MatMul (first, g1)
        a2 = Reshape (a, rows)
        b = MatMul (a2, g2)
        c = MatMul (b, g3)
        c2 = Reshape (c, columns)
        d = MatMul (c2, g4)
        h = Reshape (d, units)
        act = Relu (h)
        y = MatMul (act, w2)
    }}"""
    shapes = {"g1": (i1, r), "g2": (i2 * r, r), "g3": (r, j1 * r), "g4": (r, j2), "w2": (512, 10)}
    return with_weights(text, shapes)


def with_weights(text: str, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    kept = [one for one in model.graph.initializer if one.name not in shapes]
    del model.graph.initializer[:]
    rng = np.random.default_rng(0)
    made = [
        onnx.numpy_helper.from_array((0.05 * rng.normal(size=shape)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    model.graph.initializer.extend([*kept, *made])
    return model


def step(model: onnx.ModelProto, target: str, low: bool) -> TrainingStepReport:
    """A step in float, or with 4-bit factors, 8-bit activations and 16-bit gradients."""
    options = TrainingStepOptions(gradient_bits=16 if low else 32)
    bits = AssumedBits(activations=8, weights=4) if low else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        graph = load_model(path, normalize=False)
        reading = Reading(assumed_bits=bits)
        return estimate_training_step(graph, load_target(target), options, reading)


def row(name: str, batch: int, report: TrainingStepReport) -> dict[str, Any]:
    memory = report.memory
    return {
        "network": name,
        "batch": batch,
        "target": report.target,
        "parameters": report.parameters,
        "microseconds": round(report.latency_s * 1e6, 2),
        "energy_uj": None if report.energy_pj is None else round(report.energy_pj * 1e-6, 3),
        "phases_us": {p.phase: round(p.latency_s * 1e6, 2) for p in report.phases},
        "macs": {p.phase: p.macs for p in report.phases},
        "memory_bytes": {
            "parameters": memory.parameter_bytes,
            "gradients": memory.gradient_bytes,
            "optimizer": memory.optimizer_bytes,
            "activations": memory.activation_bytes,
            "gradient flow": memory.gradient_flow_bytes,
        },
        "assumptions": report.assumptions,
    }


def compared(
    batch: int, full: TrainingStepReport, cpu: TrainingStepReport, array: TrainingStepReport
) -> dict[str, Any]:
    """Ratios of a batch: the CPU over the array, both training the tensor train."""
    speed = cpu.latency_s / array.latency_s
    known = cpu.energy_pj is not None and array.energy_pj is not None
    return {
        "batch": batch,
        "array": array.target,
        "speed": round(speed, 1),
        "share_of_cpu_peak_that_gives_the_published_speed": round(speed / PUBLISHED["speed"], 3),
        "energy": round(cpu.energy_pj / array.energy_pj, 1) if known else None,
        "parameter_memory": round(full.memory.parameter_bytes / array.memory.parameter_bytes, 1),
        "step_memory": round(full.memory.total_bytes / array.memory.total_bytes, 1),
    }


def measure() -> dict[str, Any]:
    rows, ratios = [], []
    for batch in BATCHES:
        full = step(dense(batch), CPU, low=False)
        cpu = step(tensor_train(batch), CPU, low=False)
        rows += [row("dense, float", batch, full), row("tensor train, float", batch, cpu)]
        for target in ARRAYS:
            array = step(tensor_train(batch), target, low=True)
            rows.append(row("tensor train, 4-bit factors", batch, array))
            ratios.append(compared(batch, full, cpu, array))
    return {"command": COMMAND, "published": PUBLISHED, "ratios": ratios, "rows": rows}


def main() -> None:
    results = measure()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for one in results["ratios"]:
        print(one)
    print("published:", PUBLISHED)


if __name__ == "__main__":
    main()
