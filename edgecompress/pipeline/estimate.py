"""Predicted latency of a written graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from edgecompress.core.arrays import Shape
from edgecompress.core.report import FactoredLayer, LatencyReport, Sensitivity
from edgecompress.core.work import (
    AssumedBits,
    ConvWork,
    Cost,
    ElementWork,
    EnergySplit,
    WeightValues,
    Work,
)
from edgecompress.graph.code_sample import SAMPLED
from edgecompress.graph.model import Model
from edgecompress.graph.work import derive_work
from edgecompress.graph.work_elements import SHAPES_ONLY
from edgecompress.graph.work_shapes import is_batch_assumed
from edgecompress.hardware.chains import Chain, fuse_chains
from edgecompress.hardware.cost import (
    bound_cycles,
    cost,
    estimate,
    images_per_pass,
    notes,
    resources,
    weight_values,
)
from edgecompress.hardware.liveness import activation_memory
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import FUSED

BATCH = "an open batch axis was taken as 1"
NARROWED = "activations wider than {bits} bits are priced at {bits} bits, the only width there is"
FIXED = "weights are moved as {bits} bits whatever their width: fewer bits save no time here"
PAIRED = "the device works on {images} images together: one alone takes as long as {images}"
ENERGY = "energy by assumed figures of another process: for comparing designs, not for a data sheet"
ASKED = "as asked: float activations are taken to have {activations} bits, float weights {weights}"
"""Sentences that hold for a whole report are in it once and not on every operator."""

FACTS = frozenset({FUSED, SAMPLED, SHAPES_ONLY})
"""What explains a figure and is no assumption: it follows from the device's description or from the
graph, or says how a statistic was taken and how far off it may be."""

EFFICIENCIES = (0.8, 1.1)
"""The memory's efficiency is calibrated or assumed once per target: what if it is off by as much.
Source: assumed; the range that the shipped targets' own sources give for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a graph is read for an estimate.

    Attributes:
        input_shapes: For inputs whose shape is open beyond the batch axis; an open batch is 1.
        assumed_bits: Widths of what is float in the graph; None: as it is.
    """

    input_shapes: Mapping[str, Shape] | None = None
    assumed_bits: AssumedBits | None = None


def estimate_latency(
    model: Model, target: Target, input_shapes: Mapping[str, Shape] | None = None
) -> LatencyReport:
    """Predicted latency of one inference.

    Args:
        model: Loaded with ``normalize=False``: costs are of the graph as it is written.
        target: The device.
        input_shapes: For inputs whose shape is open beyond the batch axis; an open batch is 1.

    Raises:
        Unsupported: An input has an open axis that nothing is known about.
        UsageError: A given shape fits no input.
    """
    return estimate_latencies(model, [target], Reading(input_shapes=input_shapes))[0]


def estimate_latencies(
    model: Model, targets: Sequence[Target], reading: Reading
) -> tuple[LatencyReport, ...]:
    """Predicted latency of one inference on each of some targets; what they share is read once.

    Raises:
        Unsupported, UsageError: As `estimate_latency`.
    """
    shapes = reading.input_shapes or {}
    works: dict[WeightValues, tuple[Work, ...]] = {}
    for target in targets:
        wanted = weight_values(target)
        if wanted not in works:
            works[wanted] = derive_work(
                model, shapes, statistics=wanted, assumed=reading.assumed_bits
            )
    batch = (BATCH,) if is_batch_assumed(model, shapes) else ()
    asked: tuple[str, ...] = ()
    if reading.assumed_bits is not None:
        asked = (ASKED.format(**asdict(reading.assumed_bits)),)
    found = (_report(model, works[weight_values(target)], target) for target in targets)
    return tuple(
        replace(one, assumptions=(*batch, *one.assumptions), notes=(*asked, *one.notes))
        for one in found
    )


def _report(model: Model, counted: Sequence[Work], target: Target) -> LatencyReport:
    """The estimate of one target."""
    works, chains = fuse_chains(counted, target)
    costs = estimate(works, target)
    memory = activation_memory(works, target)
    needed = resources(target)
    energy = _energy(costs)
    assumptions, facts = _sentences(works, costs, target)
    return LatencyReport(
        model=model.file,
        target=target.name,
        target_source=target.source,
        model_error=target.model_error,
        model_error_source=target.model_error_source,
        latency_s=math.fsum(one.latency_s for one in costs),
        throughput_per_s=_throughput_per_s(works, costs, target),
        total_cycles=math.fsum(one.total_cycles for one in costs),
        energy_pj=None if energy is None else energy.total_pj,
        energy=energy,
        macs=sum(_macs(work) for work in works),
        moved_bytes=math.fsum(one.weight_bytes + one.activation_bytes for one in costs),
        bound_s=math.fsum(bound_cycles(work, target) for work in works) / target.clock_hz,
        sensitivity=tuple(_sensitivity(works, costs, target)),
        peak_activation_bytes=memory.peak_bytes,
        peak_operator=works[memory.peak_at].name if works else "",
        live_bytes=memory.live_bytes,
        on_chip_bytes=target.on_chip_bytes,
        factored=tuple(_factored(chain, target) for chain in chains),
        resources={} if needed is None else asdict(needed),
        part=target.part,
        costs=costs,
        op_types=tuple(work.op_type for work in works),
        assumptions=assumptions,
        notes=facts,
    )


def _macs(work: Work) -> int:
    return 0 if isinstance(work.operator, ElementWork) else work.operator.macs


def _energy(costs: Sequence[Cost]) -> EnergySplit | None:
    """The sum by cause; None where the target states no energy."""
    splits = [one.energy for one in costs if one.energy is not None]
    if not splits:
        return None
    return EnergySplit(
        mac_pj=math.fsum(split.mac_pj for split in splits),
        on_chip_pj=math.fsum(split.on_chip_pj for split in splits),
        dram_pj=math.fsum(split.dram_pj for split in splits),
        static_pj=math.fsum(split.static_pj for split in splits),
    )


def _sensitivity(
    works: Sequence[Work], costs: Sequence[Cost], target: Target
) -> Iterable[Sensitivity]:
    """Latency with a memory that gives less or more."""
    # What moves nothing over the memory port takes as long at any rate of it.
    still = [one.latency_s for one in costs if not _moves(one)]
    moving = [(work, one) for work, one in zip(works, costs, strict=True) if _moves(one)]
    for factor in EFFICIENCIES:
        seconds = _at(moving, target, factor)
        yield Sensitivity(factor=factor, latency_s=math.fsum((*still, *seconds)))


def _at(priced: Sequence[tuple[Work, Cost]], target: Target, factor: float) -> list[float]:
    """Seconds of operators with a memory that gives so many times as much, 1 at most."""
    share = min(1.0, target.dram_efficiency_share * factor)
    changed = replace(target, dram_efficiency_share=share)
    return [one.latency_s for one in estimate((work for work, _ in priced), changed)]


def _moves(one: Cost) -> bool:
    return one.weight_bytes > 0 or one.activation_bytes > 0


def _factored(chain: Chain, target: Target) -> FactoredLayer:
    return FactoredLayer(
        name=chain.layer,
        operators=chain.operators,
        dense_s=None if chain.dense is None else cost(chain.dense, target).latency_s,
        memory_s=chain.memory_s,
        fused_s=chain.fused_s,
        kept_bytes=chain.kept_bytes,
        fused=chain.is_fused,
    )


def _throughput_per_s(works: Sequence[Work], costs: Sequence[Cost], target: Target) -> float:
    """Inferences a second, with the device's images filled."""
    fill = _unused_images(works, target)
    seconds = math.fsum(
        one.latency_s * (fill if isinstance(work.operator, ElementWork) else 1)
        for work, one in zip(works, costs, strict=True)
    )
    return fill / seconds if seconds else 0.0


