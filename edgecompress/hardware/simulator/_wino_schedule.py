"""What a WinoCNN array is, and the loop bounds that its control picks for a layer, by search."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecompress.core.errors import Unsupported

LINE = 8  # channels and columns are padded to this in memory
BANK_ROWS = 8  # rows of the input banks; one or two address bits hold further sets of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class WinoArray:
    """The array and its memories.

    Attributes:
        omega: Side of a Winograd tile.
        kernels: Sides of the kernels that share the array.
        rows, columns: Output channels and tiles worked on together.
        channels: Input channels that an element sums in a cycle.
        images: Images worked on together.
        bank_words, bank_columns: Depth and number across of the input banks.
        weight_words, output_words: Depth of the weight and output buffers.
        weight_ports, input_ports, output_ports: Memory ports of each stream.
        port_bits: Of a word of a port.
        fill: Cycles until the first result of a pass leaves the pipeline.
        words_per_cycles: (words, cycles): so many words a port moves in so many cycles.
        weight_bits: Of the slot of a weight in memory.
    """

    omega: int
    kernels: tuple[int, ...] = (1, 3)
    rows: int
    columns: int
    channels: int
    images: int
    bank_words: int
    bank_columns: int
    weight_words: int
    output_words: int
    weight_ports: int
    input_ports: int
    output_ports: int
    port_bits: int = 128
    fill: int = 60
    words_per_cycles: tuple[int, int] = (1, 1)
    weight_bits: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A dense convolution, or the part of it that one call does; sizes of one image.

    Attributes:
        channels, outputs: Input and output channels.
        height, width: Of the input map.
        out_height, out_width: Of the results that are kept.
        kernel, stride, dilation: (vertical, horizontal).
        pad_top: Rows of padding above.
    """

    channels: int
    outputs: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad_top: int

    @property
    def span(self) -> tuple[int, int]:
        """Rows and columns under the kernel."""
        vertical, horizontal = (
            (side - 1) * apart + 1 for side, apart in zip(self.kernel, self.dilation, strict=True)
        )
        return vertical, horizontal


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Loop bounds of one call.

    Attributes:
        side: Of the sub-kernels.
        tile: Outputs a side of a tile.
        row_step: Output rows of a step, a multiple of ``tile``.
        tile_columns: Passes over the columns of a row of tiles.
        fi, fo: Input and output passes of a weight load.
        li, lo: Weight loads.
        line_rows: Input rows that the banks hold.
    """

    side: int
    tile: int
    row_step: int
    tile_columns: int
    fi: int
    fo: int
    li: int
    lo: int
    line_rows: int


def schedule(array: WinoArray, part: Geometry, side: int) -> Schedule:
    """The loop bounds that the control picks for a call.

    Raises:
        Unsupported: The buffers do not hold the call.
    """
    tile = array.omega + 1 - side
    columns = up(part.out_width * part.stride[1], tile * array.columns)
    inputs = up(up(part.channels, LINE) * LINE, array.channels)
    outputs = up(up(part.outputs, LINE) * LINE, array.rows)
    held = line_rows(array, part)
    last = up(part.out_height * part.stride[0], tile) * tile
    fi, fo = _passes(inputs, outputs, array.weight_words // 2)

    def fits(rows: int) -> bool:
        """Whether the rows under two steps and the results of one are held."""
        return 2 * rows + part.span[0] - 1 <= held and room(rows)

    def room(rows: int) -> bool:
        return rows // tile * columns * outputs <= array.output_words

    wanted = tile
    burst = up(array.omega**2 * array.channels, array.port_bits // 8)
    burst *= up(array.rows, array.weight_ports)
    while 4 * columns * (wanted // tile) < 5 * burst:
        wanted += tile
    if not fits(wanted):
        enough = room if part.height <= held else fits
        wanted = max((rows for rows in range(tile, last + 1, tile) if enough(rows)), default=0)
    if not wanted:
        raise Unsupported(f"the buffers do not hold a row of tiles of {part}")
    return Schedule(
        side=side,
        tile=tile,
        row_step=min(wanted, last),
        tile_columns=columns,
        fi=fi,
        fo=fo,
        li=inputs // fi,
        lo=outputs // fo,
        line_rows=held,
    )


def line_rows(array: WinoArray, part: Geometry) -> int:
    """Input rows that the banks hold: with two address bits, one, or none to spare for rows."""
    words = up(part.width, array.bank_columns) * up(part.channels, LINE) * LINE
    for sets in (4, 2):
        if words * sets <= array.bank_words:
            return sets * BANK_ROWS
    return 0


def _passes(inputs: int, outputs: int, capacity: int) -> tuple[int, int]:
    """Input and output passes of a load: the fullest load, of equal ones that with more outputs."""
    best = (1, 1)
    for fo in range(1, outputs + 1):
        if outputs % fo:
            continue
        for fi in range(1, min(inputs, capacity // fo) + 1):
            if inputs % fi == 0 and fi * fo >= best[0] * best[1]:
                best = (fi, fo)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a convolution is cut into calls of the same size.

    Attributes:
        part: Of each call.
        kernel_rows, columns, channels, outputs: Where the parts begin.
    """

    part: Geometry
    kernel_rows: tuple[int, ...]
    columns: tuple[int, ...]
    channels: tuple[int, ...]
    outputs: tuple[int, ...]


