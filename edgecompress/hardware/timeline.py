"""From cycles by cause to a `Cost`: what every family shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgecompress.core.work import Cost, ElementWork, EnergySplit, Work
from edgecompress.hardware.target import Target

OUTSIDE_ARRAY = "what is not on the array is bound by memory or by the host's arithmetic"
FUSED = "activation functions, scales and requantisation run while results are written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Cycles of one operator by cause, and what it moves.

    Attributes:
        compute, load, store: Cycles if nothing else had to be waited for.
        decode: Cycles of the weight decoder likewise.
        fill: Cycles of pipeline fill, first load and last store, in which nothing overlaps.
        total: What the operator takes.
        macs_per_cycle: Multiply-accumulates that the device could do in a cycle.
        weight_bytes, activation_bytes: Moved over the memory port.
        on_chip_bytes: On-chip memory that is occupied at the same time.
        buffer_bytes: Read from and written to on-chip buffers, for the energy.
        multiplications: That the array does, for the energy; None: the multiply-accumulates of the
            operator.
    """

    compute: float
    load: float
    store: float
    fill: float
    total: float
    macs_per_cycle: float
    weight_bytes: float
    activation_bytes: float
    decode: float = 0.0
    on_chip_bytes: float = 0.0
    buffer_bytes: float = 0.0
    multiplications: float | None = None


def as_cost(work: Work, target: Target, timeline: Timeline, *assumed: str) -> Cost:
    """The cost of an operator that takes ``timeline``; empty assumptions are left out.

    The target's overhead of an operator is added to the fill of one that takes time.
    """
    macs = 0 if isinstance(work.operator, ElementWork) else work.operator.macs
    overhead = target.operator_overhead_s * target.clock_hz if timeline.total else 0.0
    if overhead:
        timeline = replace(timeline, fill=timeline.fill + overhead, total=timeline.total + overhead)
    causes = {
        "compute": timeline.compute,
        "load": timeline.load,
        "store": timeline.store,
        "decode": timeline.decode,
        "fill": timeline.fill,
    }
    possible = timeline.macs_per_cycle * timeline.total
    energy = _energy(work, target, timeline)
    return Cost(
        name=work.name,
        compute_cycles=timeline.compute,
        load_cycles=timeline.load,
        store_cycles=timeline.store,
        decode_cycles=timeline.decode,
        fill_cycles=timeline.fill,
        total_cycles=timeline.total,
        latency_s=timeline.total / target.clock_hz,
        bottleneck=max(causes, key=lambda cause: causes[cause]) if timeline.total else "none",
        utilisation=macs / possible if possible else 0.0,
        weight_bytes=timeline.weight_bytes,
        activation_bytes=timeline.activation_bytes,
        on_chip_bytes=timeline.on_chip_bytes,
        energy_pj=None if energy is None else energy.total_pj,
        energy=energy,
        assumed="; ".join(dict.fromkeys(text for text in (work.assumed, *assumed) if text)),
    )


def _energy(work: Work, target: Target, timeline: Timeline) -> EnergySplit | None:
    """Energy of an operator by cause; None where the target states none."""
    energy = target.energy
    if energy is None:
        return None
    multiplications = timeline.multiplications
    if multiplications is None:
        multiplications = 0 if isinstance(work.operator, ElementWork) else work.operator.macs
    moved = timeline.weight_bytes + timeline.activation_bytes
    return EnergySplit(
        mac_pj=multiplications * multiplication_pj(work, target),
        on_chip_pj=timeline.buffer_bytes * energy.on_chip_pj_per_byte,
        dram_pj=moved * energy.dram_pj_per_byte,
        static_pj=energy.static_w * 1e12 * timeline.total / target.clock_hz,
    )


