"""An Ethos-U neural processor: blocks of outputs, coded weights, two memories.

An operator takes the longest of its cycles on the multipliers and the output unit, and of the
cycles of each memory. Weights that are read more than once are first copied into the SRAM where
that helps; feature maps are in the SRAM where it holds them. Convolutions, matrix products,
sums, products, maxima, table look-ups and pooling run on the processor, the rest beside it.

What the operators around one do to it is not seen: copies of weights that start under the
operator before, stripes that pass through several operators, and what else is in the SRAM.

Source: ethos-u-vela 5.2.0, Arm's compiler, whose performance estimate this follows; the code is
our own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecompress.core.work import Cost, ElementWork, Work
from edgecompress.hardware.models._ethos_cores import CORES, Core
from edgecompress.hardware.models._ethos_memory import NO_WEIGHTS, Port, WeightCode
from edgecompress.hardware.models._ethos_ops import Mapped, map_elements, map_product
from edgecompress.hardware.models._ethos_schedule import (
    Breakdown,
    Demand,
    Device,
    break_down,
)
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import NotNegative, PositiveFloat, PositiveInt, Target
from edgecompress.hardware.timeline import FUSED, Timeline, as_cost, no_time
from edgecompress.hardware.weight_stream import UNMEASURED, weight_traffic

HOST = "not an operation of the processor: done by the host, bound by memory or its arithmetic"
# Weights are quantized to this before they are coded. Source: ethos-u-vela 5.2.0.
_WEIGHT_BITS = 8
TOO_LARGE = "feature maps do not fit the SRAM and there is no other memory for them"


class PortParameters(BaseModel):
    """A memory port.

    Attributes:
        burst_bytes: Longest burst.
        read_latency_cycles, write_latency_cycles: Of a transaction.
        outstanding_reads, outstanding_writes: Transactions in flight, over all ports.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    burst_bytes: PositiveInt
    read_latency_cycles: NotNegative
    write_latency_cycles: NotNegative
    outstanding_reads: PositiveInt
    outstanding_writes: int = Field(ge=0)


