"""The ternary engine: select units and adder trees that add, subtract or skip; no multiplier.

The machine has ``output_lanes`` x ``input_lanes`` x ``window`` x ``window`` select units (Tm, Tn,
K, K), each a weight register of one ternary digit and a choice of +x, -x or 0. In every cycle each
output lane sums all its select units in one adder tree. It runs an operator like this:

1. Each image is cut into strips of output pixels whose sums fit in ``accumulators`` (per output
   lane): whole rows while at least one fits, else parts of a row.
2. For each strip, set of groups, Tm output channels, part of the kernel, chunk of input channels
   and digit plane there is one **block**: one setting of the weight registers. Blocks follow in
   this order, the plane innermost. Sums stay in the accumulators until all blocks of a strip and
   of its output channels are done.
3. Weight registers are double: those of the next block are loaded in ``weight_load_cycles`` cycles
   while a block runs. Only the first load of an operator is waited for, and loads that take longer
   than their block.
4. In a block one column of pixels enters the window each cycle: the rows under the kernel of all
   channels of the chunk, read in parallel from as many row banks. Columns come as one stream: the
   rows of output pixels one after the other, without a gap, each V positions long. It takes as
   many cycles as the part of the kernel has columns until the window is full.
5. From then on the window is evaluated each cycle, at V positions for each output row. Taps outside
   the feature map see the code of zero. Positions between strides are computed and not written;
   rows between strides are not computed. V is the width of the feature map, or more where padding
   makes the output wider; in a part of a row, its pixels with the columns under their kernels.
6. Selected values are registered, then sums, then accumulated: 2 more cycles at the end of a block.

A block so takes k + 2 + V x rows cycles, k being the columns of its part of the kernel, and the
published form ceil(C / Tn) x ceil(K / Tm) x (k + 2 + W x H) is this machine for a feature map of
one strip with same padding, but for the first load of weights.

Kernels (with their dilation) that exceed the window are cut into parts that fit. Kernels smaller
than it leave select units idle; with ``packs_rows`` as many chunks of channels as fit are put above
each other in the rows of the window (the published design does not). Groups that fit together are
put on the diagonal, with zero weights between them. A matrix product is a 1x1 convolution whose
rows are pixels; a transposed convolution runs over its input with zeros put in. Weights above two
bits run as digit planes that the accumulators shift: n - 1 for n bits, the sign being in every
digit, or n where the codes are not symmetric (four levels in two bits, the most negative code).

Source: T-DLA (github.com/microideax/T-DLA): select units, double-pumped adder trees, lanes, clock,
weight load and cycle form. Step 1, the double weight registers, the planes, the diagonal groups and
the packing of rows are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from edgecompress.core.work import (
    ConvWork,
    Cost,
    ElementWork,
    MatMulWork,
    WeightValues,
    Work,
)
from edgecompress.hardware.models._lowbit import (
    ACTIVATIONS,
    ArrayWork,
    bound_cycles,
    operand_widths,
    price,
)
from edgecompress.hardware.resources import Resources, bram18_blocks
from edgecompress.hardware.target import PositiveInt, Target
from edgecompress.hardware.timeline import HostElements, ratio_up

PIPELINE_CYCLES = 2  # Source: the published cycle form
FEW_BITS = 4
"""Widths up to which all levels occur; the levels of wider codes are estimated from a sample."""

PLANES = "weights above ternary run as digit planes, one pass each; the published design has none"
UPSAMPLED = "transposed convolution: over the input with zeros put in"
DIAGONAL = "grouped convolution: groups side by side with zero weights between them"


class Parameters(BaseModel):
    """A ternary engine.

    Attributes:
        output_lanes, input_lanes, window: Tm, Tn and K: select units are Tm x Tn x K x K.
        weight_load_cycles: For all weight registers.
        accumulators: Sums that each output lane holds.
        packs_rows: Small kernels share the window.
        activation_buffer_bytes, weight_buffer_bytes: On-chip memories, one half of each.
        activation_bits: Width of an activation in the select units.
        accumulator_bits: Width of a sum.
        luts_per_select_bit: Look-up tables of a select unit for each bit of an activation.
        additions_per_dsp: Additions that a DSP block does in a cycle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    output_lanes: PositiveInt
    input_lanes: PositiveInt
    window: PositiveInt
    weight_load_cycles: PositiveInt
    accumulators: PositiveInt
    packs_rows: bool
    activation_buffer_bytes: PositiveInt
    weight_buffer_bytes: PositiveInt
    activation_bits: PositiveInt
    accumulator_bits: PositiveInt
    luts_per_select_bit: PositiveInt
    additions_per_dsp: PositiveInt

    @property
    def select_units(self) -> int:
        """Additions a cycle; two operations each as they are counted for multiply-accumulates."""
        return self.output_lanes * self.input_lanes * self.window**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A convolution at the engine's stride, as steps 1 to 6 need it.

    Attributes:
        images, groups: Swept one after the other.
        inputs, outputs: Channels of a group.
        in_width, out_height, out_width: Feature map sizes.
        kernel, dilation: (vertical, horizontal).
        column_stride: Between output columns.
    """

    images: int
    groups: int
    inputs: int
    outputs: int
    in_width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    column_stride: int = 1


def digit_planes(weight_bits: int, levels: int | None = None) -> int:
    """Passes of ternary digits that a weight takes.

    One less than its bits, as its sign is in every digit; as many as its bits where it has more
    levels than symmetric codes of that width have. ``levels`` are its distinct values, if known.
    """
    if levels is not None and levels >= 1 << weight_bits:
        return weight_bits
    return max(1, weight_bits - 1)


def as_sweep(operator: ConvWork | MatMulWork) -> Sweep:
    """What the engine sweeps for an operator."""
    if isinstance(operator, MatMulWork):
        return Sweep(
            images=operator.count,
            groups=1,
            inputs=operator.inner,
            outputs=operator.columns,
            in_width=operator.rows,
            out_height=1,
            out_width=operator.rows,
        )
    stride = 1 if operator.transposed else operator.stride[1]
    spread = operator.stride[1] if operator.transposed else 1
    return Sweep(
        images=operator.batch,
        groups=operator.group,
        inputs=operator.in_channels // operator.group,
        outputs=operator.out_channels // operator.group,
        in_width=(operator.in_width - 1) * spread + 1,
        out_height=operator.out_height,
        out_width=operator.out_width,
        kernel=operator.kernel,
        dilation=operator.dilation,
        column_stride=stride,
    )


def array_cycles(sweep: Sweep, planes: int, p: Parameters) -> int:
    """Cycles from the first weight that is loaded to the last sum that is accumulated."""
    heights = _extents(sweep.kernel[0], sweep.dilation[0], p.window)
    widths = _extents(sweep.kernel[1], sweep.dilation[1], p.window)
    together = groups_together(sweep, p)
    sets, channels = ratio_up(sweep.groups, together), together * sweep.inputs
    repeats = sweep.images * sets * ratio_up(sweep.outputs, p.output_lanes) * planes
    load, busy, last = p.weight_load_cycles, 0, 0
    for count, rows, pixels in _strips(sweep, p):
        for height in heights:
            chunks = ratio_up(channels, p.input_lanes * _slots(height, p))
            for width in widths:
                last = width + PIPELINE_CYCLES + rows * _positions(sweep, pixels, width)
                busy += count * repeats * chunks * max(last, load)
    return load + busy - max(last, load) + last


def groups_together(sweep: Sweep, p: Parameters) -> int:
    """Groups that share a block."""
    if sweep.groups == 1:
        return 1
    tallest = _extents(sweep.kernel[0], sweep.dilation[0], p.window)[0]
    lanes = p.input_lanes * _slots(tallest, p)
    if sweep.inputs > lanes or sweep.outputs > p.output_lanes:
        return 1
    return min(sweep.groups, lanes // sweep.inputs, p.output_lanes // sweep.outputs)


def _slots(height: int, p: Parameters) -> int:
    """Chunks of channels above each other in the window."""
    return p.window // height if p.packs_rows else 1


def _extents(taps: int, dilation: int, window: int) -> list[int]:
    """Rows or columns that each part of a kernel covers: full parts, then the rest."""
    most = min(taps, (window - 1) // dilation + 1)
    full, rest = divmod(taps, most)
    return [(size - 1) * dilation + 1 for size in [most] * full + [rest] * (rest > 0)]


def _strips(sweep: Sweep, p: Parameters) -> Iterator[tuple[int, int, int]]:
    """(count, rows, pixels of a row) of the strips of an image, the last kind last."""
    if sweep.out_width <= p.accumulators:
        rows = p.accumulators // sweep.out_width
        full, rest = divmod(sweep.out_height, rows)
        yield full, rows, sweep.out_width
        if rest:
            yield 1, rest, sweep.out_width
        return
    full, rest = divmod(sweep.out_width, p.accumulators)
    yield sweep.out_height * full, 1, p.accumulators
    if rest:
        yield sweep.out_height, 1, rest


def _positions(sweep: Sweep, pixels: int, width: int) -> int:
    """V of step 5."""
    reach = (pixels - 1) * sweep.column_stride
    if pixels < sweep.out_width:
        return reach + width
    return max(sweep.in_width, reach + 1)


class TernaryEngine(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        p, operator = _parameters(target), work.operator
        if isinstance(operator, ElementWork):
            raise TypeError("element-wise work does not run on the array")
        planes, sweep = _planes(work, target), as_sweep(operator)
        cycles = array_cycles(sweep, planes, p)
        # A column of rows a cycle from the input buffer, a sum read and written in each lane.
        moved = p.input_lanes * p.window * p.activation_bits
        moved += 2 * p.output_lanes * p.accumulator_bits
        array = ArrayWork(
            cycles=cycles,
            macs_per_cycle=p.select_units / planes,
            operand_bytes=cycles * moved / 8,
            activation_buffer_bytes=p.activation_buffer_bytes,
            weight_buffer_bytes=p.weight_buffer_bytes,
        )
        return price(work, target, array, *_assumed(operator, planes))

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Cycles that no mapping can go below."""
        return bound_cycles(work, target, _parameters(target).select_units / _planes(work, target))

    def weight_values(self, target: Target) -> WeightValues:
        """Levels, which tell ternary codes from those of two bits."""
        return "codes"

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources:
        """Adder trees in DSP blocks, select units in look-up tables, buffers in block memory.

        Each output lane adds its Tn x K x K terms and a bias and has one multiplier for the scale.
        Only additions of the trees are double-pumped. Control and interfaces are not counted.

        Source: T-DLA: 198 blocks for 16 trees of 99 additions, 8 in a block and cycle; 4 for 16
        biases, 4 in a block and cycle; 16 for the scales.
        """
        p = _parameters(target)
        tree = p.output_lanes * (p.input_lanes * p.window**2 - 1)
        dsp = ratio_up(tree, p.additions_per_dsp)
        dsp += ratio_up(p.output_lanes, max(1, p.additions_per_dsp // 2)) + p.output_lanes
        column_bits = p.input_lanes * p.window * p.activation_bits
        register_bits = ratio_up(2 * p.select_units, p.weight_load_cycles)
        bram18 = 2 * _blocks(p.activation_buffer_bytes, column_bits)
        bram18 += 2 * _blocks(p.weight_buffer_bytes, register_bits)
        bram18 += bram18_blocks(p.accumulators, p.accumulator_bits) * p.output_lanes
        lut = p.select_units * p.activation_bits * p.luts_per_select_bit
        return Resources(dsp=dsp, bram18=bram18, lut=lut)

    def chain_bytes(self, target: Target) -> int:
        """One half of the activation buffer."""
        return _parameters(target).activation_buffer_bytes


FAMILY = TernaryEngine()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a ternary engine")
    return target.parameters


def _blocks(byte_count: int, word_bits: int) -> int:
    """Block memories of a buffer that gives a word a cycle."""
    return bram18_blocks(ratio_up(8 * byte_count, word_bits), word_bits)


def _planes(work: Work, target: Target) -> int:
    """Digit planes of the second operand; an activation is no sign and magnitude but n bits."""
    bits = operand_widths(work, target)[1]
    if isinstance(work.operator, MatMulWork) and not work.operator.constant:
        return bits
    measured = work.weights is not None and bits <= FEW_BITS
    return digit_planes(bits, work.weights.levels if work.weights and measured else None)


def _assumed(operator: ConvWork | MatMulWork, planes: int) -> Iterator[str]:
    """What the mapping of an operator assumes."""
    if planes > 1:
        yield PLANES
    match operator:
        case ConvWork():
            if operator.group > 1:
                yield DIAGONAL
            if operator.transposed:
                yield UPSAMPLED
        case MatMulWork():
            if not operator.constant:
                yield ACTIVATIONS
