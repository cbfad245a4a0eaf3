"""The low-bit arrays: closed forms against the cycle simulators, and those against exact sums.

    python benchmarks/latency/lowbit_agreement.py

For each family random layers of all kinds (groups, strides, dilation, padding, zero points, widths;
matrix products) on arrays of random shape. Truth: the sums without any array for the values, the
simulator, which counts by advancing its state, for the cycles.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress.hardware.models import bit_fusion as fusion_model
from edgecompress.hardware.models import bit_serial as serial_model
from edgecompress.hardware.models import lut_mac as lut_model
from edgecompress.hardware.models import ternary_engine as ternary_model
from edgecompress.hardware.models._lowbit import Products
from edgecompress.hardware.simulator import bit_fusion, bit_serial, lut_mac, ternary_engine
from edgecompress.hardware.simulator.layers import (
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    Simulated,
    exact_outputs,
)

COMMAND = "python benchmarks/latency/lowbit_agreement.py"
RESULTS = Path(__file__).parent / "results" / "lowbit_agreement.json"
LAYERS = 600
Rng = np.random.Generator
Found = tuple[Simulated, int]


def random_layer(rng: Rng, *, ternary_digits: bool = False) -> IntegerLayer:
    """A small layer with anything that a quantized graph can have.

    ``ternary_digits``: weights are symmetric, without the most negative code.
    """
    groups, inputs, outputs = (int(v) for v in rng.integers(1, [4, 6, 6]))
    groups = groups if rng.integers(2) else 1
    bits, weight_bits = int(rng.integers(1, 11)), int(rng.integers(1, 9))
    signed = bool(rng.integers(2))
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    least, most = -(1 << weight_bits - 1), 1 << weight_bits - 1
    if ternary_digits:
        weight_bits = min(weight_bits, 5)
        most = 2 if weight_bits <= 2 else 1 << weight_bits - 1
        least = 1 - most
    widths: dict[str, Any] = {
        "zero_point": int(rng.integers(low, high)),
        "input_bits": bits,
        "weight_bits": weight_bits,
        "input_signed": signed,
    }
    if rng.integers(4) == 0:
        rows, inner, columns = (int(v) for v in rng.integers(1, [25, 25, 15]))
        return IntegerProduct(
            inputs=rng.integers(low, high, (rows, inner)),
            weights=rng.integers(least, most, (inner, columns)),
            **widths,
        )
    kernel, dilation, stride = rng.integers(1, 5, 2), rng.integers(1, 3, 2), rng.integers(1, 4, 2)
    pads = rng.integers(0, 4, 4)
    reach = (kernel - 1) * dilation + 1 - pads[:2] - pads[2:]
    size = np.maximum(rng.integers(1, 8, 2), np.maximum(reach, 1))
    return IntegerConv(
        inputs=rng.integers(low, high, (int(rng.integers(1, 3)), groups * inputs, *size)),
        weights=rng.integers(least, most, (groups * outputs, inputs, *kernel)),
        stride=(int(stride[0]), int(stride[1])),
        dilation=(int(dilation[0]), int(dilation[1])),
        pads=(int(pads[0]), int(pads[1]), int(pads[2]), int(pads[3])),
        group=groups,
        **widths,
    )


def counts(layer: IntegerLayer) -> Products:
    """The products of a layer, from its shapes alone."""
    if isinstance(layer, IntegerProduct):
        (rows, inner), columns = layer.inputs.shape, layer.weights.shape[1]
        return Products(count=1, rows=rows, inner=inner, columns=columns)
    height, width = output_size(layer)
    outputs, inputs, *kernel = layer.weights.shape
    taps = kernel[0] * kernel[1]
    return Products(
        count=layer.group,
        rows=layer.inputs.shape[0] * height * width,
        inner=inputs * taps,
        columns=outputs // layer.group,
        taps=taps,
    )


def output_size(layer: IntegerConv) -> tuple[int, int]:
    """Height and width of the output."""
    sizes = [
        (layer.inputs.shape[2 + a] + layer.pads[a] + layer.pads[2 + a] - reach) // layer.stride[a]
        + 1
        for a in (0, 1)
        for reach in [(layer.weights.shape[2 + a] - 1) * layer.dilation[a] + 1]
    ]
    return sizes[0], sizes[1]


def ternary(rng: Rng, layer: IntegerLayer) -> Found:
    """A random ternary engine."""
    lanes = rng.integers(1, [7, 5, 6, 40])
    array = ternary_engine.TernaryArray(
        output_lanes=int(lanes[0]),
        input_lanes=int(lanes[1]),
        window=int(lanes[2]),
        weight_load_cycles=int(lanes[3]),
        accumulators=int(rng.choice([1, 3, 7, 20, 200])),
        packs_rows=bool(rng.integers(2)),
    )
    parameters = ternary_model.Parameters(
        output_lanes=array.output_lanes,
        input_lanes=array.input_lanes,
        window=array.window,
        weight_load_cycles=array.weight_load_cycles,
        accumulators=array.accumulators,
        packs_rows=array.packs_rows,
        activation_buffer_bytes=1,
        weight_buffer_bytes=1,
        activation_bits=8,
        accumulator_bits=24,
        luts_per_select_bit=1,
        additions_per_dsp=8,
    )
    if isinstance(layer, IntegerProduct):
        rows, inner = layer.inputs.shape
        sweep = ternary_model.Sweep(
            images=1,
            groups=1,
            inputs=inner,
            outputs=layer.weights.shape[1],
            in_width=rows,
            out_height=1,
            out_width=rows,
        )
    else:
        outputs, inputs, *kernel = layer.weights.shape
        height, width = output_size(layer)
        sweep = ternary_model.Sweep(
            images=layer.inputs.shape[0],
            groups=layer.group,
            inputs=inputs,
            outputs=outputs // layer.group,
            in_width=layer.inputs.shape[3],
            out_height=height,
            out_width=width,
            kernel=(kernel[0], kernel[1]),
            dilation=layer.dilation,
            column_stride=layer.stride[1],
        )
    planes = ternary_model.digit_planes(layer.weight_bits)
    return ternary_engine.simulate(array, layer), ternary_model.array_cycles(
        sweep, planes, parameters
    )


def lut(rng: Rng, layer: IntegerLayer) -> Found:
    """A random LUT-MAC array."""
    sizes = rng.integers(1, [9, 6, 9, 9, 6])
    array = lut_mac.LutMacArray(
        dot_length=int(sizes[0]),
        columns=int(sizes[1]),
        unit_activation_bits=int(sizes[2]),
        unit_weight_bits=int(sizes[3]),
        pipeline_cycles=int(sizes[4]),
        accumulators=int(rng.choice([1, 3, 8, 100])),
    )
    parameters = lut_model.Parameters(
        luts=1,
        dsp_blocks=0,
        luts_per_mac={"8x8": 1.0},
        luts_per_dsp_mac={"8x8": 1.0},
        macs_per_dsp={"8x8": 1.0},
        dot_length=array.dot_length,
        pipeline_cycles=array.pipeline_cycles,
        accumulators=array.accumulators,
        accumulator_bits=24,
        activation_buffer_bytes=1,
        weight_buffer_bytes=1,
    )
    passes = -(-layer.input_bits // array.unit_activation_bits)
    passes *= -(-layer.weight_bits // array.unit_weight_bits)
    shape = (array.dot_length, array.columns)
    return lut_mac.simulate(array, layer), lut_model.array_cycles(
        counts(layer), passes, shape, parameters
    )


def serial(rng: Rng, layer: IntegerLayer) -> Found:
    """A random bit-serial array."""
    sizes = rng.integers(1, [5, 5, 20, 6])
    array = bit_serial.BitSerialArray(
        row_units=int(sizes[0]),
        column_units=int(sizes[1]),
        unit_bits=int(sizes[2]),
        pipeline_cycles=int(sizes[3]),
    )
    parameters = serial_model.Parameters(
        row_units=array.row_units,
        column_units=array.column_units,
        unit_bits=array.unit_bits,
        pipeline_cycles=array.pipeline_cycles,
        accumulator_bits=32,
        activation_buffer_bytes=1,
        weight_buffer_bytes=1,
        luts_per_unit_bit=1.0,
        luts_per_unit=1.0,
    )
    return bit_serial.simulate(array, layer), serial_model.array_cycles(
        counts(layer), layer.input_bits, layer.weight_bits, parameters
    )


def fusion(rng: Rng, layer: IntegerLayer) -> Found:
    """A random Bit Fusion array."""
    sizes = rng.integers(1, [5, 5])
    array = bit_fusion.BitFusionArray(array_rows=int(sizes[0]), array_columns=int(sizes[1]))
    parameters = fusion_model.Parameters(
        array_rows=array.array_rows,
        array_columns=array.array_columns,
        accumulator_bits=32,
        activation_buffer_bytes=1,
        weight_buffer_bytes=1,
    )
    return bit_fusion.simulate(array, layer), fusion_model.array_cycles(
        counts(layer), layer.input_bits, layer.weight_bits, parameters
    )


FAMILIES: dict[str, Callable[[Rng, IntegerLayer], Found]] = {
    "ternary_engine": ternary,
    "lut_mac": lut,
    "bit_serial": serial,
    "bit_fusion": fusion,
}


def agree(family: str, seed: int) -> tuple[bool, bool, int]:
    """Whether the values and the cycles of one random layer agree, and the cycles."""
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, ternary_digits=family == "ternary_engine")
    found, cycles = FAMILIES[family](rng, layer)
    same = np.array_equal(found.outputs, exact_outputs(layer))
    return same, found.cycles == cycles, found.cycles


def measure(family: str, layers: int) -> dict[str, object]:
    """All layers of a family."""
    start = time.perf_counter()
    rows = [agree(family, seed) for seed in range(layers)]
    return {
        "family": family,
        "layers": layers,
        "values_equal": sum(same for same, _, _ in rows),
        "cycles_equal": sum(same for _, same, _ in rows),
        "simulated_cycles": sum(cycles for _, _, cycles in rows),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    found = [measure(family, LAYERS) for family in FAMILIES]
    for row in found:
        print(row)
    RESULTS.write_text(json.dumps({"command": COMMAND, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
