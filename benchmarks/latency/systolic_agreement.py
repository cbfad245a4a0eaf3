"""Closed forms of the systolic families against the arrays that are stepped register by register.

python benchmarks/latency/systolic_agreement.py
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path

import numpy as np

from edgecompress.hardware.simulator.layers import IntegerConv, IntegerProduct, exact_outputs
from edgecompress.hardware.simulator.systolic import Held, SystolicArray, simulate

COMMAND = "python benchmarks/latency/systolic_agreement.py"
RESULTS = Path(__file__).parent / "results" / "systolic_agreement.json"
HELD: dict[str, Held] = {
    "systolic_ws": "weights",
    "systolic_os": "sums",
    "systolic_is": "inputs",
}
LAYERS = 1000
LARGEST_SIDE = 32


def random_layer(rng: np.random.Generator) -> IntegerConv | IntegerProduct:
    """A convolution of any geometry, or a product."""
    if rng.random() < 0.4:
        rows, inner, columns = (int(n) for n in rng.integers(1, 100, 3))
        return IntegerProduct(
            inputs=rng.integers(-128, 128, (rows, inner)),
            weights=rng.integers(-128, 128, (inner, columns)),
            zero_point=int(rng.integers(-128, 128)),
        )
    group = int(rng.choice([1, 1, 2, 4]))
    channels, outputs = (int(n) for n in rng.integers(1, 20, 2))
    kh, kw = (int(n) for n in rng.integers(1, 6, 2))
    return IntegerConv(
        inputs=rng.integers(0, 256, (int(rng.integers(1, 3)), group * channels, 11, 10)),
        weights=rng.integers(-8, 8, (group * outputs, channels, kh, kw)),
        zero_point=int(rng.integers(0, 256)),
        stride=(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
        dilation=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        pads=tuple(int(n) for n in rng.integers(0, 4, 4)),  # type: ignore[arg-type]
        group=group,
        input_signed=False,
    )


def predicted(family: str, array: SystolicArray, layer: IntegerConv | IntegerProduct) -> int:
    """Folds times cycles, over the blocks of what streams."""
    truth = exact_outputs(layer)
    count, inner = 1, layer.weights.shape[0]
    rows, columns = truth.shape[0], layer.weights.shape[1]
    if isinstance(layer, IntegerConv):
        count, columns = layer.group, layer.weights.shape[0] // layer.group
        rows, inner = truth[:, 0].size, layer.weights[0].size
    cycles = importlib.import_module(f"edgecompress.hardware.models.{family}").product_cycles
    length = columns if family == "systolic_is" else rows
    total = 0
    for start in range(0, length, array.block or length):
        part = min(array.block or length, length - start)
        sizes = (rows, inner, part) if family == "systolic_is" else (part, inner, columns)
        folds, each = cycles(*sizes, array.rows, array.columns)
        total += folds * each
    return count * total


def main() -> None:
    rows = []
    for family, held in HELD.items():
        rng = np.random.default_rng(0)
        start, same_cycles, same_values, cycles = time.perf_counter(), 0, 0, 0
        for _ in range(LAYERS):
            height, width = (int(n) for n in rng.integers(1, LARGEST_SIDE + 1, 2))
            block = None if held == "sums" or rng.random() < 0.5 else int(rng.integers(1, 64))
            array = SystolicArray(rows=height, columns=width, held=held, block=block)
            layer = random_layer(rng)
            found = simulate(array, layer)
            same_cycles += found.cycles == predicted(family, array, layer)
            same_values += np.array_equal(found.outputs, exact_outputs(layer))
            cycles += found.cycles
        rows.append(
            {
                "family": family,
                "layers": LAYERS,
                "equal_cycles": same_cycles,
                "equal_values": same_values,
                "cycles_stepped": cycles,
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
        print(rows[-1])
    RESULTS.write_text(json.dumps({"command": COMMAND, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
