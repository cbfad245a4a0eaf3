"""A small WinoCNN tile, clock by clock: systolic grid, buffers and control of a whole convolution.

Rows of the grid take output channels, columns take neighbouring tiles of one image and then of the
next image. Weights pass right, input tiles pass down, one cell a clock. A tile of Q channels is
shifted in while the one before it is multiplied with ``fo`` sets of output channels. Every cell
adds its results to its own output buffer, from which they leave one a clock at the end.

The array works on raw codes (moved to be signed), padding has the code of zero, and the zero point
times the sum of the weights is subtracted from the results, as it is folded into a bias. With a
truncating datapath that correction is scaled and rounded like one result.

Source: WinoCNN (arXiv 2107.04244) and its published design for the loops, the grid and the buffers;
the pipeline, the buffers without double buffering and the output at the end are our own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgecompress.core.winograd import IntArray
from edgecompress.hardware.simulator._wino_load import (
    CELL_STAGES,
    Loaded,
    Loops,
    WinoTile,
    load,
    plan,
    why_not,
)
from edgecompress.hardware.simulator.layers import (
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    Simulated,
)
from edgecompress.hardware.simulator.wino_element import (
    KERNEL,
    accumulate,
    finished,
    shifted,
    transform_inputs,
    transform_kernels,
    transform_sums,
)

__all__ = ["Loaded", "Loops", "WinoTile", "load", "plan", "run_loaded", "simulate", "why_not"]

STORE_STAGES = 2  # output buffer read, output


@dataclass(frozen=True, slots=True)
class _Step:
    """An input tile that is fed and then held."""

    channel: int
    row: int
    column: int
    kernel_word: int
    output_word: int
    first: bool


@dataclass(frozen=True, slots=True)
class _Issue:
    """What the cells do with a weight word."""

    kernel_word: int
    output_word: int
    first: bool
    swap: bool


def simulate(tile: WinoTile, layer: IntegerLayer, kernel: int | None = None) -> Simulated:
    """Run a layer.

    Args:
        tile: The machine.
        layer: A convolution of one group, or a product, which runs as a 1x1 convolution.
        kernel: Side of the sub-kernels, 3 or 1; None for what takes fewer cycles.

    Raises:
        Unsupported: The machine cannot run it; with the reason.
    """
    if isinstance(layer, IntegerProduct):
        rows, columns = layer.inputs.shape[0], layer.weights.shape[1]
        run = simulate(tile, as_conv(tile, layer), 1)
        flat = run.outputs[0].reshape(columns, -1).T[:rows]
        return replace(run, outputs=flat)
    cycles = 0
    parts = []
    for part in image_sets(tile, layer):
        loaded = load(tile, part, kernel)
        raw, taken = run_loaded(tile, loaded)
        parts.append(corrected(tile, loaded, raw)[: part.inputs.shape[0]])
        cycles += taken
    loops = load(tile, layer_of_one(layer), kernel).loops
    return Simulated(
        outputs=np.concatenate(parts),
        cycles=cycles,
        multiplications=layer.inputs.shape[0] * _multiplications(tile, loops, layer),
    )


def run_loaded(tile: WinoTile, loaded: Loaded) -> tuple[IntArray, int]:
    """Run what is in the buffers.

    Returns:
        (images, out, oh, ow) as the array gives them, zero point included (see `corrected`), and
        the cycles from the first channel that is fed to the last result.
    """
    return _Machine(tile, loaded).run()


def as_conv(tile: WinoTile, layer: IntegerProduct) -> IntegerConv:
    """A product as a 1x1 convolution; its rows are the pixels of an image."""
    rows, inner = layer.inputs.shape
    width = min(rows, tile.datapath.omega * tile.columns)
    height = -(-rows // width)
    pixels = np.full((height * width, inner), layer.zero_point, dtype=np.int64)
    pixels[:rows] = layer.inputs
    return IntegerConv(
        inputs=pixels.T.reshape(1, inner, height, width),
        weights=layer.weights.T[:, :, None, None],
        zero_point=layer.zero_point,
        input_bits=layer.input_bits,
        weight_bits=layer.weight_bits,
        input_signed=layer.input_signed,
    )


def image_sets(tile: WinoTile, layer: IntegerConv) -> Iterator[IntegerConv]:
    """The layer on as many images as the machine takes at once."""
    for start in range(0, layer.inputs.shape[0], tile.images):
        yield replace(layer, inputs=layer.inputs[start : start + tile.images])


def layer_of_one(layer: IntegerConv) -> IntegerConv:
    """The layer on its first image."""
    return replace(layer, inputs=layer.inputs[:1])


def corrected(tile: WinoTile, loaded: Loaded, raw: IntArray) -> IntArray:
    """Results (images, out, oh, ow) as the array gives them, without the zero point's share."""
    d, cuts = tile.datapath, tile.datapath.cuts
    share = loaded.correction
    if d.truncation is not None:
        if loaded.loops.kernel == KERNEL:
            cut = cuts.input_shift + cuts.kernel_shift + cuts.sum_shift + cuts.output_shift
            share = share * d.scale >> cut
        else:
            share = shifted(share, cuts.bypass_output_shift)
    return raw - share[:, None, None]


