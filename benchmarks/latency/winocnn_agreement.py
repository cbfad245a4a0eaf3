"""The WinoCNN cost model against the cycle-level simulator: cycles and values, layer by layer.

    python benchmarks/latency/winocnn_agreement.py

Random layers (kernels of 1 to 7, strides of 1 and 2, groups, dilation, paddings) on random arrays
(tiles of 4, 6 and 8, shapes, buffers and ports that force cuts). Cycles are those of the cost
model's closed form on a machine that keeps to its buffers, rounded up once a layer; values are
those of a plain convolution.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress.core.errors import Unsupported
from edgecompress.core.work import ConvWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.models._winograd import Parameters
from edgecompress.hardware.models._winograd_split import TOO_SMALL
from edgecompress.hardware.simulator.layers import IntegerConv, exact_outputs
from edgecompress.hardware.simulator.winocnn import WinoArray, simulate
from edgecompress.hardware.target import Target, load_target
from edgecompress.pipeline.machines import winocnn_array

COMMAND = "python benchmarks/latency/winocnn_agreement.py"
RESULTS = Path(__file__).parent / "results" / "winocnn_agreement.json"
LAYERS = 500
MUCH = 1e15  # bytes a second: only the ports' own share counts
ROUNDED = 6  # digits
SHARES = {1.0: (1, 1), 0.8: (4, 5), 0.7: (7, 10), 0.45: (9, 20)}


def random_target(rng: np.random.Generator) -> tuple[Target, WinoArray]:
    """An array as the cost model and as the simulator take it."""
    omega = int(rng.choice([4, 6, 8], p=[0.4, 0.4, 0.2]))
    kernels = [(1, 3)] if omega == 4 else [(1, 3), (1, 3, 5)]
    share = float(rng.choice(list(SHARES)))
    narrow = rng.random() < 0.3
    changed = {
        "omega_pixels": omega,
        "kernels": kernels[rng.integers(len(kernels))],
        "array_rows": int(rng.choice([1, 2, 3, 4, 8])),
        "array_columns": int(rng.choice([1, 2, 4])),
        "channels_per_element": int(rng.choice([1, 2, 4, 8])),
        "batch_images": int(rng.choice([1, 2])),
        "input_bank_words": int(rng.choice([32, 64] if narrow else [64, 256, 4096])),
        "input_bank_columns": int(rng.choice([8, 16])),
        "weight_buffer_words": int(rng.choice([4, 16, 64, 1024])),
        "output_buffer_words": int(rng.choice([16, 64] if narrow else [64, 256, 1024])),
        "weight_ports": int(rng.choice([1, 2, 4])),
        "input_ports": int(rng.choice([1, 2])),
        "output_ports": int(rng.choice([1, 2])),
        "port_bytes_per_cycle": int(rng.choice([8, 16])),
        "fill_cycles": int(rng.choice([1, 17, 60])),
        "bound_rows_by_output": True,
    }
    base = load_target("winocnn-zcu102-w6")
    parameters = base.parameters.model_copy(update=changed)
    target = dataclasses.replace(
        base, parameters=parameters, dram_efficiency_share=share, dram_bytes_per_s=MUCH
    )
    return target, as_array(target, SHARES[share])


def as_array(target: Target, words_per_cycles: tuple[int, int]) -> WinoArray:
    """The simulator's description of a target."""
    p = target.parameters
    if not isinstance(p, Parameters):
        raise TypeError(target.name)
    return winocnn_array(target, p, Fraction(*words_per_cycles))


