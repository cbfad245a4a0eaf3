"""Look-up tables and DSP blocks of the generated arrays, by closed form.

In look-up tables a product is a row of adders for every bit of one operand, each as wide as the
other, and the sum one adder more: an adder takes about one table a bit. With DSP blocks only the
control is left, and where sums stay the bus of each column, an OR of as many terms as it has rows.
What delays operands from row to row and column to column is registers, without tables. Memories
are not counted.

Source of all coefficients: least squares of the relative error on the arrays called ``fit`` in
the results of ``benchmarks/rtl/synthesis.py``, as Yosys 0.23 mapped them (``synth_xilinx -family
xc7 -flatten``): up to 4 x 4, and columns of up to 32 rows for the bus. The larger ones called
``check`` were not fitted, but seen while the features were chosen; those called ``held out`` were
neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgecompress.hardware.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class SystolicCounts:
    """What the resources of a systolic array depend on.

    Attributes:
        rows, columns: Processing elements.
        moved_bits: Width of what the rows of adders add: of the activations.
        held_bits: Rows of adders of a product: width of the weights.
        sum_bits: Width of a sum.
        dsp: Products and sums in DSP blocks.
    """

    rows: int
    columns: int
    moved_bits: int
    held_bits: int
    sum_bits: int
    dsp: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """Look-up tables by what they grow with.

    Attributes:
        control: Of an array of any size.
        sum_bit: Of each bit of an element's sum.
        adder_bit: Of each bit of an adder row of an element.
        adder: Of each adder row of an element beside its bits.
        operand_bit: Of each bit of an element's moved operand.
        bus_bit: Of each bit of the bus of a column, for each element but the first.
    """

    control: float
    sum_bit: float = 0.0
    adder_bit: float = 0.0
    adder: float = 0.0
    operand_bit: float = 0.0
    bus_bit: float = 0.0


SUMS_MOVE = _Tables(control=235.9, sum_bit=1.065, adder_bit=1.122, adder=0.313, operand_bit=0.797)
SUMS_STAY = _Tables(
    control=251.6, sum_bit=0.79, adder_bit=1.264, adder=-0.335, operand_bit=1.02, bus_bit=0.859
)
SUMS_MOVE_DSP = _Tables(control=242.5)
SUMS_STAY_DSP = _Tables(control=237.0, bus_bit=0.763)


def systolic_resources(counts: SystolicCounts, *, sums_stay: bool) -> Resources:
    """What the array of `rtl.systolic_ws` takes, or that of `rtl.systolic_os` if sums stay."""
    if counts.dsp:
        tables = SUMS_STAY_DSP if sums_stay else SUMS_MOVE_DSP
    else:
        tables = SUMS_STAY if sums_stay else SUMS_MOVE
    elements = counts.rows * counts.columns
    adders = counts.held_bits - 1
    element = (
        tables.sum_bit * counts.sum_bits
        + tables.adder_bit * adders * counts.moved_bits
        + tables.adder * adders
        + tables.operand_bit * counts.moved_bits
    )
    bus = tables.bus_bit * counts.sum_bits * (elements - counts.columns)
    return Resources(
        dsp=elements if counts.dsp else 0,
        bram18=0,
        lut=round(tables.control + elements * element + bus),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryCounts:
    """What the resources of a ternary engine depend on.

    Attributes:
        output_lanes, input_lanes, window: Tm, Tn and K.
        activation_bits: Width of a code.
        sum_bits: Width of a sum.
    """

    output_lanes: int
    input_lanes: int
    window: int
    activation_bits: int
    sum_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _EngineTables:
    """Look-up tables of a ternary engine by what they grow with.

    Attributes:
        control: Of an engine of any size.
        window_column: Of each column of the window, for what is outside the feature map.
        tap_bit: Of each bit of a tap's code and of its negative, which all lanes share.
        unit_bit: Of each bit of a select unit.
        tree_bit: Of each bit of an adder of the trees, of the mean width of its tree.
        sum_bit: Of each bit of a lane's sum: shifted by a digit plane, and added.
    """

    control: float
    window_column: float
    tap_bit: float
    unit_bit: float
    tree_bit: float
    sum_bit: float


ENGINE = _EngineTables(
    control=254.5,
    window_column=34.2,
    tap_bit=0.685,
    unit_bit=1.795,
    tree_bit=1.116,
    sum_bit=2.379,
)


def ternary_resources(counts: TernaryCounts) -> Resources:
    """What the engine of `rtl.ternary_engine` takes: look-up tables only."""
    taps = counts.input_lanes * counts.window**2
    term_bits = counts.activation_bits + 1
    tree = (taps - 1) * (term_bits + math.log2(taps) / 2)
    lane = (
        ENGINE.unit_bit * taps * term_bits
        + ENGINE.tree_bit * tree
        + ENGINE.sum_bit * counts.sum_bits
    )
    shared = ENGINE.window_column * counts.window + ENGINE.tap_bit * taps * term_bits
    lut = ENGINE.control + shared + counts.output_lanes * lane
    return Resources(dsp=0, bram18=0, lut=round(lut))
