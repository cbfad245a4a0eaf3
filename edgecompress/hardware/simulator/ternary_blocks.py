"""The control of the ternary engine: which weights are loaded and what is streamed past them.

The steps are those of the machine that ``hardware/models/ternary_engine.py`` describes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.hardware.simulator.layers import IntArray, IntegerConv
from edgecompress.hardware.simulator.products import BoolArray, out_size

__all__ = ["Block", "Blocks", "Part", "Strip", "TernaryArray", "digit_planes", "out_size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryArray:
    """The shape of an engine.

    Attributes:
        output_lanes, input_lanes, window: Tm, Tn and K.
        weight_load_cycles: For all weight registers.
        accumulators: Sums that each output lane holds.
        packs_rows: Small kernels share the window.
    """

    output_lanes: int
    input_lanes: int
    window: int
    weight_load_cycles: int
    accumulators: int
    packs_rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Output pixels whose sums the accumulators hold.

    Attributes:
        image: Of the batch.
        row, rows, column, columns: First output row and column, and how many.
        in_row: The strip is a part of a row; else whole rows.
    """

    image: int
    row: int
    rows: int
    column: int
    columns: int
    in_row: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Taps that the window holds: where they start in the kernel, and what they cover of it."""

    first: int
    taps: int
    extent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One setting of the weight registers, and the sweep that uses it.

    Attributes:
        digits: (Tm, Tn, K, K), -1, 0 or 1.
        users: (Tn, K, K): output lanes with a weight there, zero or not.
        shift: Of the digit plane.
        columns: (positions, Tn, K) codes in the order in which they enter the window.
        real: As ``columns``: inside the feature map.
        width: Columns that the part of the kernel covers.
        pitch: Columns of the stream for each row.
        lead: Column of the stream under the first tap at the first position.
        strip: What is swept.
        outputs: Output channels of the lanes that are not idle.
        opens, closes: The first and the last block of these sums.
    """

    digits: IntArray
    users: IntArray
    shift: int
    columns: IntArray
    real: BoolArray
    width: int
    pitch: int
    lead: int
    strip: Strip
    outputs: IntArray
    opens: bool
    closes: bool


def digit_planes(layer: IntegerConv) -> int:
    """Ternary digits of the weights: one less than their bits, if no weight needs more.

    Raises:
        ConfigurationInvalid: A weight needs more digits than it has bits.
    """
    largest = int(np.abs(layer.weights).max(initial=0))
    planes = max(1, layer.weight_bits - 1, largest.bit_length())
    if planes > layer.weight_bits:
        raise ConfigurationInvalid(
            f"weights from {layer.weights.min()} to {layer.weights.max()} do not fit in"
            f" {layer.weight_bits} ternary digits",
            hint="state the width that the codes have",
        )
    return planes


