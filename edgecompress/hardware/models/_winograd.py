"""Loop bounds and cycles of the WinoCNN array for one call of its kernel.

A closed form of the published design: every loop has an initiation interval of one, so the loop
bounds are the cycles. All quantities are for one call on ``batch_images`` images.

Cycles of a call: `_winograd_published` as the published host software takes them,
`_winograd_machine` on a machine that keeps to its buffers.

Source: derived from the loop bounds of the published WinoCNN high-level-synthesis design
(github.com/xliu0709/WinoCNN); equal to its host software's layer descriptors on 250 layers
(tests/unit/data/winocnn_descriptors.csv).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecompress.hardware.target import PositiveInt, Share, Target
from edgecompress.hardware.timeline import aligned, ratio_up

LINE_CHANNELS = 8  # channels and columns are padded to this in memory
ACTIVATION_BITS = 8  # the published design has no other width
TRANSFORMED_INPUT_BITS = {4: 10, 6: 12, 8: 20}
"""By the side of a tile. Source: the published design, which is exact for 4 and cuts 15 bits to 12
for 6; arithmetic for 8: the largest row of B^T adds up to 50, twice."""
MARGIN = (5, 4)  # compute of a row step over its weight load that the host asks for


class Parameters(BaseModel):
    """The array and its memories.

    Attributes:
        omega_pixels: Side of a Winograd tile: output tile + kernel - 1.
        kernels: Sides of the kernels that share the array, ascending; other kernels are summed
            from these. Kernels of 1 bypass the transforms.
        array_rows: Output channels worked on together.
        array_columns: Tiles worked on together.
        channels_per_element: Input channels that a processing element sums in a cycle.
        batch_images: Images worked on together.
        input_bank_words, input_bank_columns: Depth and number across of the input banks.
        weight_buffer_words, output_buffer_words: Depth of the weight and output buffers.
        weight_ports, input_ports, output_ports: Memory ports that carry each stream.
        port_bytes_per_cycle: Of one port.
        fill_cycles: Pipeline fill of one pass over a row step.
        bound_rows_by_output: Row steps and transfers as the buffers allow them, what the simulator
            executes; else as the published host software takes them.
        transformed_weight_bits: Of a weight at the multiplier.
        accumulator_bits: Of a value in the output buffer.
        dsp_overhead_blocks: Multiplier blocks besides the array's (addresses); fitted.
        lut_per_multiplier: Look-up tables of the whole design per multiplier; fitted.
        bram18_share_of_formula: Block memories that synthesis needs over those of the formula;
            fitted.
        skips_zero_weights: Multiplications with transformed weights that are zero take no cycles.
        skipped_share: Share of those cycles that is saved; the rest is lost to uneven rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    omega_pixels: Literal[4, 6, 8]
    kernels: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (1, 3)
    array_rows: PositiveInt
    array_columns: PositiveInt
    channels_per_element: PositiveInt
    batch_images: PositiveInt
    input_bank_words: PositiveInt
    input_bank_columns: PositiveInt
    weight_buffer_words: PositiveInt
    output_buffer_words: PositiveInt
    weight_ports: PositiveInt
    input_ports: PositiveInt
    output_ports: PositiveInt
    port_bytes_per_cycle: PositiveInt
    fill_cycles: PositiveInt
    bound_rows_by_output: bool
    transformed_weight_bits: PositiveInt
    accumulator_bits: PositiveInt
    dsp_overhead_blocks: PositiveInt
    lut_per_multiplier: PositiveInt
    bram18_share_of_formula: Share
    skips_zero_weights: bool = False
    skipped_share: Share = 1.0

    @model_validator(mode="after")
    def _kernels_fit(self) -> Self:
        """Refuse kernels that are not ascending, lack 1 or do not fit in a tile."""
        if self.kernels[0] != 1 or sorted(set(self.kernels)) != list(self.kernels):
            raise ValueError(f"kernels are ascending and begin with 1, not {list(self.kernels)}")
        if self.kernels[-1] >= self.omega_pixels:
            raise ValueError(f"a kernel of {self.kernels[-1]} does not fit in the tiles")
        return self

    @property
    def multipliers(self) -> int:
        """Multiplications a cycle."""
        images = self.batch_images * self.array_rows * self.array_columns
        return self.omega_pixels**2 * self.channels_per_element * images

    @property
    def transformed_input_bits(self) -> int:
        """Of an input at the multiplier."""
        return TRANSFORMED_INPUT_BITS[self.omega_pixels]

    @property
    def dsp_blocks(self) -> int:
        """Multiplier blocks of the whole design, one a multiplier."""
        return self.multipliers + self.dsp_overhead_blocks

    @property
    def port_bits(self) -> int:
        """Of one word of a port."""
        return 8 * self.port_bytes_per_cycle