def _unused_images(works: Iterable[Work], target: Target) -> float:
    """How many inferences the array could do in the passes of one."""
    batches = [work.operator.batch for work in works if isinstance(work.operator, ConvWork)]
    together = images_per_pass(target)
    if not batches or min(batches) < 1:
        return 1.0
    return min(-(-batch // together) * together / batch for batch in batches)


def _sentences(
    works: Sequence[Work], costs: Sequence[Cost], target: Target
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every assumption once, and everything else that explains the figures."""
    parts = dict.fromkeys(part for one in costs for part in one.assumed.split("; ") if part)
    assumed = [part for part in parts if part not in FACTS]
    facts = [part for part in parts if part in FACTS]
    bits = target.activation_bits
    products = [work.operator for work in works if not isinstance(work.operator, ElementWork)]
    if bits is not None and any(product.activation_bits > bits for product in products):
        assumed.append(NARROWED.format(bits=bits))
    moved = target.fixed_weight_bits
    if moved is not None and any(product.weight_bits < moved for product in products):
        facts.append(FIXED.format(bits=moved))
    if _unused_images(works, target) > 1:
        facts.append(PAIRED.format(images=images_per_pass(target)))
    if assumes_energy(target):
        facts.append(ENERGY)
    facts += notes(works, target)
    return tuple(assumed), tuple(facts)


def assumes_energy(target: Target) -> bool:
    """Whether a figure of the energy is one of another device, or a guess."""
    return target.energy is not None and any(
        path.startswith("energy.") and source.startswith("assumed")
        for path, source in target.sources
    )
