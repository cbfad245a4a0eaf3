"""The Bit Fusion array, clock by clock: a systolic array of units made of 2 x 2 bit multipliers.

Codes as they are stored enter the array; what the zero point adds to every sum is subtracted at the
end. The steps are those of the machine that ``hardware/models/bit_fusion.py`` describes.
"""

from __future__ import annotations

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

BRICK_BITS = 2
UNIT_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BitFusionArray:
    """The shape of an array: N rows and M columns of fusion units."""

    array_rows: int
    array_columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """Digits of one place of both operands of a product, in the 2-bit pieces that bricks take.

    Attributes:
        inputs: (rows, taps, chunks, N, F, pieces).
        weights: (taps, chunks, N, F, columns, pieces), idle columns at the end.
        real: (rows, taps, chunks, N, F): counted multiplications; none after the first pass.
        shift: Of the two digits together.
    """

    inputs: IntArray
    weights: IntArray
    real: BoolArray
    shift: int


@dataclass(frozen=True, slots=True)
class Step:
    """What all units work on, one after the other."""

    operands: Operands
    product: int
    row: int
    column: int
    tap: int
    chunk: int


@dataclass(slots=True)
class _Array:
    """All registers, and the clock."""

    shape: BitFusionArray
    sums: IntArray
    columns: int
    cycles: int = 0
    multiplications: int = 0
    inside: list[list[Step | None]] = field(init=False)
    partial: IntArray = field(init=False)
    leaving: list[tuple[Step, int] | None] = field(init=False)

    def __post_init__(self) -> None:
        n, m = self.shape.array_rows, self.shape.array_columns
        self.inside = [[None] * m for _ in range(n)]
        self.partial = np.zeros((n, m), np.int64)
        self.leaving = [None] * m

    def run(self, steps: Iterator[Step]) -> None:
        """Steps enter one a cycle, until the last sum is accumulated."""
        step = next(steps, None)
        while step is not None or self._busy():
            self._accumulate()
            self._move(step)
            self._multiply()
            self.cycles += 1
            step = next(steps, None)

    def _busy(self) -> bool:
        """Whether a step is in the array or a sum at its lower edge."""
        return (
            any(done is not None for done in self.leaving)
            or any(step is not None for row in self.inside for step in row[:-1])
            or any(row[-1] is not None for row in self.inside[:-1])
        )

    def _accumulate(self) -> None:
        """Sums at the lower edge of each column."""
        for column, done in enumerate(self.leaving):
            if done is None or done[0].column + column >= self.columns:
                continue
            step, value = done
            self.sums[step.product, step.row, step.column + column] += value << step.operands.shift

    def _move(self, entering: Step | None) -> None:
        """Activations one unit to the right; rows start one cycle after the row above."""
        heads = [entering, *(row[0] for row in self.inside[:-1])]
        self.inside = [[head, *row[:-1]] for head, row in zip(heads, self.inside, strict=True)]

    def _multiply(self) -> None:
        """All units at once: products of the bricks, shifted, on top of the sum from above."""
        above = np.vstack([np.zeros_like(self.partial[:1]), self.partial[:-1]])
        for n, row in enumerate(self.inside):
            for m, step in enumerate(row):
                above[n, m] = 0 if step is None else above[n, m] + self._unit(step, n, m)
        self.partial = above
        last = self.inside[-1]
        self.leaving = [
            None if step is None else (step, int(above[-1, m])) for m, step in enumerate(last)
        ]

    def _unit(self, step: Step, n: int, m: int) -> int:
        """F multiplications, of all pairs of 2-bit pieces."""
        o = step.operands
        column = step.column + m
        pieces = o.inputs[step.row, step.tap, step.chunk, n]  # (F, pieces)
        others = o.weights[step.tap, step.chunk, n, :, column]
        if column < self.columns:
            self.multiplications += int(o.real[step.row, step.tap, step.chunk, n].sum())
        bricks = pieces.T @ others  # each entry: one brick position, summed over the channels
        return sum(
            int(bricks[i, j]) << BRICK_BITS * (i + j)
            for i in range(bricks.shape[0])
            for j in range(bricks.shape[1])
        )


def simulate(array: BitFusionArray, layer: IntegerLayer) -> Simulated:
    """Run a layer.

    Raises:
        ConfigurationInvalid: A code does not fit in its width.
    """
    products = as_products(layer)
    columns = products.weights.shape[2]
    sums = np.zeros((*products.inputs.shape[:2], columns), np.int64)
    state = _Array(array, sums, columns)
    state.run(_steps(array, products))
    return Simulated(
        outputs=as_outputs(layer, products.corrected(sums)),
        cycles=state.cycles,
        multiplications=state.multiplications,
    )


def _steps(array: BitFusionArray, products: Products) -> Iterator[Step]:
    """Steps in order: product, columns, row, pass, position of the kernel, channels."""
    count, rows, _ = products.inputs.shape
    for product in range(count):
        passes = list(_passes(array, products, product))
        for column in range(0, products.weights.shape[2], array.array_columns):
            for row in range(rows):
                for operands in passes:
                    for tap in range(products.taps):
                        for chunk in range(operands.inputs.shape[2]):
                            yield Step(operands, product, row, column, tap, chunk)


def _passes(array: BitFusionArray, products: Products, product: int) -> Iterator[Operands]:
    """Pairs of digits that fit in a unit, laid out for the units."""
    a_bits, w_bits = _digit_bits(products.input_bits), _digit_bits(products.weight_bits)
    fused = UNIT_BITS // a_bits * (UNIT_BITS // w_bits)
    rows, inner = products.inputs.shape[1:]
    columns = products.weights.shape[2]
    lanes = array.array_rows * fused
    channels = inner // products.taps
    chunks = -(-channels // lanes)
    units = (products.taps, chunks, array.array_rows, fused)
    idle = chunks * lanes - channels
    beside = -columns % array.array_columns
    inputs = products.inputs[product].reshape(rows, channels, -1).swapaxes(1, 2)
    real = products.real[product].reshape(rows, channels, -1).swapaxes(1, 2)
    weights = products.weights[product].reshape(channels, -1, columns).swapaxes(0, 1)
    inputs, real = (np.pad(v, ((0, 0), (0, 0), (0, idle))) for v in (inputs, real))
    weights = np.pad(weights, ((0, 0), (0, idle), (0, beside)))
    a_digits = digits(inputs, products.input_bits, a_bits, signed=products.input_signed)
    w_digits = digits(weights, products.weight_bits, w_bits, signed=True)
    for a, a_digit in enumerate(a_digits):
        for w, w_digit in enumerate(w_digits):
            a_signed = products.input_signed and a == len(a_digits) - 1
            w_signed = w == len(w_digits) - 1
            yield Operands(
                inputs=_pieces(a_digit, a_bits, a_signed).reshape(rows, *units, -1),
                weights=_pieces(w_digit, w_bits, w_signed).reshape(*units, columns + beside, -1),
                real=real.reshape(rows, *units) & (a + w == 0),
                shift=a * a_bits + w * w_bits,
            )


def _digit_bits(bits: int) -> int:
    """The width that units are split at: 2, 4 or 8."""
    width = BRICK_BITS
    while width < min(bits, UNIT_BITS):
        width *= 2
    return width


def _pieces(digit: IntArray, bits: int, signed: bool) -> IntArray:
    """The 2-bit pieces of a digit in a last axis: unsigned, but the top one of signed digits."""
    return np.stack(digits(digit, bits, BRICK_BITS, signed=signed), axis=-1)
