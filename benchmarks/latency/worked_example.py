"""ResNet-20 dense, decomposed and ternary on four targets, and what the tool chooses for each.

    python -m benchmarks.latency.worked_example            (needs EDGECOMPRESS_DATA)
    python -m benchmarks.latency.worked_example --render   (table and pictures from the results)

Writes ``results/worked_example.json``, the tables of ``docs/worked-example.md`` and the pictures
beside them. Accuracy is that of onnxruntime on the 1,000 CIFAR-10 test images at hand; 1,024
unlabelled training images calibrate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.first_screen.measure import run
from benchmarks.robustness.corpora import environment_data

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "worked_example.json"
PAGE = ROOT / "docs" / "worked-example.md"
PICTURES = ROOT / "docs" / "images"
TARGETS = ("winocnn-zcu102-w6", "systolic-ws-32", "ethos-u55-256", "tdla-z7020")
PREPROCESS = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc->nchw"
COMMAND = "python -m benchmarks.latency.worked_example"
NOTHING_TO_DO = 5
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HALF = ("--target-macs", "50%")


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to compress the network.

    Attributes:
        name: As the table shows it.
        command: Of the command line; empty for the network as it is.
        options: Beyond data, target and output.
        target: The device that decides; empty for none.
    """

    name: str
    command: str
    options: tuple[str, ...] = ()
    target: str = ""


VARIANTS = (
    Variant("dense", ""),
    Variant("decomposed, half of the MACs", "decompose", HALF),
    Variant("ternary", "quantize", ("--bits", "ternary", "--activations", "8")),
    Variant(
        "decomposed and ternary", "compress", (*HALF, "--bits", "ternary", "--activations", "8")
    ),
)
CHOSEN = tuple(
    Variant(f"chosen for {target}", "decompose", ("--tolerance", "2%"), target)
    for target in TARGETS
)


def calibration(data: Path) -> list[str]:
    return ["--data", str(data / "datasets" / "cifar10_calib5k.npz"), "--preprocess", PREPROCESS]


