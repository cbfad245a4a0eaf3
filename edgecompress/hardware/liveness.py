"""Memory for activations: which tensors are alive at the same time.

Operators run in the order of the graph. A tensor is alive from the operator that writes it to the
last that reads it, inputs of the graph from the start, its outputs to the end. A change of shape
makes no tensor; an activation function or a requantisation writes over its input where nothing
else reads that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecompress.core.work import ElementWork, TensorUse, Work
from edgecompress.hardware.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """Activation memory of a graph.

    Attributes:
        live_bytes: While each operator runs, in order: what it reads and writes, and what waits
            for later ones.
        peak_bytes: The most of these; 0 without operators.
        peak_at: Index of the first operator where it is that much.
    """

    live_bytes: tuple[float, ...]
    peak_bytes: float
    peak_at: int


def activation_memory(works: Sequence[Work], target: Target) -> Liveness:
    """Activation memory of operators in order, at the widths that the target has."""
    last: dict[str, int] = {}
    for index, work in enumerate(works):
        last.update((use.name, index) for use in work.reads)
    buffers = _buffers(works, last, target)
    changes = [0.0] * (len(works) + 1)
    for buffer in buffers:
        changes[buffer.start] += buffer.size
        changes[buffer.end + 1] -= buffer.size
    live, now = [], 0.0
    for change in changes[:-1]:
        now += change
        live.append(max(0.0, now))
    peak = max(live, default=0.0)
    return Liveness(
        live_bytes=tuple(live), peak_bytes=peak, peak_at=live.index(peak) if live else 0
    )


@dataclass(slots=True)
class _Buffer:
    """Memory that one tensor has, or several one after the other."""

    start: int
    end: int
    size: float


def _buffers(works: Sequence[Work], last: dict[str, int], target: Target) -> list[_Buffer]:
    """All tensors, those that share memory as one."""
    final = len(works) - 1
    written = {use.name for work in works for use in work.writes}
    place = {
        use.name: _Buffer(0, last[use.name], _bytes(use, target))
        for work in works
        for use in work.reads
        if use.name not in written
    }
    buffers = list(place.values())
    for index, work in enumerate(works):
        main = max(work.reads, key=lambda use: use.bits, default=None)
        for position, use in enumerate(work.writes):
            end = max(index, last.get(use.name, final))
            shared = place.get(main.name) if main is not None and position == 0 else None
            if shared is not None and _may_share(work, shared, index):
                shared.end = max(shared.end, end)
                shared.size = max(shared.size, _bytes(use, target))
                place[use.name] = shared
                continue
            buffer = _Buffer(index, end, _bytes(use, target))
            buffers.append(buffer)
            place[use.name] = buffer
    return buffers


def _may_share(work: Work, buffer: _Buffer, index: int) -> bool:
    """Whether what a work writes takes the place of what it reads."""
    operator = work.operator
    if not isinstance(operator, ElementWork):
        return False
    return operator.free or (operator.fused and buffer.end <= index)


def _bytes(use: TensorUse, target: Target) -> float:
    """A tensor as the target keeps it."""
    bits = target.activation_bits
    narrow = 1.0 if bits is None else min(bits, use.width_bits) / use.width_bits
    return use.bits * narrow / 8
