"""Bytes that an operator of an Ethos-U moves, and cycles of the memories they are in.

Source: ethos-u-vela 5.2.0: what its performance estimate counts per block, the burst lengths,
latencies and rates of its system configurations, and the limits of the U85's read channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgecompress.core.work import WeightStatistics
from edgecompress.hardware.models._ethos_blocks import Blocks, NpuOp
from edgecompress.hardware.models._ethos_cores import Core
from edgecompress.hardware.timeline import aligned

Channel = Literal["copy", "stream", "weights", "inputs", "scales", "write"]

# Source: ethos-u-vela 5.2.0. A channel reaches 0.8 of what its outstanding transactions allow,
# and these 0.8 of what the port allows; scales have 16 words outstanding
# and take ten bytes a channel.
REACHED = 0.8
WORD_BYTES = 16
SCALE_WORDS = 16
SCALE_BYTES = 10
BRICK = 16
WEIGHT_LIMIT_BITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A memory as the processor sees it.

    Attributes:
        name: ``sram`` or ``external``.
        bytes_per_cycle: Peak.
        burst: Bytes of a burst; shorter runs take as long as a whole one.
        read_latency, write_latency: Cycles.
        reads, writes: Outstanding transactions of a port, times its ports.
    """

    name: str
    bytes_per_cycle: float
    burst: int
    read_latency: float
    write_latency: float
    reads: int
    writes: int

    def channel_rate(self, channel: Channel, core: Core) -> float:
        """Bytes a cycle that one channel gets; all of the port but on the U85."""
        if not core.is_u85:
            return self.bytes_per_cycle
        if channel == "write":
            waiting, latency = REACHED * self.writes, self.write_latency
        else:
            place = ("copy", "stream", "weights", "inputs").index
            words = SCALE_WORDS if channel == "scales" else core.channel_words[place(channel)]
            waiting = min(words / max(1, self.burst // WORD_BYTES), REACHED * self.reads)
            latency = self.read_latency
        if latency == 0:
            return self.bytes_per_cycle
        return min(self.bytes_per_cycle, REACHED * self.burst * waiting / latency)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes over one channel of one memory."""

    port: Port
    channel: Channel
    byte_count: float


def access_cycles(transfers: Iterable[Transfer], core: Core) -> dict[str, float]:
    """Cycles of each memory: its bytes over its rate, or its busiest channel."""
    total: dict[str, float] = {}
    channels: dict[tuple[str, str], float] = {}
    limited = core.is_u85  # else a channel gets all of its port
    for transfer in transfers:
        port, channel, moved = transfer.port, transfer.channel, transfer.byte_count
        total[port.name] = total.get(port.name, 0.0) + moved / port.bytes_per_cycle
        if not limited:
            continue
        cycles = moved / port.channel_rate(channel, core)
        key = (port.name, channel)
        channels[key] = channels.get(key, 0.0) + cycles
    if not limited:
        return total
    return {
        name: max(cycles, *(n for (port, _), n in channels.items() if port == name))
        for name, cycles in total.items()
    }


def burst_bytes(port: Port, byte_count: float, run: int) -> float:
    """Bytes that a port is busy for when they lie in runs of ``run`` bytes."""
    return byte_count * port.burst / min(port.burst, max(1, run))


def input_bytes(op: NpuOp, blocks: Blocks, *, linear: bool) -> float:
    """Bytes of inputs read, those under two blocks twice."""
    block, inputs = blocks.inputs, op.inputs
    if op.kind == "element":
        return op.outputs.height * op.outputs.width * brick(op.outputs.depth) * op.element_bytes
    area = min(block.height, inputs.height) * min(block.width, inputs.width)
    depth = inputs.depth if linear else brick(inputs.depth)
    counts = op.outputs.over(blocks.outputs)
    count = counts.height * counts.width * (1 if op.equal_depth else counts.depth)
    parts = len(list(op.kernel_parts()))
    return area * depth * count * parts * op.element_bytes


def output_bytes(op: NpuOp) -> float:
    """Bytes of outputs written, channels in bricks."""
    out = op.outputs
    return out.height * out.width * brick(out.depth) * op.element_bytes


def refetches(op: NpuOp, blocks: Blocks) -> int:
    """How often all weights are needed: once for every block of a row and column."""
    counts = op.outputs.over(blocks.outputs)
    return counts.height * counts.width


def brick(depth: int) -> int:
    """Channels as they are stored."""
    return aligned(depth, BRICK)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCode:
    """What is known of the weights of an operation.

    Attributes:
        statistics: Of the codes; None: every code of ``bits`` alike.
        bits: Width of a weight; 0: there are none.
        overhead_bits: Of the code, a weight.
    """

    statistics: WeightStatistics | None = None
    bits: int = 0
    overhead_bits: float = 0.0


NO_WEIGHTS = WeightCode()


def coded_bytes(op: NpuOp, core: Core, blocks: Blocks, code: WeightCode, rate: float) -> float:
    """Bytes of all weights as the decoder reads them: an entropy code of the padded stream.

    Kernels and channels are filled up with zeros to what the multipliers take at once; these
    zeros are in the stream and cost little. The U85 also takes fixed widths of 8, 4 or 2 bits
    through a faster decoder, where that is quicker.

    Args:
        op: With weights.
        core, blocks: What it runs on and how.
        code: The weights.
        rate: Bytes a cycle of the memory that the weights come from.
    """
    found, bits, overhead_bits = code.statistics, float(code.bits), code.overhead_bits
    real, padded = _weight_counts(op, core, blocks)
    entropy, zero = (bits, 0.0) if found is None else (found.entropy_bits, found.zero_share)
    entropy = min(entropy, bits)
    mixed = _with_zeros(entropy, zero, real / padded)
    coded = min(mixed + overhead_bits, WEIGHT_LIMIT_BITS) * padded / 8
    if not core.is_u85 or op.kind == "depthwise":
        return coded
    levels = 2.0**bits if found is None else found.levels
    fixed = 2 * WORD_BYTES + padded * (8 if levels > 16 else 4 if levels > 4 else 2) / 8
    zeros = 1 - (1 - zero) * real / padded
    decoded = core.cores * (DECODED + DECODED_MORE * min(max(zeros - 0.5, 0.0), 0.4))
    quick = DECODED_FIXED * (2 if levels < 16 else 1)
    slow_cycles = max(padded / decoded, coded / rate)
    return fixed if max(padded / quick, fixed / rate) < slow_cycles else coded


# Weights a cycle of a U85's decoder: eight when up to half of them are zero, rising to 32 at nine
# tenths; 32 of fixed width, twice that in four bits or less. Source: ethos-u-vela 5.2.0.
DECODED, DECODED_MORE, DECODED_FIXED = 8, 60, 32


def _weight_counts(op: NpuOp, core: Core, blocks: Blocks) -> tuple[int, int]:
    """(Weights, weights with what they are filled up with)."""
    depth = 1 if op.kind == "depthwise" else op.inputs.depth
    taps = op.kernel[0] * op.kernel[1]
    outputs = aligned(op.outputs.depth, blocks.micro.depth)
    if op.kind == "depthwise":
        wide, steps = 1, sum(aligned(part, 4) for part in op.kernel_parts())
    elif not blocks.part_kernel:
        wide, steps = aligned(depth, 64 if core.is_u85 else 32), taps
    elif core.is_u85:
        wide, steps = aligned(depth, 16), sum(aligned(part, 5) for part in op.kernel_parts())
    else:
        wide, steps = aligned(depth, 8), sum(aligned(part, 4) for part in op.kernel_parts())
    real = op.outputs.depth * depth * taps
    return real, max(real, outputs * wide * steps)


def _with_zeros(entropy: float, zero: float, share: float) -> float:
    """Entropy of a stream of which ``share`` are symbols of some entropy and the rest zeros."""
    if zero >= 1:
        return 0.0
    others = max(0.0, entropy - _binary(zero)) / (1 - zero)
    zeros = 1 - share * (1 - zero)
    return _binary(zeros) + (1 - zeros) * others


def _binary(share: float) -> float:
    """Entropy of a yes or no."""
    if share <= 0 or share >= 1:
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)