@dataclass(frozen=True, slots=True)
class WeightRate:
    """How weights come in.

    Attributes:
        slot_bits: Of a weight in the fixed layout of the published design.
        coded_bits: Of a weight in the mean of a coded stream; None for the fixed layout.
        decoder_weights_per_cycle: None if the decoder is never what is waited for.
        zero_shares: (kernel side, share) of transformed weights that are zero, where it is
            measured and made use of.
    """

    slot_bits: int = 7
    coded_bits: float | None = None
    decoder_weights_per_cycle: float | None = None
    zero_shares: tuple[tuple[int, float], ...] = ()

    def burst_words(self, weights: int, passes: int, kernel_rows: int, p: Parameters) -> int:
        """Words of each weight port for a load of ``passes`` x array weights of that kernel."""
        if self.coded_bits is not None:
            return max(1, ceil(weights * self.coded_bits / (p.weight_ports * p.port_bits)))
        slot = max(kernel_rows, min(3, p.kernels[-1]))
        kernel_bits = slot**2 * self.slot_bits
        together = p.port_bits // kernel_bits
        words = (
            ratio_up(p.channels_per_element, together)
            if together
            else p.channels_per_element * ratio_up(kernel_bits, p.port_bits)
        )
        return ratio_up(p.array_rows, p.weight_ports) * words * passes

    def decode_cycles(self, weights: int) -> int:
        """Cycles of the decoder for that many weights."""
        rate = self.decoder_weights_per_cycle
        return 0 if rate is None else ceil(weights / rate)

    def sweep_passes(self, fo: int, kernel_rows: int, p: Parameters) -> int:
        """Cycles that a tile is held for ``fo`` output passes, zeros left out."""
        zeros = dict(self.zero_shares).get(kernel_rows, 0.0) * p.skipped_share
        return max(ceil(fo * (1 - zeros)), p.channels_per_element)


FIXED = WeightRate()