def random_layer(rng: np.random.Generator) -> IntegerConv:
    """A small convolution of any kind that a graph may have."""
    kernel = tuple(int(side) for side in rng.integers(1, 8, 2))
    if rng.random() < 0.5:
        kernel = (kernel[0], kernel[0])
    dilation = (2, 2) if rng.random() < 0.1 else (1, 1)
    span = [(side - 1) * apart + 1 for side, apart in zip(kernel, dilation, strict=True)]
    group = int(rng.choice([1, 1, 1, 1, 2, 6]))
    inputs, outputs = (int(rng.integers(1, 4 if group > 1 else 40)) for _ in range(2))
    pads = tuple(int(rng.integers(0, span[place % 2])) for place in range(4))
    size = [int(side + rng.integers(0, 30)) for side in span]
    bits = int(rng.choice([2, 4, 8]))
    top = 2 ** (bits - 1) - 1
    images = int(rng.integers(1, 4))
    return IntegerConv(
        inputs=rng.integers(0, 256, (images, inputs * group, *size)),
        weights=rng.integers(-top, top + 1, (outputs * group, inputs, *kernel)),
        zero_point=int(rng.choice([0, 128])),
        stride=(1, 1) if rng.random() < 0.6 else (2, 2),
        dilation=dilation,
        pads=(pads[0], pads[1], pads[2], pads[3]),
        group=group,
        weight_bits=bits,
        input_signed=False,
    )


def as_work(layer: IntegerConv, outputs: np.ndarray) -> Work:
    """The same layer as the cost model takes it."""
    images, channels, height, width = layer.inputs.shape
    operator = ConvWork(
        batch=images,
        in_channels=channels,
        out_channels=layer.weights.shape[0],
        in_height=height,
        in_width=width,
        out_height=outputs.shape[2],
        out_width=outputs.shape[3],
        kernel=layer.weights.shape[2:],
        stride=layer.stride,
        dilation=layer.dilation,
        pads=layer.pads,
        group=layer.group,
        weight_bits=layer.weight_bits,
        activation_bits=8,
    )
    return Work(name="layer", op_type="Conv", operator=operator, input_bits=0, output_bits=0)


def compare(seed: int) -> dict[str, Any]:
    """One layer on one array, and whether both agree.

    A layer that no cut brings into the buffers is refused by the simulator and flagged by the
    model.
    """
    rng = np.random.default_rng((3, seed))
    target, array = random_target(rng)
    layer = random_layer(rng)
    truth = exact_outputs(layer)
    found = cost(as_work(layer, truth), target)
    try:
        simulated = simulate(array, layer)
    except Unsupported:
        return {"seed": seed, "refused": True, "agreed": TOO_SMALL in found.assumed}
    # The simulator ends a layer with a whole cycle; what is rounded off is the error of floats.
    same_cycles = simulated.cycles == ceil(round(found.total_cycles, ROUNDED))
    same_values = bool((simulated.outputs == truth).all())
    return {
        "refused": False,
        "agreed": same_cycles and same_values and TOO_SMALL not in found.assumed,
        "seed": seed,
        "omega": array.omega,
        "kernel": list(layer.weights.shape[2:]),
        "stride": layer.stride[0],
        "cuts": [text.split(":")[0] for text in found.assumed.split("; ") if text],
        "cycles": simulated.cycles,
        "cycles_of_model": found.total_cycles,
        "same_cycles": same_cycles,
        "same_values": same_values,
    }


def main() -> None:
    tried: list[dict[str, Any]] = []
    while sum(not row["refused"] for row in tried) < LAYERS:
        tried.append(compare(len(tried)))
    rows = [row for row in tried if not row["refused"]]
    cuts = Counter(text for row in rows for text in row["cuts"])
    result = {
        "command": COMMAND,
        "layers": len(rows),
        "same_cycles": sum(row["same_cycles"] for row in rows),
        "same_values": sum(row["same_values"] for row in rows),
        "refused_by_both": sum(row["refused"] and row["agreed"] for row in tried),
        "refused_by_one": sum(row["refused"] and not row["agreed"] for row in tried),
        "by_omega": dict(sorted(Counter(str(row["omega"]) for row in rows).items())),
        "by_stride": dict(sorted(Counter(str(row["stride"]) for row in rows).items())),
        "by_kernel_height": dict(sorted(Counter(str(row["kernel"][0]) for row in rows).items())),
        "special": dict(sorted(cuts.items())),
        "cycles": sum(row["cycles"] for row in rows),
    }
    print(json.dumps(result, indent=1))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
