"""One training step on an accelerator: what was asked, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecompress.core.report import FileFact

TRAINING_STEP_SCHEMA = "edgecompress.training-step-report/1"

Optimizer = Literal["sgd", "momentum", "adam"]
Phase = Literal["forward", "backward", "weight gradient", "update"]
PHASES: tuple[Phase, ...] = ("forward", "backward", "weight gradient", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStepOptions:
    """How a step is done.

    Attributes:
        optimizer: Plain gradient descent, with momentum, or Adam.
        gradient_bits: Width of gradients of activations and of weights.
        master_bits: Width of a second, finer copy of the weights that the update is added to; 0 for
            none: the weights themselves are updated.
        state_bits: Width of an entry of the optimiser's state.
    """

    optimizer: Optimizer = "sgd"
    gradient_bits: int = 16
    master_bits: int = 0
    state_bits: int = 32

    def __post_init__(self) -> None:
        if not 2 <= self.gradient_bits <= 64:
            raise ValueError("gradients have 2 to 64 bits")
        if self.master_bits and not 2 <= self.master_bits <= 64:
            raise ValueError("master weights have 2 to 64 bits, or 0 for none")
        if not 2 <= self.state_bits <= 64:
            raise ValueError("the optimiser's state has 2 to 64 bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """One phase of the step, over all operators.

    Attributes:
        phase: ``forward``, ``backward`` (gradients of activations), ``weight gradient`` (of dense
            weights and of factors alike) or ``update``.
        macs: Multiply-accumulates.
        cycles: At the target's clock.
        latency_s: Of the phase.
        moved_bytes: Over the memory port.
        energy_pj: None if the target has no energy numbers.
    """

    phase: Phase
    macs: int
    cycles: float
    latency_s: float
    moved_bytes: float
    energy_pj: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """What has to be kept during a step, in bytes.

    Attributes:
        parameter_bytes: Weights at their width in the file, and their master copy.
        gradient_bytes: Gradients of all weights.
        optimizer_bytes: State of the optimiser.
        activation_bytes: Activations kept from the forward for the backward pass.
        gradient_flow_bytes: The largest pair of activation gradients alive at the same time.
    """

    parameter_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    gradient_flow_bytes: float

    @property
    def total_bytes(self) -> float:
        """All of it."""
        kept = self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes
        return kept + self.activation_bytes + self.gradient_flow_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStepReport:
    """A training step of one graph on one target.

    Attributes:
        model: The file.
        target: Target name.
        target_source: Where the target's numbers come from.
        options: How the step is done.
        parameters: Trainable weights.
        phases: In order.
        memory: What has to be kept.
        latency_s: One step.
        energy_pj: None if the target has no energy numbers.
        assumptions: Every assumption once, in words.
        notes: What is not assumed but good to know.
    """

    model: FileFact
    target: str
    target_source: str
    options: TrainingStepOptions
    parameters: int
    phases: tuple[PhaseCost, ...]
    memory: TrainingMemory
    latency_s: float
    energy_pj: float | None
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