def multiplication_pj(work: Work, target: Target) -> float:
    """Energy of one multiplication of an operator; 0 without any, or where none is stated."""
    operator = work.operator
    if target.energy is None or isinstance(operator, ElementWork):
        return 0.0
    return target.energy.mac_energy_pj(
        stored_width(operator.activation_bits, target),
        min(operator.weight_bits, target.weight_stream.weight_bits),
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
    per_byte = 1 / target.dram_bytes_per_cycle
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


class HostElements:
    """For families whose array does nothing but convolutions and products."""

    def price_elements(self, work: Work, operator: ElementWork, target: Target) -> Cost:
        """Time of an operator that runs beside the array."""
        return element_cost(work, operator, target)


@dataclass(frozen=True, slots=True)
class Tile:
    """Cycles of one tile on each resource, each as if alone.

    Attributes:
        load: Of the memory port, for what the tile reads.
        compute: Of the array.
        store: Of the memory port, for what the tile writes.
        decode: Of the weight decoder, which runs while the load of the same tile does.
    """

    load: float
    compute: float
    store: float
    decode: float = 0.0


Run = tuple[int, "Tile | Sequence[Run]"]
"""How often, and a tile or a sequence of runs."""


@dataclass(frozen=True, slots=True)
class Played:
    """Cycles of a sequence of tiles.

    Attributes:
        total: From the first load to the end of the last store.
        fill: Before the first and after the last tile is computed.
    """

    total: float
    fill: float


def play(tiles: Iterable[Run], *, shared_port: bool) -> Played:
    """Tiles through a double-buffered device: load, compute and store of three tiles overlap.

    The buffers swap when all three are done, so that step j takes the longest of loading tile
    j + 1, computing tile j and storing tile j - 1; loads and stores one after the other on a
    shared port. It takes as long to work out as there are runs, however many tiles they are.

    Args:
        tiles: (how many in a row, tile), or (how many times, runs of the same form).
        shared_port: Loads and stores take turns on one port; else each has its own.
    """
    span = _span(tiles, shared_port=shared_port)
    if span is None:
        return Played(0.0, 0.0)
    total = _step(span.second, span.first, None, shared_port=shared_port)
    if span.second is not None:
        total += span.inner + _step(None, span.last, span.before, shared_port=shared_port)
    ends = max(span.first.load, span.first.decode) + span.last.store
    return Played(total + ends, ends)


@dataclass(frozen=True, slots=True)
class _Span:
    """A sequence of tiles as its neighbours see it.

    ``inner`` is the cycles of all steps but that of the first and of the last tile; ``second`` and
    ``before`` (the last but one) are None where there is one tile only.
    """

    first: Tile
    second: Tile | None
    before: Tile | None
    last: Tile
    inner: float


def _span(runs: Iterable[Run], *, shared_port: bool) -> _Span | None:
    """All runs one after the other; None if there is no tile in them."""
    whole: _Span | None = None
    for count, what in runs:
        if count < 1:
            continue
        once = (
            _Span(what, None, None, what, 0.0)
            if isinstance(what, Tile)
            else _span(what, shared_port=shared_port)
        )
        if once is None:
            continue
        run = _repeated(once, count, shared_port=shared_port)
        whole = run if whole is None else _joined(whole, run, shared_port=shared_port)
    return whole


def _joined(a: _Span, b: _Span, *, shared_port: bool) -> _Span:
    """Two sequences one after the other."""
    inner = a.inner + b.inner + _seam(a, b, shared_port=shared_port)
    return _Span(a.first, a.second or b.first, b.before or a.last, b.last, inner)


def _seam(a: _Span, b: _Span, *, shared_port: bool) -> float:
    """Steps of the last tile of one sequence and of the first of the next; not of the very ends."""
    total = 0.0
    if a.before is not None:
        total += _step(b.first, a.last, a.before, shared_port=shared_port)
    if b.second is not None:
        total += _step(b.second, b.first, a.last, shared_port=shared_port)
    return total


def _repeated(a: _Span, count: int, *, shared_port: bool) -> _Span:
    """The same sequence several times."""
    if count == 1:
        return a
    if a.second is None:
        inner = (count - 2) * _step(a.first, a.first, a.first, shared_port=shared_port)
        return _Span(a.first, a.first, a.first, a.first, inner)
    inner = count * a.inner + (count - 1) * _seam(a, a, shared_port=shared_port)
    return _Span(a.first, a.second, a.before, a.last, inner)


def _step(loaded: Tile | None, computed: Tile, stored: Tile | None, *, shared_port: bool) -> float:
    """Cycles between two swaps of the buffers."""
    load = loaded.load if loaded else 0.0
    decode = loaded.decode if loaded else 0.0
    store = stored.store if stored else 0.0
    port = load + store if shared_port else max(load, store)
    return max(port, decode, computed.compute)


def stored_width(bits: int, target: Target) -> int:
    """Bits of an activation on this target."""
    return bits if target.activation_bits is None else min(bits, target.activation_bits)


def ratio_up(amount: int, unit: int) -> int:
    """``amount`` over ``unit``, rounded up."""
    return -(-amount // unit)


def aligned(amount: int, unit: int) -> int:
    """``amount`` rounded up to a multiple of ``unit``."""
    return unit * ratio_up(amount, unit)
