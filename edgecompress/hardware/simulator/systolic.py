"""Systolic arrays register by register: weights, inputs or sums stay, everything else moves.

One state of all registers a cycle, integers only. A convolution runs as a product of (pixels x
kernel taps) and (kernel taps x output channels), groups one after the other. The array works on
raw input codes, padding has the code of zero, and the zero point times the sum of the weights is
taken off at the end, as hardware folds it into the bias.

Source: H. T. Kung, Why systolic architectures?, IEEE Computer 15(1), 1982; names of the dataflows:
Samajdar et al., SCALE-Sim, arXiv 1811.02883.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    Simulated,
    conv_patches,
)

Held = Literal["weights", "inputs", "sums"]
_Bits = npt.NDArray[np.bool_]

# Registers that are stepped together; folds share no state, so more of them are only faster.
_SIDE_BY_SIDE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SystolicArray:
    """The shape of an array.

    Attributes:
        rows, columns: Processing elements, at least 1 each.
        held: What stays in the elements while the rest moves.
        block: Operands that stream past what is held before something else is held: what the
            accumulators below the array have room for. None: all. Nothing streams in blocks
            where the sums are held.
    """

    rows: int
    columns: int
    held: Held
    block: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or (self.block is not None and self.block < 1):
            raise ValueError(f"no array: {self.rows} x {self.columns}, block {self.block}")


@dataclass
class _Meter:
    """What was counted while stepping."""

    cycles: int = 0
    multiplications: int = 0


def simulate(array: SystolicArray, layer: IntegerLayer) -> Simulated:
    """Run a layer on an array, one fold after the other, and step until the last sum has left."""
    meter = _Meter()
    match layer:
        case IntegerProduct():
            outputs = _product(array, layer.inputs, layer.weights, meter)
            outputs = outputs - layer.zero_point * layer.weights.sum(axis=0)
        case IntegerConv():
            outputs = _convolution(array, layer, meter)
    return Simulated(outputs=outputs, cycles=meter.cycles, multiplications=meter.multiplications)


def _convolution(array: SystolicArray, layer: IntegerConv, meter: _Meter) -> IntArray:
    patches = conv_patches(layer)
    images, groups, taps, height, width = patches.shape
    channels = layer.weights.shape[0] // groups
    rows = patches.transpose(1, 0, 3, 4, 2).reshape(groups, images * height * width, taps)
    kernels = layer.weights.reshape(groups, channels, taps).transpose(0, 2, 1)
    sums = [_product(array, x, w, meter) for x, w in zip(rows, kernels, strict=True)]
    stacked = np.stack(sums) - layer.zero_point * kernels.sum(axis=1)[:, None, :]
    parts = stacked.reshape(groups, images, height, width, channels).transpose(1, 0, 4, 2, 3)
    whole: IntArray = parts.reshape(images, groups * channels, height, width)
    return whole


def _product(array: SystolicArray, inputs: IntArray, weights: IntArray, meter: _Meter) -> IntArray:
    """(rows, inner) @ (inner, columns) with raw codes."""
    match array.held:
        case "weights":
            return _held(array, weights, inputs, meter)
        case "inputs":
            return _held(array, inputs.T, weights.T, meter).T
        case "sums":
            return _collected(array, inputs, weights, meter)


def _held(array: SystolicArray, held: IntArray, streamed: IntArray, meter: _Meter) -> IntArray:
    """streamed (t, inner) @ held (inner, s), the second in the elements, fold by fold."""
    inner, width = held.shape
    length = streamed.shape[0]
    block = array.block or length
    outputs = np.zeros((length, width), np.int64)
    folds = [
        (slice(row, row + array.rows), slice(column, column + array.columns))
        for column in range(0, width, array.columns)
        for row in range(0, inner, array.rows)
    ]
    together = max(1, _SIDE_BY_SIDE // (array.rows * array.columns))
    for start in range(0, length, block):
        rows = slice(start, start + block)
        for first in range(0, len(folds), together):
            chunk = folds[first : first + together]
            stay = np.stack([_filled(held[r, c], array.rows, array.columns) for r, c in chunk])
            pass_by = np.stack([_padded(streamed[rows, r], array.rows) for r, _ in chunk])
            lanes = sum(held[r, c].size for r, c in chunk)
            sums, cycles, passed = _step_held(stay, pass_by)
            meter.cycles += cycles * len(chunk)
            meter.multiplications += passed * lanes
            for (_, c), one in zip(chunk, sums, strict=True):
                wanted = outputs[rows, c]
                wanted += one[:, : wanted.shape[1]]
    return outputs


def _step_held(stay: IntArray, stream: IntArray) -> tuple[IntArray, int, int]:
    """All folds side by side, each alone: load what stays, stream the rest, sums move down.

    Args:
        stay: (folds, rows, columns).
        stream: (folds, t, rows).

    Returns:
        Sums (folds, t, columns), cycles of one fold, products that one element formed.
    """
    folds, rows, columns = stay.shape
    length = stream.shape[1]
    kept = np.zeros_like(stay)
    cycles = 0
    for step in range(rows):  # what stays moves down from the top, last row first
        kept = np.concatenate([stay[:, rows - 1 - step : rows - step], kept[:, :-1]], axis=1)
        cycles += 1
    moving = np.zeros_like(stay)
    valid = np.zeros((rows, columns), bool)
    partial = np.zeros_like(stay)
    sums = np.zeros((folds, length, columns), np.int64)
    left = np.zeros(columns, np.int64)
    formed = np.zeros((rows, columns), np.int64)
    row_numbers, time = np.arange(rows), 0
    while left.min() < length:
        place = time - row_numbers  # row r is r cycles late, so that it meets the sum from above
        there = (place >= 0) & (place < length)
        entering = stream[:, np.clip(place, 0, length - 1), row_numbers] * there
        moving = np.concatenate([entering[:, :, None], moving[:, :, :-1]], axis=2)
        valid = np.concatenate([there[:, None], valid[:, :-1]], axis=1)
        above = np.concatenate([np.zeros_like(partial[:, :1]), partial[:, :-1]], axis=1)
        partial = above + moving * kept
        formed += valid
        out = np.flatnonzero(valid[-1])
        sums[:, left[out], out] = partial[:, -1, out]
        left[out] += 1
        time += 1
    return sums, cycles + time, int(formed.min())


def _collected(
    array: SystolicArray, inputs: IntArray, weights: IntArray, meter: _Meter
) -> IntArray:
    """inputs (rows, inner) @ weights (inner, columns), sums in the elements, fold by fold."""
    outputs = np.zeros((inputs.shape[0], weights.shape[1]), np.int64)
    folds = [
        (slice(row, row + array.rows), slice(column, column + array.columns))
        for row in range(0, inputs.shape[0], array.rows)
        for column in range(0, weights.shape[1], array.columns)
    ]
    together = max(1, _SIDE_BY_SIDE // (array.rows * array.columns))
    for first in range(0, len(folds), together):
        chunk = folds[first : first + together]
        right = np.stack([_padded(inputs[r].T, array.rows) for r, _ in chunk])
        down = np.stack([_padded(weights[:, c], array.columns) for _, c in chunk])
        lanes = sum(outputs[r, c].size for r, c in chunk)
        elements = _Elements(len(chunk), array.rows, array.columns)
        meter.cycles += elements.run(right, down, last=True) * len(chunk)
        meter.multiplications += int(elements.formed.min()) * lanes
        for (r, c), one in zip(chunk, elements.outputs, strict=True):
            wanted = outputs[r, c]
            wanted += one[: wanted.shape[0], : wanted.shape[1]]
    return outputs


class _Elements:
    """Elements that hold sums, several arrays side by side, with every register of them.

    Operands reach lane i through i registers. Behind the last operand of a sum a mark moves along;
    the element that it reaches puts its sum on the bus of its column in that cycle.
    """

    def __init__(self, folds: int, rows: int, columns: int) -> None:
        self._right = np.zeros((folds, rows, columns), np.int64)
        self._down = np.zeros_like(self._right)
        self._late = _Skew(folds, rows), _Skew(folds, columns)
        self._valid = np.zeros((rows, columns), bool)
        self._mark = np.zeros((rows, columns), bool)
        self._left = np.zeros((rows, columns), bool)
        self._sums = np.zeros_like(self._right)
        self.outputs = np.zeros_like(self._right)
        self.formed = np.zeros((rows, columns), np.int64)  # products so far

    def run(self, right: IntArray, down: IntArray, *, last: bool) -> int:
        """Let operands in, one of each lane a cycle; after the last ones until all sums have left.

        Before the last ones the array stands still when all are in: with what is on its way in its
        registers, so that the next operands follow at once.

        Args:
            right: (folds, inner, rows), enters from the left.
            down: (folds, inner, columns), enters from the top.
            last: No more operands of these sums follow.

        Returns:
            Cycles.

        Raises:
            RuntimeError: Two sums are on one bus.
            ValueError: There are no operands.
        """
        inner = right.shape[1]
        if not inner:
            raise ValueError("sums of no products")
        cycles = 0
        for place in range(inner):
            self._step((right[:, place], down[:, place]), mark=last and place == inner - 1)
            cycles += 1
        while last and not self._left.all():
            self._step(None, mark=False)
            cycles += 1
        return cycles

    def _step(self, entering: tuple[IntArray, IntArray] | None, *, mark: bool) -> None:
        """One cycle of all elements."""
        right, down = (None, None) if entering is None else entering
        at_left, here, marked = self._late[0].step(right, mark=mark)
        at_top, _, _ = self._late[1].step(down, mark=mark)
        self._right = np.concatenate([at_left[:, :, None], self._right[:, :, :-1]], axis=2)
        self._down = np.concatenate([at_top[:, None, :], self._down[:, :-1]], axis=1)
        self._valid = np.concatenate([here[:, None], self._valid[:, :-1]], axis=1)
        self._mark = np.concatenate([marked[:, None], self._mark[:, :-1]], axis=1)
        self._sums += self._right * self._down
        self.formed += self._valid
        if self._mark.any():
            if self._mark.sum(axis=0).max() > 1:
                raise RuntimeError("two sums on the bus of one column")
            self.outputs[:, self._mark] = self._sums[:, self._mark]
            self._left |= self._mark


class _Skew:
    """The registers before the lanes of one side: lane i has i of them, written in turn."""

    def __init__(self, folds: int, lanes: int) -> None:
        self._operands = np.zeros((lanes, folds, lanes), np.int64)
        self._valid = np.zeros(lanes, bool)
        self._mark = np.zeros(lanes, bool)
        self._lanes = np.arange(lanes)
        self._place = 0

    def step(self, operands: IntArray | None, *, mark: bool) -> tuple[IntArray, _Bits, _Bits]:
        """One cycle: what goes in, (folds, lanes) or nothing, and what comes out."""
        self._operands[self._place] = 0 if operands is None else operands
        self._valid[self._place], self._mark[self._place] = operands is not None, mark
        written = (self._place - self._lanes) % len(self._lanes)
        self._place = (self._place + 1) % len(self._lanes)
        leaving = self._operands[written, :, self._lanes].T
        return leaving, self._valid[written], self._mark[written]


class SumsInPlace:
    """An array that holds sums, fed with parts of the inner axis: sums stay from part to part."""

    def __init__(self, array: SystolicArray) -> None:
        self._array = array
        self._elements: _Elements | None = None

    def run(self, inputs: IntArray, weights: IntArray, *, last: bool) -> Simulated:
        """inputs (rows, inner) @ weights (inner, columns), a part of the inner axis.

        Args:
            inputs, weights: Of the part.
            last: It is the last part; the sums leave.

        Returns:
            The sums of all parts after the last one, zeros before.

        Raises:
            ValueError: There are more sums than elements, so that they cannot stay.
        """
        if self._elements is None and last:
            return simulate(self._array, IntegerProduct(inputs=inputs, weights=weights))
        rows, columns = self._array.rows, self._array.columns
        shape = inputs.shape[0], weights.shape[1]
        if shape[0] > rows or shape[1] > columns:
            raise ValueError(f"sums of {shape} do not stay in {rows} x {columns} elements")
        elements = self._elements or _Elements(1, rows, columns)
        formed = elements.formed[: shape[0], : shape[1]]
        before = int(formed.sum())
        right, down = _padded(inputs.T, rows), _padded(weights, columns)
        cycles = elements.run(right[None], down[None], last=last)
        sums: IntArray = elements.outputs[0, : shape[0], : shape[1]]
        self._elements = None if last else elements
        return Simulated(
            outputs=sums.copy(), cycles=cycles, multiplications=int(formed.sum()) - before
        )


def _filled(part: IntArray, rows: int, columns: int) -> IntArray:
    """A part of an operand with zeros in the elements that it does not reach."""
    return np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1])))


def _padded(part: IntArray, lanes: int) -> IntArray:
    """A stream with zeros in the lanes that it does not reach."""
    return np.pad(part, ((0, 0), (0, lanes - part.shape[1])))
