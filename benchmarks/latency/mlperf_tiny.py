"""Microcontroller targets against MLPerf Tiny: four networks, measured by others on three chips.

    python benchmarks/latency/mlperf_tiny.py

The three numbers of a target (cycles per multiply-accumulate, per output and per byte of weights)
are the least relative squares over the four networks, each taken at the mean of the software that
was measured; the stated error is the largest distance of any of those measurements from the model.
The Cortex-M55 target takes the figures of the Cortex-M85, see its sources.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from layer_works import product_of
from layered import Layer, Table

from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, OperatorWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import load_target

COMMAND = "python benchmarks/latency/mlperf_tiny.py"
RESULTS = Path(__file__).parent / "results" / "mlperf_tiny.json"


@dataclass(frozen=True)
class Measured:
    """Median throughput of the four networks with one software.

    ``source`` is a repository of results and the folder in it; inferences per second are in
    performance/results.txt of ic, vww, kws and ad there.
    """

    chip: str
    software: str
    source: str
    clock_hz: float
    per_s: dict[str, float]


# Source: the results that submitters handed in, as named in each entry.
MEASURED = (
    Measured(
        "cortex-m4",
        "CMSIS-NN by microTVM",
        "mlcommons/tiny_results_v1.0 closed/OctoML/results/microtvm_cmsis_nn/NUCLEO_L4R5ZI",
        120e6,
        {"ic": 2.567, "vww": 3.320, "kws": 10.019, "ad": 116.212},
    ),
    Measured(
        "cortex-m4",
        "X-CUBE-AI 7.3.0",
        "mlcommons/tiny_results_v1.0 closed/STMicroelectronics/results/NUCLEO_L4R5ZI",
        120e6,
        {"ic": 4.407, "vww": 4.339, "kws": 13.323, "ad": 131.950},
    ),
    Measured(
        "cortex-m7",
        "X-CUBE-AI 7.3.0",
        "mlcommons/tiny_results_v1.0 closed/STMicroelectronics/results/NUCLEO-H7A3ZI-Q",
        280e6,
        {"ic": 18.401, "vww": 19.722, "kws": 59.667, "ad": 547.705},
    ),
    Measured(
        "cortex-m7",
        "Plumerai",
        "mlcommons/tiny_results_v1.1 closed/plumerai/results/NUCLEO_H7A3ZI_Q",
        280e6,
        {"ic": 19.636, "vww": 37.290, "kws": 72.141},
    ),
    Measured(
        "cortex-m85",
        "TensorFlow Lite Micro with CMSIS",
        "mlcommons/tiny_results_v1.2 closed/Renesas/results/EK-RA8D1",
        480e6,
        {"ic": 117.948, "vww": 74.665, "kws": 288.611, "ad": 1884.138},
    ),
)


def resnet8() -> Table:
    """Image classification ("ic"). Source: Banbury et al. 2021, mlcommons/tiny."""
    table = Table()
    value = table.conv(table.start(3, 32), 16, 3)
    inputs = 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        side = value if inputs == outputs else table.conv(value, outputs, 1, stride)
        inner = table.conv(table.conv(value, outputs, 3, stride), outputs, 3)
        value, inputs = table.add(inner, side), outputs
    table.fc(table.avgpool(value), 10)
    return table


def mobilenet_v1() -> Table:
    """Visual wake words ("vww"): MobileNetV1 of width 0.25 at 96 x 96. Source: as above."""
    table = Table()
    value = table.conv(table.start(3, 96), 8, 3, 2)
    rows = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5)
    for outputs, stride in (*rows, (256, 2), (256, 1)):
        value = table.conv(table.depthwise(value, 3, stride), outputs, 1)
    table.fc(table.avgpool(value), 2)
    return table


def ds_cnn() -> Table:
    """Keyword spotting ("kws"): 49 x 10 features, 64 channels. Source: as above."""
    table = Table()
    table.layers["input"] = Layer("input", "input", (), 1, 49, 10)
    value = table.conv("input", 64, (10, 4), 2)
    for _ in range(4):
        value = table.conv(table.depthwise(value, 3), 64, 1)
    table.fc(table.avgpool(value), 12)
    return table


def autoencoder() -> Table:
    """Anomaly detection ("ad"): ten fully connected layers. Source: as above."""
    table = Table()
    value = table.start(640, 1)
    for outputs in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
        value = table.fc(value, outputs)
    return table


NETWORKS = {"ic": resnet8, "vww": mobilenet_v1, "kws": ds_cnn, "ad": autoencoder}


def work_of(table: Table, layer: Layer) -> Work:
    """A layer as counts."""
    before = table.layers[layer.inputs[0]]
    inputs, outputs = (one.channels * one.height * one.width for one in (before, layer))
    operator: OperatorWork | None = product_of(table, layer)
    if operator is None:
        operator = ElementWork(
            operations=max(inputs, outputs),
            read_bits=8 * inputs * len(layer.inputs),
            written_bits=8 * outputs,
            activation_bits=8,
        )
    return Work(
        name=layer.name,
        op_type=layer.kind,
        operator=operator,
        input_bits=8 * inputs * len(layer.inputs),
        output_bits=8 * outputs,
    )


def works(network: str) -> list[Work]:
    """All layers of a network."""
    table = NETWORKS[network]()
    return [work_of(table, layer) for layer in table.layers.values() if layer.inputs]


def counts(network: str) -> tuple[int, int, int]:
    """(Multiply-accumulates, outputs, bytes of weights) of convolutions and products."""
    macs = outputs = weights = 0
    for work in works(network):
        match work.operator:
            case ConvWork() as conv:
                taps = conv.kernel[0] * conv.kernel[1]
                weights += conv.out_channels * conv.in_channels // conv.group * taps
            case MatMulWork() as product:
                weights += product.inner * product.columns
            case ElementWork():
                continue
        macs += work.operator.macs
        outputs += work.output_bits // 8
    return macs, outputs, weights


def fitted(chip: str) -> dict[str, float]:
    """The three numbers of a chip, see the module; the software's mean per network."""
    rows, cycles = [], []
    for network in NETWORKS:
        found = [
            one.clock_hz / one.per_s[network]
            for one in MEASURED
            if one.chip == chip and network in one.per_s
        ]
        rows.append(counts(network))
        cycles.append(sum(found) / len(found))
    scaled = np.array(rows, float) / np.array(cycles)[:, None]
    solved = np.linalg.lstsq(scaled, np.ones(len(rows)), rcond=None)[0]
    mac, output, weight = (float(value) for value in solved)
    return {"cycles_per_mac": mac, "cycles_per_output": output, "cycles_per_weight_byte": weight}


def compared(one: Measured, target_name: str) -> list[dict[str, Any]]:
    """A measurement beside the model of a target."""
    target = load_target(target_name)
    rows = []
    for network, per_s in one.per_s.items():
        ours = sum(cost(work, target).total_cycles for work in works(network))
        theirs = one.clock_hz / per_s
        numbers = {"ours_cycles": round(ours), "measured_cycles": round(theirs)}
        names = {"target": target_name, "software": one.software, "network": network}
        rows.append(names | numbers | {"error": round(ours / theirs - 1, 3)})
    return rows


def main() -> None:
    chips = {one.chip for one in MEASURED}
    fits = {chip: fitted(chip) for chip in sorted(chips)}
    for chip, fit in fits.items():
        print(chip, {name: round(value, 4) for name, value in fit.items()})
    rows = []
    for one in MEASURED:
        rows += compared(one, "cortex-m55" if one.chip == "cortex-m85" else one.chip)
    for row in rows:
        print(*row.values())
    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "command": COMMAND,
        "sources": {one.software + " " + one.chip: one.source for one in MEASURED},
        "fits": fits,
        "results": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
