"""Loop bounds and cycles of the WinoCNN array for one call of its kernel.

A closed form of the published design: every loop has an initiation interval of one, so the loop
bounds are the cycles. All quantities are for one call on ``batch_images`` images.

Source: derived from the loop bounds of the published WinoCNN high-level-synthesis design
(github.com/xliu0709/WinoCNN); equal to its host software's layer descriptors on 250 layers
(tests/unit/data/winocnn_descriptors.csv).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from edgecompress.hardware.target import PositiveInt
from edgecompress.hardware.timeline import aligned, ratio_up

LINE_CHANNELS = 8  # channels and columns are padded to this in memory
ROWS_PER_ROUND = 4  # input rows that both input ports bring in one round
MARGIN = 5 / 4  # compute of a row step over its weight load that the host asks for


class Parameters(BaseModel):
    """The array and its memories.

    Attributes:
        omega_pixels: Side of a Winograd tile: output tile + kernel - 1.
        array_rows: Output channels worked on together.
        array_columns: Tiles worked on together.
        channels_per_element: Input channels that a processing element sums in a cycle.
        batch_images: Images worked on together.
        input_bank_words, input_bank_columns: Depth and number across of the input banks.
        weight_buffer_words, output_buffer_words: Depth of the weight and output buffers.
        weight_ports, input_ports, output_ports: Memory ports that carry each stream.
        port_bytes_per_cycle: Of one port.
        fill_cycles: Pipeline fill of one pass over a row step.
        bound_rows_by_output: Row steps never take more than the output buffer holds (the
            published host software does not check it for inputs that are held completely).
        dsp_blocks: Multiplier blocks of the whole design.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    omega_pixels: PositiveInt
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
    dsp_blocks: PositiveInt

    @property
    def multipliers(self) -> int:
        """Multiplications a cycle."""
        images = self.batch_images * self.array_rows * self.array_columns
        return self.omega_pixels**2 * self.channels_per_element * images


@dataclass(frozen=True, slots=True)
class Shape:
    """A convolution as the array sees it: one group, already split so that it fits.

    Attributes:
        in_height, in_width, out_height, out_width, in_channels, out_channels: Of one image.
        kernel_height, kernel_width: Any.
        stride_height, stride_width: Everything is computed at stride 1 and subsampled when it is
            written.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Loop bounds of one call.

    Attributes:
        tile_columns, tile_rows: Passes over the tiles of a row step.
        row_step: Output rows of a step.
        fi, fo: Input and output passes per weight load.
        li, lo: Weight loads over the input and the output channels.
        port_burst_words: Words per weight port and load.
        pe_cycles, weight_feed_cycles, input_feed_cycles: Of one pass over a row step; the weight
            feed is that of one load.
        input_row_words: Words of one input row.
        passes: Sub-kernels whose results are summed.
        kernel_rows: Of a sub-kernel, 3 or 1.
    """

    tile_columns: int
    tile_rows: int
    row_step: int
    fi: int
    fo: int
    li: int
    lo: int
    port_burst_words: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """One call: cycles by cause, each as if alone, and in all.

    Attributes:
        compute, load, store: Totals over all row steps; weights are on both kinds of port.
        fill: Pipeline fill, first load and last store.
        total: Of the call.
        weight_words, activation_words: Port words that are moved.
    """

    compute: float
    load: float
    store: float
    fill: float
    total: float
    weight_words: int
    activation_words: int


@lru_cache(maxsize=4096)
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


