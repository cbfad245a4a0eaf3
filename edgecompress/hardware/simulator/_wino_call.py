"""One call of the WinoCNN kernel, row step by row step, with its buffers; see `winocnn`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from edgecompress.core.errors import VerificationFailed
from edgecompress.hardware.simulator._wino_products import (
    FloatArray,
    spread_kernels,
    tile_products,
)
from edgecompress.hardware.simulator._wino_schedule import (
    LINE,
    Geometry,
    Schedule,
    WinoArray,
    up,
)
from edgecompress.hardware.simulator.layers import IntArray

ACTIVATION_BITS = 8
Interval = tuple[Fraction, Fraction]


def window(maps: IntArray, axis: int, begin: int, size: int) -> IntArray:
    """So many places of an axis from ``begin`` on, zeros where there is nothing."""
    end = begin + size
    there = [slice(None)] * maps.ndim
    there[axis] = slice(max(0, begin), max(0, min(maps.shape[axis], end)))
    taken = maps[tuple(there)]
    around = [(0, 0)] * maps.ndim
    before = min(size, max(0, -begin))
    around[axis] = (before, size - before - taken.shape[axis])
    return np.pad(taken, around)


@dataclass(slots=True)
class Call:
    """One call of the array's kernel, and its state.

    Attributes:
        array, part, bounds: Array, sizes and loop bounds.
        maps: (images, channels, rows, columns) as they are in memory.
        weights: (out, in, kh, kw).
        left: Columns of padding on the left of ``maps``.
        clock: Cycles so far.
        multiplications: Of the array so far.
        line, tags: The line buffer (rows, images, channels, columns) and which row is where.
        arrived: Input rows that have come in.
        spread: Transformed kernels of the weight loads.
    """

    array: WinoArray
    part: Geometry
    bounds: Schedule
    maps: IntArray
    weights: IntArray
    left: int
    clock: Fraction = Fraction(0)
    multiplications: int = 0
    arrived: int = 0
    spread: dict[tuple[int, int, int, int], FloatArray] = field(default_factory=dict)
    line: IntArray = field(init=False)
    tags: list[int] = field(init=False)

    def run(self) -> IntArray:
        """Execute the call; (images, outputs, out height, out width)."""
        part, bounds = self.part, self.bounds
        images, channels, _, columns = self.maps.shape
        self.line = np.zeros((bounds.line_rows, images, channels, columns), np.int64)
        self.tags = [-1] * bounds.line_rows
        sums = np.zeros((images, part.outputs, part.out_height, part.out_width), np.int64)
        steps = up(part.out_height * part.stride[0], bounds.row_step)
        loads = list(self._loads())
        self.clock += self._fetch(self._reach(0))
        self.clock += self._burst_cycles()
        leaving = 0
        for step in range(steps):
            last = step == steps - 1
            incoming = Fraction(0) if last else self._fetch(self._reach(step + 1))
            results, computed, bursts = self._compute(step, loads, last)
            arrived = between(bursts, incoming)
            left = between(bursts, self._store_cycles(leaving))
            self.clock += max(computed, arrived, left)
            leaving = self._keep(sums, results, step)
        self.clock += self._store_cycles(leaving)
        return sums

    def _loads(self) -> Iterator[tuple[int, int, int, int]]:
        """(kernel row, kernel column, first output, first input) of every weight load of a step."""
        bounds, side = self.bounds, self.bounds.side
        for row in range(0, self.weights.shape[2], side):
            for column in range(0, self.weights.shape[3], side):
                for lo in range(bounds.lo):
                    for li in range(bounds.li):
                        output = lo * bounds.fo * self.array.rows
                        yield row, column, output, li * bounds.fi * self.array.channels

    def _reach(self, step: int) -> int:
        """Input rows that a step needs, counted from the first."""
        below = (step + 1) * self.bounds.row_step + self.part.span[0] - 1 - self.part.pad_top
        return max(0, min(self.part.height, below))

    def _fetch(self, until: int) -> Fraction:
        """Bring rows in, each to its place in the line buffer; cycles of an input port."""
        words = 0
        row = self.arrived
        padded = up(self.part.channels, LINE) * LINE * up(self.part.width, LINE) * LINE
        row_words = up(padded * self.array.images * ACTIVATION_BITS, self.array.port_bits)
        while row < until:
            together = range(row, min(until, row + 2 * self.array.input_ports))
            for one in together:
                self.line[one % len(self.line)] = self.maps[:, :, one]
                self.tags[one % len(self.line)] = one
            words += 2 * row_words  # of each port in a round
            row = together[-1] + 1
        self.arrived = max(self.arrived, until)
        return self._port_cycles(words)

    def _read(self, first: int, count: int) -> IntArray:
        """Rows of the map from the line buffer, zeros above and below; rows first."""
        found = np.zeros((count, *self.line.shape[1:]), np.int64)
        for place, row in enumerate(range(first, first + count)):
            if 0 <= row < self.arrived:
                if self.tags[row % len(self.line)] != row:
                    raise VerificationFailed(f"input row {row} is no longer in the line buffer")
                found[place] = self.line[row % len(self.line)]
        return found

    def _port_cycles(self, words: int) -> Fraction:
        """Cycles until so many words are through a port that moves some in some cycles."""
        moved, cycles = self.array.words_per_cycles
        return Fraction(words * cycles, moved)

    def _burst_cycles(self) -> Fraction:
        """Of a weight port for one load, in slots of 3x3 weights or of one larger kernel."""
        array, bounds = self.array, self.bounds
        slot = max(bounds.side, min(3, array.kernels[-1]))
        slot_bits = slot * slot * array.weight_bits
        words = 0
        for _ in range(bounds.fi * bounds.fo * up(array.rows, array.weight_ports)):
            if slot_bits > array.port_bits:
                words += array.channels * up(slot_bits, array.port_bits)
            else:
                words += up(array.channels, array.port_bits // slot_bits)
        return self._port_cycles(words)

    def _store_cycles(self, rows: int) -> Fraction:
        """Of the busiest output port for so many rows of results."""
        pixels = up(self.part.out_width, LINE) * up(self.part.outputs, LINE) * LINE**2
        row_words = up(pixels * self.array.images * ACTIVATION_BITS, self.array.port_bits)
        return self._port_cycles(up(rows, self.array.output_ports) * row_words)

    def _compute(
        self, step: int, loads: list[tuple[int, int, int, int]], last: bool
    ) -> tuple[IntArray, Fraction, list[Interval]]:
        """All weight loads of a row step over its tiles.

        Returns:
            results (images, outputs, rows, columns) at stride 1, cycles, and when weights were on
            their ports.
        """
        bounds, array = self.bounds, self.array
        rows = bounds.row_step // bounds.tile
        width = bounds.tile_columns * array.columns
        if bounds.lo * bounds.fo * rows * bounds.tile_columns > array.output_words:
            raise VerificationFailed("the output buffer does not hold a row step")
        shape = (len(self.maps), self.part.outputs, rows * bounds.tile, width * bounds.tile)
        results = np.zeros(shape, np.int64)
        bursts: list[Interval] = []
        now, passed = Fraction(0), (-1, -1)
        for place, (row, column, output, channel) in enumerate(loads):
            if (row, column) != passed:  # the pipeline fills anew
                now, passed = now + array.fill, (row, column)
            end = now + self._sweep(results, step, (row, column), (output, channel))
            if not (last and place == len(loads) - 1):
                burst = self._burst_cycles()
                bursts.append((now, now + burst))
                end = max(end, now + burst)
            now = end
        return results, now, bursts

    def _sweep(
        self, results: IntArray, step: int, tap: tuple[int, int], block: tuple[int, int]
    ) -> int:
        """One weight load over the tiles of a row step, into the output buffer; its cycles."""
        bounds, array, part = self.bounds, self.array, self.part
        outputs, inputs = bounds.fo * array.rows, bounds.fi * array.channels
        kernels = self.weights[
            block[0] : block[0] + outputs,
            block[1] : block[1] + inputs,
            tap[0] : tap[0] + bounds.side,
            tap[1] : tap[1] + bounds.side,
        ]
        first = step * bounds.row_step - part.pad_top + tap[0] * part.dilation[0]
        rows = self._read(first, results.shape[2] + bounds.side - 1)
        wide = results.shape[3] + bounds.side - 1
        rows = rows[:, :, block[1] : block[1] + inputs].transpose(1, 2, 0, 3)
        maps = window(rows, 3, tap[1] * part.dilation[1] - self.left, wide)
        cycles = 0
        for _ in range(bounds.fi * (results.shape[2] // bounds.tile) * bounds.tile_columns):
            cycles += max(bounds.fo, array.channels)  # a weight a cycle, or a tile shifted in
        if kernels.size:
            maps = maps[:, : kernels.shape[1]]
            if (*tap, *block) not in self.spread:
                self.spread[*tap, *block] = spread_kernels(array.omega, kernels, bounds.side)
            spread = self.spread[*tap, *block]
            found = tile_products(array.omega, maps, spread, bounds.side)
            results[:, block[0] : block[0] + len(kernels)] += found
            self.multiplications += self._multiplied(step, kernels.shape[0] * kernels.shape[1])
        return cycles

    def _multiplied(self, step: int, kernels: int) -> int:
        """Multiplications of a sweep, lanes without data not counted."""
        bounds, part = self.bounds, self.part
        left = part.out_height * part.stride[0] - step * bounds.row_step
        rows = up(min(bounds.row_step, left), bounds.tile)
        columns = up(part.out_width * part.stride[1], bounds.tile)
        return self.array.omega**2 * rows * columns * kernels * len(self.maps)

    def _keep(self, sums: IntArray, results: IntArray, step: int) -> int:
        """Put the results that the stride keeps in their place; how many rows those are."""
        part, (down, across) = self.part, self.part.stride
        first = step * self.bounds.row_step
        begin = up(first, down)
        end = up(min(first + self.bounds.row_step, part.out_height * down), down)
        kept = results[:, :, begin * down - first :: down, ::across]
        sums[:, :, begin:end] = kept[:, :, : end - begin, : part.out_width]
        return end - begin


def between(bursts: list[Interval], needed: Fraction) -> Fraction:
    """When a transfer of so many cycles is through, on a port where ``bursts`` go first."""
    now = Fraction(0)
    if not needed:
        return now
    for begin, end in bursts:
        free = max(Fraction(0), begin - now)
        if needed <= free:
            return now + needed
        needed -= free
        now = max(now, end)
    return now + needed
