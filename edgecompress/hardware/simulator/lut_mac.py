"""The LUT-MAC array, clock by clock: rows of activations past weights that stay.

Codes as they are stored enter the array; what the zero point adds to every sum is subtracted at the
end. The steps are those of the machine that ``hardware/models/lut_mac.py`` describes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgecompress.hardware.simulator.layers import IntArray, IntegerLayer, Simulated
from edgecompress.hardware.simulator.products import (
    BoolArray,
    Products,
    as_outputs,
    as_products,
    digits,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LutMacArray:
    """The shape of an array.

    Attributes:
        dot_length, columns: R and C.
        unit_activation_bits, unit_weight_bits: Widths that the units are built for.
        pipeline_cycles: From an activation that enters to its sum.
        accumulators: Of each column.
    """

    dot_length: int
    columns: int
    unit_activation_bits: int
    unit_weight_bits: int
    pipeline_cycles: int
    accumulators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One setting of the weight registers.

    Attributes:
        weights: (used rows, C) digits.
        inputs: (rows, R) digits that enter, one row a cycle.
        real: As ``inputs``: not padding, and the first of the passes.
        shift: Of the two digits.
        place: (product, first row, first column) of the sums.
        users: Columns that are not idle.
        opens, closes: The first and the last block of these sums.
    """

    weights: IntArray
    inputs: IntArray
    real: BoolArray
    shift: int
    place: tuple[int, int, int]
    users: int
    opens: bool
    closes: bool


@dataclass(slots=True)
class _Array:
    """All registers, and the clock."""

    shape: LutMacArray
    sums: IntArray
    cycles: int = 0
    multiplications: int = 0
    weights: IntArray = field(init=False)
    shadow: IntArray = field(init=False)
    accumulators: IntArray = field(init=False)
    pipeline: deque[tuple[Block, int, IntArray] | None] = field(init=False)

    def __post_init__(self) -> None:
        registers = (self.shape.dot_length, self.shape.columns)
        self.weights, self.shadow = np.zeros(registers, np.int64), np.zeros(registers, np.int64)
        self.accumulators = np.zeros((self.shape.accumulators, self.shape.columns), np.int64)
        self.pipeline = deque([None] * self.shape.pipeline_cycles)

    def run(self, blocks: Iterator[Block]) -> None:
        """All blocks, then the pipeline until it is empty."""
        following = next(blocks, None)
        loading = self._load(following)
        while next(loading, False):
            self._clock(None)
        while following is not None:
            self.weights, self.shadow = self.shadow, self.weights
            block, following = following, next(blocks, None)
            loading, row = self._load(following), 0
            while next(loading, False) | (row < len(block.inputs)):
                entering = None
                if row < len(block.inputs):
                    entering = (block, row, block.inputs[row] @ self.weights)
                    self.multiplications += int(block.real[row].sum()) * block.users
                self._clock(entering)
                row += 1
        while any(stage is not None for stage in self.pipeline):
            self._clock(None)

    def _load(self, block: Block | None) -> Iterator[bool]:
        """A row of weights into the shadow registers for every ``next``."""
        if block is None:
            return
        for row in range(self.shape.dot_length):
            if row < len(block.weights):
                self.shadow[row] = block.weights[row]
                yield True
            else:
                self.shadow[row] = 0  # reset, not loaded

    def _clock(self, entering: tuple[Block, int, IntArray] | None) -> None:
        """One cycle: what leaves the pipeline is accumulated, dot products move on."""
        self.pipeline.append(entering)
        leaving = self.pipeline.popleft()
        self.cycles += 1
        if leaving is None:
            return
        block, row, sums = leaving
        if block.opens:
            self.accumulators[row] = 0
        self.accumulators[row] += sums << block.shift
        if block.closes:
            product, first_row, first = block.place
            done = self.accumulators[row, : block.users]
            self.sums[product, first_row + row, first : first + block.users] = done


def simulate(array: LutMacArray, layer: IntegerLayer) -> Simulated:
    """Run a layer.

    Raises:
        ConfigurationInvalid: A code does not fit in its width.
    """
    products = as_products(layer)
    shape = (*products.inputs.shape[:2], products.weights.shape[2])
    state = _Array(array, np.zeros(shape, np.int64))
    state.run(_blocks(array, products))
    return Simulated(
        outputs=as_outputs(layer, products.corrected(state.sums)),
        cycles=state.cycles,
        multiplications=state.multiplications,
    )


def _blocks(array: LutMacArray, products: Products) -> Iterator[Block]:
    """Blocks in order: product, strip of rows, columns, inner terms, pairs of digits."""
    a_bits, w_bits = array.unit_activation_bits, array.unit_weight_bits
    inputs = digits(products.inputs, products.input_bits, a_bits, signed=products.input_signed)
    weights = digits(products.weights, products.weight_bits, w_bits, signed=True)
    count, rows, inner = products.inputs.shape
    columns = products.weights.shape[2]
    for product in range(count):
        for row in range(0, rows, array.accumulators):
            strip = slice(row, row + array.accumulators)
            for column in range(0, columns, array.columns):
                users = min(array.columns, columns - column)
                steps = [
                    (first, a, w)
                    for first in range(0, inner, array.dot_length)
                    for a in range(len(inputs))
                    for w in range(len(weights))
                ]
                for place, (first, a, w) in enumerate(steps):
                    terms = slice(first, first + array.dot_length)
                    used = min(array.dot_length, inner - first)
                    entering = inputs[a][product, strip, terms]
                    idle = ((0, 0), (0, array.dot_length - used))
                    yield Block(
                        weights=np.pad(
                            weights[w][product, terms, column : column + users],
                            ((0, 0), (0, array.columns - users)),
                        ),
                        inputs=np.pad(entering, idle),
                        real=products.real[product, strip, terms] & (a == 0) & (w == 0),
                        shift=a * a_bits + w * w_bits,
                        place=(product, row, column),
                        users=users,
                        opens=place == 0,
                        closes=place == len(steps) - 1,
                    )
