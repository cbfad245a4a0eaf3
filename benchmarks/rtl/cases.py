"""Random layers on random arrays, for the comparison of generated Verilog with the simulators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.hardware.models.ternary_engine import Parameters
from edgecompress.hardware.rtl import systolic_os, systolic_ws, ternary_engine
from edgecompress.hardware.rtl._product import ArrayShape, products_of
from edgecompress.hardware.rtl.bench import Bench
from edgecompress.hardware.simulator import systolic
from edgecompress.hardware.simulator import ternary_engine as ternary_simulator
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerLayer, IntegerProduct

WEIGHT_BITS = (2, 3, 4, 6, 8)
GENERATORS = {"systolic_os": systolic_os, "systolic_ws": systolic_ws}
HELD = {"systolic_os": "sums", "systolic_ws": "weights"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run.

    Attributes:
        words: The array and the layer.
        bench: Generated; its expected outputs are the exact sums.
        simulated, predicted: Cycles of the simulator and of the closed form.
    """

    words: str
    bench: Bench
    simulated: int
    predicted: int


def systolic_case(family: str, seed: int) -> Case:
    """A product or a convolution on an array of up to 8 x 8; every fourth is a convolution."""
    generator = np.random.default_rng([seed, sorted(GENERATORS).index(family)])
    rows, columns = (int(n) for n in generator.integers(1, 9, 2))
    activation_bits = int(generator.choice([2, 4, 8]))
    weight_bits = WEIGHT_BITS[seed % len(WEIGHT_BITS)]
    depth = int(generator.choice([5, 16])) if family == "systolic_ws" and seed % 3 == 0 else None
    shape = ArrayShape(
        rows=rows,
        columns=columns,
        activation_bits=activation_bits,
        weight_bits=weight_bits,
        sum_bits=activation_bits + weight_bits + 10,
        dsp=bool(seed % 2),
        depth=depth,
    )
    if seed % 4 == 3:
        layer: IntegerLayer = random_conv(generator, activation_bits, weight_bits, (3, 4))
    else:
        layer = random_product(generator, activation_bits, weight_bits, seed)
    deep = products_of(layer)[0].inputs.shape[1] > rows  # sums wait only then
    array = systolic.SystolicArray(
        rows=rows, columns=columns, held=HELD[family], block=depth if deep else None
    )
    module = GENERATORS[family]
    return Case(
        words=f"{rows} x {columns}, {activation_bits} x {weight_bits} bits, {words(layer)}",
        bench=module.bench(shape, layer),
        simulated=systolic.simulate(array, layer).cycles,
        predicted=module.predicted_cycles(shape, layer),
    )


def ternary_case(seed: int) -> Case:
    """A convolution or a product on a small engine."""
    generator = np.random.default_rng([seed, 2])
    array = ternary_simulator.TernaryArray(
        output_lanes=int(generator.integers(1, 5)),
        input_lanes=int(generator.integers(1, 4)),
        window=int(generator.choice([1, 3, 3, 5])),
        weight_load_cycles=int(generator.integers(1, 40)),
        accumulators=int(generator.choice([3, 8, 64])),
        packs_rows=bool(generator.integers(2)),
    )
    activation_bits = int(generator.choice([2, 4, 8]))
    shape = ternary_engine.EngineShape(array=array, activation_bits=activation_bits, sum_bits=28)
    weight_bits = (2, 2, 2, 3, 4)[seed % 5]
    if seed % 4 == 3:
        layer: IntegerLayer = random_product(generator, activation_bits, weight_bits, seed)
    else:
        layer = random_conv(generator, activation_bits, weight_bits, (6, 4))
    return Case(
        words=f"{array}, {words(layer)}",
        bench=ternary_engine.bench(shape, layer),
        simulated=ternary_simulator.simulate(array, layer).cycles,
        predicted=ternary_engine.predicted_cycles(parameters_of(array, shape), layer),
    )


def parameters_of(
    array: ternary_simulator.TernaryArray, shape: ternary_engine.EngineShape
) -> Parameters:
    """The cost model's numbers of an engine; those that do not change cycles are 1."""
    return Parameters(
        output_lanes=array.output_lanes,
        input_lanes=array.input_lanes,
        window=array.window,
        weight_load_cycles=array.weight_load_cycles,
        accumulators=array.accumulators,
        packs_rows=array.packs_rows,
        activation_buffer_bytes=1,
        weight_buffer_bytes=1,
        activation_bits=shape.activation_bits,
        accumulator_bits=shape.sum_bits,
        luts_per_select_bit=1,
        additions_per_dsp=1,
    )


def random_product(
    generator: np.random.Generator, activation_bits: int, weight_bits: int, seed: int
) -> IntegerProduct:
    """Random codes, signed or not; every eighth product has one row, inner and column."""
    rows, inner, columns = (1, 1, 1) if seed % 8 == 4 else generator.integers(1, 20, 3)
    low, high, zero_point = codes(generator, activation_bits)
    most = (1 << (weight_bits - 1)) - 1
    return IntegerProduct(
        inputs=generator.integers(low, high, (rows, inner)),
        weights=generator.integers(-most, most + 1, (inner, columns)),
        zero_point=zero_point,
        input_bits=activation_bits,
        weight_bits=weight_bits,
        input_signed=low < 0,
    )


def random_conv(
    generator: np.random.Generator, activation_bits: int, weight_bits: int, most: tuple[int, int]
) -> IntegerConv:
    """A convolution with groups, strides, dilation and padding of all kinds.

    Args:
        generator: Of everything.
        activation_bits, weight_bits: Widths.
        most: One more than the largest kernel, and the most channels in and out of a group.
    """
    kernel = [int(n) for n in generator.integers(1, most[0], 2)]
    dilation = [int(n) for n in generator.integers(1, 3, 2)]
    group = int(generator.choice([1, 1, 2, 4]))
    inputs, outputs = (int(n) for n in generator.integers(1, most[1], 2))
    size = [
        (k - 1) * d + int(generator.integers(1, 7)) for k, d in zip(kernel, dilation, strict=True)
    ]
    stride = [int(n) for n in generator.integers(1, 4, 2)]
    pads = [int(n) for n in generator.integers(0, 3, 4)]
    low, high, zero_point = codes(generator, activation_bits)
    largest = (1 << (weight_bits - 1)) - 1
    return IntegerConv(
        inputs=generator.integers(
            low, high, (int(generator.integers(1, 3)), group * inputs, *size)
        ),
        weights=generator.integers(-largest, largest + 1, (group * outputs, inputs, *kernel)),
        zero_point=zero_point,
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        group=group,
        input_bits=activation_bits,
        weight_bits=weight_bits,
        input_signed=low < 0,
    )


def codes(generator: np.random.Generator, bits: int) -> tuple[int, int, int]:
    """Lowest code, one above the highest, and a zero point; signed or not."""
    low = -(1 << (bits - 1)) if generator.integers(2) else 0
    high = low + (1 << bits)
    return low, high, int(generator.integers(low, high))


def words(layer: IntegerLayer) -> str:
    """A layer in words."""
    sizes = f"{layer.inputs.shape} with {layer.weights.shape}, zero point {layer.zero_point}"
    if isinstance(layer, IntegerProduct):
        return f"product {sizes}"
    return (
        f"convolution {sizes}, stride {layer.stride}, dilation {layer.dilation}, "
        f"pads {layer.pads}, {layer.group} groups"
    )
