"""Cycles of an operator on the multipliers and the output unit of an Ethos-U, block by block.

The multipliers work on one block while the output unit works on the one before; neither is faster
than commands can be given. Source: ethos-u-vela 5.2.0, its performance estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgecompress.hardware.models._ethos_blocks import Blocks, NpuOp
from edgecompress.hardware.models._ethos_cores import Core, Size
from edgecompress.hardware.models._ethos_memory import SCALE_BYTES, Port, burst_bytes
from edgecompress.hardware.timeline import ratio_up

Output = Literal["plain", "sum", "product", "maximum", "table"]
OUTPUTS: tuple[Output, ...] = ("plain", "sum", "product", "maximum", "table")

# Source: ethos-u-vela 5.2.0. Weights come in 32s for each output channel, eight a cycle and
# decoder; a step on one micro-block alone waits two cycles for the sums of the step before; four
# blocks are in flight; bytes of scales and biases come 256 at a time.
WEIGHTS_A_CYCLE = 8
WEIGHT_GROUP = 32
STEP_DELAY = 2
IN_FLIGHT = 4
SCALES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where an operator's tensors are.

    Attributes:
        inputs, outputs, constants: The memories.
        linear_inputs: Inputs are stored pixel by pixel, not in bricks of 16 channels.
    """

    inputs: Port
    outputs: Port
    constants: Port
    linear_inputs: bool = False


def block_count(op: NpuOp, blocks: Blocks) -> float:
    """Blocks of an operator, parts of blocks in proportion to their micro-blocks."""
    whole = op.outputs.over(_micro(op, blocks)).elements
    return whole / op.outputs.within(blocks.outputs).over(_micro(op, blocks)).elements


def op_cycles(op: NpuOp, core: Core, blocks: Blocks, ports: Ports, output: Output) -> float:
    """Cycles of an operator if all its operands are there in time."""
    per_element = core.output_cycles[OUTPUTS.index(output)] * (
        op.element_bytes if core.is_u85 else 1
    )
    block = op.outputs.within(blocks.outputs)
    waiting = _first_and_last(op, core, blocks, ports)
    if op.kind == "element":
        commands = (waiting / blocks.outputs.elements + per_element) / IN_FLIGHT
        return math.ceil(max(commands, per_element) * _in_bricks(op.outputs).elements)
    out = float(math.ceil(per_element * block.elements))
    if op.has_weights:
        out = max(out, SCALE_BYTES * block.depth * ports.constants.read_latency / SCALES_AT_ONCE)
    multiply = mac_cycles(op, core, blocks)
    commands = (waiting + multiply + out) / IN_FLIGHT
    slow, fast = sorted((max(multiply, commands), max(out, commands)), reverse=True)
    return math.floor(slow * block_count(op, blocks) + fast)


def mac_cycles(op: NpuOp, core: Core, blocks: Blocks) -> float:
    """Cycles of the multipliers on one block."""
    block, depth = op.outputs.within(blocks.outputs), min(op.inputs.depth, blocks.inputs.depth)
    micro = _micro(op, blocks)
    counts = block.over(micro)
    around = counts.height * counts.width
    decoders = core.cores if core.is_u85 else 1
    weights = WEIGHT_GROUP * micro.depth // (WEIGHTS_A_CYCLE * decoders)
    total = 0
    for taps in op.kernel_parts():
        steps, each = _steps(op, core, blocks, taps, (around, depth, weights))
        delay = 0
        if around == 1:
            delay = STEP_DELAY * (
                steps if counts.depth == 1 else (steps - 1) * counts.depth if steps > 1 else 0
            )
        rounds = ratio_up(depth, 8) if blocks.part_kernel else 1
        total += rounds * (each * counts.depth + delay)
    if not op.equal_depth:
        total *= ratio_up(op.inputs.depth, depth)
    return total if core.is_u85 else total // core.cores


def _steps(
    op: NpuOp, core: Core, blocks: Blocks, taps: int, sizes: tuple[int, int, int]
) -> tuple[int, int]:
    """(Steps over the taps, cycles of them per micro-block of channels)."""
    around, depth, weights = sizes
    match op.kind:
        case "pool":
            pace = 1 if (core.macs == 32 and not core.is_u85) else 4 * op.element_bytes
            return 1, max(4, taps) * around * pace
        case "depthwise":
            steps = ratio_up(taps, 4)
            return steps, max(weights, 4 * around * op.element_bytes) * steps
    if blocks.part_kernel:
        steps = ratio_up(taps, 4 // op.element_bytes)
        return steps, max(weights, 4 * around) * steps
    if core.is_u85:
        return taps, max(weights, ratio_up(depth, 8) * around) * taps * op.element_bytes
    return taps, max(weights, 4 * around) * taps


def _micro(op: NpuOp, blocks: Blocks) -> Size:
    """The micro-block; a row of four where a feature map is one row high and the kernel too."""
    flat = op.kind in ("conv", "product") and op.outputs.height == 1 and op.kernel[0] == 1
    if blocks.micro == Size(2, 2, 8) and flat and op.outputs.width % 2 == 0:
        return Size(1, 4, 8)
    return blocks.micro


def _first_and_last(op: NpuOp, core: Core, blocks: Blocks, ports: Ports) -> float:
    """Cycles to read the inputs of one block and to write its outputs."""
    inputs = op.inputs.within(blocks.inputs).elements * op.element_bytes
    outputs = op.outputs.within(blocks.outputs).elements * op.element_bytes
    read = (
        burst_bytes(ports.inputs, inputs, _run(blocks.inputs, op, linear=ports.linear_inputs))
        // ports.inputs.bytes_per_cycle
    )
    wide = blocks.outputs.width * (1 if core.is_u85 else core.cores)
    written = burst_bytes(ports.outputs, outputs, 16 * op.element_bytes * wide)
    latency = ports.inputs.read_latency + ports.outputs.write_latency
    return latency + read + written // ports.outputs.bytes_per_cycle


def _run(block: Size, op: NpuOp, *, linear: bool) -> int:
    """Bytes of a block that lie one after the other."""
    return op.element_bytes * (block.depth if linear else 16 * block.width)


def _in_bricks(size: Size) -> Size:
    """Channels in 16s."""
    return size._replace(depth=16 * ratio_up(size.depth, 16))
