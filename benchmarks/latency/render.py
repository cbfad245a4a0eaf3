"""Write the tables of docs/accelerators.md and of README.md that come from results, or check them.

python -m benchmarks.latency.render            # write
python -m benchmarks.latency.render --check    # exit 1 if a page is not what would be written

A block is what stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` in a page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LATENCY = ROOT / "benchmarks" / "latency" / "results"
RTL = ROOT / "benchmarks" / "rtl" / "results"
PAGE, README = ROOT / "docs" / "accelerators.md", ROOT / "README.md"
NETWORKS = {"resnet18": "ResNet-18", "mobilenet_v2": "MobileNetV2", "odd_shapes": "odd shapes"}
PUBLISHED = "winocnn-zcu102-w6"
TESTS = "`pytest tests/unit/test_hardware_{}.py`"
USES = {"fit": "fitted", "check": "checked", "held out": "held out"}
RTL_COMMAND = "`python -m benchmarks.rtl.{}`"

Row = dict[str, Any]


def read(folder: Path, name: str) -> Row:
    """A results file."""
    document: Row = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return document


def table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> str:
    """A table in Markdown; columns of the places in ``right`` are aligned there."""
    aligned = set(right)
    rule = ["---:" if place in aligned else "---" for place in range(len(head))]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def signed(share: float, digits: int = 1) -> str:
    """A deviation in percent."""
    return f"{100 * share:+.{digits}f} %"


def farthest(rows: Iterable[Row], key: str) -> str:
    """The largest distance from zero, in percent."""
    return f"{100 * max(abs(row[key] or 0.0) for row in rows):.1f} %"


def agreements() -> list[tuple[str, int, int, int, int, str]]:
    """(family, layers, same cycles, same values, simulated cycles, command)."""
    one = read(LATENCY, "winocnn_agreement")
    counts = one["layers"], one["same_cycles"], one["same_values"], one["cycles"]
    found = [("`winocnn`, omega 4, 6, 8", *counts, f"`{one['command']}`")]
    keys = {
        "systolic_agreement": ("equal_cycles", "equal_values", "cycles_stepped"),
        "lowbit_agreement": ("cycles_equal", "values_equal", "simulated_cycles"),
    }
    for name, (cycles, values, simulated) in keys.items():
        document = read(LATENCY, name)
        for row in document["results"]:
            counts = row["layers"], row[cycles], row[values], row[simulated]
            found.append((f"`{row['family']}`", *counts, f"`{document['command']}`"))
    return found


def agreement() -> str:
    """Closed forms against simulators."""
    head = ("family", "layers", "same cycles", "same values", "cycles simulated", "command")
    rows = [(*row[:4], f"{row[4]:,}", row[5]) for row in agreements()]
    both = read(LATENCY, "winocnn_agreement")["refused_by_both"]
    return (
        table(head, rows, (1, 2, 3, 4))
        + f"\n\n{both} further layers fit no WinoCNN call; formula and simulator refuse them."
    )


def rtl_runs() -> list[tuple[str, int, int, str, str]]:
    """(design, runs, runs that agree, also compared with, command)."""
    found = []
    for family, runs in read(RTL, "agreement")["families"].items():
        same = sum(
            one["outputs_equal"]
            and one["cycles"] == one["simulated_cycles"] == one["predicted_cycles"]
            for one in runs["results"]
        )
        command = RTL_COMMAND.format("agreement")
        found.append((f"`{family}`", len(runs["results"]), same, "simulator, closed form", command))
    winograd = read(RTL, "winograd")
    designs = (
        ("elements", "Winograd element, omega 4 and 6", "simulator"),
        ("tiles", "WinoCNN tile, omega 4 and 6", "simulator, closed form"),
    )
    for key, name, against in designs:
        same = sum(
            one["agreed"]
            and one["rtl_cycles"] == one["cycles"] == one.get("formula_cycles", one["cycles"])
            for one in winograd[key]
        )
        command = RTL_COMMAND.format("winograd agreement")
        found.append((name, len(winograd[key]), same, against, command))
    return found


def rtl() -> str:
    """Simulators against Verilog."""
    head = ("design", "runs", "same values and cycles", "compared with", "command")
    return table(head, rtl_runs(), (1, 2))


def uniform(network: str) -> dict[str, Row]:
    """Runs of a network with uniform weights, by target."""
    return {
        run["config"]: run
        for run in read(LATENCY, "vela")["results"]
        if run["network"] == network and run["weights"] == "uniform"
    }


def entropy_effects(*, confirming: bool) -> list[Row]:
    """Ratios to uniform weights: on ResNet-18, or on the network that confirms them."""
    effects: list[Row] = read(LATENCY, "vela")["entropy_effect"]
    return [row for row in effects if (row["network"] != "resnet18") == confirming]


def published() -> str:
    """Figures of others beside ours."""
    document = read(LATENCY, "winocnn")
    (ours,) = (row for row in document["results"] if row["target"] == PUBLISHED)
    theirs, command = ours["published"], f"`{document['command']}`"
    vela = f"`{read(LATENCY, 'vela')['command']}`"
    runs = uniform("resnet18")
    older = [run for name, run in runs.items() if "u85" not in name]
    newer = [run for name, run in runs.items() if "u85" in name]
    rate = f"{ours['gops']:,.1f} GOPS ({signed(ours['gops'] / theirs['gops'] - 1)})"
    per_dsp = ours["gops_per_dsp"]
    each = f"{per_dsp:.4f} ({signed(per_dsp / theirs['gops_per_dsp'] - 1)})"
    lowbit, wino = TESTS.format("lowbit"), TESTS.format("winocnn")
    rows = (
        ("WinoCNN descriptors, omega 6: 13 fields, 250 layers", "equal", "250 of 250", wino),
        ("WinoCNN, VGG-16 on ZCU102 (3.1 TOPS)", "within 3 %", rate, command),
        ("the same for each DSP block (1.33 GOPS)", "within 2 %", each, command),
        ("the same, DSP blocks (2,344; 40 of them fitted)", "within 1 %", "2,344", wino),
        ("T-DLA, peak (0.4 TOPS)", "equal", "0.4 TOPS", lowbit),
        ("T-DLA, DSP blocks (218)", "equal", "218", lowbit),
        ("BISMO, peaks (15.4, 6.5 binary TOPS)", "to their digits", "15.36, 6.55", lowbit),
        (
            "SCALE-Sim v3, ResNet-18, 48 results",
            "equal but for its last cycle",
            "48 of 48",
            TESTS.format("systolic"),
        ),
        (
            "Vela, ResNet-18 on U55 and U65, processor cycles",
            "within 5 %",
            f"within {farthest(older, 'error_npu')}",
            vela,
        ),
        ("the same, total cycles", "none", f"within {farthest(older, 'error_total')}", vela),
        (
            "Vela, ResNet-18 on U85, processor cycles",
            "within 10 %",
            f"within {farthest(newer, 'error_npu')}",
            vela,
        ),
        ("the same, total cycles", "none", f"within {farthest(newer, 'error_total')}", vela),
        (
            "Vela, effect of the weights' entropy, ResNet-18",
            "within 5 %",
            f"within {farthest(entropy_effects(confirming=False), 'error')}",
            vela,
        ),
        (
            "the same on a network that nothing was fitted on",
            "none",
            f"within {farthest(entropy_effects(confirming=True), 'error')}",
            vela,
        ),
    )
    return table(("figure", "bar", "found", "command"), rows)


def worst_layer(run: Row) -> Row:
    """The layer whose processor cycles are farthest off."""
    layers: list[Row] = run["layers"]
    return max(layers, key=lambda layer: abs(layer["error_npu"] or 0.0))


def vela() -> str:
    """Errors by target and network."""
    runs = {network: uniform(network) for network in NETWORKS}
    head = ["target"]
    head += [f"{name}, {what}" for name in NETWORKS.values() for what in ("processor", "total")]
    head += ["layers of ResNet-18, mean", "worst"]
    rows = []
    for target, first in runs["resnet18"].items():
        row = [f"`{target}`"]
        for network in NETWORKS:
            one = runs[network][target]
            row += [signed(one["error_npu"]), signed(one["error_total"])]
        worst = worst_layer(first)
        row += [
            f"{100 * first['mean_layer_error_npu']:.1f} %",
            f"{signed(worst['error_npu'], 0)} ({worst['name']})",
        ]
        rows.append(row)
    return table(head, rows, range(1, 8))


def microcontrollers() -> str:
    """Errors by core."""
    document = read(LATENCY, "mlperf_tiny")
    cores: dict[str, list[float]] = {}
    for row in document["results"]:
        cores.setdefault(row["target"], []).append(row["error"])
    rows = [
        (f"`{core}`", len(errors), signed(min(errors), 0), signed(max(errors), 0))
        for core, errors in cores.items()
    ]
    return table(("target", "results", "lowest", "highest"), rows, (1, 2, 3))


def resource_groups() -> dict[str, list[Row]]:
    """Synthesised designs of each kind."""
    groups: dict[str, list[Row]] = {}
    for row in read(RTL, "synthesis")["results"]:
        name = f"`{row['family']}`"
        if row["family"].startswith("systolic"):
            name += ", DSP blocks" if row["dsp"] else ", look-up tables"
        groups.setdefault(name, []).append(row)
    winograd = read(RTL, "winograd")
    for key, name in (("synthesis", "Winograd element"), ("tile_synthesis", "WinoCNN tile")):
        rows = [row | {"dsp_blocks": row["dsp"]} for row in winograd.get(key, ())]
        groups |= {name: rows} if rows else {}
    return dict(sorted(groups.items()))


def resources() -> str:
    """Closed forms of look-up tables against Yosys."""
    rows = []
    for name, designs in resource_groups().items():
        line = [name]
        for use in USES:
            errors = [row for row in designs if row["use"] == use]
            line.append(f"{farthest(errors, 'lut_error')} of {len(errors)}" if errors else "none")
        same = all(row["dsp_blocks"] == row["predicted_dsp"] for row in designs)
        rows.append((*line, "equal" if same else "different"))
    return table(("design", *USES.values(), "DSP blocks"), rows)


def medians(values: str) -> str:
    """Times of ResNet-18 on the targets that ask for these of the weights' values, in ms."""
    times = [
        row["estimate_ms"]["median"]
        for row in read(LATENCY, "resnet18")["results"]
        if row["weight_values"] == values
    ]
    low, high = f"{min(times):.0f}", f"{max(times):.0f}"
    return low if low == high else f"{low} to {high}"


