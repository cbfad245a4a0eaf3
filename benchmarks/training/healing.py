"""What the benchmarks of healing share: one run from a dense file to a healed one, measured.

A run decomposes a model to a share of its multiply-accumulates with 2,048 images, heals it on all
images at hand without their labels, and scores the files with stock onnxruntime on test images
that nothing else has seen.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
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
        bars: Share of the multiply-accumulates -> points that may be lost.
    """

    name: str
    model: Path
    images: NDArray[np.uint8]
    preprocess: str
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.integer]
    input_name: str
    bars: dict[float, float]


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
        options = HealOptions(**{**_fields(options), "budget": Budget("macs", ratio=share)})
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
        bar=bench.bars[share],
        lost=int((right[0] & ~right[2]).sum()),
        won=int((~right[0] & right[2]).sum()),
        time_ratio=ratio,
        healing=asdict(report.healing) if report.healing else {},
        options=asdict(options),
        ranks={r.name: f"{r.format} {r.ranks}" for r in report.layers if r.action == "decomposed"},
    )


def write(bench: Bench, command: str, runs: list[Run]) -> None:
    """Put runs into the result file; earlier ones of other shares stay."""
    path = RESULTS / f"{bench.name}.json"
    key = ("share", "start")
    new = [asdict(one) for one in runs]
    before = json.loads(path.read_text())["runs"] if path.is_file() else []
    done = {tuple(one[k] for k in key) for one in new}
    kept = [one for one in before if tuple(one[k] for k in key) not in done]
    document = {
        "command": command,
        "onnxruntime": ort.__version__,
        "machine": platform.machine(),
        "labels used": "none",
        "runs": sorted(kept + new, key=lambda one: (-one["share"], -one["start"])),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    for one in runs:
        sys.stderr.write(
            f"{one.macs:.1%} MACs: dense {one.dense:.2%}, decomposed {one.decomposed:.2%}, healed "
            f"{one.healed:.2%} (n = {one.n}; {one.points_lost:+.2f} of at most {one.bar} points "
            f"lost; {one.lost} lost, {one.won} won), time {one.time_ratio:.2f}x\n"
        )


def _fields(options: HealOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in HealOptions.__dataclass_fields__}


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
