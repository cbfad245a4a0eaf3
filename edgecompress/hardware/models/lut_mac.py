"""Multiply-accumulate units in look-up tables and DSP blocks: the narrower they are, the more fit.

The units that a device holds at widths of A and W bits form R-long dot products, one in each of C
columns; R is given and C is what fits. The machine runs a product (rows x inner) (inner x columns)
like this:

1. Rows are cut into strips that the accumulators of a column hold.
2. For each strip, C output columns and R of the inner terms there is one **block**: one setting of
   the weight registers. Wider operands than the units take one block for each pair of digits; low
   digits are unsigned and the top one has the sign.
3. Weight registers are double: those of the next block are loaded one row of C weights in a cycle,
   as many rows as it uses, while a block runs. Only the first load is waited for, and loads that
   take longer than their block.
4. In a block one row of R activations enters each cycle and is broadcast to all columns. A dot
   product is added to its accumulator ``pipeline_cycles`` later; blocks follow without a gap.

A convolution is the product of its windows, gathered on the fly; groups follow one another.

Units: a unit in look-up tables takes ``luts_per_mac``, one with a DSP block takes
``luts_per_dsp_mac`` and a share of 1 / ``macs_per_dsp`` of a block; the mix is that with the most
units. Widths that the tables do not have are built as the cheapest entry that holds both, operands
in either order; above all entries as several of the largest.

Source: arithmetic on a design of this project; the numbers are the target's.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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

REBUILT = "the array is built again for the widths of each operator"
DIGITS = "operands wider than the units run digit by digit, one pass for each pair"

WidthTable = Annotated[
    dict[Annotated[str, Field(pattern=r"^[1-9][0-9]?x[1-9][0-9]?$")], PositiveFloat],
    Field(min_length=1),
]


Entries = tuple[tuple[str, float], ...]
Bits = tuple[int, int]


class Parameters(BaseModel):
    """An array of multiply-accumulate units on a programmable device.

    Attributes:
        luts, dsp_blocks: That the units may take together.
        luts_per_mac, luts_per_dsp_mac, macs_per_dsp: By widths "activation x weight".
        dot_length: R.
        unit_activation_bits, unit_weight_bits: Widths that the units are built for; left out: for
            each operator its own.
        pipeline_cycles: From an activation that enters to its sum.
        accumulators, accumulator_bits: Of each column.
        activation_buffer_bytes, weight_buffer_bytes: On-chip memories, one half of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    luts: PositiveInt
    dsp_blocks: Annotated[int, Field(ge=0)]
    luts_per_mac: WidthTable
    luts_per_dsp_mac: WidthTable
    macs_per_dsp: WidthTable
    dot_length: PositiveInt
    unit_activation_bits: PositiveInt | None = None
    unit_weight_bits: PositiveInt | None = None
    pipeline_cycles: PositiveInt
    accumulators: PositiveInt
    accumulator_bits: PositiveInt
    activation_buffer_bytes: PositiveInt
    weight_buffer_bytes: PositiveInt

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def built_for(self, activation_bits: int, weight_bits: int) -> tuple[int, int]:
        """Widths of the units that an operator of these widths runs on."""
        return self.unit_activation_bits or activation_bits, self.unit_weight_bits or weight_bits

    def units(self, activation_bits: int, weight_bits: int) -> int:
        """The most multiply-accumulate units of these widths that fit; 1 at least."""
        return self.mix(activation_bits, weight_bits)[0]

    def mix(self, activation_bits: int, weight_bits: int) -> tuple[int, int]:
        """Units that fit, and DSP blocks among what they take."""
        return _mix(
            (self.luts, self.dsp_blocks),
            tuple(self.luts_per_mac.items()),
            tuple(self.luts_per_dsp_mac.items()),
            tuple(self.macs_per_dsp.items()),
            (activation_bits, weight_bits),
        )

    def shape(self, activation_bits: int, weight_bits: int) -> tuple[int, int]:
        """R and C at the widths that the units are built for."""
        units = self.units(activation_bits, weight_bits)
        rows = min(self.dot_length, units)
        return rows, units // rows


