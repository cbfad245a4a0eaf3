"""What one training run is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.core.arrays import Shape
from edgecompress.core.options import Budget, Gates
from edgecompress.core.recipe_train import Choice
from edgecompress.core.training import TrainOptions
from edgecompress.pipeline.request import Progress, silent

if TYPE_CHECKING:
    from edgecompress.training.progress import TrainingProgress


def untold(progress: TrainingProgress) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What one training run is asked to do.

    Attributes:
        output: ONNX file to write.
        data: Samples to learn from, a specification as for `load_samples`.
        arch: Name of an architecture; None where ``torch_factory`` builds the network.
        choices: Settings of the architecture by name.
        torch_factory: ``module:function`` that builds the network.
        trust_input: Allow code of the user to run.
        start: File of weights to begin with (a state dict of the network); None: from scratch.
        test_data: Samples to measure the result on; None: held-back samples alone.
        preprocess: As in `parse_preprocess`; None for none.
        input_shapes: Shapes that the stored samples leave open (sizes of pictures).
        options: How to train; ``adaptation.target_params`` is set from ``target_params``.
        target_params: What may remain of the network's parameters; None: no target.
        gates: Limits.
        device: ``cpu``, ``cuda`` ...; None: an accelerator if there is one.
        checkpoint: File for the state of the run; None: nowhere.
        resume: Continue from it if it is there.
        shard: Spread dense parameters over the processes.
        force: Overwrite an output that exists.
        progress: Receiver of phases.
        on_training: Receiver of where the training stands.
        settings: What was asked beside the options, as text by option.
    """

    output: Path
    data: str
    arch: str | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)
    torch_factory: str | None = None
    trust_input: bool = False
    start: Path | None = None
    test_data: str | None = None
    preprocess: str | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    options: TrainOptions = field(default_factory=TrainOptions)
    target_params: Budget | None = None
    gates: Gates = field(default_factory=Gates)
    device: str | None = None
    checkpoint: Path | None = None
    resume: bool = False
    shard: bool = False
    force: bool = False
    progress: Progress = silent
    on_training: Callable[[TrainingProgress], None] = untold
    settings: Mapping[str, str] = field(default_factory=dict)
