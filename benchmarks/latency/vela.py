"""Our Ethos-U estimate against Arm's Vela: every layer and total, three networks, seven sizes.

    python benchmarks/latency/vela.py                       against the figures kept in tests/
    EDGECOMPRESS_VELA_PYTHON=... python benchmarks/latency/vela.py      runs Vela again first

The variable names a Python that has ethos-u-vela; its figures are then kept anew. Nothing is fitted
to cycles; the overhead of the weight code is measured on ResNet-18, and where tensors are is a rule
of ours (see hardware/models/_ethos_schedule.py) that the other two networks confirm or not. Beside
uniform 8-bit weights, weights of lower entropy: no multiplication changes, only bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from layer_works import product_of
from layered import (
    NETWORKS,
    WEIGHTS,
    Layer,
    Table,
    entropy_bits,
    histogram,
    weight_codes,
    weight_shape,
)

from edgecompress.core.work import (
    ElementWork,
    OperatorWork,
    WeightStatistics,
    Work,
)
from edgecompress.hardware.cost import cost
from edgecompress.hardware.models.ethos_u import npu_cycles
from edgecompress.hardware.target import load_target

COMMAND = "python benchmarks/latency/vela.py"
HERE = Path(__file__).parent
RESULTS = HERE / "results" / "vela.json"
KEPT = HERE.parents[1] / "tests" / "unit" / "data" / "vela.json"

SYSTEMS = {
    "u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u65": ("Ethos_U65_Client_Server", "Dedicated_Sram_384KB"),
    "u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}
CONFIGS = (
    *("ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512"),
    *("ethos-u85-256", "ethos-u85-512", "ethos-u85-1024"),
)
ENTROPY_RUNS = tuple(
    (network, values, config)
    for network, config in (
        *(("resnet18", "ethos-u55-256"), ("resnet18", "ethos-u65-512")),
        *(("resnet18", "ethos-u85-512"), ("odd_shapes", "ethos-u55-256")),
        ("odd_shapes", "ethos-u85-512"),
    )
    for values in WEIGHTS[1:]
)
RUNS = (
    *((network, WEIGHTS[0], config) for network in NETWORKS for config in CONFIGS),
    *ENTROPY_RUNS,
)
ORIGIN = (
    "output of ethos-u-vela (version per run), benchmarks/latency/vela.py; layers: op cycles,"
    " NPU cycles, height, width and depth of the output block"
)
SUMMARY = ("cycles_total", "cycles_npu", "total_npu_encoded_weights")


@lru_cache(maxsize=4096)
def statistics(network: str, name: str, values: str) -> WeightStatistics | None:
    """What was measured on a weight."""
    table = NETWORKS[network]()
    layer = table.layers[name]
    if not weight_shape(table, layer)[0]:
        return None
    codes = weight_codes(table, layer, values)
    return WeightStatistics(
        count=codes.size,
        levels=len(histogram(codes)),
        entropy_bits=entropy_bits(codes),
        zero_share=float((codes == 0).mean()),
        zero_run_bits=8.0,
    )


def work_of(network: str, table: Table, layer: Layer, values: str) -> Work:
    """A layer as counts."""
    before = table.layers[layer.inputs[0]]
    inputs, outputs = (one.channels * one.height * one.width for one in (before, layer))
    taps = layer.kernel[0] * layer.kernel[1]
    operator: OperatorWork | None = product_of(table, layer)
    if operator is None:
        operator = ElementWork(
            operations=outputs * taps,
            read_bits=8 * inputs * len(layer.inputs),
            written_bits=8 * outputs,
            activation_bits=8,
        )
    kinds = {"add": "Add", "maxpool": "MaxPool", "avgpool": "GlobalAveragePool", "fc": "Gemm"}
    return Work(
        name=layer.name,
        op_type=kinds.get(layer.kind, "Conv"),
        operator=operator,
        input_bits=8 * inputs * len(layer.inputs),
        output_bits=8 * outputs,
        weights=statistics(network, layer.name, values),
    )


def works(network: str, values: str) -> list[Work]:
    """All layers of a network."""
    table = NETWORKS[network]()
    layers = [layer for layer in table.layers.values() if layer.kind != "input"]
    return [work_of(network, table, layer, values) for layer in layers]


def live(python: str, run: tuple[str, str, str]) -> dict[str, Any]:
    """Vela's figures of one run, the few that are compared."""
    config = run[2]
    command = [python, str(HERE / "vela_run.py"), *run, *SYSTEMS[config.split("-")[1]]]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return kept_figures(run, found)


