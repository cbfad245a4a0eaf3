"""The table on the first screen of README.md: two real networks, compressed by one line each.

    python -m benchmarks.first_screen.measure [--draws N]        (make bench-first-screen)

ResNet-20 on CIFAR-10: 1,024 unlabelled training images calibrate, the 1,000 test images score.
Keyword-spotting DS-CNN of MLPerf Tiny: of its 500 recordings the first 250 calibrate (without
labels), the second 250 score. Each setting runs with three draws of the calibration samples; the
accuracy is their mean. Writes ``results.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import edgecompress
from benchmarks.robustness.corpora import environment_data

RESULTS = Path(__file__).with_name("results.json")
ENTRY = "import sys; from edgecompress.cli import main; sys.exit(main())"
TARGETS = ("systolic-ws-32", "winocnn-zcu102-w6")
DECOMPOSED = ("--target-macs", "70%")
SETTINGS: dict[str, tuple[str, ...]] = {
    "4 bit": ("--no-decompose", "--bits", "4"),
    "2 bit": ("--no-decompose", "--bits", "2"),
    "ternary": ("--no-decompose", "--bits", "ternary"),
    "decomposed, 4 bit": (*DECOMPOSED, "--bits", "4"),
    "4 bit, 8-bit activations": ("--no-decompose", "--bits", "4", "--activations", "8"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network, and the data that calibrate and score it.

    Attributes:
        name: As the table shows it.
        model: The file.
        calibration, test: Data specifications.
        preprocess: From the data to the network's input.
        samples: Calibration samples of one draw.
    """

    name: str
    model: Path
    calibration: Path
    test: Path
    preprocess: str
    samples: int


def networks(data: Path, folder: Path) -> tuple[Network, ...]:
    """Both networks; the halves of the keyword data are written to a folder."""
    recordings = np.load(data / "datasets" / "mlperf_kws_mfcc_a.npz")
    scale, zero = float(recordings["scale"]), float(recordings["zero_point"])
    for name, rows in (("calibration", slice(None, 250)), ("test", slice(250, None))):
        np.savez(folder / f"{name}.npz", x=recordings["x"][rows], y=recordings["y"][rows])
    return (
        Network(
            name="ResNet-20, CIFAR-10",
            model=data / "models" / "resnet20_cifar10.onnx",
            calibration=data / "datasets" / "cifar10_calib5k.npz",
            test=data / "datasets" / "cifar10_test1k.npz",
            preprocess="scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc->nchw",
            samples=1024,
        ),
        Network(
            name="DS-CNN, keyword spotting",
            model=data / "models" / "mlperf_kws_dscnn.onnx",
            calibration=folder / "calibration.npz",
            test=folder / "test.npz",
            preprocess=f"reshape=49:10:1,scale={scale!r},mean={zero * scale!r}",
            samples=192,
        ),
    )


def run(arguments: list[str], report: Path) -> dict[str, Any]:
    """Run the tool; its JSON report."""
    subprocess.run(
        [sys.executable, "-c", ENTRY, *arguments, "--report", str(report), "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    document: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return document


def options(settings: tuple[str, ...]) -> list[str]:
    """The options of one line, but for files and data."""
    return [*settings, *(word for target in TARGETS for word in ("--target", target))]


def compress(network: Network, settings: tuple[str, ...], draw: int, folder: Path) -> Path:
    """Compress with one draw of the calibration samples; the file, with its report beside it."""
    output = folder / f"{network.model.stem}.{draw}.onnx"
    line = ["compress", str(network.model), "--output", str(output), "--force"]
    line += ["--data", str(network.calibration), "--calibration", str(network.samples)]
    line += ["--test-data", str(network.test), "--preprocess", network.preprocess]
    run([*line, *options(settings), "--seed", str(draw)], Path(f"{output}.json"))
    return output


def measure(
    network: Network, settings: tuple[str, ...], draws: int, folder: Path
) -> dict[str, Any]:
    """One row of the table."""
    rows = []
    for draw in range(draws):
        output = compress(network, settings, draw, folder)
        report = json.loads(Path(f"{output}.json").read_text(encoding="utf-8"))
        line = ["evaluate", str(output), "--reference", str(network.model)]
        line += ["--data", str(network.test), "--preprocess", network.preprocess]
        rows.append((report, run(line, folder / "evaluation.json")))
    report, evaluation = rows[0]
    return {
        "options": " ".join(options(settings)),
        "samples": evaluation["samples"],
        "accuracy": [e["accuracy"] for _, e in rows],
        "float_accuracy": evaluation["reference_accuracy"],
        "bytes": [r["output"]["size_bytes"] for r, _ in rows],
        "float_bytes": report["input"]["size_bytes"],
        "macs": report["macs_after"],
        "float_macs": report["macs_before"],
        "latency_s": {t["target"]: t["latency_s"] for t in report["latency_after"]},
        "float_latency_s": {t["target"]: t["latency_s"] for t in report["latency_before"]},
        "onnxruntime_time_ratio": sorted(e["latency_ratio"] for _, e in rows)[draws // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3, help="of the calibration samples")
    parser.add_argument("--only", metavar="WORD", default="", help="networks with this in the name")
    arguments = parser.parse_args()
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results: dict[str, Any] = before.get("networks", {}) if arguments.only else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in networks(environment_data(), folder):
            if arguments.only not in network.name:
                continue
            results[network.name] = {}
            for setting, words in SETTINGS.items():
                row = measure(network, words, arguments.draws, folder)
                results[network.name][setting] = row
                print(network.name, setting, json.dumps(row), file=sys.stderr)
    document = {
        "schema": "edgecompress.first-screen/1",
        "command": "python -m benchmarks.first_screen.measure",
        "versions": {"edgecompress": edgecompress.__version__, "onnxruntime": ort.__version__},
        "calibration_draws": arguments.draws,
        "targets": list(TARGETS),
        "networks": results,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
