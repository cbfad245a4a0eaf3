"""A bit-serial matrix product: binary dot products, one bit plane of each operand at a time.

``row_units`` x ``column_units`` dot-product units (D_m, D_n) of ``unit_bits`` (D_k) terms each:
every cycle a unit takes D_k bits of one plane of its row and of its column, ANDs them, counts the
ones, shifts the count by the places of the two planes, negates it where one of them is a sign,
and adds it to its accumulator. A product (rows x inner) (inner x columns) runs like this:

1. For each D_m rows and D_n columns there is one tile of results.
2. In a tile, each pair of an activation plane and a weight plane takes ceil(inner / D_k) cycles.
3. Accumulators are double: a tile starts in the cycle after the last of the one before.
4. The last count is in its accumulator ``pipeline_cycles`` after its bits were taken.

Time falls in proportion to the width of both operands, down to one bit, and so does the energy of
the array, which is counted in products of two bits. Planes that are all zero are not
skipped. A convolution is the product of its windows; groups follow one another.

Source: BISMO (arXiv 1901.00370, github.com/EECS-NTNU/bismo): units, planes, stages that overlap.
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
from edgecompress.hardware.resources import Resources, bram18_blocks
from edgecompress.hardware.target import PositiveFloat, PositiveInt, Target
from edgecompress.hardware.timeline import HostElements, ratio_up


class Parameters(BaseModel):
    """A bit-serial array.

    Attributes:
        row_units, column_units, unit_bits: D_m, D_n and D_k.
        pipeline_cycles: From bits that are taken to their count in the accumulator.
        accumulator_bits: Width of a sum.
        activation_buffer_bytes, weight_buffer_bytes: On-chip memories, one half of each.
        luts_per_unit_bit, luts_per_unit: Look-up tables of a unit: for each of its terms, and
            beside them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    row_units: PositiveInt
    column_units: PositiveInt
    unit_bits: PositiveInt
    pipeline_cycles: PositiveInt
    accumulator_bits: PositiveInt
    activation_buffer_bytes: PositiveInt
    weight_buffer_bytes: PositiveInt
    luts_per_unit_bit: PositiveFloat
    luts_per_unit: PositiveFloat

    @property
    def binary_macs(self) -> int:
        """Products of two bits a cycle."""
        return self.row_units * self.column_units * self.unit_bits


def array_cycles(products: Products, activation_bits: int, weight_bits: int, p: Parameters) -> int:
    """Cycles from the first bits that are taken to the last count that is accumulated."""
    tiles = ratio_up(products.rows, p.row_units) * ratio_up(products.columns, p.column_units)
    steps = ratio_up(products.inner, p.unit_bits)
    return products.count * tiles * steps * activation_bits * weight_bits + p.pipeline_cycles


class BitSerial(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        p, products = _parameters(target), as_products(work)
        activation, weight = operand_widths(work, target)
        cycles = array_cycles(products, activation, weight, p)
        array = ArrayWork(
            cycles=cycles,
            macs_per_cycle=p.binary_macs / (activation * weight),
            operand_bytes=cycles * (p.row_units + p.column_units) * p.unit_bits / 8,
            activation_buffer_bytes=p.activation_buffer_bytes,
            weight_buffer_bytes=p.weight_buffer_bytes,
            multiplications=products.macs * activation * weight,
        )
        return price(work, target, array, products.assumed)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping can go below."""
        activation, weight = operand_widths(work, target)
        return bound_cycles(work, target, _parameters(target).binary_macs / (activation * weight))

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources:
        """Units in look-up tables, one bank of buffer for each row and column of them.

        Fetch, result and control logic are not counted.
        """
        p = _parameters(target)
        units = p.row_units * p.column_units
        bram18 = 0
        for banks, byte_count in (
            (p.row_units, p.activation_buffer_bytes),
            (p.column_units, p.weight_buffer_bytes),
        ):
            words = ratio_up(8 * byte_count, banks * p.unit_bits)
            bram18 += 2 * banks * bram18_blocks(words, p.unit_bits)
        lut = round(units * (p.luts_per_unit_bit * p.unit_bits + p.luts_per_unit))
        return Resources(dsp=0, bram18=bram18, lut=lut)

    def chain_bytes(self, target: Target) -> int:
        """One half of the activation buffer."""
        return _parameters(target).activation_buffer_bytes


FAMILY = BitSerial()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a bit-serial array")
    return target.parameters