def _multiplications(tile: WinoTile, loops: Loops, layer: IntegerConv) -> int:
    """Of one image, without padding."""
    side = tile.datapath.outputs(loops.kernel)
    across = -(-loops.out_width * loops.stride_across // side)
    tiles = loops.tr * across * loops.passes
    outputs, channels = layer.weights.shape[:2]
    return int(tiles * tile.datapath.omega**2 * outputs * channels)


class _Machine:
    """All registers and memories; one call of `_clock` is one clock period."""

    def __init__(self, tile: WinoTile, loaded: Loaded) -> None:
        self.tile, self.loaded, self.datapath = tile, loaded, tile.datapath
        loops = loaded.loops
        self.kernel = loops.kernel
        wide, omega, q = tile.columns * tile.images, self.datapath.omega, self.datapath.channels
        side = self.datapath.outputs(self.kernel)
        grid = (tile.rows, wide)
        shape = (q, omega, omega)
        self.shadow = np.zeros((wide, *shape), np.int64)
        self.active = np.zeros((wide, *shape), np.int64)
        self.factors_in = np.zeros((tile.rows, *shape), np.int64)
        self.values = np.zeros((*grid, *shape), np.int64)
        self.factors = np.zeros((*grid, *shape), np.int64)
        self.products = np.zeros((*grid, *shape), np.int64)
        self.sums = np.zeros((*grid, omega, omega), np.int64)
        self.results = np.zeros((*grid, side, side), np.int64)
        self.words = np.zeros((*grid, side, side), np.int64)
        depth = loops.lo * loops.tr * loops.tc * loops.fo
        self.memory = np.zeros((*grid, depth, side, side), np.int64)
        length = CELL_STAGES + tile.rows + wide
        self.feeds: deque[_Step | None] = deque([None] * length, maxlen=length)
        self.issues: deque[_Issue | None] = deque([None] * length, maxlen=length)
        self.fed_channels: deque[int] = deque([0] * length, maxlen=length)
        self.periods = 0

    def run(self) -> tuple[IntArray, int]:
        """(images, out, oh, ow) and the clock periods that it took."""
        for step, channel, issue in _commands(self.loaded.loops, self.datapath.channels, self.tile):
            self._clock(step, channel, issue)
        for _ in range(self.tile.drain_cycles):
            self._clock(None, 0, None)
        return self._store(), self.periods

    def _clock(self, feed: _Step | None, channel: int, issue: _Issue | None) -> None:
        """One clock period: registers are written last stage first, from what they held."""
        self.feeds.appendleft(feed)
        self.fed_channels.appendleft(channel)
        self.issues.appendleft(issue)
        self._cells()
        for column in range(self.tile.columns * self.tile.images):
            turn = self.issues[1 + column]
            if turn is not None and turn.swap:
                self.active[column] = self.shadow[column]
            step = self.feeds[1 + column]
            if step is not None:
                window = self._window(step, self.fed_channels[1 + column], column)
                moved = transform_inputs(self.datapath, window, self.kernel)
                self.shadow[column] = np.concatenate([self.shadow[column][1:], moved[None]])
        for row in range(self.tile.rows):
            read = self.issues[1 + row]
            if read is not None:
                kernels = self.loaded.kernels[read.kernel_word, row]
                self.factors_in[row] = transform_kernels(self.datapath, kernels)
        self.periods += 1

    def _cells(self) -> None:
        """The clock edge of all cells."""
        wide = self.tile.columns * self.tile.images
        places = [(row, column) for row in range(self.tile.rows) for column in range(wide)]
        writes = [(p, self.issues[CELL_STAGES + sum(p)]) for p in places]
        reads = [(p, self.issues[CELL_STAGES - 1 + sum(p)]) for p in places]
        words = self.words.copy()
        for place, read in reads:
            if read is not None:
                words[place] = self.memory[place][read.output_word]
        for place, write in writes:
            if write is not None:
                held = np.zeros_like(words[place]) if write.first else self.words[place]
                self.memory[place][write.output_word] = accumulate(
                    self.datapath, held, self.results[place], self.kernel
                )
        self.words = words
        self.results = transform_sums(self.datapath, self.sums, self.kernel)
        self.sums = self.products.sum(axis=2)
        self.products = self.values * self.factors
        self.values = np.concatenate([self.active[None], self.values[:-1]])
        self.factors = np.concatenate([self.factors_in[:, None], self.factors[:, :-1]], axis=1)

    def _window(self, step: _Step, channel: int, column: int) -> IntArray:
        """The input tile of a column of the grid: (omega, omega) of one channel."""
        image, place = divmod(column, self.tile.columns)
        omega = self.datapath.omega
        left = step.column + place * self.datapath.outputs(self.kernel)
        plane = self.loaded.inputs[image, step.channel + channel]
        window: IntArray = plane[step.row : step.row + omega, left : left + omega]
        return window

    def _store(self) -> IntArray:
        """Results leave one a clock, in the order of memory."""
        loops, side = self.loaded.loops, self.datapath.outputs(self.kernel)
        shape = (self.tile.images, loops.out_channels, loops.out_height, loops.out_width)
        stored = np.zeros(shape, np.int64)
        for image, channel, y, x in np.ndindex(*shape):
            out, row = divmod(channel, self.tile.rows)
            high, low = divmod(out, loops.fo)
            (tr, down), (tiles, across) = (
                divmod(y * loops.stride_down, side),
                divmod(x * loops.stride_across, side),
            )
            tc, place = divmod(tiles, self.tile.columns)
            word = ((high * loops.tr + tr) * loops.tc + tc) * loops.fo + low
            cell = (row, image * self.tile.columns + place)
            stored[image, channel, y, x] = self.memory[cell][word, down, across]
            self.periods += 1
        self.periods += STORE_STAGES
        return finished(self.datapath, stored, self.kernel)


def _commands(
    loops: Loops, channels: int, tile: WinoTile
) -> Iterator[tuple[_Step | None, int, _Issue | None]]:
    """(tile that is fed, which of its channels, what the cells do) of every clock period.

    A step is fed while the step before it is multiplied; both take as long as the longer one.
    """
    held: _Step | None = None
    for step in _steps(loops, channels, tile):
        for period in range(max(loops.fo, channels) if held else channels):
            fed = step if period < channels else None
            yield fed, period if fed else 0, _issue(held, period, loops.fo)
        held = step
    for period in range(max(loops.fo, channels)):
        yield None, 0, _issue(held, period, loops.fo)


def _issue(held: _Step | None, period: int, passes: int) -> _Issue | None:
    """What the cells do in a period of a step."""
    if held is None or period >= passes:
        return None
    word, place = held.kernel_word + period, held.output_word + period
    return _Issue(word, place, held.first, swap=period == 0)


def _steps(loops: Loops, channels: int, tile: WinoTile) -> Iterator[_Step]:
    """The loops in the order of the control."""
    side = tile.datapath.outputs(loops.kernel)
    deep = loops.li * loops.fi
    for part, lo, li, fi, tr, tc in np.ndindex(
        loops.passes, loops.lo, loops.li, loops.fi, loops.tr, loops.tc
    ):
        down, across = divmod(part, loops.passes_across)
        turn = li * loops.fi + fi
        yield _Step(
            channel=turn * channels,
            row=down * loops.step_down + tr * side,
            column=across * loops.step_across + tc * side * tile.columns,
            kernel_word=((part * loops.lo + lo) * deep + turn) * loops.fo,
            output_word=((lo * loops.tr + tr) * loops.tc + tc) * loops.fo,
            first=part == 0 and turn == 0,
        )
