"""Where the tensors of an operation of an Ethos-U are, and what the operation then takes.

Source: ethos-u-vela 5.2.0 for what is counted; the placement rules are our own, see each.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.hardware.models._ethos_blocks import Blocks, choose_blocks
from edgecompress.hardware.models._ethos_cores import Core
from edgecompress.hardware.models._ethos_cycles import Ports, op_cycles
from edgecompress.hardware.models._ethos_memory import (
    NO_WEIGHTS,
    SCALE_BYTES,
    Port,
    Transfer,
    WeightCode,
    access_cycles,
    brick,
    burst_bytes,
    coded_bytes,
    input_bytes,
    output_bytes,
    refetches,
)
from edgecompress.hardware.models._ethos_ops import Mapped

# Maps that are too large for the SRAM pass through it in stripes if the weights of the operation
# take less than this share of it. Source: assumed; what Vela does depends on the whole network.
STRIPED_SHARE = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A processor with its memories.

    Attributes:
        core: Its micro-architecture.
        sram, external: Its memories.
        sram_bytes: What the SRAM holds.
        maps_in_external: Feature maps that the SRAM does not hold are in the external memory.
    """

    core: Core
    sram: Port
    external: Port
    sram_bytes: int
    maps_in_external: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an operation needs beside its shape.

    Attributes:
        weights: What is known of them.
        inputs_stay, outputs_stay: A chain keeps them on chip.
    """

    weights: WeightCode = NO_WEIGHTS
    inputs_stay: bool = False
    outputs_stay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """One operation of the processor.

    Attributes:
        op_cycles: Of the multipliers and the output unit.
        npu_cycles: With waiting for weights that are copied first.
        memory_cycles: Of each memory, ``sram`` and ``external``.
        load_cycles, store_cycles: Of the slower memory, by direction.
        weight_bytes, map_bytes: Moved over the external port.
        sram_moved_bytes: Moved over the port of the SRAM.
        occupied_bytes: Of the SRAM.
        too_large: Maps are larger than the only memory for them.
    """

    op_cycles: float
    npu_cycles: float
    memory_cycles: dict[str, float]
    load_cycles: float
    store_cycles: float
    weight_bytes: float
    map_bytes: float
    sram_moved_bytes: float
    occupied_bytes: float
    too_large: bool

    @property
    def total_cycles(self) -> float:
        """What the operation takes."""
        return max(self.npu_cycles, *self.memory_cycles.values())


def break_down(mapped: Mapped, demand: Demand, device: Device) -> Breakdown:
    """One of the operations that an operator becomes, weights copied first where that helps."""
    op = mapped.op
    blocks = choose_blocks(op, device.core)
    coded = 0.0
    if demand.weights.bits and op.has_weights:
        rate = device.external.channel_rate("weights", device.core)
        coded = coded_bytes(op, device.core, blocks, demand.weights, rate)
    case = _Case(
        mapped=mapped,
        demand=demand,
        device=device,
        blocks=blocks,
        coded=coded,
        map_bytes=_map_bytes(mapped),
    )
    direct = case.played(copied=False)
    if refetches(op, blocks) == 1 or not 0 < coded <= device.sram_bytes:
        return direct
    copied = case.played(copied=True)
    return copied if copied.total_cycles <= direct.total_cycles else direct


def _map_bytes(mapped: Mapped) -> float:
    """Of the feature maps."""
    op = mapped.op
    inputs = op.inputs.height * op.inputs.width * brick(op.inputs.depth) * op.element_bytes
    return inputs + output_bytes(op) + mapped.streamed_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """An operation, cut into blocks, with its coded weights and the bytes of its feature maps."""

    mapped: Mapped
    demand: Demand
    device: Device
    blocks: Blocks
    coded: float
    map_bytes: float

    def in_sram(self, *, copied: bool) -> bool:
        """Whether feature maps are in the SRAM, whole or in stripes.

        One more map like the outputs is taken to be alive, the other branch of a sum.
        """
        device = self.device
        if not device.maps_in_external:
            return True
        other_branch = output_bytes(self.mapped.op)
        needed = self.map_bytes + other_branch + (self.coded if copied else 0)
        return needed <= device.sram_bytes or self.coded < STRIPED_SHARE * device.sram_bytes

    def played(self, *, copied: bool) -> Breakdown:
        """The operation with its weights copied to the SRAM first, or read where they are."""
        device, mapped = self.device, self.mapped
        inside = device.sram if self.in_sram(copied=copied) else device.external
        linear = self.mapped.of_image and device.maps_in_external
        inputs = device.external if linear else inside
        inputs = device.sram if self.demand.inputs_stay else inputs
        outputs = device.sram if self.demand.outputs_stay else inside
        ports = Ports(
            inputs=inputs,
            outputs=outputs,
            constants=device.sram if copied else device.external,
            linear_inputs=self.mapped.of_image,
        )
        maps, weights, map_bytes = self._maps(ports), self._weights(copied=copied), self.map_bytes
        op = 0.0
        if not mapped.chained:
            op = op_cycles(mapped.op, device.core, self.blocks, ports, mapped.output)
        npu = max(op, self._copy_cycles()) if copied else op
        moved = maps + weights
        reads = [one for one in moved if one.channel != "write"]
        stores = [one for one in maps if one.channel == "write"]
        held = map_bytes if inside is device.sram else 0.0
        return Breakdown(
            op_cycles=op,
            npu_cycles=npu,
            memory_cycles=access_cycles(moved, device.core) or {"sram": 0.0},
            load_cycles=max(access_cycles(reads, device.core).values(), default=0.0),
            store_cycles=max(access_cycles(stores, device.core).values(), default=0.0),
            weight_bytes=_over(weights, device.external),
            map_bytes=_over(maps, device.external),
            sram_moved_bytes=_over(moved, device.sram),
            occupied_bytes=min(held + (self.coded if copied else 0), device.sram_bytes),
            too_large=not device.maps_in_external and map_bytes > device.sram_bytes,
        )

    def _copy_cycles(self) -> float:
        """Of the copy of the weights."""
        core, external, sram = self.device.core, self.device.external, self.device.sram
        rate = min(external.channel_rate("copy", core), sram.channel_rate("write", core))
        return self.coded / rate + external.read_latency

    def _maps(self, ports: Ports) -> list[Transfer]:
        """Transfers of the feature maps."""
        op, core, block = self.mapped.op, self.device.core, self.blocks
        found = []
        if self.mapped.streamed_bytes:
            found.append(Transfer(ports.inputs, "stream", self.mapped.streamed_bytes))
        if self.mapped.chained:
            return found
        linear = ports.linear_inputs
        run = op.element_bytes * (block.inputs.depth if linear else 16 * block.inputs.width)
        moved = burst_bytes(ports.inputs, input_bytes(op, block, linear=linear), run)
        found.append(Transfer(ports.inputs, "stream" if op.kind == "element" else "inputs", moved))
        wide = block.outputs.width * (1 if core.is_u85 else core.cores)
        moved = burst_bytes(ports.outputs, output_bytes(op), 16 * op.element_bytes * wide)
        return [*found, Transfer(ports.outputs, "write", moved)]

    def _weights(self, *, copied: bool) -> list[Transfer]:
        """Transfers of weights and scales."""
        op, device = self.mapped.op, self.device
        if not self.coded:
            constants = self.mapped.constant_bytes
            return [Transfer(device.external, "stream", constants)] if constants else []
        times = refetches(op, self.blocks)
        scales = Transfer(device.external, "scales", times * SCALE_BYTES * op.outputs.depth)
        if not copied:
            return [Transfer(device.external, "weights", times * self.coded), scales]
        return [
            Transfer(device.external, "copy", self.coded),
            Transfer(device.sram, "write", self.coded),
            Transfer(device.sram, "weights", times * self.coded),
            scales,
        ]


def _over(transfers: list[Transfer], port: Port) -> float:
    """Bytes over a port."""
    return sum(one.byte_count for one in transfers if one.port is port)
