"""The interpreter of ONNX graphs against onnxruntime: every float model, two corpora, and time.

    python benchmarks/training/interpreter.py

writes ``results/interpreter.json``: the largest difference of every float model at two sizes, as
the file is and as it is brought into the form that is compressed; how many files of the corpora
are equal, refused (and why) or wrong; the time of a training step of ResNet-20 against the same
network written in torch, interleaved in one process. `EDGECOMPRESS_DATA` names the data folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.robustness.corpora import Case, node_cases, node_names, odd_cases, run, unpack_odd
from edgecompress.core.errors import EdgeCompressError
from edgecompress.graph.model import load_model
from edgecompress.training.interpreter.interpreter import Interpreter

Array = NDArray[Any]
RESULTS = Path(__file__).parent / "results" / "interpreter.json"
RELATIVE, HALF_RELATIVE = 1e-5, 2.0**-9
"""As in ``tests/tolerance.py``."""

OPEN_SIZES: dict[str, tuple[dict[str, tuple[int, ...]], ...]] = {
    "dtln_1": ({"input_2": (1, 1, 257), "input_3": (1, 2, 128, 2)},),
    "dtln_2": ({"input_4": (1, 1, 512), "input_5": (1, 2, 128, 2)},),
    "fashion_cnn_alt": ({"input": (1, 1, 28, 28)}, {"input": (5, 1, 28, 28)}),
    "fashion_mlp": ({"input": (1, 1, 28, 28)}, {"input": (5, 1, 28, 28)}),
    "fastestdet": ({"input.1": (1, 3, 352, 352)},),
    "mlperf_ad_autoencoder": ({"input_1": (1, 640)}, {"input_1": (7, 640)}),
    "mlperf_kws_dscnn": ({"input_1": (1, 49, 10, 1)}, {"input_1": (3, 49, 10, 1)}),
    "mnist_cntk_op8": ({"Input3": (1, 1, 28, 28)},),
    "ppocr_ch_v1.1_det": ({"image": (1, 3, 64, 96)}, {"image": (2, 3, 96, 32)}),
    "resnet20_cifar10": ({"input": (1, 3, 32, 32)}, {"input": (4, 3, 32, 32)}),
    "resnet20_cifar10_bn_op11": ({"input": (1, 3, 32, 32)}, {"input": (4, 3, 32, 32)}),
    "resnet20_cifar10_dynamo_op20": ({"input": (1, 3, 32, 32)}, {"input": (4, 3, 32, 32)}),
    "resnet20_cifar10_fp16": ({"input": (1, 3, 32, 32)}, {"input": (4, 3, 32, 32)}),
    "silero_vad": (
        {"input": (1, 512), "state": (2, 1, 128), "sr": ()},
        {"input": (3, 512), "state": (2, 3, 128), "sr": ()},
    ),
    "silero_vad_half": (
        {"input": (1, 512), "state": (2, 1, 128)},
        {"input": (3, 512), "state": (2, 3, 128)},
    ),
    "stories260k": ({"ids": (1, 3)}, {"ids": (2, 17)}),
    "superres_x3_op10": ({"input": (1, 1, 224, 224)},),
    "ultraface_rfb320": ({"input": (1, 3, 240, 320)},),
    "vdsr": ({"input": (1, 1, 20, 24)}, {"input": (1, 1, 33, 17)}),
    "vittrack": ({"template": (1, 3, 128, 128), "search": (1, 3, 256, 256)},),
}
"""Every float model; two sizes where an axis is open."""

CODED = {
    "mlperf_kws_dscnn_int8qdq": {"input_1": (2, 49, 10, 1)},
    "shufflenet_v2_int8_qlinear": {"input": (1, 3, 224, 224)},
}
"""Models that come quantized."""


def feed_of(path: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Random inputs of the types that the file asks for."""
    rng = np.random.default_rng(seed)
    types = {value.name: value.type for value in ort.InferenceSession(str(path)).get_inputs()}
    feed: dict[str, Array] = {}
    for name, shape in shapes.items():
        match types[name]:
            case "tensor(int64)":
                whole = rng.integers(0, 512, shape)
                feed[name] = np.asarray(16_000 if name == "sr" else whole, np.int64)
            case "tensor(int8)":
                feed[name] = rng.integers(-128, 128, shape).astype(np.int8)
            case kind:
                half = "float16" in kind
                feed[name] = rng.normal(size=shape).astype(np.float16 if half else np.float32)
    return feed


def largest_difference(expected: list[Array], found: list[Array]) -> float:
    """Of all outputs, as a share of the largest entry of the output, or of 1."""
    if [(a.shape, a.dtype) for a in expected] != [(b.shape, b.dtype) for b in found]:
        return float("inf")
    return max(
        float(np.abs(a.astype(float) - b).max(initial=0) / max(1, np.abs(a).max(initial=0)))
        for a, b in zip(expected, found, strict=True)
    )


def tensors_as_given(feed: dict[str, Array]) -> dict[str, Tensor]:
    """Arrays as tensors of the same type."""
    return {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}