def kept_figures(run: tuple[str, str, str], found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of Vela's output: totals, and per layer cycles and output block."""
    network, values, config = run
    blocks = {row["id"]: row for row in found["debug"]["perf_debug_main"]}
    layers: dict[str, list[int]] = {}
    for row in found["debug"]["perf"]:
        now = layers.setdefault(row["name"], [0, 0])
        now[0] += int(row["op_cycles"] or 0)
        now[1] += int(row["npu_cycles"] or 0)
        if len(now) == 2 and row["id"] in blocks:
            now += [int(blocks[row["id"]][f"ofm_block_{axis}"] or 0) for axis in "hwc"]
    return {
        "network": network,
        "weights": values,
        "config": config,
        "vela": found["vela"],
        "summary": {name: int(found["summary"][name]) for name in SUMMARY},
        "layers": layers,
    }


def kept() -> list[dict[str, Any]]:
    """Vela's figures, run again if asked to."""
    python = os.environ.get("EDGECOMPRESS_VELA_PYTHON", "")
    if python:
        figures = []
        for run in RUNS:
            figures.append(live(python, run))
            print("vela", *run, file=sys.stderr)
        lines = ",\n".join(json.dumps(one) for one in figures)
        KEPT.write_text(f'{{"source": "{ORIGIN}",\n"runs": [\n{lines}\n]}}\n')
    runs: list[dict[str, Any]] = json.loads(KEPT.read_text())["runs"]
    return runs


def compared(theirs: dict[str, Any]) -> dict[str, Any]:
    """One run of Vela's beside ours."""
    network, values, config = (theirs[name] for name in ("network", "weights", "config"))
    target = load_target(config)
    layers, total, npu, weight_bytes = [], 0.0, 0.0, 0.0
    for work in works(network, values):
        found = cost(work, target)
        busy = npu_cycles(work, target)
        total, npu = total + found.total_cycles, npu + busy
        weight_bytes += found.weight_bytes
        their_total, their_npu = theirs["layers"].get(work.name, (0, 0))[:2]
        layers.append(
            {
                "name": work.name,
                "total": [round(found.total_cycles), their_total],
                "npu": [round(busy), their_npu],
                "error_npu": _error(busy, their_npu),
            }
        )
    summary = theirs["summary"]
    return {
        "network": network,
        "weights": values,
        "config": config,
        "vela": theirs["vela"],
        "npu_cycles": [round(npu), summary["cycles_npu"]],
        "error_npu": _error(npu, summary["cycles_npu"]),
        "total_cycles": [round(total), summary["cycles_total"]],
        "error_total": _error(total, summary["cycles_total"]),
        "mean_layer_error_npu": round(
            sum(abs(one["error_npu"]) for one in layers if one["error_npu"] is not None)
            / sum(one["error_npu"] is not None for one in layers),
            4,
        ),
        "layers": layers,
    }


def _error(ours: float, theirs: float) -> float | None:
    return round(ours / theirs - 1, 4) if theirs else None


def effect(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time with weights of low entropy over time with uniform weights, ours and Vela's."""
    base = {(r["network"], r["config"]): r for r in rows if r["weights"] == WEIGHTS[0]}
    found = []
    for row in rows:
        whole = base[row["network"], row["config"]]
        if row is whole:
            continue
        ours, theirs = (
            row["total_cycles"][i] / whole["total_cycles"][i] for i in range(len(row["npu_cycles"]))
        )
        names = {name: row[name] for name in ("network", "weights", "config")}
        numbers = {"ours": round(ours, 4), "vela": round(theirs, 4)}
        found.append(names | numbers | {"error": _error(ours, theirs)})
    return found


def main() -> None:
    rows = [compared(theirs) for theirs in kept()]
    for row in rows:
        print(
            f"{row['network']:13}{row['weights']:10} {row['config']:15}"
            f" npu {row['npu_cycles'][0]:>9} {row['npu_cycles'][1]:>9} {row['error_npu']:+.1%}"
            f"  total {row['total_cycles'][0]:>9} {row['total_cycles'][1]:>9}"
            f" {row['error_total']:+.1%}  mean layer {row['mean_layer_error_npu']:.1%}"
        )
        if "-v" in sys.argv:
            for one in row["layers"]:
                print(f"    {one['name']:14} npu {one['npu']} {one['error_npu']} {one['total']}")
    for one in effect(rows):
        print("weights", *one.values())
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"command": COMMAND, "results": rows, "entropy_effect": effect(rows)}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
