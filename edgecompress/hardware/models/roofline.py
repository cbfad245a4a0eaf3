"""The roofline: the larger of arithmetic at a rate by width, and bytes over the memory's rate.

A device of which only peaks are known. Loads, arithmetic and stores overlap completely.

Source: Williams, Waterman and Patterson 2009.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, Work
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import PositiveFloat, Target
from edgecompress.hardware.timeline import HostElements, Timeline, as_cost, stored_width


class Parameters(BaseModel):
    """Peak rates by the wider operand of a multiplication.

    Attributes:
        macs_per_s_2_bit, macs_per_s_4_bit, macs_per_s_8_bit, macs_per_s_16_bit,
            macs_per_s_32_bit: Multiply-accumulates a second.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    macs_per_s_2_bit: PositiveFloat
    macs_per_s_4_bit: PositiveFloat
    macs_per_s_8_bit: PositiveFloat
    macs_per_s_16_bit: PositiveFloat
    macs_per_s_32_bit: PositiveFloat

    def rate(self, bits: int) -> float:
        """Multiply-accumulates a second at a width; half for every doubling above 32 bits."""
        rates = (
            (2, self.macs_per_s_2_bit),
            (4, self.macs_per_s_4_bit),
            (8, self.macs_per_s_8_bit),
            (16, self.macs_per_s_16_bit),
            (32, self.macs_per_s_32_bit),
        )
        for width, rate in rates:
            if bits <= width:
                return rate
        return self.macs_per_s_32_bit * 32 / bits


class Roofline(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator."""
        p = _parameters(target)
        match work.operator:
            case ConvWork() as conv:
                operator: ConvWork | MatMulWork = conv
                elements = conv.weight_elements
                inputs = conv.batch * conv.in_channels * conv.in_height * conv.in_width
                outputs = conv.batch * conv.out_channels * conv.out_height * conv.out_width
            case MatMulWork() as product:
                operator = product
                elements = product.weight_elements
                inputs = product.count * product.rows * product.inner
                outputs = product.count * product.rows * product.columns
                if not product.constant:
                    inputs, elements = inputs + elements, 0
            case ElementWork():
                raise TypeError("element-wise work has no multiply-accumulates")
        width = stored_width(operator.activation_bits, target)
        rate = p.rate(max(width, operator.weight_bits))
        weight_bytes = (operator.weight_storage_bits or elements * operator.weight_bits) / 8
        per_byte = 1 / target.dram_bytes_per_cycle
        load = (inputs * width / 8 + weight_bytes) * per_byte
        store = outputs * width / 8 * per_byte
        compute = operator.macs / rate * target.clock_hz
        timeline = Timeline(
            compute=compute,
            load=load,
            store=store,
            fill=0,
            total=max(compute, load + store),
            macs_per_cycle=rate / target.clock_hz,
            weight_bytes=weight_bytes,
            activation_bytes=(inputs + outputs) * width / 8,
        )
        return as_cost(work, target, timeline)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """The model is the bound."""
        return self.price(work, target).total_cycles

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources | None:
        """A fixed chip."""
        return None

    def chain_bytes(self, target: Target) -> int:
        """Every tensor goes through memory."""
        return 0


FAMILY = Roofline()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a roofline target")
    return target.parameters
