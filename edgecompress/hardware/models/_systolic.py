"""What the systolic families share: operators as matrix products, and the family itself.

A convolution is a matrix product of (pixels x kernel taps) with (kernel taps x output channels),
with the input gathered on the fly, so that overlapping windows are not loaded twice.

A larger array is not always faster: what is held moves in, and sums move out, through all its rows
and columns, whether a layer fills them or not. A product of 1 x 3 x 3 takes a weight-stationary
array of 32 x 32 95 cycles, one of 64 x 64 191; the simulator and the hardware count the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, Work
from edgecompress.hardware.array_resources import SystolicCounts, systolic_resources
from edgecompress.hardware.families import Batch
from edgecompress.hardware.models._systolic_mappings import Array, Dataflow, Product, Window
from edgecompress.hardware.models._systolic_tiles import Mapped, best_mapping
from edgecompress.hardware.resources import Resources, bram18_blocks
from edgecompress.hardware.target import PositiveInt, Target
from edgecompress.hardware.timeline import HostElements, Timeline, as_cost, stored_width
from edgecompress.hardware.weight_stream import weight_traffic

GROUPED = "grouped convolution: group after group, each alone on the array"
UPSAMPLED = "transposed convolution: one product per input pixel, overlaps added on the way out"
ACTIVATIONS = "product of two activations: one is loaded like weights"
OVERFULL = "the buffers do not hold the operands of one fold: taken as if they did"


class Parameters(BaseModel):
    """A systolic array behind one memory port.

    Attributes:
        array_rows, array_columns: Processing elements; one multiply-accumulate each a cycle.
        activation_buffer_bytes, weight_buffer_bytes: On-chip memories, one half of each. The first
            holds what enters and what leaves.
        accumulator_words: Sums of 32 bits below each column that an array with held weights or
            inputs can keep while the products of all taps are added up; it streams as many
            operands at most before it holds something else. Sums never leave before they are
            complete. Not used where the sums stay in the elements.
        accumulator_bits: Width of a sum in the elements.
        multiplier: Where the products are formed: ``dsp`` blocks or look-up tables (``lut``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    array_rows: PositiveInt
    array_columns: PositiveInt
    activation_buffer_bytes: PositiveInt
    weight_buffer_bytes: PositiveInt
    accumulator_words: PositiveInt
    accumulator_bits: PositiveInt = 32
    multiplier: Literal["dsp", "lut"] = "dsp"


@dataclass(frozen=True, slots=True)
class Operands:
    """An operator as products, with what that assumes."""

    product: Product
    assumed: tuple[str, ...] = ()


def parameters_of(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a systolic target")
    return target.parameters


def why_sums_are_narrow(target: Target) -> str | None:
    """Why the sums of a systolic target do not hold one product, or None if they do."""
    activation, weight = target.activation_bits or 8, target.weight_stream.weight_bits
    bits = parameters_of(target).accumulator_bits
    if bits >= activation + weight:
        return None
    return (
        f"sums of {bits} bits (accumulator_bits) do not hold a product of {activation} and "
        f"{weight} bits"
    )


def _bank_blocks(byte_count: int, banks: int, bits: int) -> int:
    """Block memories of one half of a buffer, in banks of one operand a word."""
    return banks * bram18_blocks(-(-8 * byte_count // (banks * bits)), bits)


def as_product(work: Work, target: Target) -> Operands:
    """The matrix products of an operator, and their traffic."""
    match work.operator:
        case ConvWork() as conv:
            return _conv_product(work, conv, target)
        case MatMulWork() as product:
            return _plain_product(work, product, target)
        case ElementWork():
            raise TypeError("element-wise work does not run on the array")


def _plain_product(work: Work, product: MatMulWork, target: Target) -> Operands:
    width = stored_width(product.activation_bits, target) / 8
    weights = weight_traffic(work, target)
    inputs = product.count * product.rows * product.inner * width
    outputs = product.count * product.rows * product.columns * width
    held = target.weight_stream.weight_bits / 8 if product.constant else width
    return Operands(
        Product(
            count=product.count,
            rows=product.rows,
            inner=product.inner,
            columns=product.columns,
            image_rows=product.rows,
            input_bytes=0.0 if product.input_on_chip else inputs,
            weight_bytes=weights.byte_count,
            output_bytes=0.0 if product.output_on_chip else outputs,
            decode_cycles=weights.decode_cycles,
            input_width=0.0 if product.input_on_chip else width,
            weight_width=held,
            output_width=0.0 if product.output_on_chip else width,
            activation_width=width,
            repeats=product.repeats,
        ),
        ((weights.assumed,) if product.constant else (ACTIVATIONS,)),
    )


def _conv_product(work: Work, conv: ConvWork, target: Target) -> Operands:
    """A convolution as one product per group."""
    width = stored_width(conv.activation_bits, target) / 8
    taps = conv.kernel[0] * conv.kernel[1]
    inputs, outputs = conv.in_channels // conv.group, conv.out_channels // conv.group
    in_pixels = conv.batch * conv.in_height * conv.in_width
    out_pixels = conv.batch * conv.out_height * conv.out_width
    weights = weight_traffic(work, target)
    rows = in_pixels if conv.transposed else out_pixels
    assumed = ((GROUPED,) if conv.group > 1 else ()) + ((UPSAMPLED,) if conv.transposed else ())
    return Operands(
        Product(
            count=conv.group,
            rows=rows,
            inner=inputs if conv.transposed else inputs * taps,
            columns=outputs * taps if conv.transposed else outputs,
            image_rows=rows // conv.batch,
            input_bytes=0.0 if conv.input_on_chip else in_pixels * conv.in_channels * width,
            weight_bytes=weights.byte_count,
            output_bytes=0.0 if conv.output_on_chip else out_pixels * conv.out_channels * width,
            decode_cycles=weights.decode_cycles,
            input_width=0.0 if conv.input_on_chip else width,
            weight_width=target.weight_stream.weight_bits / 8,
            output_width=0.0 if conv.output_on_chip else width,
            activation_width=width,
            window=None if conv.transposed else _window(conv, inputs),
        ),
        (*assumed, weights.assumed),
    )


def _window(conv: ConvWork, channels: int) -> Window:
    return Window(
        channels=channels,
        in_height=conv.in_height,
        in_width=conv.in_width,
        out_height=conv.out_height,
        out_width=conv.out_width,
        stride=conv.stride,
        reach=(
            (conv.kernel[0] - 1) * conv.dilation[0] + 1,
            (conv.kernel[1] - 1) * conv.dilation[1] + 1,
        ),
    )


class Systolic(HostElements):
    """The cost model of an array with one dataflow.

    Args:
        dataflow: What stays in the elements, and the cycles of a product.
    """

    parameters = Parameters

    def __init__(self, dataflow: Dataflow) -> None:
        self.dataflow = dataflow

    def mapped(self, work: Work, target: Target) -> Mapped:
        """How an operator is cut into tiles: the fastest of the ways that are tried.

        The ways do not depend on rates, so more bandwidth, clock or decoder is never slower.
        """
        return self._mapped(as_product(work, target), target)

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator: tiles through double buffers, one port for both directions."""
        operands = as_product(work, target)
        found = self._mapped(operands, target)
        p = parameters_of(target)
        timeline = Timeline(
            compute=found.compute,
            load=found.load,
            store=found.store,
            decode=found.decode,
            fill=found.fill,
            total=found.total,
            macs_per_cycle=p.array_rows * p.array_columns,
            weight_bytes=found.weight_bytes,
            activation_bytes=found.activation_bytes,
            on_chip_bytes=found.on_chip_bytes,
            buffer_bytes=found.buffer_bytes,
        )
        overfull = "" if found.fits else OVERFULL
        return as_cost(work, target, timeline, *operands.assumed, overfull)

    def _mapped(self, operands: Operands, target: Target) -> Mapped:
        p, product = parameters_of(target), operands.product
        room = p.activation_buffer_bytes
        if not (product.input_width and product.output_width):
            room -= self.chain_bytes(target) // 2  # of the two halves together
        array = Array(
            height=p.array_rows,
            width=p.array_columns,
            depth=p.accumulator_words,
            activation_bytes=room,
            weight_bytes=p.weight_buffer_bytes,
        )
        return best_mapping(product, array, self.dataflow, target.dram_bytes_per_cycle)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Every multiply-accumulate once, or every tensor once."""
        p = parameters_of(target)
        product = as_product(work, target).product
        moved = product.input_bytes + product.weight_bytes + product.output_bytes
        macs = product.count * product.rows * product.inner * product.columns
        return max(macs / (p.array_rows * p.array_columns), moved / target.dram_bytes_per_cycle)

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources | None:
        """The array as ``rtl`` generates it, and its memories; no bus or host interface.

        Both halves of the buffers are banks that each row or column of the array reads alone. The
        array that holds inputs is the one that holds weights with the operands exchanged.
        """
        p = parameters_of(target)
        activation, weight = target.activation_bits or 8, target.weight_stream.weight_bits
        held, moved = (
            (activation, weight) if self.dataflow.held == "inputs" else (weight, activation)
        )
        array = systolic_resources(
            SystolicCounts(
                rows=p.array_rows,
                columns=p.array_columns,
                moved_bits=moved,
                held_bits=held,
                sum_bits=p.accumulator_bits,
                dsp=p.multiplier == "dsp",
            ),
            sums_stay=self.dataflow.held == "sums",
        )
        bram18 = 2 * _bank_blocks(p.activation_buffer_bytes, p.array_rows, activation)
        bram18 += 2 * _bank_blocks(p.weight_buffer_bytes, p.array_columns, weight)
        if self.dataflow.held != "sums":
            bram18 += p.array_columns * bram18_blocks(p.accumulator_words, p.accumulator_bits)
        return Resources(dsp=array.dsp, bram18=bram18, lut=array.lut)

    def batch(self, targets: Sequence[Target]) -> Batch | None:
        """Arrays side by side, for explorations."""
        from edgecompress.hardware.models._systolic_batch import SystolicBatch

        return SystolicBatch(self.dataflow, targets)

    def chain_bytes(self, target: Target) -> int:
        """One half of the activation buffer."""
        return parameters_of(target).activation_buffer_bytes // 2
