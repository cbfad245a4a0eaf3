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
        sums, cycles, formed = _step_collected(right, down)
        meter.cycles += cycles * len(chunk)
        meter.multiplications += formed * lanes
        for (r, c), one in zip(chunk, sums, strict=True):
            wanted = outputs[r, c]
            wanted += one[: wanted.shape[0], : wanted.shape[1]]
    return outputs


def _step_collected(right: IntArray, down: IntArray) -> tuple[IntArray, int, int]:
    """All folds side by side, each alone: both operands move, sums stay until they are complete.

    A complete sum leaves on a bus along its column: in a column one element a cycle is done.

    Args:
        right: (folds, inner, rows), enters from the left.
        down: (folds, inner, columns), enters from the top.

    Returns:
        Sums (folds, rows, columns), cycles of one fold, products that one element formed.

    Raises:
        RuntimeError: Two sums are on one bus.
    """
    folds, inner, rows = right.shape
    columns = down.shape[2]
    moving_right = np.zeros((folds, rows, columns), np.int64)
    moving_down = np.zeros_like(moving_right)
    sums = np.zeros_like(moving_right)
    outputs = np.zeros_like(moving_right)
    valid_right = np.zeros((rows, columns), bool)
    valid_down = np.zeros_like(valid_right)
    formed = np.zeros((rows, columns), np.int64)
    left = np.zeros_like(valid_right)
    time = 0
    while not left.all():
        at_left, here = _skewed(right, time)
        moving_right = np.concatenate([at_left[:, :, None], moving_right[:, :, :-1]], axis=2)
        valid_right = np.concatenate([here[:, None], valid_right[:, :-1]], axis=1)
        at_top, there = _skewed(down, time)
        moving_down = np.concatenate([at_top[:, None, :], moving_down[:, :-1]], axis=1)
        valid_down = np.concatenate([there[None, :], valid_down[:-1]], axis=0)
        sums += moving_right * moving_down
        formed += valid_right & valid_down
        leaving = (formed == inner) & ~left
        if leaving.sum(axis=0).max() > 1:
            raise RuntimeError("two sums on the bus of one column")
        outputs[:, leaving] = sums[:, leaving]
        left |= leaving
        time += 1
    return outputs, time, int(formed.min())


def _skewed(stream: IntArray, time: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """What enters lane i at a cycle, i cycles late, and which lanes anything enters."""
    lanes = np.arange(stream.shape[2])
    place = time - lanes
    there = (place >= 0) & (place < stream.shape[1])
    return stream[:, np.clip(place, 0, stream.shape[1] - 1), lanes] * there, there


def _filled(part: IntArray, rows: int, columns: int) -> IntArray:
    """A part of an operand with zeros in the elements that it does not reach."""
    return np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1])))


def _padded(part: IntArray, lanes: int) -> IntArray:
    """A stream with zeros in the lanes that it does not reach."""
    return np.pad(part, ((0, 0), (0, lanes - part.shape[1])))
