"""The ternary engine, clock by clock: a stream of columns through a window of select units.

The engine works on codes as they are stored, with padding that has the code of zero; what the zero
point adds to every sum is subtracted at the end, as hardware folds it into the bias. The cycle
counter is advanced by the clock of the engine and by nothing else.

The steps are those of the machine that ``hardware/models/ternary_engine.py`` describes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    Simulated,
)
from edgecompress.hardware.simulator.products import BoolArray, out_size
from edgecompress.hardware.simulator.ternary_blocks import Block, Blocks, TernaryArray, digit_planes

__all__ = ["TernaryArray", "simulate"]


@dataclass(slots=True)
class _Engine:
    """All registers, and the clock."""

    array: TernaryArray
    zero_point: int
    stride: int
    cycles: int = 0
    multiplications: int = 0
    digits: IntArray = field(init=False)
    shadow: IntArray = field(init=False)
    window: IntArray = field(init=False)
    real: BoolArray = field(init=False)
    accumulators: IntArray = field(init=False)

    def __post_init__(self) -> None:
        a = self.array
        units = (a.output_lanes, a.input_lanes, a.window, a.window)
        self.digits, self.shadow = np.zeros(units, np.int64), np.zeros(units, np.int64)
        self.window = np.zeros(units[1:], np.int64)
        self.real = np.zeros(units[1:], np.bool_)
        self.accumulators = np.zeros((a.output_lanes, a.accumulators), np.int64)

    def run(self, blocks: Iterator[Block], outputs: IntArray) -> None:
        """All blocks, each with the weight load of the next beside it."""
        following = next(blocks, None)
        loading = self._load(following)
        while next(loading, False):
            self.cycles += 1
        while following is not None:
            self.digits, self.shadow = self.shadow, self.digits
            block, following = following, next(blocks, None)
            if block.opens:
                self.accumulators[:] = 0
            loading, sweep = self._load(following), self._sweep(block)
            while next(sweep, False) | next(loading, False):
                self.cycles += 1
            if block.closes:
                s = block.strip
                sums = self.accumulators[: block.outputs.size, : s.rows * s.columns]
                area = np.s_[s.row : s.row + s.rows, s.column : s.column + s.columns]
                outputs[s.image, block.outputs, *area] = sums.reshape(-1, s.rows, s.columns)

    def _load(self, block: Block | None) -> Iterator[bool]:
        """Words into the shadow registers; every ``next`` is a cycle of the weight port."""
        if block is None:
            return
        registers, digits = self.shadow.reshape(-1), block.digits.reshape(-1)
        word = -(-digits.size // self.array.weight_load_cycles)
        for cycle in range(self.array.weight_load_cycles):
            registers[cycle * word : (cycle + 1) * word] = digits[cycle * word : (cycle + 1) * word]
            yield True

    def _sweep(self, block: Block) -> Iterator[bool]:
        """A block; every ``next`` is a cycle, its stages from the last to the first."""
        lanes = self.array.output_lanes
        entered = position = 0
        last = block.strip.rows * block.pitch
        selected: tuple[int, IntArray] | None = None
        summed: tuple[int, IntArray] | None = None
        while position < last or selected is not None or summed is not None:
            if summed is not None and summed[0] >= 0:
                self.accumulators[:, summed[0]] += summed[1] << block.shift
            summed = None
            if selected is not None:
                summed = (selected[0], selected[1].sum(axis=1))
            selected = None
            if entered >= block.width and position < last:
                live = self._live(block, position)
                codes = np.where(live, self.window, self.zero_point).reshape(-1)
                selected = (
                    self._address(block, position, live),
                    self.digits.reshape(lanes, -1) * codes,
                )
                position += 1
            self._shift(block, entered)
            entered += 1
            yield True

    def _shift(self, block: Block, entered: int) -> None:
        """The next column of the stream enters the window; after its end, what is left there."""
        if entered >= len(block.columns):
            return
        self.window[:, :, :-1] = self.window[:, :, 1:]
        self.window[:, :, -1] = block.columns[entered]
        self.real[:, :, :-1] = self.real[:, :, 1:]
        self.real[:, :, -1] = block.real[entered]

    def _live(self, block: Block, position: int) -> BoolArray:
        """Window columns that belong to the row of this position: (K,)."""
        first = position % block.pitch + block.lead + block.width - self.array.window
        column = np.arange(first, first + self.array.window)
        return (column >= 0) & (column < block.pitch)

    def _address(self, block: Block, position: int, live: BoolArray) -> int:
        """Accumulator of a position, -1 for one between strides or beyond the row."""
        row, column = divmod(position, block.pitch)
        pixel, between = divmod(column, self.stride)
        if between or pixel >= block.strip.columns:
            return -1
        if block.shift == 0:  # once for all digit planes
            self.multiplications += int(block.users[self.real & live].sum())
        return row * block.strip.columns + pixel


def simulate(array: TernaryArray, layer: IntegerLayer) -> Simulated:
    """Run a layer.

    Raises:
        ConfigurationInvalid: A weight does not fit in as many digit planes as it has bits.
    """
    if isinstance(layer, IntegerProduct):
        found = simulate(array, _as_conv(layer))
        return replace(found, outputs=found.outputs[0, :, 0, :].T)
    planes = digit_planes(layer)
    engine = _Engine(array, layer.zero_point, layer.stride[1])
    images, outputs = layer.inputs.shape[0], layer.weights.shape[0]
    sums = np.zeros((images, outputs, *out_size(layer)), np.int64)
    engine.run(Blocks(array, layer, planes).all(), sums)
    sums -= layer.zero_point * layer.weights.sum(axis=(1, 2, 3))[:, None, None]
    return Simulated(outputs=sums, cycles=engine.cycles, multiplications=engine.multiplications)


def _as_conv(layer: IntegerProduct) -> IntegerConv:
    """Rows as the pixels of one image row."""
    return IntegerConv(
        inputs=layer.inputs.T[None, :, None, :],
        weights=layer.weights.T[:, :, None, None],
        zero_point=layer.zero_point,
        input_bits=layer.input_bits,
        weight_bits=layer.weight_bits,
        input_signed=layer.input_signed,
    )
