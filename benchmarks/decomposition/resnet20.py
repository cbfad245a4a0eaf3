"""Decomposition of ResNet-20 after training, without fine-tuning, beside plain SVD.

    python -m benchmarks.decomposition.resnet20 [--draws N]

For 70 % and 50 % of the multiply-accumulates: the defaults with 1,024 unlabelled CIFAR-10 training
images (mean over the draws), and plain SVD of the weights, spatial and channel, without data at
the same budget. Scores the 1,000 test images on the written files with stock onnxruntime. The
time is that of interleaved runs in one process on one thread, batch 1, over the float model's.
Writes ``results.json`` and ``results.md`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
import onnxruntime as ort

from edgecompress.core.options import Budget, DecomposeOptions
from edgecompress.core.samples import Samples
from edgecompress.graph.model import load_model
from edgecompress.graph.save import save_model
from edgecompress.pipeline.decompose import decompose
from edgecompress.pipeline.timing import interleaved_medians

FOLDER = Path(__file__).parent
COMMAND = "python -m benchmarks.decomposition.resnet20"
SHARES = (0.7, 0.5)
CALIBRATION = 1024
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
BARS = {0.7: 0.7, 0.5: 2.5}
"""Points that may be lost, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One decomposed file.

    Attributes:
        method: What was done.
        share: Of the multiply-accumulates that was asked for.
        draw: Seed of the calibration images; None without data.
        accuracy, float_accuracy: On the test images.
        relative_l2: Of the outputs against the float model's.
        macs, parameters: Shares that are left, counted on the written ranks.
        time_ratio: In onnxruntime, over the float model.
        seconds: That decomposing took.
        ranks: Format and ranks by layer; other layers are dense.
    """

    method: str
    share: float
    draw: int | None
    accuracy: float
    float_accuracy: float
    relative_l2: float
    macs: float
    parameters: float
    time_ratio: float
    seconds: float
    ranks: Mapping[str, str]


class Bench:
    """The float model, the images, and one run after the other."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.model = data / "models" / "resnet20_cifar10.onnx"
        self.folder = folder
        self.pool = np.load(data / "datasets" / "cifar10_calib5k.npz")["x"]
        test = np.load(data / "datasets" / "cifar10_test1k.npz")
        self.images, self.labels = prepared(test["x"]), test["y"]
        self.float_session = session(self.model)
        self.reference = scores(self.float_session, self.images)

    def run(self, method: str, share: float, draw: int | None) -> Run:
        """Decompose, write, score."""
        format_ = method.split(",", maxsplit=1)[0].removeprefix("plain SVD ")
        options = DecomposeOptions(
            format="auto" if draw is not None else format_, ranks=Budget("macs", ratio=share)
        )
        model = load_model(self.model)
        begin = time.perf_counter()
        _, results, _ = decompose(model, options, self.samples(draw), None)
        seconds = time.perf_counter() - begin
        path = self.folder / "decomposed.onnx"
        save_model(model, path)
        outputs = scores(session(path), self.images)
        before = sum(result.macs_before or 0 for result in results)
        after = sum(result.macs_after or 0 for result in results)
        weights = sum(result.parameters_before for result in results)
        return Run(
            method=method,
            share=share,
            draw=draw,
            accuracy=self.accuracy(outputs),
            float_accuracy=self.accuracy(self.reference),
            relative_l2=relative(outputs, self.reference),
            macs=after / before,
            parameters=sum(result.parameters_after for result in results) / weights,
            time_ratio=self.time_ratio(path),
            seconds=seconds,
            ranks={r.name: f"{r.format} {r.ranks}" for r in results if r.action == "decomposed"},
        )

    def samples(self, draw: int | None) -> Samples | None:
        """Calibration images of one draw, without labels."""
        if draw is None:
            return None
        picks = np.random.default_rng(draw).choice(len(self.pool), CALIBRATION, replace=False)
        images = prepared(self.pool[picks])
        feeds = tuple({"input": images[k : k + 64]} for k in range(0, len(images), 64))
        return Samples(feeds=feeds, labels=None, count=CALIBRATION, source="CIFAR-10", sha256="")

    def accuracy(self, outputs: np.ndarray) -> float:
        """Share of the test images whose largest score is at the label."""
        return float((outputs.argmax(1) == self.labels).mean())

    def time_ratio(self, path: Path) -> float:
        """Time of a written file over that of the float file, batch 1, in turns.

        The median of five ratios of medians: the machine may do other things for a while.
        """
        one = {"input": self.images[:1]}
        other = session(path)
        calls = [lambda: self.float_session.run(None, one), lambda: other.run(None, one)]
        ratios = []
        for _ in range(5):
            float_s, other_s = interleaved_medians(calls)
            ratios.append(other_s / float_s)
        return median(ratios)


