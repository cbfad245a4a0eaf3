"""Bit Fusion: a systolic array of units that split into many narrow multipliers or fuse into one.

``array_rows`` x ``array_columns`` fusion units (N, M) of 16 multipliers of 2 x 2 bits. At widths of
A and W bits, each 2, 4 or 8, a unit does F = (8 / A) (8 / W) multiplications in a cycle, of that
many input channels; other widths round up, and wider operands run as pairs of 8-bit digits, one
pass each. The machine runs an operator like this:

1. A **step** is F x N input channels at one position of the kernel for one output pixel and M
   output channels. Steps follow in the order: group, output channels, pixels, pass, positions of
   the kernel, input channels; one in each cycle, from weight buffers in the units.
2. Activations enter at the left and move one unit to the right in a cycle; partial sums enter at
   the top and move one unit down: row n and column m work on a step n + m cycles after it started.
3. A sum that leaves the bottom of a column is accumulated in the next cycle.

That takes steps + N + M - 1 cycles; the published simulator counts the steps and not the N + M - 1
in which the array fills and drains.

Source: Bit Fusion (arXiv 1712.01507, github.com/hsharma35/bitfusion).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgecompress.core.work import Cost, Work
from edgecompress.hardware.models._lowbit import (
    ArrayWork,
    Products,
    as_products,
    bound_cycles,
    operand_widths,
    price,
)
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import PositiveInt, Target
from edgecompress.hardware.timeline import HostElements, ratio_up

UNIT_BITS = 8  # Source: a fusion unit is 4 x 4 multipliers of 2 x 2 bits


class Parameters(BaseModel):
    """An array of fusion units.

    Attributes:
        array_rows, array_columns: N and M.
        accumulator_bits: Width of a sum.
        activation_buffer_bytes, weight_buffer_bytes: On-chip memories, one half of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    array_rows: PositiveInt
    array_columns: PositiveInt
    accumulator_bits: PositiveInt
    activation_buffer_bytes: PositiveInt
    weight_buffer_bytes: PositiveInt

    def macs_per_cycle(self, activation_bits: int, weight_bits: int) -> float:
        """Of the whole array at these widths."""
        fused, passes = fusion(activation_bits, weight_bits)
        return self.array_rows * self.array_columns * fused / passes


def fusion(activation_bits: int, weight_bits: int) -> tuple[int, int]:
    """Multiplications of a unit in a cycle, and passes over operands of more than 8 bits."""
    fused, passes = 1, 1
    for bits in (activation_bits, weight_bits):
        digit = min(UNIT_BITS, max(2, 1 << (bits - 1).bit_length()))
        fused *= UNIT_BITS // digit
        passes *= ratio_up(bits, digit)
    return fused, passes


def array_cycles(products: Products, activation_bits: int, weight_bits: int, p: Parameters) -> int:
    """Cycles from the first step that starts to the last sum that is accumulated."""
    fused, passes = fusion(activation_bits, weight_bits)
    channels = products.inner // products.taps
    steps = ratio_up(products.columns, p.array_columns) * products.rows * passes * products.taps
    steps *= products.count * ratio_up(channels, p.array_rows * fused)
    return steps + p.array_rows + p.array_columns - 1


class BitFusion(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        p, products = _parameters(target), as_products(work)
        activation, weight = operand_widths(work, target)
        cycles = array_cycles(products, activation, weight, p)
        fused = fusion(activation, weight)[0]
        moved = p.array_rows * fused * min(activation, UNIT_BITS)
        moved += p.array_rows * p.array_columns * fused * min(weight, UNIT_BITS)
        moved += 2 * p.array_columns * p.accumulator_bits
        array = ArrayWork(
            cycles=cycles,
            macs_per_cycle=p.macs_per_cycle(activation, weight),
            operand_bytes=cycles * moved / 8,
            activation_buffer_bytes=p.activation_buffer_bytes,
            weight_buffer_bytes=p.weight_buffer_bytes,
        )
        return price(work, target, array, products.assumed)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping can go below."""
        widths = operand_widths(work, target)
        return bound_cycles(work, target, _parameters(target).macs_per_cycle(*widths))

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources | None:
        """A fixed chip."""
        return None

    def chain_bytes(self, target: Target) -> int:
        """One half of the activation buffer."""
        return _parameters(target).activation_buffer_bytes


FAMILY = BitFusion()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a Bit Fusion array")
    return target.parameters