def array_cycles(products: Products, passes: int, shape: tuple[int, int], p: Parameters) -> int:
    """Cycles from the first weight that is loaded to the last sum that is accumulated.

    Args:
        products: What is run.
        passes: Pairs of digits.
        shape: (R, C).
        p: For the accumulators and the pipeline.
    """
    length, columns = shape
    full, rest = divmod(products.inner, length)
    tiles = ((full, length), (1 if rest else 0, rest))
    first = length if full else rest
    repeats = products.count * ratio_up(products.columns, columns) * passes
    strips, short = divmod(products.rows, p.accumulators)
    busy = 0
    for count, rows in ((strips, p.accumulators), (1 if short else 0, short)):
        busy += count * repeats * sum(tile * max(rows, load) for tile, load in tiles)
    last = short or p.accumulators
    return first + busy - max(last, first) + last + p.pipeline_cycles


class LutMac(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        p, products = _parameters(target), as_products(work)
        widths = operand_widths(work, target)
        units, passes = _mapping(p, widths)
        length, columns = p.shape(*units)
        cycles = array_cycles(products, passes, (length, columns), p)
        moved = length * units[0] + 2 * columns * p.accumulator_bits
        array = ArrayWork(
            cycles=cycles,
            macs_per_cycle=length * columns / passes,
            operand_bytes=cycles * moved / 8,
            activation_buffer_bytes=p.activation_buffer_bytes,
            weight_buffer_bytes=p.weight_buffer_bytes,
        )
        rebuilt = p.unit_activation_bits is None or p.unit_weight_bits is None
        return price(
            work,
            target,
            array,
            products.assumed,
            REBUILT if rebuilt else "",
            DIGITS if passes > 1 else "",
        )

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping can go below."""
        p = _parameters(target)
        units, passes = _mapping(p, operand_widths(work, target))
        length, columns = p.shape(*units)
        return bound_cycles(work, target, length * columns / passes)

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources:
        """What the units take, and the buffers; control and interfaces are not counted.

        The widest word of a buffer is R activations, or the weights of C columns; where the units
        are built for each operator, those of 8 bits.
        """
        p = _parameters(target)
        activation, weight = p.built_for(8, 8)
        length, columns = p.shape(activation, weight)
        bram18 = 2 * _blocks(p.activation_buffer_bytes, length * activation)
        bram18 += 2 * _blocks(p.weight_buffer_bytes, columns * weight)
        bram18 += bram18_blocks(p.accumulators, p.accumulator_bits * columns)
        dsp = p.mix(activation, weight)[1]
        return Resources(dsp=dsp, bram18=bram18, lut=p.luts)

    def chain_bytes(self, target: Target) -> int:
        """One half of the activation buffer."""
        return _parameters(target).activation_buffer_bytes


FAMILY = LutMac()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a LUT-MAC array")
    return target.parameters


def _mapping(p: Parameters, widths: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Widths of the units, and passes over them."""
    units = p.built_for(*widths)
    return units, ratio_up(widths[0], units[0]) * ratio_up(widths[1], units[1])


@lru_cache(maxsize=4096)
def _mix(
    budget: tuple[int, int], in_luts: Entries, with_dsp: Entries, packed: Entries, bits: Bits
) -> tuple[int, int]:
    """The most units that (look-up tables, DSP blocks) hold, and the blocks that they take."""
    luts, blocks = budget
    luts_each, luts_beside = _cheapest(in_luts, bits), _cheapest(with_dsp, bits)
    if luts_beside >= luts_each:
        return max(1, int(luts / luts_each)), 0
    share = _cheapest(tuple((widths, 1 / macs) for widths, macs in packed), bits)
    on_dsp = min(blocks / share, luts / luts_beside)
    units = max(1, int(on_dsp + (luts - on_dsp * luts_beside) / luts_each))
    return units, min(blocks, math.ceil(on_dsp * share))


def _cheapest(table: Entries, bits: Bits) -> float:
    """The cheapest entry that holds both widths; of widths above all entries several."""
    entries: list[tuple[int, int, float]] = []
    for key, value in table:
        a, w = (int(width) for width in key.split("x"))
        entries += [(a, w, value), (w, a, value)]
    widest = max(a for a, _, _ in entries)
    copies = ratio_up(bits[0], widest) * ratio_up(bits[1], widest)
    a_bits, w_bits = min(bits[0], widest), min(bits[1], widest)
    holding = [value for a, w, value in entries if a >= a_bits and w >= w_bits]
    if holding:
        return copies * min(holding)
    return min(value * ratio_up(bits[0], a) * ratio_up(bits[1], w) for a, w, value in entries)


def _blocks(byte_count: int, word_bits: int) -> int:
    """Block memories of a buffer that gives a word a cycle."""
    return bram18_blocks(ratio_up(8 * byte_count, word_bits), word_bits)
