"""How a convolution is cut until each call fits in the buffers of a WinoCNN array.

In this order: the rows of a kernel that is taller than the line buffer allows, columns of the
feature map, input channels, output channels. The host software of the published design only
repeats a call over sets of output channels; the other cuts are ours, and flagged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from edgecompress.hardware.models._winograd import (
    LINE_CHANNELS,
    Parameters,
    Shape,
    describe,
    row_capacity,
)
from edgecompress.hardware.timeline import aligned, ratio_up

STRIPS = "feature map wider than the input buffer: split in strips"
PARTIAL = "more input channels than the input buffer holds: partial sums are added outside"
TOO_SMALL = "the buffers do not hold a row of tiles: what goes beyond them is not counted"
TALL = "kernel taller than the input buffer allows: parts of it are summed outside"
MOST_ROWS = 32  # of the input buffer: eight banks of rows, two address bits


@dataclass(frozen=True, slots=True)
class Split:
    """Equal calls that make up one convolution.

    Attributes:
        shape: Of the largest; the others are taken to be as large.
        count: Calls.
        held: The buffers hold each call.
        assumed: What the cuts assume.
    """

    shape: Shape
    count: int
    held: bool
    assumed: tuple[str, ...] = ()


@lru_cache(maxsize=16384)
def split(shape: Shape, kernel_rows: int, p: Parameters) -> Split:
    """The calls of a convolution in the mode whose sub-kernels are ``kernel_rows`` square."""
    tile = p.omega_pixels + 1 - kernel_rows
    assumed = []
    part, tall = _kernel_parts(shape, tile, p)
    if tall > 1:
        assumed.append(TALL)
    part, strips = _strips(part, tile, p)
    if strips > 1:
        assumed.append(STRIPS)
    part, sets = _channel_parts(part, tile, p)
    if sets > 1:
        assumed.append(PARTIAL)
    part, repeats = _output_parts(part, kernel_rows, p)
    held = _fits(part, tile, p) and _results_fit(part, tile, p)
    if not held:
        assumed.append(TOO_SMALL)
    return Split(part, tall * strips * sets * repeats, held, tuple(assumed))


def _fits(shape: Shape, tile: int, p: Parameters) -> bool:
    """Whether the input buffer holds a row of tiles and what the next one lacks."""
    rows = row_capacity(shape.in_width, shape.in_channels, p)
    if not p.bound_rows_by_output:
        return rows > 0
    return rows >= min(shape.in_height, 2 * tile + shape.span_height - 1)


def _kernel_parts(shape: Shape, tile: int, p: Parameters) -> tuple[Shape, int]:
    """Sets of kernel rows that the input buffer has the height for.

    Each gets the rows that it reaches over, with the padding written out.
    """
    most = MOST_ROWS + 1 - 2 * tile
    tall = min(shape.in_height, shape.span_height + 2 * tile - 1) > MOST_ROWS
    if not p.bound_rows_by_output or not tall:
        return shape, 1
    rows = max(1, (most - 1) // shape.dilation_height + 1)
    parts = ratio_up(shape.kernel_height, rows)
    part = replace(shape, kernel_height=ratio_up(shape.kernel_height, parts), pad_top=0)
    under = shape.out_height * shape.stride_height + part.span_height - 1
    return replace(part, in_height=under), ratio_up(shape.kernel_height, part.kernel_height)


def _strips(shape: Shape, tile: int, p: Parameters) -> tuple[Shape, int]:
    """Vertical strips narrow enough for the buffers, as long as each fills the array.

    If none is narrow enough for the input buffer, those that the output buffer asks for.
    """
    narrowest = max(1, tile * p.array_columns // shape.stride_width)
    widest: Shape | None = None
    for strips in range(1, ratio_up(shape.out_width, narrowest) + 1):
        out_width = ratio_up(shape.out_width, strips)
        under = out_width * shape.stride_width + shape.span_width - 1
        part = replace(shape, in_width=min(shape.in_width, under), out_width=out_width)
        part = shape if strips == 1 else part
        if _row_fits(part, tile, p):
            if _fits(part, tile, p):
                return part, ratio_up(shape.out_width, out_width)
            widest = widest or part
    found = widest or shape
    return found, ratio_up(shape.out_width, found.out_width)


def _row_fits(shape: Shape, tile: int, p: Parameters) -> bool:
    """Whether the output buffer holds a row of tiles of as few output channels as a call takes."""
    columns = ratio_up(shape.out_width * shape.stride_width, tile * p.array_columns)
    return columns * ratio_up(LINE_CHANNELS, p.array_rows) <= p.output_buffer_words


def _results_fit(shape: Shape, tile: int, p: Parameters) -> bool:
    """Whether the output buffer holds a row of tiles."""
    columns = ratio_up(shape.out_width * shape.stride_width, tile * p.array_columns)
    outputs = aligned(shape.out_channels, LINE_CHANNELS)
    return columns * ratio_up(outputs, p.array_rows) <= p.output_buffer_words


def _channel_parts(shape: Shape, tile: int, p: Parameters) -> tuple[Shape, int]:
    """Sets of input channels that the input buffer holds."""
    if _fits(shape, tile, p):
        return shape, 1
    for parts in range(2, ratio_up(shape.in_channels, LINE_CHANNELS) + 1):
        part = replace(shape, in_channels=ratio_up(shape.in_channels, parts))
        if _fits(part, tile, p):
            return part, ratio_up(shape.in_channels, part.in_channels)
    return replace(shape, in_channels=min(shape.in_channels, LINE_CHANNELS)), ratio_up(
        shape.in_channels, LINE_CHANNELS
    )


def _output_parts(shape: Shape, kernel_rows: int, p: Parameters) -> tuple[Shape, int]:
    """Sets of output channels of which the output buffer holds one row of tiles.

    The host software repeats the call in the same case.
    """
    d = describe(shape, kernel_rows, p)
    passes = max(1, p.output_buffer_words // d.tile_columns)
    if d.fo * d.lo <= passes:
        return shape, 1
    unit = max(LINE_CHANNELS, p.array_rows)
    most = max(unit, passes * p.array_rows // unit * unit)
    repeats = ratio_up(shape.out_channels, most)
    each = aligned(ratio_up(shape.out_channels, repeats), unit)
    return replace(shape, out_channels=each), ratio_up(shape.out_channels, each)
