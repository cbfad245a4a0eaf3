"""Accuracy of the quantized models, as the mean over draws of the calibration samples.

    python -m benchmarks.quantization.measure [--network NAME ...] [--bits GRID ...] [--draws N]

Weights of all layers on one grid, first and last layer included, defaults of the tool, no training.
From the same codes two files are written and scored in onnxruntime: weights only, and weights with
8-bit activations. Calibration samples are unlabelled training images (keyword spotting: the first
half of its 500 recordings; scored is the second half). Writes ``results.json`` beside this file,
one entry per network, grid and draw; entries that are there are replaced.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgecompress.core.options import QuantizeOptions
from edgecompress.core.samples import Samples
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.pipeline.quantize import quantize

RESULTS = Path(__file__).with_name("results.json")
GRIDS = ("ternary", "2", "3", "4")
BATCH = 64
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Data:
    """Calibration samples to draw from, test samples and their labels."""

    calibration: Array
    test: Array
    labels: Array


def cifar10(folder: Path) -> Data:
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    pools = [np.load(folder / f"cifar10_{name}.npz") for name in ("calib5k", "test1k")]
    images = [
        ((pool["x"].astype(np.float32) / 255 - mean) / deviation).transpose(0, 3, 1, 2)
        for pool in pools
    ]
    return Data(images[0], images[1], pools[1]["y"])


def keywords(folder: Path) -> Data:
    data = np.load(folder / "mlperf_kws_mfcc_a.npz")
    x = (data["x"].astype(np.float32) - float(data["zero_point"])) * float(data["scale"])
    return Data(x[:250], x[250:], data["y"][250:])


def digits(folder: Path, low: float, high: float) -> Data:
    """Images of the t10k files: the first half calibrates, the second half is scored."""

    def read(name: str, header: int) -> Array:
        raw = gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(raw, np.uint8, offset=header)

    x = read("images-idx3", 16).reshape(-1, 1, 28, 28).astype(np.float32)
    x = x * np.float32((high - low) / 255) + np.float32(low)
    return Data(x[:5000], x[5000:], read("labels-idx1", 8)[5000:])


NETWORKS: dict[str, Callable[[Path], Data]] = {
    "resnet20_cifar10": cifar10,
    "mlperf_kws_dscnn": keywords,
    "fashion_cnn_alt": lambda folder: digits(folder / "fashion_mnist", -1, 1),
    "mnist_cntk_op8": lambda folder: digits(folder / "mnist", 0, 255),
}


def draw_samples(model: Model, data: Data, draw: int, count: int) -> Samples:
    """``count`` calibration samples without their labels."""
    rng = np.random.default_rng(1000 + draw)
    places = rng.choice(len(data.calibration), min(count, len(data.calibration)), replace=False)
    spec = model.inputs()[0]
    batch = spec.shape[0] or BATCH
    x = data.calibration[places]
    feeds = tuple({spec.name: x[k : k + batch]} for k in range(0, len(x), batch))
    return Samples(feeds=feeds, labels=None, count=len(x), source="benchmark", sha256="")


def scores(path: Path, data: Data) -> Array:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    batch = spec.shape[0] if isinstance(spec.shape[0], int) else 250
    parts = [
        session.run(None, {spec.name: data.test[k : k + batch]})[0]
        for k in range(0, len(data.test), batch)
    ]
    return np.concatenate(parts).reshape(len(data.test), -1)


def compare(reference: Array, path: Path, data: Data) -> dict[str, Any]:
    found = scores(path, data)
    right = [float((s.argmax(1) == data.labels).mean()) for s in (reference, found)]
    return {
        "accuracy": right[1],
        "points_lost": 100 * (right[0] - right[1]),
        "agreement": float((reference.argmax(1) == found.argmax(1)).mean()),
        "relative_l2": float(np.linalg.norm(found - reference) / np.linalg.norm(reference)),
        "bytes": path.stat().st_size,
    }


def measure(path: Path, data: Data, bits: str, draw: int, count: int) -> dict[str, Any]:
    model = load_model(path)
    samples = draw_samples(model, data, draw, count)
    start = time.perf_counter()
    _, _, skips = quantize(model, QuantizeOptions(bits=bits, activations=8), samples)
    seconds = time.perf_counter() - start
    reference = scores(path, data)
    entry: dict[str, Any] = {
        "calibration_samples": samples.count,
        "test_samples": len(data.test),
        "float_accuracy": float((reference.argmax(1) == data.labels).mean()),
        "float_bytes": path.stat().st_size,
        "left_as_they_are": {skip.layer: skip.reason for skip in skips},
        "quantize_s": round(seconds, 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, activations in (("weights", False), ("weights_and_activations", True)):
            twin, out = model.clone(), Path(folder) / f"{name}.onnx"
            pack(twin, activations=activations, keep_names=False)
            save_model(twin, out)
            entry[name] = compare(reference, out, data)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--bits", nargs="*", default=list(GRIDS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--count", type=int, default=1024)
    args = parser.parse_args()
    if "EDGECOMPRESS_DATA" not in os.environ:
        sys.exit("EDGECOMPRESS_DATA is not set (benchmarks/README.md)")
    root = Path(os.environ["EDGECOMPRESS_DATA"])
    for name in args.network:
        data = NETWORKS[name](root / "datasets")
        for draw in range(args.draws):
            for bits in args.bits:
                entry = measure(root / "models" / f"{name}.onnx", data, bits, draw, args.count)
                known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                known.setdefault("command", "python -m benchmarks.quantization.measure")
                known.setdefault("onnxruntime", ort.__version__)
                known.setdefault("entries", {})[f"{name} {bits} draw {draw}"] = entry
                RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
                lost = [entry[k]["points_lost"] for k in ("weights", "weights_and_activations")]
                ratio = entry["float_bytes"] / entry["weights"]["bytes"]
                print(
                    f"{name} {bits} draw {draw}: n={entry['test_samples']} "
                    f"lost {lost[0]:.2f} / {lost[1]:.2f} with 8-bit activations, "
                    f"{ratio:.2f}x smaller, {entry['quantize_s']} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