@lru_cache(maxsize=4096)
def describe(shape: Shape, kernel_rows: int, p: Parameters) -> Descriptor:
    """Loop bounds of a call in the mode whose sub-kernels are ``kernel_rows`` square (3 or 1)."""
    tile = p.omega_pixels + 1 - kernel_rows
    channels = aligned(shape.in_channels, LINE_CHANNELS)
    outputs = aligned(shape.out_channels, max(LINE_CHANNELS, p.array_rows))
    in_passes = channels // p.channels_per_element
    out_passes = outputs // p.array_rows
    columns = ratio_up(shape.out_width * shape.stride_width, tile * p.array_columns)
    fi, fo = channel_passes(in_passes, out_passes, p.weight_buffer_words // 2)
    li, lo = in_passes // fi, out_passes // fo
    step = _row_step(shape, kernel_rows, columns, out_passes, p)
    rows = step // tile
    tiles = rows * columns
    per_port = ratio_up(p.array_rows, p.weight_ports) * ratio_up(p.channels_per_element, 2)
    return Descriptor(
        tile_columns=columns,
        tile_rows=rows,
        row_step=step,
        fi=fi,
        fo=fo,
        li=li,
        lo=lo,
        port_burst_words=per_port * fi * fo,
        pe_cycles=lo * li * fi * tiles * max(fo, p.channels_per_element),
        weight_feed_cycles=fi * fo * tiles,
        input_feed_cycles=lo * li * fi * p.channels_per_element * tiles,
        input_row_words=channels * aligned(shape.in_width, LINE_CHANNELS) // LINE_CHANNELS,
        passes=ratio_up(shape.kernel_height, kernel_rows)
        * ratio_up(shape.kernel_width, kernel_rows),
        kernel_rows=kernel_rows,
    )


def _row_step(shape: Shape, kernel_rows: int, columns: int, out_passes: int, p: Parameters) -> int:
    """Output rows of a step, at least one row of tiles."""
    tile = p.omega_pixels + 1 - kernel_rows
    bursts = 5 * ratio_up(p.omega_pixels**2 * p.channels_per_element, 16)
    bursts *= ratio_up(p.array_rows, p.weight_ports)
    expected = tile * ratio_up(bursts, 4 * columns)
    capacity = row_capacity(shape.in_width, shape.in_channels, p)
    by_input = (capacity + 1 - kernel_rows) // 2 // tile * tile
    by_output = p.output_buffer_words // (out_passes * columns) * tile
    limit = min(by_input, by_output)
    if expected <= limit:
        return expected
    if shape.in_height <= capacity:
        whole = aligned(shape.out_height * shape.stride_height, p.omega_pixels)
        return max(tile, min(whole, by_output)) if p.bound_rows_by_output else whole
    return max(tile, limit)


def row_capacity(width: int, channels: int, p: Parameters) -> int:
    """Input rows that the input buffer holds: 32, 16, or 0 where a row is too large."""
    words = ratio_up(width, p.input_bank_columns) * aligned(channels, LINE_CHANNELS)
    if words <= p.input_bank_words // 4:
        return 32
    return 16 if words <= p.input_bank_words // 2 else 0


@lru_cache(maxsize=4096)
def call_cycles(shape: Shape, kernel_rows: int, p: Parameters, share: float) -> Cycles:
    """Cycles of one call; ``share`` is that of a port's cycles that move data.

    Rows of a step that its tiles do not cover are counted in a further step, so that no output
    is left out of the time.
    """
    d = describe(shape, kernel_rows, p)
    tile = p.omega_pixels + 1 - kernel_rows
    covered = min(d.row_step, d.tile_rows * tile)
    steps = ratio_up(shape.out_height * shape.stride_height, covered)
    feed = d.weight_loads * max(d.port_burst_words, d.weight_feed_cycles)
    busy = d.passes * max(d.pe_cycles, d.input_feed_cycles, feed)
    filling = d.passes * p.fill_cycles
    weights = d.passes * d.weight_loads * d.port_burst_words
    loaded = 2 * ratio_up(d.row_step, ROWS_PER_ROUND) * d.input_row_words
    out_row = aligned(shape.out_width, LINE_CHANNELS) * ratio_up(shape.out_channels, LINE_CHANNELS)
    stored = ratio_up(d.row_step, 2) * out_row
    first_rows = min(d.row_step + kernel_rows - 1, shape.in_height)
    first = 2 * ratio_up(first_rows, ROWS_PER_ROUND) * d.input_row_words
    ends = (first + d.port_burst_words + stored) / share
    longest = max(busy + filling, (loaded + weights) / share, (stored + weights) / share)
    return Cycles(
        compute=steps * busy,
        load=steps * (loaded + weights) / share,
        store=steps * (stored + weights) / share,
        fill=steps * filling + ends,
        total=ends + steps * longest,
        weight_words=p.weight_ports * (steps * weights + d.port_burst_words),
        activation_words=p.input_ports * (first + steps * loaded)
        + p.output_ports * (steps + 1) * stored,
    )


def _divisors(number: int) -> tuple[int, ...]:
    """All divisors of a positive number."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple({*small, *(number // d for d in small)})
