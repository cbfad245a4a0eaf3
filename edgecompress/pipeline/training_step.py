"""What a training step of a graph takes on a target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgecompress.core.errors import Unsupported
from edgecompress.core.training_step import (
    PHASES,
    Phase,
    PhaseCost,
    TrainingStepOptions,
    TrainingStepReport,
)
from edgecompress.core.work import Cost, ElementWork, Work
from edgecompress.graph.model import Model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import Target
from edgecompress.hardware.training_step import (
    PASSES,
    PhaseWork,
    resident,
    training_memory,
    training_works,
    weight_elements,
)
from edgecompress.pipeline.estimate import (
    ENERGY,
    FACTS,
    NARROWED,
    Reading,
    assumes_energy,
)

AS_WRITTEN = Reading()
FITS = "all that a step keeps fits into the {size:,} bytes on chip: only weights are loaded"


def estimate_training_step(
    model: Model,
    target: Target,
    options: TrainingStepOptions,
    reading: Reading = AS_WRITTEN,
) -> TrainingStepReport:
    """Time, traffic, energy and memory of one step, with the widths that the file has.

    Args:
        model: Loaded with ``normalize=False``; its batch size is that of the step.
        target: The device.
        options: Optimiser and widths.
        reading: Shapes of open inputs, and widths that floats are taken to have.

    Raises:
        Unsupported: The graph has no weight to train, or an input has an open axis.
        UsageError: A given shape fits no input.
    """
    shapes = reading.input_shapes or {}
    works = derive_work(model, shapes, assumed=reading.assumed_bits)
    parameters = sum(weight_elements(work) for work in works)
    if not parameters:
        raise Unsupported("no convolution and no matrix product with a constant weight to train")
    memory = training_memory(works, options)
    fits = memory.total_bytes <= target.on_chip_bytes
    steps = tuple(training_works(works, options, target.activation_bits))
    priced = [(step, cost(resident(step.work) if fits else step.work, target)) for step in steps]
    phases = tuple(
        _phase(phase, [(step, one) for step, one in priced if step.phase == phase])
        for phase in PHASES
    )
    energies = [phase.energy_pj for phase in phases]
    said = dict.fromkeys(part for _, one in priced for part in one.assumed.split("; ") if part)
    return TrainingStepReport(
        model=model.file,
        target=target.name,
        target_source=target.source,
        options=options,
        parameters=parameters,
        phases=phases,
        memory=memory,
        latency_s=math.fsum(phase.latency_s for phase in phases),
        energy_pj=None if None in energies else math.fsum(pj or 0.0 for pj in energies),
        assumptions=tuple(text for text in said if text not in FACTS),
        notes=(
            *((FITS.format(size=target.on_chip_bytes),) if fits else ()),
            *_widths(works, options, target.activation_bits),
            *(text for text in said if text in FACTS),
            *((ENERGY,) if assumes_energy(target) else ()),
        ),
    )


def _widths(works: Sequence[Work], options: TrainingStepOptions, bits: int | None) -> Iterator[str]:
    """What the only width of an array means for the step."""
    if bits is None:
        return
    if options.gradient_bits > bits:
        yield PASSES.format(bits=bits)
    if any(weight_elements(work) and _activation_bits(work) > bits for work in works):
        yield NARROWED.format(bits=bits)


def _activation_bits(work: Work) -> int:
    return 0 if isinstance(work.operator, ElementWork) else work.operator.activation_bits


def _phase(phase: Phase, priced: list[tuple[PhaseWork, Cost]]) -> PhaseCost:
    """Totals of one phase."""
    energies = [one.energy_pj for _, one in priced]
    return PhaseCost(
        phase=phase,
        macs=sum(step.macs for step, _ in priced),
        cycles=math.fsum(one.total_cycles for _, one in priced),
        latency_s=math.fsum(one.latency_s for _, one in priced),
        moved_bytes=math.fsum(one.weight_bytes + one.activation_bytes for _, one in priced),
        energy_pj=None if None in energies else math.fsum(pj or 0.0 for pj in energies),
    )