class Parameters(BaseModel):
    """A configuration of the processor with its memories.

    Attributes:
        product: Which Ethos-U.
        macs_per_cycle: Its size.
        sram_bytes_per_cycle: Peak of the SRAM, over all ports.
        sram, external: Ports of the SRAM and of the memory behind ``dram_bytes_per_s``.
        maps_in_external: Feature maps that the SRAM does not hold are in the external memory;
            else there is no place for them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    product: Literal["u55", "u65", "u85"]
    macs_per_cycle: Literal[32, 64, 128, 256, 512, 1024, 2048]
    sram_bytes_per_cycle: PositiveFloat
    sram: PortParameters
    external: PortParameters
    maps_in_external: bool

    @model_validator(mode="after")
    def _is_made(self) -> Self:
        if (self.product, self.macs_per_cycle) not in CORES:
            sizes = ", ".join(str(size) for product, size in CORES if product == self.product)
            raise ValueError(f"macs_per_cycle of a {self.product} is one of {sizes}")
        return self

    @property
    def core(self) -> Core:
        """Its micro-architecture."""
        return CORES[self.product, self.macs_per_cycle]


class EthosU:
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of a convolution or a matrix product."""
        parts = operations(work, target)
        operator = work.operator
        if isinstance(operator, ElementWork):
            raise TypeError("element-wise work has no multiply-accumulates")
        mapped = parts[0][1]
        constant = mapped.op.has_weights and _weight_bits(work)
        assumed = [*mapped.assumed]
        if constant and work.weights is None and target.weight_stream.reads_values:
            assumed.append(UNMEASURED)
        return _as_cost(work, target, parts, tuple(assumed))

    def price_elements(self, work: Work, operator: ElementWork, target: Target) -> Cost:
        """Time of everything else, on the processor where it can."""
        if operator.free:
            return no_time(work, target)
        if operator.fused and target.fused_activations:
            return no_time(work, target, FUSED)
        mapped = map_elements(work, operator, _core_of(target))
        if mapped is None:
            return _on_host(work, operator, target)
        found = break_down(mapped, Demand(), device_of(target))
        return _as_cost(work, target, [(1, mapped, found)], mapped.assumed)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Every multiply-accumulate once, or every coded weight once."""
        operator = work.operator
        if isinstance(operator, ElementWork):
            return 0.0
        known = 0.0 if work.weights is None else work.weights.entropy_bits
        bits = min(known, _weight_bits(work), _WEIGHT_BITS)
        moved = weight_traffic(work, target).elements * bits / 8
        peak = _core_of(target).peak_macs
        return max(operator.macs / peak, moved / target.dram_bytes_per_cycle)

    def images_per_pass(self, target: Target) -> int:
        """One image after the other."""
        return 1

    def resources(self, target: Target) -> Resources | None:
        """A fixed chip."""
        return None

    def chain_bytes(self, target: Target) -> int:
        """Half of the SRAM where maps would else go through the external memory."""
        device = device_of(target)
        return device.sram_bytes // 2 if device.maps_in_external else 0


FAMILY = EthosU()


@lru_cache(maxsize=64)
def device_of(target: Target) -> Device:
    """What a target is to the model."""
    p = target.parameters
    if not isinstance(p, Parameters):
        raise TypeError(f"{target.name} is not an Ethos-U target")
    return Device(
        core=p.core,
        sram=_port("sram", p.sram_bytes_per_cycle, p.sram),
        external=_port("external", target.dram_bytes_per_cycle, p.external),
        sram_bytes=target.on_chip_bytes,
        maps_in_external=p.maps_in_external,
    )


def _core_of(target: Target) -> Core:
    p = target.parameters
    if not isinstance(p, Parameters):
        raise TypeError(f"{target.name} is not an Ethos-U target")
    return p.core


def _on_host(work: Work, operator: ElementWork, target: Target) -> Cost:
    """The cost of what the host does, with its tensors in the SRAM."""
    per_byte = 1 / device_of(target).sram.bytes_per_cycle
    compute = operator.operations / target.element_operations_per_s * target.clock_hz
    load, store = (bits / 8 * per_byte for bits in (operator.read_bits, operator.written_bits))
    constants = operator.weight_storage_bits / 8
    fetch = constants / target.dram_bytes_per_cycle
    timeline = Timeline(
        compute=compute,
        load=load + fetch,
        store=store,
        fill=0,
        total=max(compute, load + store, fetch),
        macs_per_cycle=0,
        weight_bytes=constants,
        activation_bytes=0,
        buffer_bytes=(operator.read_bits + operator.written_bits) / 8,
    )
    return as_cost(work, target, timeline, HOST)


def _port(name: str, rate: float, of: PortParameters) -> Port:
    return Port(
        name=name,
        bytes_per_cycle=rate,
        burst=of.burst_bytes,
        read_latency=of.read_latency_cycles,
        write_latency=of.write_latency_cycles,
        reads=of.outstanding_reads,
        writes=of.outstanding_writes,
    )


def operations(work: Work, target: Target) -> list[tuple[int, Mapped, Breakdown]]:
    """Operations of the processor that a convolution or a matrix product becomes.

    Returns:
        (how many, what, what one takes); the first is the one that multiplies.
    """
    device = device_of(target)
    mapped = map_product(work, device.core)
    operator = work.operator
    if isinstance(operator, ElementWork):
        raise TypeError("element-wise work has no multiply-accumulates")
    stream = target.weight_stream
    code = WeightCode(
        statistics=work.weights if stream.encoding == "entropy" else None,
        bits=min(_weight_bits(work), _WEIGHT_BITS),
        overhead_bits=stream.overhead_bits,
    )
    demand = Demand(
        weights=code,
        inputs_stay=operator.input_on_chip,
        outputs_stay=operator.output_on_chip,
    )
    parts = [(mapped.count, mapped, break_down(mapped, demand, device))]
    if mapped.again is not None:
        after = Mapped(count=mapped.count, op=mapped.again)
        parts.append(
            (mapped.count, after, break_down(after, replace(demand, weights=NO_WEIGHTS), device))
        )
    return parts


def npu_cycles(work: Work, target: Target) -> float:
    """Cycles of the processor alone: with waiting for weights to be copied, not for memories."""
    operator = work.operator
    if not isinstance(operator, ElementWork):
        return sum(count * found.npu_cycles for count, _, found in operations(work, target))
    mapped = map_elements(work, operator, device_of(target).core)
    return 0.0 if mapped is None else break_down(mapped, Demand(), device_of(target)).npu_cycles


def _weight_bits(work: Work) -> int:
    """Width of a constant weight; 0 where both operands are activations."""
    operator = work.operator
    if isinstance(operator, ElementWork) or not getattr(operator, "constant", True):
        return 0
    return operator.weight_bits


def _as_cost(
    work: Work,
    target: Target,
    parts: list[tuple[int, Mapped, Breakdown]],
    assumed: tuple[str, ...],
) -> Cost:
    """The cost of operations one after the other."""

    def total(name: str) -> float:
        cycles = 0.0
        for count, _, found in parts:
            cycles += count * getattr(found, name)
        return cycles

    timeline = Timeline(
        compute=total("op_cycles"),
        load=total("load_cycles"),
        store=total("store_cycles"),
        fill=total("npu_cycles") - total("op_cycles"),
        total=total("total_cycles"),
        macs_per_cycle=_core_of(target).peak_macs,
        weight_bytes=total("weight_bytes"),
        activation_bytes=total("map_bytes"),
        on_chip_bytes=max(found.occupied_bytes for _, _, found in parts),
        buffer_bytes=total("sram_moved_bytes"),
    )
    large = TOO_LARGE if any(found.too_large for _, _, found in parts) else ""
    return as_cost(work, target, timeline, *assumed, large)