def rates() -> str:
    """Layer-configurations a second, slowest and fastest family."""
    found = [row["layer_configurations_per_s"] for row in read(LATENCY, "explore")["results"]]
    return f"{min(found):,} to {max(found):,}"


def speed() -> str:
    """How long an estimate takes."""
    rows = (
        ("weights not read", "20 ms", f"{medians('none')} ms"),
        ("11.7 million weights read for a coded stream", "20 ms", f"{medians('codes')} ms"),
        ("weights transformed to count zeros", "20 ms", f"{medians('winograd')} ms"),
        ("`explore`, layer-configurations a second", "20,000", rates()),
    )
    peers = []
    for row in read(LATENCY, "peers")["results"]:
        processor, parts = row["processor_s"], []
        for part in ("counting_processor_s", "pricing_processor_s"):
            parts.append("" if row[part] is None else f"{row[part]:.3g}")
        seconds = f"{row['wall_s']:.3g}, wall clock" if processor is None else f"{processor:.3g}"
        peers.append((row["tool"], row["device"], row["weights"], seconds, *parts))
    head = (
        "tool",
        "device",
        "weights",
        "processor seconds",
        "of it counting operators",
        "of it pricing",
    )
    return table(("ResNet-18, one thread", "bar", "found"), rows) + "\n\n" + table(head, peers)


