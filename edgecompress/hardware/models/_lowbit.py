"""What the low-bit arrays share: matrix products, traffic, and the overlap of memory and array.

The array's own cycles come from each family. Around them an operator is cut into tiles of
`TILE_PIXELS` output pixels by `TILE_CHANNELS` output channels, whatever the widths and the size of
the array, so that neither fewer bits nor more units can make the overlap worse. The first tile
needs its pixels with the rows under the kernel, and the weights of its channels; what is left to
load, the array's cycles and the stores are spread evenly over the tiles and played through double
buffers on one shared port.

Source: arithmetic; the size of a tile is assumed (1024 sums).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, Work
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import (
    Played,
    Tile,
    Timeline,
    as_cost,
    play,
    ratio_up,
    stored_width,
)
from edgecompress.hardware.weight_stream import WeightTraffic, weight_traffic

TILE_PIXELS = 64
TILE_CHANNELS = 16

GROUPED = "grouped convolution: group after group, each alone on the array"
UPSAMPLED = "transposed convolution: one product per input pixel, overlaps added on the way out"
ACTIVATIONS = "product of two activations: one is loaded like weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """``count`` matrix products (rows x inner) (inner x columns), one after the other.

    Attributes:
        taps: Kernel positions in ``inner``; each has ``inner / taps`` channels.
        assumed: What the product form assumes; empty when exact.
    """

    count: int
    rows: int
    inner: int
    columns: int
    taps: int = 1
    assumed: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.count * self.rows * self.inner * self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayWork:
    """What the array of a family takes for an operator.

    Attributes:
        cycles: Of the array.
        macs_per_cycle: That it can do at these widths.
        operand_bytes: Read from and written to on-chip buffers by the array.
        activation_buffer_bytes, weight_buffer_bytes: One half of each double buffer.
        multiplications: As in `Timeline`.
    """

    cycles: float
    macs_per_cycle: float
    operand_bytes: float
    activation_buffer_bytes: int
    weight_buffer_bytes: int
    multiplications: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traffic:
    """Tensors over the port, each once, and how they are cut.

    Attributes:
        input_bytes, output_bytes: Over the port; 0 for a tensor that stays on chip.
        held_bytes: The input of one product or group, wherever it comes from.
        sets: Weights that follow each other; ``repeats`` of the products use each.
        pixel_tiles, channel_tiles: Of the whole operator, and of the output channels.
        first_input_share, first_weight_share: What the first tile needs.
    """

    input_bytes: float
    output_bytes: float
    held_bytes: float
    weights: WeightTraffic
    sets: int
    repeats: int
    pixel_tiles: int
    channel_tiles: int
    first_input_share: float
    first_weight_share: float


def operand_widths(work: Work, target: Target) -> tuple[int, int]:
    """Bits of an activation and of a weight in the array; of two activations both are the same."""
    operator = work.operator
    if isinstance(operator, ElementWork):
        raise TypeError("element-wise work does not run on the array")
    activation = stored_width(operator.activation_bits, target)
    if isinstance(operator, MatMulWork) and not operator.constant:
        return activation, activation
    return activation, min(operator.weight_bits, target.weight_stream.weight_bits)


def as_products(work: Work) -> Products:
    """An operator as matrix products, with the windows of a convolution gathered on the fly."""
    match work.operator:
        case ConvWork() as conv:
            taps = conv.kernel[0] * conv.kernel[1]
            inputs, outputs = conv.in_channels // conv.group, conv.out_channels // conv.group
            assumed = "; ".join(
                text
                for text, holds in ((GROUPED, conv.group > 1), (UPSAMPLED, conv.transposed))
                if holds
            )
            if conv.transposed:
                pixels = conv.batch * conv.in_height * conv.in_width
                return Products(
                    count=conv.group,
                    rows=pixels,
                    inner=inputs,
                    columns=outputs * taps,
                    assumed=assumed,
                )
            return Products(
                count=conv.group,
                rows=conv.batch * conv.out_height * conv.out_width,
                inner=inputs * taps,
                columns=outputs,
                taps=taps,
                assumed=assumed,
            )
        case MatMulWork() as product:
            return Products(
                count=product.count,
                rows=product.rows,
                inner=product.inner,
                columns=product.columns,
                assumed="" if product.constant else ACTIVATIONS,
            )
        case ElementWork():
            raise TypeError("element-wise work does not run on the array")


def price(work: Work, target: Target, array: ArrayWork, *assumed: str) -> Cost:
    """Time of an operator whose array cycles are known; the cheaper order of reloading is taken."""
    traffic = _traffic(work, target)
    played, input_reads, weight_reads = min(
        (
            (_played(traffic, array, target, inputs, weights), inputs, weights)
            for inputs, weights in _reloads(traffic, array)
        ),
        key=lambda found: found[0].total,
    )
    input_bytes = traffic.input_bytes * input_reads
    weight_bytes = traffic.weights.byte_count * weight_reads
    moved = input_bytes + weight_bytes + traffic.output_bytes
    per_byte = 1 / target.dram_bytes_per_cycle
    weight_set = traffic.weights.byte_count / traffic.sets
    tiles = traffic.pixel_tiles * traffic.channel_tiles
    timeline = Timeline(
        compute=array.cycles,
        load=(input_bytes + weight_bytes) * per_byte,
        store=traffic.output_bytes * per_byte,
        decode=traffic.weights.decode_cycles * weight_reads,
        fill=played.fill,
        total=played.total,
        macs_per_cycle=array.macs_per_cycle,
        weight_bytes=weight_bytes,
        activation_bytes=input_bytes + traffic.output_bytes,
        on_chip_bytes=min(traffic.held_bytes, 2 * array.activation_buffer_bytes)
        + min(weight_set, 2 * array.weight_buffer_bytes)
        + 2 * _output_bytes(work, target) / tiles,
        buffer_bytes=array.operand_bytes + moved,
        multiplications=array.multiplications,
    )
    return as_cost(work, target, timeline, traffic.weights.assumed, *assumed)


def bound_cycles(work: Work, target: Target, macs_per_cycle: float) -> float:
    """Every multiply-accumulate once, or every tensor once."""
    if isinstance(work.operator, ElementWork):
        return 0.0
    traffic = _traffic(work, target)
    moved = traffic.input_bytes + traffic.weights.byte_count + traffic.output_bytes
    return max(work.operator.macs / macs_per_cycle, moved / target.dram_bytes_per_cycle)


def _reloads(traffic: _Traffic, array: ArrayWork) -> Iterator[tuple[int, int]]:
    """How often input and weights are read, in each of the orders that the buffers allow.

    Either the input is read again for every part of the weights that the weight buffer holds, or
    the weights for every part of the input that the activation buffer holds.
    """
    weight_set = traffic.weights.byte_count / traffic.sets
    weight_parts = max(1, int(-(-weight_set // array.weight_buffer_bytes)))
    input_parts = max(1, int(-(-traffic.held_bytes // array.activation_buffer_bytes)))
    steps = traffic.repeats if weight_parts > 1 else 1
    if weight_parts == 1 or input_parts == 1:
        yield 1, steps
        return
    yield weight_parts, steps
    yield 1, input_parts * steps


def _played(
    traffic: _Traffic, array: ArrayWork, target: Target, input_reads: int, weight_reads: int
) -> Played:
    """The tiles through double buffers."""
    per_byte = 1 / target.dram_bytes_per_cycle
    tiles = traffic.pixel_tiles * traffic.channel_tiles
    weights, weight_share = traffic.weights, traffic.first_weight_share
    first_load = (
        traffic.input_bytes * traffic.first_input_share + weights.byte_count * weight_share
    ) * per_byte
    load = (traffic.input_bytes * input_reads + weights.byte_count * weight_reads) * per_byte
    decode = weights.decode_cycles * weight_reads
    first_decode = weights.decode_cycles * weight_share
    compute, store = array.cycles / tiles, traffic.output_bytes * per_byte / tiles
    if tiles == 1:
        return play([(1, Tile(load, compute, store, decode))], shared_port=True)
    rest = Tile(
        max(0.0, load - first_load) / (tiles - 1),
        compute,
        store,
        max(0.0, decode - first_decode) / (tiles - 1),
    )
    first = Tile(first_load, compute, store, first_decode)
    return play([(1, first), (tiles - 1, rest)], shared_port=True)


def _output_bytes(work: Work, target: Target) -> float:
    """All results, wherever they go."""
    match work.operator:
        case ConvWork() as conv:
            values = conv.batch * conv.out_channels * conv.out_height * conv.out_width
        case MatMulWork() as product:
            values = product.count * product.rows * product.columns
        case ElementWork():
            raise TypeError("element-wise work does not run on the array")
    return values * stored_width(work.operator.activation_bits, target) / 8


def _traffic(work: Work, target: Target) -> _Traffic:
    """Tensors of an operator and how they are cut into tiles."""
    operator = work.operator
    if isinstance(operator, ElementWork):
        raise TypeError("element-wise work does not run on the array")
    width = stored_width(operator.activation_bits, target) / 8
    outputs = 0.0 if operator.output_on_chip else _output_bytes(work, target)
    match operator:
        case ConvWork() as conv:
            pixels = ratio_up(conv.out_height * conv.out_width, TILE_PIXELS)
            inputs = conv.batch * conv.in_channels * conv.in_height * conv.in_width * width
            under = (conv.kernel[0] - 1) * conv.dilation[0] / conv.in_height
            channel_tiles = conv.group * ratio_up(conv.out_channels // conv.group, TILE_CHANNELS)
            return _Traffic(
                input_bytes=0.0 if conv.input_on_chip else inputs,
                output_bytes=outputs,
                held_bytes=inputs / conv.group,
                weights=weight_traffic(work, target),
                sets=conv.group,
                repeats=1,
                pixel_tiles=conv.batch * pixels,
                channel_tiles=channel_tiles,
                first_input_share=min(1.0, 1 / pixels + under) / (conv.batch * conv.group),
                first_weight_share=1 / channel_tiles,
            )
        case MatMulWork() as product:
            pixels = product.count * ratio_up(product.rows, TILE_PIXELS)
            inputs = product.count * product.rows * product.inner * width
            sets, channel_tiles = (
                product.count // product.repeats,
                ratio_up(product.columns, TILE_CHANNELS),
            )
            return _Traffic(
                input_bytes=0.0 if product.input_on_chip else inputs,
                output_bytes=outputs,
                held_bytes=inputs / product.count,
                weights=weight_traffic(work, target),
                sets=sets,
                repeats=product.repeats,
                pixel_tiles=pixels,
                channel_tiles=channel_tiles,
                first_input_share=1 / pixels,
                first_weight_share=1 / (sets * channel_tiles),
            )
