"""The Bit Fusion array, clock by clock: a systolic array of units made of 2 x 2 bit multipliers.

Codes as they are stored enter the array; what the zero point adds to every sum is subtracted at the
end. The steps are those of the machine that ``hardware/models/bit_fusion.py`` describes.

The registers of all units are advanced cycle by cycle. What the units multiply is worked out for
some cycles together, from what the registers held in each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from edgecompress.hardware.simulator.layers import IntArray, IntegerLayer, Simulated
from edgecompress.hardware.simulator.products import Products, as_outputs, as_products

BRICK_BITS = 2
UNIT_BITS = 8

# Places of what a register holds: all zeros where there is no step in it.
_PLACES = 8
_BUSY, _PRODUCT, _COLUMN, _ROW, _INPUT_DIGIT, _WEIGHT_DIGIT, _TAP, _CHUNK = range(_PLACES)
_REGISTERS = 1 << 17  # of all cycles that are worked out together; has no effect on what is counted

Step = tuple[int, int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BitFusionArray:
    """The shape of an array: N rows and M columns of fusion units."""

    array_rows: int
    array_columns: int


@dataclass(frozen=True, slots=True)
class _Operand:
    """How the codes of one operand are cut for the units.

    Attributes:
        digit_bits: The width that units are split at.
        digits: Of a code.
        signed: The top one has a sign.
    """

    digit_bits: int
    digits: int
    signed: bool

    @classmethod
    def of(cls, bits: int, *, signed: bool) -> _Operand:
        """Digits of 2, 4 or 8 bits for codes of a width."""
        width = BRICK_BITS
        while width < min(bits, UNIT_BITS):
            width *= 2
        return cls(width, -(-bits // width), signed)

    def pieces(self, codes: IntArray, digit: IntArray) -> list[IntArray]:
        """The 2-bit pieces of one digit of each code: unsigned, but the top one of signed codes."""
        count = self.digit_bits // BRICK_BITS
        mask = (1 << BRICK_BITS) - 1
        found = []
        for piece in range(count):
            bits = codes >> digit * self.digit_bits + piece * BRICK_BITS
            sign = self.signed and piece == count - 1
            found.append(
                np.where(digit == self.digits - 1, bits, bits & mask) if sign else bits & mask
            )
        return found


class _Array:
    """All registers, and the clock."""

    def __init__(self, shape: BitFusionArray, products: Products) -> None:
        self._products = products
        self._inputs = _Operand.of(products.input_bits, signed=products.input_signed)
        self._weights = _Operand.of(products.weight_bits, signed=True)
        self._fused = UNIT_BITS // self._inputs.digit_bits * (UNIT_BITS // self._weights.digit_bits)
        self._n, self._m = shape.array_rows, shape.array_columns
        self._channels = products.inputs.shape[2] // products.taps
        self._columns = products.weights.shape[2]
        self._inside = np.zeros((self._n, self._m, _PLACES), np.int64)
        self._partial = np.zeros((self._n, self._m), np.int64)
        self.sums = np.zeros((*products.inputs.shape[:2], self._columns), np.int64)
        self.cycles = 0
        self.multiplications = 0

    def steps(self) -> Iterator[Step]:
        """Steps in order: product, columns, row, pass, position of the kernel, channels."""
        count, rows, _ = self._products.inputs.shape
        return product(
            (1,),
            range(count),
            range(0, self._columns, self._m),
            range(rows),
            range(self._inputs.digits),
            range(self._weights.digits),
            range(self._products.taps),
            range(-(-self._channels // (self._n * self._fused))),
        )

    def run(self) -> None:
        """Steps enter one a cycle, until the last sum is accumulated."""
        steps = self.steps()
        together = max(1, _REGISTERS // self._inside.size)
        while True:
            entering = list(islice(steps, together))
            held = self._move(entering, together)
            if len(held) == 1:
                return
            self._add(held, self._multiply(held[1:]))
            self._inside = held[-1]

    def _move(self, entering: list[Step], most: int) -> IntArray:
        """Activations one unit to the right a cycle; rows start one cycle after the row above.

        Returns:
            What the registers (N, M) hold: first as it was, then after each cycle.
        """
        held = np.zeros((most + 1, *self._inside.shape), np.int64)
        held[0] = self._inside
        passed = 0
        while passed < most and (passed < len(entering) or held[passed, :, :, _BUSY].any()):
            now, before = held[passed + 1], held[passed]
            now[:, 1:] = before[:, :-1]
            now[1:, 0] = before[:-1, 0]
            if passed < len(entering):
                now[0, 0] = entering[passed]
            passed += 1
        self.cycles += passed
        return held[: passed + 1]

    def _multiply(self, held: IntArray) -> IntArray:
        """What every unit (cycle, N, M) adds: products of the bricks, shifted.

        Units without a channel or an output have weights of zero.
        """
        added = np.zeros(held.shape[:3], np.int64)
        n, m = min(self._n, -(-self._channels // self._fused)), min(self._m, self._columns)
        at = np.moveaxis(held[:, :n, :m], -1, 0)[..., None]
        units = np.arange(n)[:, None, None]
        channel = (at[_CHUNK] * self._n + units) * self._fused + np.arange(self._fused)
        column = at[_COLUMN] + np.arange(m)[:, None]
        there = (at[_BUSY] > 0) & (channel < self._channels) & (column < self._columns)
        inner = np.where(there, channel * self._products.taps + at[_TAP], 0)
        taken = at[_PRODUCT], at[_ROW], inner
        first = (at[_INPUT_DIGIT] == 0) & (at[_WEIGHT_DIGIT] == 0)
        self.multiplications += int((self._products.real[taken] & there & first).sum())
        weights = self._products.weights[at[_PRODUCT], inner, np.where(there, column, 0)] * there
        ours = self._inputs.pieces(self._products.inputs[taken], at[_INPUT_DIGIT])
        others = self._weights.pieces(weights, at[_WEIGHT_DIGIT])
        for i, one in enumerate(ours):
            for j, other in enumerate(others):  # a brick position, summed over the channels
                brick = np.einsum("tnmf,tnmf->tnm", one, other)
                added[:, :n, :m] += brick << BRICK_BITS * (i + j)
        return added

    def _add(self, held: IntArray, added: IntArray) -> None:
        """Sums one unit down a cycle; what left a column is accumulated in the next cycle."""
        leaving = np.zeros((len(added), self._m), np.int64)
        for cycle, own in enumerate(added):
            leaving[cycle] = self._partial[-1]
            own[1:] += self._partial[:-1]
            self._partial = own
        at = held[:-1, -1]
        column = at[..., _COLUMN] + np.arange(self._m)
        wanted = (at[..., _BUSY] > 0) & (column < self._columns)
        shift = at[..., _INPUT_DIGIT] * self._inputs.digit_bits
        shift = shift + at[..., _WEIGHT_DIGIT] * self._weights.digit_bits
        place = at[..., _PRODUCT][wanted], at[..., _ROW][wanted], column[wanted]
        np.add.at(self.sums, place, (leaving << shift)[wanted])


def simulate(array: BitFusionArray, layer: IntegerLayer) -> Simulated:
    """Run a layer.

    Raises:
        ConfigurationInvalid: A code does not fit in its width.
    """
    products = as_products(layer)
    state = _Array(array, products)
    state.run()
    return Simulated(
        outputs=as_outputs(layer, products.corrected(state.sums)),
        cycles=state.cycles,
        multiplications=state.multiplications,
    )
