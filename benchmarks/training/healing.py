"""What the benchmarks of healing share: one run from a dense file to a healed one, measured.

A run decomposes a model to a share of its multiply-accumulates with 2,048 images, heals it on all
images at hand without their labels, and scores the files with stock onnxruntime on test images
that nothing else has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgecompress.core.options import Budget, DecomposeOptions, HealOptions
from edgecompress.pipeline.compress import run_compress
from edgecompress.pipeline.request import CompressRequest
from edgecompress.pipeline.timing import interleaved_medians

RESULTS = Path(__file__).parent / "results"
CALIBRATION = 2048
RATIOS = 5
BARS = {0.5: 1.0, 0.3: 2.0}
"""Share of the multiply-accumulates -> points that may be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model with its data.

    Attributes:
        name: Of the result file.
        model: Dense ONNX file.
        images: (n, ...) to fit and heal on, as stored.
        preprocess: From stored images to the model's input.
        test_images, test_labels: Likewise, unseen.
        input_name: Of the model.
    """

    name: str
    model: Path
    images: NDArray[np.uint8]
    preprocess: str
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.integer]
    input_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One healed file.

    Attributes:
        share, start: Of the multiply-accumulates asked for, and what it was decomposed to before
            ranks fell (the same where they did not).
        macs, parameters: Shares that are left.
        n: Test images.
        dense, decomposed, healed: Accuracies on them; the second before healing.
        points_lost: From dense to healed, in percent of the test images.
        bar: Points that may be lost.
        lost, won: Test images that only the dense, only the healed model has right.
        time_ratio: Healed over dense in onnxruntime, batch 1, one thread, interleaved medians.
        healing: The report's own account.
        options: Of healing.
        ranks: Format and ranks by layer.
    """

    share: float
    start: float
    macs: float
    parameters: float
    n: int
    dense: float
    decomposed: float
    healed: float
    points_lost: float
    bar: float
    lost: int
    won: int
    time_ratio: float
    healing: dict[str, object]
    options: dict[str, object]
    ranks: dict[str, str]


def heal_at_shares(load: Callable[[Path], Bench], options: HealOptions) -> None:
    """The script: heal at every share that is asked for, with these options unless others are
    given; print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, choices=sorted(BARS), nargs="*", default=[0.5, 0.3])
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=options.epochs)
    parser.add_argument("--rate", type=float, default=options.learning_rate)
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        return
    bench = load(folder)
    options = replace(options, epochs=arguments.epochs, learning_rate=arguments.rate)
    for share in arguments.share:
        write(bench, run(bench, share, max(share, arguments.start), options))


def data_folder() -> Path | None:
    """Where the models and data sets are; None, with the reason said, where they are not."""
    folder = Path(os.environ.get("EDGECOMPRESS_DATA", ""))
    if os.environ.get("EDGECOMPRESS_DATA") and (folder / "models").is_dir():
        return folder
    sys.stderr.write("skipped: EDGECOMPRESS_DATA names no folder with models and data sets\n")
    return None


def run(bench: Bench, share: float, start: float, options: HealOptions) -> Run:
    """Decompose to ``start``, heal down to ``share``, score."""
    falls = start > share
    if falls:
        options = replace(options, budget=Budget("macs", ratio=share))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        np.savez(data, x=bench.images)
        plain, healed = Path(folder) / "plain.onnx", Path(folder) / "healed.onnx"
        for output, heal in ((plain, None), (healed, options)):
            report, _ = run_compress(
                CompressRequest(
                    command="decompose",
                    model=bench.model,
                    output=output,
                    decompose=DecomposeOptions(
                        ranks=Budget("macs", ratio=start if heal else share), seed=options.seed
                    ),
                    quantize=None,
                    heal=heal,
                    data=str(data),
                    calibration=CALIBRATION,
                    preprocess=bench.preprocess,
                    seed=options.seed,
                    progress=_say,
                )
            )
        right = [_right(path, bench) for path in (bench.model, plain, healed)]
        ratio = _time_ratio(bench, healed)
    points = 100 * float(right[0].mean() - right[2].mean())
    return Run(
        share=share,
        start=start,
        macs=(report.macs_after or 0) / (report.macs_before or 1),
        parameters=report.parameters_after / report.parameters_before,
        n=len(bench.test_labels),
        dense=float(right[0].mean()),
        decomposed=float(right[1].mean()),
        healed=float(right[2].mean()),
        points_lost=points,
        bar=BARS[share],
        lost=int((right[0] & ~right[2]).sum()),
        won=int((~right[0] & right[2]).sum()),
        time_ratio=ratio,
        healing=asdict(report.healing) if report.healing else {},
        options=asdict(options),
        ranks={r.name: f"{r.format} {r.ranks}" for r in report.layers if r.action == "decomposed"},
    )


def write(bench: Bench, done: Run) -> None:
    """Put a run into the result file; earlier ones of other shares stay."""
    path = RESULTS / f"{bench.name}.json"
    before = json.loads(path.read_text())["runs"] if path.is_file() else []
    kept = [one for one in before if (one["share"], one["start"]) != (done.share, done.start)]
    document = {
        "command": f"python -m benchmarks.training.{bench.name} --share SHARE --start START "
        "--epochs EPOCHS, of each run its own",
        "onnxruntime": ort.__version__,
        "machine": platform.machine(),
        "labels used": "none",
        "runs": sorted([*kept, asdict(done)], key=lambda one: (-one["share"], -one["start"])),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    sys.stderr.write(
        f"{done.macs:.1%} MACs: dense {done.dense:.2%}, decomposed {done.decomposed:.2%}, healed "
        f"{done.healed:.2%} (n = {done.n}; {done.points_lost:+.2f} of at most {done.bar} points "
        f"lost; {done.lost} lost, {done.won} won), time {done.time_ratio:.2f}x\n"
    )


def _session(path: Path) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _right(path: Path, bench: Bench) -> NDArray[np.bool_]:
    """Whether the largest score is at the label, image by image."""
    session, images = _session(path), bench.test_images
    parts = [
        session.run(None, {bench.input_name: images[k : k + 250]})[0]
        for k in range(0, len(images), 250)
    ]
    return np.asarray(np.concatenate(parts).argmax(1) == bench.test_labels)


def _time_ratio(bench: Bench, path: Path) -> float:
    sessions = [_session(one) for one in (path, bench.model)]
    feed = {bench.input_name: bench.test_images[:1]}
    ratios = []
    for _ in range(RATIOS):  # the machine may do other things for a while
        times = interleaved_medians(
            [lambda one=one: one.run(None, feed) for one in sessions]  # type: ignore[misc]
        )
        ratios.append(times[0] / times[1])
    return median(ratios)


def _say(phase: str, done: int, total: int) -> None:
    if not total or done % 100 == 0:
        sys.stderr.write(f"{phase} {done}/{total}\n" if total else f"{phase}\n")