def cut(array: WinoArray, whole: Geometry, side: int) -> Cut:
    """The fewest calls that the buffers hold: kernel rows, columns, channels, then outputs."""
    tile = array.omega + 1 - side

    def held(part: Geometry) -> bool:
        return line_rows(array, part) >= min(part.height, 2 * tile + part.span[0] - 1)

    def room(part: Geometry) -> bool:
        across = up(part.out_width * part.stride[1], tile * array.columns)
        return across * up(LINE, array.rows) <= array.output_words

    part = _low_enough(whole, 4 * BANK_ROWS, tile)
    narrowest = max(1, tile * array.columns // part.stride[1])
    strips = [_strip(part, n) for n in range(1, up(part.out_width, narrowest) + 1)]
    strips = [strip for strip in strips if room(strip)]
    part = next((strip for strip in strips if held(strip)), strips[0])
    for sets in range(1, up(part.channels, LINE) + 1):
        fewer = replace(part, channels=up(whole.channels, sets))
        if held(fewer):
            break
    else:
        fewer = replace(part, channels=min(LINE, whole.channels))
    part = _few_enough(array, fewer, tile)
    return Cut(
        part=part,
        kernel_rows=tuple(range(0, whole.kernel[0], part.kernel[0])),
        columns=tuple(range(0, whole.out_width, part.out_width)),
        channels=tuple(range(0, whole.channels, part.channels)),
        outputs=tuple(range(0, whole.outputs, part.outputs)),
    )


def _low_enough(whole: Geometry, most_rows: int, tile: int) -> Geometry:
    """As many kernel rows as leave room for two steps of a row of tiles.

    Each part of a kernel gets the rows that it reaches over, with the padding written out.
    """
    for parts in range(1, whole.kernel[0] + 1):
        low = replace(whole, kernel=(up(whole.kernel[0], parts), whole.kernel[1]))
        if min(whole.height, 2 * tile + low.span[0] - 1) <= most_rows:
            if parts == 1:
                return whole
            under = whole.out_height * whole.stride[0] + low.span[0] - 1
            return replace(low, height=under, pad_top=0)
    raise Unsupported(f"the input buffer has no room for one row of the kernel of {whole}")


def _strip(whole: Geometry, strips: int) -> Geometry:
    """The widest of so many strips, with the columns that its kernels reach over."""
    if strips == 1:
        return whole
    out_width = up(whole.out_width, strips)
    under = out_width * whole.stride[1] + whole.span[1] - 1
    return replace(whole, out_width=out_width, width=min(whole.width, under))


def _few_enough(array: WinoArray, part: Geometry, tile: int) -> Geometry:
    """As many output channels as the output buffer holds for a row of tiles."""
    across = up(part.out_width * part.stride[1], tile * array.columns)
    unit = max(LINE, array.rows)
    if across * up(up(part.outputs, LINE) * LINE, array.rows) <= array.output_words:
        return part
    sets = 1
    while True:
        sets += 1
        outputs = up(up(part.outputs, sets), unit) * unit
        if outputs == unit or across * up(outputs, array.rows) <= array.output_words:
            return replace(part, outputs=outputs)


def up(amount: int, unit: int) -> int:
    """How many units cover an amount."""
    return -(-amount // unit)
