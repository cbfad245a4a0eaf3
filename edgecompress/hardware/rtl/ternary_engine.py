"""Verilog of the ternary engine, with its control and a test bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecompress.core.work import ConvWork, MatMulWork
from edgecompress.hardware.array_resources import TernaryCounts, ternary_resources
from edgecompress.hardware.models.ternary_engine import Parameters, array_cycles, as_sweep
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.rtl._product import ADDRESS_BITS, address_bits, signed_bits
from edgecompress.hardware.rtl.bench import Bench, hex_words, packed_words
from edgecompress.hardware.rtl.verilog import (
    INTERFACE,
    ONE_FILE,
    RESET,
    Design,
    header,
    impossible,
    module_text,
)
from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    exact_outputs,
)
from edgecompress.hardware.simulator.ternary_blocks import (
    Block,
    Blocks,
    TernaryArray,
    digit_planes,
    out_size,
)
from edgecompress.hardware.target import Target

TOP = "ternary_engine"
SHIFT_BITS = 3

ABOUT = (
    "Every tap of a window of INPUT_LANES x WINDOW x WINDOW codes goes to a select unit of each "
    "output lane, which adds, subtracts or skips it; there is no multiplier. A layer runs as "
    "blocks, one setting of the weight registers each: width columns fill the window, then it is "
    "evaluated at one position a cycle; 2 more cycles empty the pipeline. The weights of the next "
    "block arrive in LOAD_CYCLES cycles meanwhile.",
    "Memories give data in the cycle after a read. The row banks and the order of the blocks are "
    "the caller's: columns are read in the order in which they enter the window.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineShape:
    """An engine as it is generated.

    Attributes:
        array: Lanes, window, weight load and accumulators.
        activation_bits: Signed codes, 2 to 16 bits.
        sum_bits: Width of a sum; sums wrap around beyond it.
    """

    array: TernaryArray
    activation_bits: int
    sum_bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.activation_bits <= 16:
            raise ValueError(
                f"activations of {self.activation_bits} bits, where 2 to 16 are generated"
            )
        if self.sum_bits < self.tree_bits:
            raise ValueError(f"sums of {self.sum_bits} bits, the trees have {self.tree_bits}")

    @property
    def taps(self) -> int:
        """Select units of an output lane."""
        return self.array.input_lanes * self.array.window**2

    @property
    def units(self) -> int:
        """All select units."""
        return self.array.output_lanes * self.taps

    @property
    def tree_bits(self) -> int:
        """Width of what an adder tree gives."""
        return self.activation_bits + 1 + (self.taps - 1).bit_length()

    @property
    def counts(self) -> TernaryCounts:
        """What its resources depend on."""
        return TernaryCounts(
            output_lanes=self.array.output_lanes,
            input_lanes=self.array.input_lanes,
            window=self.array.window,
            activation_bits=self.activation_bits,
            sum_bits=self.sum_bits,
        )

    @property
    def settings(self) -> tuple[tuple[str, int], ...]:
        """Parameters of the top module."""
        return (
            ("OUTPUT_LANES", self.array.output_lanes),
            ("INPUT_LANES", self.array.input_lanes),
            ("WINDOW", self.array.window),
            ("ACT_BITS", self.activation_bits),
            ("SUM_BITS", self.sum_bits),
            ("LOAD_CYCLES", self.array.weight_load_cycles),
            ("SHIFT_BITS", SHIFT_BITS),
            ("ADDRESS_BITS", ADDRESS_BITS),
        )


def shape_of(target: Target) -> EngineShape:
    """The engine of a target.

    Raises:
        ConfigurationInvalid: Its widths are none that an engine is generated with.
    """
    p = _parameters(target)
    try:
        return EngineShape(
            array=TernaryArray(
                output_lanes=p.output_lanes,
                input_lanes=p.input_lanes,
                window=p.window,
                weight_load_cycles=p.weight_load_cycles,
                accumulators=p.accumulators,
                packs_rows=p.packs_rows,
            ),
            activation_bits=p.activation_bits,
            sum_bits=p.accumulator_bits,
        )
    except ValueError as error:
        raise impossible(target, str(error), "activation_bits and accumulator_bits") from error


def _parameters(target: Target) -> Parameters:
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a ternary engine")
    return target.parameters


def design(shape: EngineShape) -> Design:
    """The engine with its control."""
    a = shape.array
    facts = (
        f"{a.output_lanes} output lanes of {a.input_lanes} x {a.window} x {a.window} select units, "
        f"activations {shape.activation_bits} bits, sums {shape.sum_bits} bits, all signed; "
        f"ternary weights, loaded in {a.weight_load_cycles} cycles."
    )
    text = "\n".join(
        (
            header("Ternary engine.", (facts, *ABOUT, INTERFACE, RESET)),
            ONE_FILE,
            module_text(TOP, **dict(shape.settings)),
        )
    )
    return Design(top=TOP, text=text, dsp=False, settings=shape.settings)


def why_not(shape: EngineShape, layer: IntegerLayer) -> str | None:
    """Why the engine cannot run a layer, or None."""
    if layer.input_bits > shape.activation_bits:
        return f"{layer.input_bits}-bit activations on an engine of {shape.activation_bits} bits"
    if not layer.inputs.size or not layer.weights.size:
        return "an empty layer"
    conv = _signed_conv(layer)
    planes = digit_planes(conv)
    if planes > 1 << SHIFT_BITS:
        return f"{layer.weight_bits}-bit weights: more than {1 << SHIFT_BITS} digit planes"
    expected = exact_outputs(conv)
    needed = max(signed_bits(expected), signed_bits(expected - _biases(conv)[:, None, None]))
    if needed > shape.sum_bits:
        return f"sums of {needed} bits on an engine with {shape.sum_bits} bits for them"
    return None


def bench(shape: EngineShape, layer: IntegerLayer) -> Bench:
    """The engine with a test bench that runs a layer."""
    conv = _signed_conv(layer)
    blocks = tuple(Blocks(shape.array, conv, digit_planes(conv)).all())
    groups = [block for block in blocks if block.closes]
    results = sum(block.strip.rows * block.strip.columns for block in groups)
    columns = sum(len(block.columns) for block in blocks)
    load = shape.array.weight_load_cycles
    settings: dict[str, int | str] = {
        **dict(shape.settings),
        "ADDRESS_BITS": address_bits(columns, len(blocks) * load) + 1,
        "BLOCKS": len(blocks),
        "COLUMNS": columns,
        "GROUPS": len(groups),
        "RESULTS": results,
        "ACCUMULATORS": shape.array.accumulators,
        "COLUMN_STRIDE": conv.stride[1],
        "ZERO_POINT": conv.zero_point,
        "EXPECTED_CYCLES": predicted_cycles(_closed_form(shape), layer),
        "VERDICT": module_text("bench_verdict"),
    }
    memories = _memories(shape, conv, blocks) | {
        "blocks.hex": _block_words(shape, blocks, int(settings["ADDRESS_BITS"]))
    }
    return Bench(
        top=f"{TOP}_bench",
        sources={
            f"{TOP}.v": design(shape).text,
            f"{TOP}_bench.v": module_text(f"{TOP}_bench", **settings),
        },
        memories=memories,
    )


def _block_words(shape: EngineShape, blocks: Sequence[Block], bits: int) -> str:
    """Descriptors, fields from the lowest bits up as the top module lists them."""
    words, group = [], 0
    for block in blocks:
        strip = block.strip
        fields = (
            strip.rows * block.pitch,
            block.pitch,
            block.lead + block.width - shape.array.window,
            strip.columns,
            group,
            block.width,
        )
        word = sum(field % (1 << bits) << (place * bits) for place, field in enumerate(fields))
        flags = block.shift | block.opens << SHIFT_BITS | block.closes << (SHIFT_BITS + 1)
        words.append(word | flags << (len(fields) * bits))
        group += block.closes
    return hex_words(words, 6 * bits + SHIFT_BITS + 2)


def _memories(shape: EngineShape, conv: IntegerConv, blocks: Sequence[Block]) -> dict[str, str]:
    """Weights, columns, biases and expected results."""
    load = shape.array.weight_load_cycles
    unit_count = -(-shape.units // load) * load
    digits = [np.pad(b.digits.ravel(), (0, unit_count - shape.units)) for b in blocks]
    columns = np.concatenate([b.columns.reshape(len(b.columns), -1) for b in blocks])
    sums = exact_outputs(conv)
    biases, expected = [], []
    for block in blocks:
        if block.closes:
            strip = block.strip
            bias = _biases(conv)[block.outputs]
            area = np.s_[
                strip.row : strip.row + strip.rows, strip.column : strip.column + strip.columns
            ]
            found = sums[strip.image, block.outputs, *area].reshape(len(block.outputs), -1).T
            biases.append(_lanes(bias[None], shape))
            expected.append(_lanes(found, shape))
    return {
        "weights.hex": packed_words(np.stack(digits).reshape(len(blocks) * load, -1), 2),
        "columns.hex": packed_words(columns, shape.activation_bits),
        "biases.hex": packed_words(np.concatenate(biases), shape.sum_bits),
        "expected.hex": packed_words(np.concatenate(expected), shape.sum_bits),
    }


def _lanes(values: IntArray, shape: EngineShape) -> IntArray:
    """(words, busy lanes) with zeros for the idle lanes."""
    return np.pad(values, ((0, 0), (0, shape.array.output_lanes - values.shape[1])))


def _biases(conv: IntegerConv) -> IntArray:
    """Minus what the zero point adds to the sums of each output channel."""
    sums: IntArray = conv.weights.sum(axis=(1, 2, 3))
    return -conv.zero_point * sums


def _signed_conv(layer: IntegerLayer) -> IntegerConv:
    """A layer as a convolution of signed codes: unsigned ones are moved by half their range."""
    half = 0 if layer.input_signed else 1 << (layer.input_bits - 1)
    if isinstance(layer, IntegerProduct):
        layer = IntegerConv(
            inputs=layer.inputs.T[None, :, None, :],
            weights=layer.weights.T[:, :, None, None],
            zero_point=layer.zero_point,
            input_bits=layer.input_bits,
            weight_bits=layer.weight_bits,
        )
    return replace(
        layer, inputs=layer.inputs - half, zero_point=layer.zero_point - half, input_signed=True
    )


def _closed_form(shape: EngineShape) -> Parameters:
    """The cost model's numbers of an engine; those that do not change cycles are 1."""
    a = shape.array
    return Parameters(
        output_lanes=a.output_lanes,
        input_lanes=a.input_lanes,
        window=a.window,
        weight_load_cycles=a.weight_load_cycles,
        accumulators=a.accumulators,
        packs_rows=a.packs_rows,
        activation_buffer_bytes=1,
        weight_buffer_bytes=1,
        activation_bits=shape.activation_bits,
        accumulator_bits=shape.sum_bits,
        luts_per_select_bit=1,
        additions_per_dsp=1,
    )