@dataclass(frozen=True, slots=True)
class Blocks:
    """What is loaded and swept for a layer, in order."""

    array: TernaryArray
    layer: IntegerConv
    planes: int

    def all(self) -> Iterator[Block]:
        """Blocks of all strips, sets of groups and output lanes."""
        a, layer = self.array, self.layer
        outputs, inputs = layer.weights.shape[:2]
        per_group = outputs // layer.group
        rows, columns = (
            self._parts(layer.weights.shape[axis], layer.dilation[axis - 2]) for axis in (2, 3)
        )
        lanes = a.input_lanes * self._slots(rows[0])
        together = 1
        if inputs <= lanes and per_group <= a.output_lanes:
            together = min(lanes // inputs, a.output_lanes // per_group)
        for strip in self._strips():
            for group in range(0, layer.group, together):
                groups = range(group, min(group + together, layer.group))
                channels = np.arange(groups.start * inputs, groups.stop * inputs)
                lanes_out = np.arange(groups.start * per_group, groups.stop * per_group)
                for first in range(0, lanes_out.size, a.output_lanes):
                    busy = lanes_out[first : first + a.output_lanes]
                    parts = [(y, x) for y in rows for x in columns]
                    yield from self._sums(strip, channels, busy, parts)

    def _sums(
        self, strip: Strip, channels: IntArray, outputs: IntArray, parts: list[tuple[Part, Part]]
    ) -> Iterator[Block]:
        """Blocks that are accumulated in the same sums."""
        steps = []
        for rows, columns in parts:
            lanes = self.array.input_lanes * self._slots(rows)
            for first in range(0, channels.size, lanes):
                chunk = channels[first : first + lanes]
                steps += [(rows, columns, chunk, plane) for plane in range(self.planes)]
        for place, (rows, columns, chunk, plane) in enumerate(steps):
            digits, users = self._registers(outputs, chunk, (rows, columns), plane)
            codes, real, pitch, lead = self._stream(strip, chunk, rows, columns)
            yield Block(
                digits=digits,
                users=users,
                shift=plane,
                columns=codes,
                real=real,
                width=columns.extent,
                pitch=pitch,
                lead=lead,
                strip=strip,
                outputs=outputs,
                opens=place == 0,
                closes=place == len(steps) - 1,
            )

    def _slots(self, rows: Part) -> int:
        """Chunks of channels above each other in the window."""
        return self.array.window // rows.extent if self.array.packs_rows else 1

    def _parts(self, taps: int, dilation: int) -> list[Part]:
        """Parts of one axis of the kernel: as many taps as fit, then the rest."""
        most = 1
        while most < taps and most * dilation + 1 <= self.array.window:
            most += 1
        return [
            Part(
                first=first,
                taps=min(most, taps - first),
                extent=(min(most, taps - first) - 1) * dilation + 1,
            )
            for first in range(0, taps, most)
        ]

    def _strips(self) -> Iterator[Strip]:
        """Parts of the output that the accumulators hold."""
        height, width = out_size(self.layer)
        sums = self.array.accumulators
        for image in range(self.layer.inputs.shape[0]):
            if width <= sums:
                for row in range(0, height, sums // width):
                    rows = min(sums // width, height - row)
                    yield Strip(
                        image=image, row=row, rows=rows, column=0, columns=width, in_row=False
                    )
                continue
            starts = range(0, width, sums)
            # Pieces of the same length first: the short ones of all rows come last.
            pieces = [(row, x) for x in starts if x + sums <= width for row in range(height)]
            pieces += [(row, x) for x in starts if x + sums > width for row in range(height)]
            for row, x in pieces:
                columns = min(sums, width - x)
                yield Strip(image=image, row=row, rows=1, column=x, columns=columns, in_row=True)

    def _registers(
        self, outputs: IntArray, chunk: IntArray, part: tuple[Part, Part], plane: int
    ) -> tuple[IntArray, IntArray]:
        """Digits of all select units, and how many output lanes have a weight at each place."""
        a, layer = self.array, self.layer
        (rows, columns), (dy, dx) = part, layer.dilation
        digits = np.zeros((a.output_lanes, a.input_lanes, a.window, a.window), np.int64)
        users = np.zeros(digits.shape[1:], np.int64)
        inputs = layer.weights.shape[1]
        per_group = layer.weights.shape[0] // layer.group
        for index, channel in enumerate(chunk):
            slot, lane = divmod(index, a.input_lanes)
            lanes = np.flatnonzero(outputs // per_group == channel // inputs)
            taps = layer.weights[
                outputs[lanes],
                channel % inputs,
                rows.first : rows.first + rows.taps,
                columns.first : columns.first + columns.taps,
            ]
            top, left = slot * rows.extent, a.window - columns.extent
            place = np.s_[top : top + rows.extent : dy, left::dx]
            digits[lanes, lane, *place] = np.sign(taps) * (np.abs(taps) >> plane & 1)
            users[lane, *place] = lanes.size
        return digits, users

    def _stream(
        self, strip: Strip, chunk: IntArray, rows: Part, columns: Part
    ) -> tuple[IntArray, BoolArray, int, int]:
        """What the banks give, column after column; the pitch of rows; and the first tap's column.

        Whole rows of output stream whole rows of input; a part of a row its own columns.
        """
        a, layer = self.array, self.layer
        height, width = layer.inputs.shape[2:]
        (sy, sx), (top, left) = layer.stride, layer.pads[:2]
        under = columns.first * layer.dilation[1] - left
        reach = (strip.columns - 1) * sx
        if strip.in_row:
            pitch, lead, base = reach + columns.extent, 0, strip.column * sx + under
        else:
            pitch, lead, base = max(width, reach + 1), under, 0
        positions = np.arange(strip.rows * pitch + columns.extent - 1) + lead
        out_row, column = np.divmod(positions, pitch)
        codes = np.full((positions.size, a.input_lanes, a.window), layer.zero_point, np.int64)
        real = np.zeros(codes.shape, np.bool_)
        image = layer.inputs[strip.image]
        for index, channel in enumerate(chunk):
            slot, lane = divmod(index, a.input_lanes)
            for tap in range(rows.extent):
                y = (strip.row + out_row) * sy - top + rows.first * layer.dilation[0] + tap
                x = base + column
                inside = (out_row >= 0) & (out_row < strip.rows)
                inside &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
                bank = slot * rows.extent + tap
                codes[inside, lane, bank] = image[channel, y[inside], x[inside]]
                real[inside, lane, bank] = True
        return codes, real, pitch, lead