def prepared(images: np.ndarray) -> np.ndarray:
    """uint8 (n, h, w, 3) as the network takes them."""
    scaled = (images.astype(np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def session(path: Path) -> ort.InferenceSession:
    """Stock onnxruntime on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def scores(opened: ort.InferenceSession, images: np.ndarray) -> np.ndarray:
    """First output for all images."""
    parts = [
        opened.run(None, {"input": images[k : k + 250]})[0] for k in range(0, len(images), 250)
    ]
    return np.concatenate(parts)


def relative(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(outputs - reference) / np.linalg.norm(reference))


def table(runs: list[Run]) -> str:
    """Markdown: one row for each method and budget."""
    lines = [
        "| multiply-accumulates | method | accuracy % | points lost | relative L2 | "
        "weights left | time in onnxruntime | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for share in SHARES:
        for method in dict.fromkeys(run.method for run in runs):
            rows = [run for run in runs if run.share == share and run.method == method]
            accuracy = mean(run.accuracy for run in rows)
            lost = 100 * (rows[0].float_accuracy - accuracy)
            lines.append(
                f"| {100 * mean(run.macs for run in rows):.1f} % | {method} "
                f"| {100 * accuracy:.2f} | {lost:.2f} "
                f"| {mean(run.relative_l2 for run in rows):.3f} "
                f"| {100 * mean(run.parameters for run in rows):.0f} % "
                f"| {median(run.time_ratio for run in rows):.2f}x "
                f"| {mean(run.seconds for run in rows):.0f} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run everything and write the results; 1 if a bar is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3, help="draws of the calibration images")
    arguments = parser.parse_args()
    data = os.environ.get("EDGECOMPRESS_DATA")
    if not data:
        sys.exit("set EDGECOMPRESS_DATA to the folder with models/ and datasets/")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(data), Path(folder))
        for share in SHARES:
            for draw in range(arguments.draws):
                runs.append(bench.run("defaults, 1,024 images", share, draw))
            for name in ("spatial", "channel"):
                runs.append(bench.run(f"plain SVD {name}, no data", share, None))
    text = table(runs)
    facts = {
        "command": COMMAND,
        "model": "resnet20_cifar10.onnx",
        "test_samples": len(bench.labels),
        "calibration_samples": CALIBRATION,
        "draws": arguments.draws,
        "versions": {"python": platform.python_version(), "onnxruntime": ort.__version__},
        "runs": [asdict(run) for run in runs],
    }
    (FOLDER / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    (FOLDER / "results.md").write_text(
        f"`{COMMAND}`: ResNet-20, CIFAR-10, {len(bench.labels)} test images (standard error 0.9 "
        f"points), float {100 * runs[0].float_accuracy:.2f} %, mean of {arguments.draws} draws of "
        f"{CALIBRATION} calibration images, no fine-tuning.\n\n{text}\n"
    )
    print(text)
    missed = False
    for share, bar in BARS.items():
        mine = [run for run in runs if run.share == share and run.draw is not None]
        lost = 100 * mean(run.float_accuracy - run.accuracy for run in mine)
        missed |= lost > bar
        print(f"{100 * share:.0f} % of the multiply-accumulates: {lost:.2f} points lost, bar {bar}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
