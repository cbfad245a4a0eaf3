"""A microcontroller core that runs a network in software, in order, without overlap.

A convolution or a product takes so many cycles per multiply-accumulate, so many per output
(gathering inputs, requantizing, loops), so many per weight that is unpacked because it is narrower
than a byte, and waits for each weight once while it comes from the flash. Feature maps are in the
SRAM. The cost is the middle of a range: the target's ``model_error`` is its half width, over the
software that was measured, because the same network on the same core takes up to twice as long
with one library as with another.

Sub-byte weights save flash and never time: the core has no multiplier for them, so that they are
unpacked first.

Source: Lai, Suda and Chandra 2018 (arXiv 1801.06601) for how such libraries work; the numbers are
fitted per target to MLPerf Tiny results, see benchmarks/latency/mlperf_tiny.py.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, Work
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import NotNegative, PositiveFloat, Target
from edgecompress.hardware.timeline import FUSED, Timeline, as_cost, no_time
from edgecompress.hardware.weight_stream import weight_traffic

TOO_LARGE = "feature maps do not fit the SRAM"
WIDE = "wider than 8 bits: not measured, taken to take longer in proportion to the width"
UNPACKED = "weights narrower than a byte are unpacked in software"
_BYTE = 8


class Parameters(BaseModel):
    """Cycles of a core.

    Attributes:
        cycles_per_mac: Of 8-bit operands.
        cycles_per_output: Gathering inputs, requantizing, loops.
        cycles_per_unpacked_mac: Added to each multiply-accumulate with a weight below 8 bits.
        copy_bytes_per_cycle: Data movement from SRAM to SRAM.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    cycles_per_mac: PositiveFloat
    cycles_per_output: NotNegative
    cycles_per_unpacked_mac: NotNegative
    copy_bytes_per_cycle: PositiveFloat


class Microcontroller:
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of a convolution or a matrix product."""
        operator = _product(work)
        p = _parameters(target)
        weights = weight_traffic(work, target)
        wide = max(1.0, operator.activation_bits / _BYTE)
        narrow = _constant(operator) and operator.weight_bits < _BYTE
        per_mac = p.cycles_per_mac * wide + (p.cycles_per_unpacked_mac if narrow else 0.0)
        inputs, outputs = _map_elements(operator)
        compute = operator.macs * per_mac + outputs * p.cycles_per_output * wide
        moved = weights.byte_count if _constant(operator) else 0.0
        load = moved / target.dram_bytes_per_cycle
        held = (inputs + outputs) * wide
        timeline = Timeline(
            compute=compute,
            load=load,
            store=0,
            fill=0,
            total=compute + load,
            macs_per_cycle=1 / p.cycles_per_mac,
            weight_bytes=moved,
            activation_bytes=0,
            on_chip_bytes=held,
            buffer_bytes=held,
        )
        notes = (
            TOO_LARGE if held > target.on_chip_bytes else "",
            WIDE if wide > 1 else "",
            UNPACKED if narrow else "",
            weights.assumed,
        )
        return as_cost(work, target, timeline, *notes)

    def price_elements(self, work: Work, operator: ElementWork, target: Target) -> Cost:
        """Time of everything else: arithmetic and copies one after the other, by the core."""
        if operator.free:
            return no_time(work, target)
        if operator.fused and target.fused_activations:
            return no_time(work, target, FUSED)
        moved = (operator.read_bits + operator.written_bits) / _BYTE
        compute = operator.operations / target.element_operations_per_s * target.clock_hz
        copied = moved / _parameters(target).copy_bytes_per_cycle if operator.movement else 0.0
        constants = operator.weight_storage_bits / _BYTE
        load = constants / target.dram_bytes_per_cycle
        timeline = Timeline(
            compute=compute + copied,
            load=load,
            store=0,
            fill=0,
            total=compute + copied + load,
            macs_per_cycle=0,
            weight_bytes=constants,
            activation_bytes=0,
            on_chip_bytes=moved,
            buffer_bytes=moved,
        )
        return as_cost(work, target, timeline, TOO_LARGE if moved > target.on_chip_bytes else "")

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Every multiply-accumulate."""
        return _product(work).macs * _parameters(target).cycles_per_mac

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources | None:
        """A fixed chip."""
        return None

    def chain_bytes(self, target: Target) -> int:
        """Feature maps never leave the SRAM, so that a chain saves nothing."""
        return 0


FAMILY = Microcontroller()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a microcontroller target")
    return target.parameters


def _product(work: Work) -> ConvWork | MatMulWork:
    """The multiply-accumulates of an operator."""
    if isinstance(work.operator, ElementWork):
        raise TypeError("element-wise work has no multiply-accumulates")
    return work.operator


def _constant(operator: ConvWork | MatMulWork) -> bool:
    """Whether there are weights in the flash."""
    return isinstance(operator, ConvWork) or operator.constant


def _map_elements(operator: ConvWork | MatMulWork) -> tuple[int, int]:
    """(Input, output) elements."""
    match operator:
        case ConvWork() as conv:
            inputs = conv.batch * conv.in_channels * conv.in_height * conv.in_width
            return inputs, conv.batch * conv.out_channels * conv.out_height * conv.out_width
        case MatMulWork() as product:
            rows = product.count * product.rows
            second = 0 if product.constant else product.count * product.inner * product.columns
            return rows * product.inner + second, rows * product.columns