def training() -> str:
    """Ratios of a training step beside the published ones."""

    def times(value: float | None, unit: str = "x") -> str:
        return "not known" if value is None else f"{value:.3g}{unit}"

    return table(
        ("batch", "array", "speed", "energy", "parameters", "all that a step keeps"),
        (
            (
                row["batch"],
                f"`{row['array']}`",
                times(row["speed"]),
                times(row["energy"], "x less"),
                times(row["parameter_memory"], "x less"),
                times(row["step_memory"], "x less"),
            )
            for row in read(LATENCY, "training_step")["ratios"]
        ),
        right=(0, 2, 3, 4, 5),
    )


def checks() -> str:
    """What is checked, in short, for the first page."""
    layers = [row[1] for row in agreements()]
    runs = [row[1] for row in rtl_runs()]
    agree = all(row[1] == row[2] == row[3] for row in agreements())
    same = all(row[1] == row[2] for row in rtl_runs())
    (ours,) = (row for row in read(LATENCY, "winocnn")["results"] if row["target"] == PUBLISHED)
    every = [run for network in NETWORKS for run in uniform(network).values()]
    rows = (
        (
            "closed forms = simulators, cycles and values",
            f"{'all' if agree else 'NOT ALL'} of {min(layers)} to {max(layers):,} random layers for"
            f" each of {len(layers)} families",
        ),
        (
            "simulators = generated Verilog, cycles and values",
            f"{'all' if same else 'NOT ALL'} of {min(runs)} to {max(runs)} runs for each of"
            f" {len(runs)} designs",
        ),
        (
            "WinoCNN on VGG-16: published 3.1 TOPS",
            f"{ours['gops'] / 1000:.2f} TOPS; all 250 layer descriptors",
        ),
        (
            "SCALE-Sim v3: 48 layer results of ResNet-18",
            "equal but for its count of the last cycle",
        ),
        (
            "Arm's Vela, 3 networks on 7 Ethos-U",
            f"processor cycles within {farthest(every, 'error_npu')}, totals within"
            f" {farthest(every, 'error_total')}",
        ),
        ("`explore`, layer-configurations a second", rates()),
    )
    return table(("check", "found"), rows)


BLOCKS: dict[Path, dict[str, Callable[[], str]]] = {
    PAGE: {
        "agreement": agreement,
        "rtl": rtl,
        "published": published,
        "vela": vela,
        "microcontrollers": microcontrollers,
        "resources": resources,
        "speed": speed,
    },
    README: {"checks": checks},
    ROOT / "docs" / "training-step.md": {"training": training},
}


def rendered(page: Path) -> str:
    """A page with its blocks made anew."""
    text = page.read_text(encoding="utf-8")
    for name, made in BLOCKS[page].items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            sys.exit(f"{page.name} has no place for {name}")
        text = f"{head}{begin}\n{made()}\n{end}{tail}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    check = parser.parse_args().check
    for page in BLOCKS:
        text = rendered(page)
        if not check:
            page.write_text(text, encoding="utf-8")
        elif text != page.read_text(encoding="utf-8"):
            sys.exit(f"{page.name} is out of date: python -m benchmarks.latency.render")


if __name__ == "__main__":
    main()
