"""From cycles by cause to a `Cost`: what every family shares."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.work import Cost, ElementWork, Work
from edgecompress.hardware.target import Target

OUTSIDE_ARRAY = "what is not on the array is bound by memory or by the host's arithmetic"
FUSED = "activation functions, scales and requantisation run while results are written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Cycles of one operator by cause, and what it moves.

    Attributes:
        compute, load, store: Cycles if nothing else had to be waited for.
        fill: Cycles of pipeline fill, first load and last store, in which nothing overlaps.
        total: What the operator takes.
        macs_per_cycle: Multiply-accumulates that the device could do in a cycle.
        weight_bytes, activation_bytes: Moved over the memory port.
    """

    compute: float
    load: float
    store: float
    fill: float
    total: float
    macs_per_cycle: float
    weight_bytes: float
    activation_bytes: float


def as_cost(work: Work, target: Target, timeline: Timeline, *assumed: str) -> Cost:
    """The cost of an operator that takes ``timeline``; empty assumptions are left out."""
    macs = 0 if isinstance(work.operator, ElementWork) else work.operator.macs
    causes = {
        "compute": timeline.compute,
        "load": timeline.load,
        "store": timeline.store,
        "fill": timeline.fill,
    }
    possible = timeline.macs_per_cycle * timeline.total
    return Cost(
        name=work.name,
        compute_cycles=timeline.compute,
        load_cycles=timeline.load,
        store_cycles=timeline.store,
        fill_cycles=timeline.fill,
        total_cycles=timeline.total,
        latency_s=timeline.total / target.clock_hz,
        bottleneck=max(causes, key=lambda cause: causes[cause]) if timeline.total else "none",
        utilisation=macs / possible if possible else 0.0,
        weight_bytes=timeline.weight_bytes,
        activation_bytes=timeline.activation_bytes,
        assumed="; ".join(dict.fromkeys(text for text in (work.assumed, *assumed) if text)),
    )


def no_time(work: Work, target: Target, *assumed: str) -> Cost:
    """The cost of an operator that adds nothing to the latency."""
    nothing = Timeline(
        compute=0,
        load=0,
        store=0,
        fill=0,
        total=0,
        macs_per_cycle=0,
        weight_bytes=0,
        activation_bytes=0,
    )
    return as_cost(work, target, nothing, *assumed)


def element_cost(work: Work, operator: ElementWork, target: Target) -> Cost:
    """The cost of an operator that runs beside the array, or of one without multiply-accumulates.

    Reads, writes and arithmetic overlap; reads and writes share the memory.
    """
    if operator.free:
        return no_time(work, target)
    if operator.fused and target.fused_activations:
        return no_time(work, target, FUSED)
    narrow = stored_width(operator.activation_bits, target) / operator.activation_bits
    weight_bytes = operator.weight_storage_bits / 8
    load_bytes = operator.read_bits * narrow / 8 + weight_bytes
    store_bytes = operator.written_bits * narrow / 8
    per_byte = target.clock_hz / target.dram_bytes_per_s
    compute = operator.operations / target.element_operations_per_s * target.clock_hz
    timeline = Timeline(
        compute=compute,
        load=load_bytes * per_byte,
        store=store_bytes * per_byte,
        fill=0,
        total=max(compute, (load_bytes + store_bytes) * per_byte),
        macs_per_cycle=0,
        weight_bytes=weight_bytes,
        activation_bytes=load_bytes - weight_bytes + store_bytes,
    )
    return as_cost(work, target, timeline, "" if "element" in target.kinds else OUTSIDE_ARRAY)


def stored_width(bits: int, target: Target) -> int:
    """Bits of an activation on this target."""
    return bits if target.activation_bits is None else min(bits, target.activation_bits)


def ratio_up(amount: int, unit: int) -> int:
    """``amount`` over ``unit``, rounded up."""
    return -(-amount // unit)


def aligned(amount: int, unit: int) -> int:
    """``amount`` rounded up to a multiple of ``unit``."""
    return unit * ratio_up(amount, unit)