def predicted_cycles(p: Parameters, layer: IntegerLayer) -> int:
    """The closed form."""
    return array_cycles(as_sweep(_operator(layer)), digit_planes(_signed_conv(layer)), p)


def _operator(layer: IntegerLayer) -> ConvWork | MatMulWork:
    """The counts of a layer."""
    if isinstance(layer, IntegerProduct):
        (rows, inner), columns = layer.inputs.shape, layer.weights.shape[1]
        return MatMulWork(count=1, rows=rows, inner=inner, columns=columns, constant=True)
    images, channels, in_height, in_width = layer.inputs.shape
    out_height, out_width = out_size(layer)
    return ConvWork(
        batch=images,
        in_channels=channels,
        out_channels=layer.weights.shape[0],
        in_height=in_height,
        in_width=in_width,
        out_height=out_height,
        out_width=out_width,
        kernel=(layer.weights.shape[2], layer.weights.shape[3]),
        stride=layer.stride,
        dilation=layer.dilation,
        pads=layer.pads,
        group=layer.group,
    )


def random_conv(shape: EngineShape, generator: np.random.Generator) -> IntegerConv:
    """A small ternary convolution whose channels do not fill the lanes evenly."""
    a = shape.array
    half = 1 << (shape.activation_bits - 1)
    kernel = int(generator.integers(1, a.window + 1))
    size = int(generator.integers(kernel, kernel + 6))
    channels = int(generator.integers(1, 2 * a.input_lanes + 1))
    outputs = int(generator.integers(1, 2 * a.output_lanes + 1))
    pad = kernel // 2
    return IntegerConv(
        inputs=generator.integers(-half, half, (1, channels, size, size + 1)),
        weights=generator.integers(-1, 2, (outputs, channels, kernel, kernel)),
        zero_point=int(generator.integers(-half, half)),
        stride=(1, int(generator.integers(1, 3))),
        pads=(pad, pad, pad, pad),
        input_bits=shape.activation_bits,
        weight_bits=2,
    )


@dataclass(frozen=True, slots=True)
class TernaryEngine:
    """The generator of the family ``ternary_engine``."""

    def design(self, target: Target) -> Design:
        """The target's engine with its control."""
        return design(shape_of(target))

    def why_not(self, target: Target, layer: IntegerLayer) -> str | None:
        """Why the engine cannot run a layer, or None."""
        return why_not(shape_of(target), layer)

    def bench(self, target: Target, layer: IntegerLayer) -> Bench:
        """The engine with a test bench that runs ``layer``."""
        return bench(shape_of(target), layer)

    def random_layer(self, target: Target, generator: np.random.Generator) -> IntegerLayer:
        """A small ternary convolution with edges."""
        return random_conv(shape_of(target), generator)

    def predicted_cycles(self, target: Target, layer: IntegerLayer) -> int:
        """What the closed form says about ``layer``."""
        return predicted_cycles(_parameters(target), layer)

    def predicted_resources(self, target: Target) -> Resources | None:
        """Look-up tables of the generated engine."""
        return ternary_resources(shape_of(target).counts)


RTL = TernaryEngine()
