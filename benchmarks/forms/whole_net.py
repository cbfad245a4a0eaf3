"""One network in every form: bytes, load time, latency, agreement with and without fusion.

EDGECOMPRESS_DATA=... python benchmarks/forms/whole_net.py [MODEL.onnx]

Codes are rounded to nearest, per output channel: this measures forms, not accuracy. Latency is the
ratio to the float file, one thread, interleaved in one process, median of 100; load times are the
median of 9. Inputs are normal random numbers; ranges for 8-bit activations are the extremes.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from edgecompress.core.grids import GRIDS, Grid
from edgecompress.core.tensors import Affine
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack, why_not_pack
from edgecompress.graph.save import serialized
from edgecompress.graph.session import open_session, run_feeds

Feed = dict[str, np.ndarray]


def nearest(weight: np.ndarray, grid: Grid) -> Affine:
    """Codes rounded to nearest; the step is the largest weight of the channel over the grid."""
    axes = tuple(range(1, weight.ndim))
    step = np.abs(weight).max(axes, keepdims=True) / grid.largest
    step = np.where(step > 0, step, 1.0).astype(np.float32)
    ratio = weight / step
    codes = 2 * np.floor(ratio / 2) + 1 if grid.spacing == 2 else np.rint(ratio)
    return Affine(np.clip(codes, -grid.largest, grid.largest).astype(np.int8), step, grid)


def quantized(path: Path, grid: Grid) -> Model:
    model = load_model(path)
    for layer in model.find_layers().layers:
        weight = np.asarray(layer.stage.weight.to_dense(), np.float64)
        affine = nearest(weight, grid)
        if weight.ndim != 3 and not why_not_pack(affine):
            model.replace(layer, [replace(layer.stage, weight=affine)], layer.bias)
    return model


def extremes(model: Model, feed: Feed) -> dict[str, tuple[float, float]]:
    proto = model.to_proto()
    names = [name for node in proto.graph.node for name in node.output if name]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    outputs = run_feeds(open_session(proto, optimize=False), [feed])[0]
    values = [*zip(names, outputs, strict=True), *feed.items()]
    return {
        name: (float(array.min()), float(array.max()))
        for name, array in values
        if array.dtype == np.float32 and array.size
    }


def load_ms(data: bytes) -> float:
    times = []
    for _ in range(9):
        start = time.perf_counter()
        open_session(data, optimize=True)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def latency_ratio(reference: bytes, data: bytes, feed: Feed) -> float:
    sessions = [open_session(reference, optimize=True), open_session(data, optimize=True)]
    times: list[list[float]] = [[], []]
    for _ in range(110):
        for session, spent in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            spent.append(time.perf_counter() - start)
    return statistics.median(times[1][10:]) / statistics.median(times[0][10:])


def main(path: Path) -> None:
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    print(f"{path.name}: {len(original)} bytes, loads in {load_ms(original):.0f} ms")
    print("| weights | activations | bytes | ratio | load ms | latency | with / without fusion |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for activations in (False, True):
        for name, grid in GRIDS.items():
            model = quantized(path, grid)
            feed = {
                spec.name: rng.standard_normal([n or 1 for n in spec.shape]).astype(spec.dtype)
                for spec in model.inputs()
            }
            if activations:
                model.activation_ranges.update(extremes(model, feed))
            pack(model, activations=activations, keep_names=False)
            data = serialized(model)
            plain, fused = (
                run_feeds(open_session(data, optimize=optimize), [feed])[0][0]
                for optimize in (False, True)
            )
            apart = np.linalg.norm(plain - fused) / np.linalg.norm(plain)
            print(
                f"| {name} | {'8 bits' if activations else 'float'} | {len(data)} "
                f"| {len(original) / len(data):.2f} | {load_ms(data):.0f} "
                f"| {latency_ratio(original, data, feed):.2f} | {apart:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    elif "EDGECOMPRESS_DATA" in os.environ:
        main(Path(os.environ["EDGECOMPRESS_DATA"]) / "models" / "resnet20_cifar10.onnx")
    else:
        sys.exit("EDGECOMPRESS_DATA is not set (benchmarks/README.md)")