def model_errors(data: Path) -> dict[str, dict[str, Any]]:
    """Model -> largest difference as it is and normalized, over all sizes."""
    rows: dict[str, dict[str, Any]] = {}
    for name, sizes in OPEN_SIZES.items():
        path = data / "models" / f"{name}.onnx"
        row: dict[str, Any] = {"sizes": len(sizes)}
        for key, normalize in (("as_is", False), ("normalized", True)):
            interpreter = Interpreter(load_model(path, normalize=normalize))
            errors = []
            for seed, shapes in enumerate(sizes):
                feed = feed_of(path, shapes, seed)
                with torch.no_grad():
                    values = interpreter(tensors_as_given(feed)).values()
                found = [value.numpy() for value in values]
                errors.append(largest_difference(run(path, feed), found))
            row[key] = float(f"{max(errors):.2g}")
        rows[name] = row
    return rows


def difference(expected: Any, found: Any) -> str:
    """Empty if two outputs agree, else what differs."""
    if isinstance(expected, list):
        pairs = zip(expected, found, strict=True)
        return "; ".join(text for text in (difference(a, b) for a, b in pairs) if text)
    half = found.dtype in (torch.float16, torch.bfloat16)
    a = np.asarray(expected)
    b = (found.float() if half else found).detach().numpy()
    if a.shape != b.shape or (a.dtype != b.dtype and not half):
        return f"{b.dtype}{b.shape} instead of {a.dtype}{a.shape}"
    if a.dtype.kind in "biu":
        return "" if np.array_equal(a, b) else "integers"
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "infinities or NaNs"
    error = np.abs(a[finite] - b[finite]).max(initial=0)
    size = max(1.0, np.abs(a[finite]).max(initial=0))
    return "" if error <= (HALF_RELATIVE if half else RELATIVE) * size else f"error {error / size}"


def outcomes(cases: Iterable[Case]) -> dict[str, tuple[str, str]]:
    """Name of a file that onnxruntime runs -> (equal, refused or wrong; why)."""
    found: dict[str, tuple[str, str]] = {}
    for case in cases:
        if case.feed is None or case.outputs is None:
            continue
        name = case.name.partition("/")[2].removesuffix(".onnx")
        try:
            interpreter = Interpreter(load_model(case.path, normalize=False))
            values = list(interpreter(tensors_as_given(case.feed)).values())
        except EdgeCompressError as refusal:
            found[name] = ("refused", str(refusal))
            continue
        text = difference(list(case.outputs), values)
        found[name] = ("wrong", text) if text else ("equal", "")
    return found


def summary(found: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Counts, and what is behind the refusals."""
    counts = Counter(kind for kind, _ in found.values())
    why = Counter(text.partition(" (node")[0] for kind, text in found.values() if kind == "refused")
    wrong = {name: text for name, (kind, text) in found.items() if kind == "wrong"}
    return {"files": len(found), **counts, "why": dict(why.most_common()), "which_wrong": wrong}


class Block(nn.Module):
    """Two convolutions and a short cut that pads channels."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(entering, leaving, 3, stride, 1)
        self.second = nn.Conv2d(leaving, leaving, 3, 1, 1)
        self.more, self.stride = (leaving - entering) // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(functional.relu(self.first(x)))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return functional.relu(y + x)


class ResNet20(nn.Module):
    """ResNet-20 with batch normalisation folded, as the file has it (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        sizes = [(16, 1)] * 3 + [(32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)]
        blocks, entering = [], 16
        for leaving, stride in sizes:
            blocks.append(Block(entering, leaving, stride))
            entering = leaving
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


def step_ratio(data: Path, batch: int, rounds: int) -> dict[str, Any]:
    """Time of forward and backward by the interpreter over that of the torch module."""
    path = data / "models" / "resnet20_cifar10.onnx"
    interpreter, module = Interpreter(load_model(path)), ResNet20()
    output = interpreter.outputs[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.arange(batch) % 10

    def timed(network: nn.Module, run_once: Callable[[], Tensor]) -> float:
        network.zero_grad()
        start = time.perf_counter()
        functional.cross_entropy(run_once(), labels).backward()
        return time.perf_counter() - start

    pairs = [
        (
            timed(interpreter, lambda: interpreter({"input": x})[output]),
            timed(module, lambda: module(x)),
        )
        for _ in range(rounds + 2)
    ][2:]
    ratios = np.array([ours / theirs for ours, theirs in pairs])
    return {
        "batch": batch,
        "rounds": rounds,
        "ratio_median": round(float(np.median(ratios)), 3),
        "ratio_p10": round(float(np.quantile(ratios, 0.1)), 3),
        "ratio_p90": round(float(np.quantile(ratios, 0.9)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    output = parser.parse_args().output
    data = Path(os.environ.get("EDGECOMPRESS_DATA", ""))
    if not (data / "models").is_dir():
        sys.exit("EDGECOMPRESS_DATA names no folder with models/")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        odd = summary(outcomes(odd_cases(unpack_odd(data, Path(folder)), Path(folder))))
        node = summary(outcomes(node_cases(_numeric_nodes(), Path(folder))))
    report = {
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
        "threads": 1,
        "models": model_errors(data),
        "odd_files": odd,
        "backend_suite": node,
        "training_step": [
            step_ratio(data, batch, rounds) for batch, rounds in ((64, 25), (1, 100))
        ],
    }
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _numeric_nodes() -> list[str]:
    """Names of the backend suite's models without those whose inputs are texts."""
    return [name for name in node_names() if not name.startswith("equal_string")]


if __name__ == "__main__":
    main()