@dataclass(frozen=True, slots=True)
class Shape:
    """A convolution as the array sees it: one group, already split so that it fits.

    Attributes:
        in_height, in_width, out_height, out_width, in_channels, out_channels: Of one image.
        kernel_height, kernel_width: Any.
        stride_height, stride_width: Everything is computed at stride 1 and subsampled when it is
            written.
        pad_top: Rows of padding above.
        dilation_height, dilation_width: Distance of the taps.
    """

    in_height: int
    in_width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    pad_top: int = 0
    dilation_height: int = 1
    dilation_width: int = 1

    @property
    def span_height(self) -> int:
        """Input rows under the kernel."""
        return (self.kernel_height - 1) * self.dilation_height + 1

    @property
    def span_width(self) -> int:
        """Input columns under the kernel."""
        return (self.kernel_width - 1) * self.dilation_width + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Loop bounds of one call.

    Attributes:
        tile_columns, tile_rows: Passes over the tiles of a row step.
        row_step: Output rows of a step.
        fi, fo: Input and output passes per weight load.
        li, lo: Weight loads over the input and the output channels.
        port_burst_words: Words per weight port and load.
        decode_cycles: Of the weight decoder per load.
        pe_cycles, weight_feed_cycles, input_feed_cycles: Of one pass over a row step; the weight
            feed is that of one load.
        input_row_words: Words of one input row.
        passes: Sub-kernels whose results are summed.
        kernel_rows: Side of a sub-kernel, one of ``kernels``.
    """

    tile_columns: int
    tile_rows: int
    row_step: int
    fi: int
    fo: int
    li: int
    lo: int
    port_burst_words: int
    decode_cycles: int
    pe_cycles: int
    weight_feed_cycles: int
    input_feed_cycles: int
    input_row_words: int
    passes: int
    kernel_rows: int

    @property
    def weight_loads(self) -> int:
        """Weight loads of a pass over a row step."""
        return self.li * self.lo


@lru_cache(maxsize=16384)
def channel_passes(inputs: int, outputs: int, capacity: int) -> tuple[int, int]:
    """(fi, fo): divisors of both with the largest product that the weight buffer holds.

    Of equal products the one with more output channels is taken.
    """
    pairs = (
        (fi * fo, fo, fi)
        for fi in _divisors(inputs)
        for fo in _divisors(outputs)
        if fi * fo <= capacity
    )
    _, fo, fi = max(pairs)
    return fi, fo


@lru_cache(maxsize=16384)
def describe(shape: Shape, kernel_rows: int, p: Parameters, rate: WeightRate = FIXED) -> Descriptor:
    """Loop bounds of a call in the mode whose sub-kernels are ``kernel_rows`` square."""
    tile = p.omega_pixels + 1 - kernel_rows
    channels = aligned(shape.in_channels, LINE_CHANNELS)
    in_passes = ratio_up(channels, p.channels_per_element)
    out_passes = ratio_up(aligned(shape.out_channels, LINE_CHANNELS), p.array_rows)
    columns = ratio_up(shape.out_width * shape.stride_width, tile * p.array_columns)
    fi, fo = channel_passes(in_passes, out_passes, p.weight_buffer_words // 2)
    li, lo = in_passes // fi, out_passes // fo
    step = _row_step(shape, kernel_rows, columns, out_passes, p)
    rows = step // tile
    tiles = rows * columns
    weights = fi * fo * p.channels_per_element * p.array_rows * kernel_rows**2
    row_bits = channels * aligned(shape.in_width, LINE_CHANNELS) * p.batch_images * ACTIVATION_BITS
    return Descriptor(
        tile_columns=columns,
        tile_rows=rows,
        row_step=step,
        fi=fi,
        fo=fo,
        li=li,
        lo=lo,
        port_burst_words=rate.burst_words(weights, fi * fo, kernel_rows, p),
        decode_cycles=rate.decode_cycles(weights),
        pe_cycles=lo * li * fi * tiles * rate.sweep_passes(fo, kernel_rows, p),
        weight_feed_cycles=fi * fo * tiles,
        input_feed_cycles=lo * li * fi * p.channels_per_element * tiles,
        input_row_words=ratio_up(row_bits, p.port_bits),
        passes=ratio_up(shape.kernel_height, kernel_rows)
        * ratio_up(shape.kernel_width, kernel_rows),
        kernel_rows=kernel_rows,
    )


def output_row_words(shape: Shape, p: Parameters) -> int:
    """Words of one output row on one port."""
    pixels = aligned(shape.out_width, LINE_CHANNELS) * aligned(shape.out_channels, LINE_CHANNELS)
    return ratio_up(pixels * p.batch_images * ACTIVATION_BITS, p.port_bits)


def _row_step(shape: Shape, kernel_rows: int, columns: int, out_passes: int, p: Parameters) -> int:
    """Output rows of a step, at least one row of tiles."""
    tile = p.omega_pixels + 1 - kernel_rows
    bursts = MARGIN[0] * ratio_up(
        p.omega_pixels**2 * p.channels_per_element, p.port_bytes_per_cycle
    )
    bursts *= ratio_up(p.array_rows, p.weight_ports)
    expected = tile * ratio_up(bursts, MARGIN[1] * columns)
    capacity = row_capacity(shape.in_width, shape.in_channels, p)
    by_output = p.output_buffer_words // (out_passes * columns) * tile
    if p.bound_rows_by_output:
        whole = aligned(shape.out_height * shape.stride_height, tile)
        by_input = (capacity + 1 - shape.span_height) // 2 // tile * tile
        if expected <= min(by_input, by_output):
            return min(expected, whole)
        held = shape.in_height <= capacity
        return max(tile, min(whole, by_output if held else min(by_input, by_output)))
    by_input = (capacity + 1 - kernel_rows) // 2 // tile * tile
    limit = min(by_input, by_output)
    if expected <= limit:
        return expected
    if shape.in_height <= capacity:
        return aligned(shape.out_height * shape.stride_height, p.omega_pixels)
    return max(tile, limit)


def port_share(target: Target, p: Parameters) -> float:
    """Share of a port's cycles that move data: what the memory gives, split evenly on the ports.

    Weights come on the ports of inputs and outputs.
    """
    ports = (p.input_ports + p.output_ports) * p.port_bytes_per_cycle
    peak = target.dram_bytes_per_s / target.clock_hz
    return target.dram_efficiency_share * min(1.0, peak / ports)


def row_capacity(width: int, channels: int, p: Parameters) -> int:
    """Input rows that the input buffer holds: 32, 16, or 0 where a row is too large."""
    words = ratio_up(width, p.input_bank_columns) * aligned(channels, LINE_CHANNELS)
    if words <= p.input_bank_words // 4:
        return 32
    return 16 if words <= p.input_bank_words // 2 else 0


def _divisors(number: int) -> tuple[int, ...]:
    """All divisors of a positive number."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple({*small, *(number // d for d in small)})