def make(variant: Variant, data: Path, folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The file of a variant, and the report of the command; None where nothing was to be done."""
    model = data / "models" / "resnet20_cifar10.onnx"
    if not variant.command:
        return model, None
    output = folder / (variant.name.replace(" ", "-").replace(",", "") + ".onnx")
    line = [variant.command, str(model), "--output", str(output), *variant.options]
    device = ["--target", variant.target] if variant.target else []
    report = Path(f"{output}.json")
    try:
        return output, run([*line, *device, *calibration(data)], report)
    except subprocess.CalledProcessError as error:
        if error.returncode != NOTHING_TO_DO:
            raise
        return model, None


def predicted(model: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Latency by target, and its causes."""
    devices = [word for target in TARGETS for word in ("--target", target)]
    document = run(["estimate-latency", str(model), *devices], folder / "latency.json")
    return {
        report["target"]: {
            "latency_s": report["latency_s"],
            "macs": report["macs"],
            "factored": report["factored"],
        }
        for report in document["reports"]
    }


def score(model: Path, data: Path, folder: Path) -> dict[str, Any]:
    test = str(data / "datasets" / "cifar10_test1k.npz")
    line = ["evaluate", str(model), "--data", test, "--preprocess", PREPROCESS]
    found = run(line, folder / "evaluation.json")
    return {"accuracy": found["accuracy"], "samples": found["samples"]}


def measure() -> dict[str, Any]:
    data = environment_data()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in (*VARIANTS, *CHOSEN):
            model, report = make(variant, data, folder)
            layers = [] if report is None else report["layers"]
            rows.append(
                {
                    "variant": variant.name,
                    "command": " ".join((variant.command, *variant.options)),
                    "target": variant.target,
                    "changed": report is not None,
                    "bytes": model.stat().st_size,
                    "formats": sorted({layer["format"] for layer in layers if layer["format"]}),
                    "decomposed_layers": sum(bool(layer["format"]) for layer in layers),
                    **score(model, data, folder),
                    "predicted": predicted(model, folder),
                }
            )
    return {"command": COMMAND, "model": "resnet20_cifar10.onnx", "rows": rows}


def table(results: dict[str, Any]) -> str:
    """Variants by targets, in Markdown."""
    dense = results["rows"][0]["predicted"]
    lines = [
        "| | accuracy | file | " + " | ".join(TARGETS) + " |",
        "|---|---|---|" + "---|" * len(TARGETS),
    ]
    for row in results["rows"]:
        times = []
        for target in TARGETS:
            seconds = row["predicted"][target]["latency_s"]
            times.append(f"{seconds * 1e3:.3g} ms ({dense[target]['latency_s'] / seconds:.2f}x)")
        name = row["variant"] + ("" if row["changed"] or not row["target"] else ": stays dense")
        lines.append(
            f"| {name} | {row['accuracy'] * 100:.1f} % | {row['bytes'] / 1024:,.0f} KiB | "
            + " | ".join(times)
            + " |"
        )
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> None:
    """Both pictures of the page."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "edgecompress", "font.size": 9})
    PICTURES.mkdir(exist_ok=True)
    draw_speed(results)
    draw_accuracy(results)


def draw_accuracy(results: dict[str, Any]) -> None:
    """Accuracy over predicted latency, a panel for each target."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(TARGETS), figsize=(9, 2.8), sharey=True)
    for target, panel in zip(TARGETS, panels, strict=True):
        for row in results["rows"]:
            if row["target"] not in ("", target):
                continue
            name = "chosen for this target" if row["target"] else row["variant"]
            seconds = row["predicted"][target]["latency_s"]
            marker = "*" if row["target"] else "o"
            panel.plot(seconds * 1e3, row["accuracy"] * 100, marker, label=name)
        panel.set_title(target, fontsize=9)
        panel.set_xlabel("predicted ms")
        panel.set_xlim(0, 1.1 * panel.get_xlim()[1])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy, % (n = 1,000)")
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, frameon=False, fontsize=8, ncols=5, loc="upper center")
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    figure.savefig(PICTURES / "worked-example-accuracy.svg", metadata={"Date": None})


def draw_speed(results: dict[str, Any]) -> None:
    """Speed over the dense network, by target."""
    import matplotlib.pyplot as plt

    rows = results["rows"][: len(VARIANTS)]
    chosen = {row["target"]: row for row in results["rows"][len(VARIANTS) :]}
    dense = rows[0]["predicted"]
    names = [row["variant"] for row in rows[1:]] + ["decomposed, chosen for this target"]
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        speeds = []
        for target in TARGETS:
            row = rows[place + 1] if place + 1 < len(rows) else chosen[target]
            seconds = row["predicted"][target]["latency_s"]
            speeds.append(dense[target]["latency_s"] / seconds)
        left = [i + place * width for i in range(len(TARGETS))]
        bars = axes.bar(left, speeds, width, label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    axes.axhline(1.0, color="0.3", linewidth=0.8, linestyle="--")
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(TARGETS))], TARGETS)
    axes.set_ylabel("predicted speed over dense")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    figure.savefig(PICTURES / "worked-example.svg", bbox_inches="tight", metadata={"Date": None})


def render(results: dict[str, Any]) -> str:
    """The page with the table of these results."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(results)}\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--render", action="store_true", help="from the committed results")
    parser.add_argument("--check", action="store_true", help="fail where the page is out of date")
    asked = parser.parse_args()
    if not (asked.render or asked.check):
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = render(results)
    if asked.check:
        if page != PAGE.read_text(encoding="utf-8"):
            raise SystemExit(f"{PAGE.name} is out of date: {COMMAND} --render")
        return
    PAGE.write_text(page, encoding="utf-8")
    draw(results)


if __name__ == "__main__":
    main()
