"""How a run is carried out, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import VerificationFailed
from edgecompress.core.training_report import EpochRecord
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.schedule import Updater
from edgecompress.training.sharding import local_bytes

Ranks = dict[str, Shape]


class TrainingDiverged(VerificationFailed):
    """The loss is no longer a number; the last checkpoint, if any, is from before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Where a run stands.

    Attributes:
        epoch: Under way, from 1.
        epochs: Asked for.
        step: Done in this epoch.
        steps: Of an epoch.
        loss: Mean over the epoch so far, without the penalty.
        validation_loss: After the last whole epoch; None before it or without held-back samples.
        score: On the held-back samples, likewise.
        parameters: Numbers that the network would be stored with.
        ranks: Of every tensorized layer.
        memory_bytes: Of parameters, gradients and optimiser state now; on a CUDA device the peak
            of everything allocated.
        elapsed_s: Since the run began, earlier parts of a resumed run included.
        remaining_s: At the speed so far, to the last epoch asked for.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation_loss: float | None
    score: float | None
    parameters: int
    ranks: Ranks
    memory_bytes: int
    elapsed_s: float
    remaining_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run is carried out; its result does not depend on any of this, apart from rounding.

    Attributes:
        device: ``cpu``, ``cuda`` ...; None: an accelerator if there is one.
        checkpoint: File that the state of the run is kept in; None: nowhere.
        resume: Continue from that file if it is there.
        checkpoint_epochs: A checkpoint after so many epochs.
        checkpoint_steps: Also after so many steps, counted over the run; None: not.
        checkpoint_minutes: Also when the last one is this old; None: not.
        on_progress: Told where the run stands, in the first process only.
        progress_s: At most this often, apart from the ends of epochs.
        stop: Asked after every step (with several processes: every epoch): true ends the run
            early, with a checkpoint.
        shard: Spread large dense layers, their gradients and state over the processes (FSDP2);
            see `sharding`. Not with low precision, without back-propagation, or with checkpoints
            by age. The result holds the whole network, another object than the one given.
    """

    device: str | None = None
    checkpoint: Path | None = None
    resume: bool = False
    checkpoint_epochs: int = 1
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None
    on_progress: Callable[[TrainingProgress], None] | None = None
    progress_s: float = 0.5
    stop: Callable[[], bool] | None = None
    shard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """A finished run.

    Attributes:
        network: Trained, in evaluation mode; with ``patience`` the weights of ``best_epoch``.
        history: Every epoch that was run.
        best_epoch: The epoch, from 1, whose weights the network holds: with ``patience`` the one of
            least validation loss after the ranks had settled, else the last.
        score_name: What the score is: accuracy, AUC ...
        stopped: Why the run ended before its last epoch: ``patience`` or ``asked``; None: it did
            not.
        steps: Updates made.
        processes: That took part.
        device: As torch names it.
        elapsed_s: Of the run, earlier parts of a resumed run included.
    """

    network: nn.Module
    history: tuple[EpochRecord, ...]
    best_epoch: int
    score_name: str
    stopped: str | None
    steps: int
    processes: int
    device: str
    elapsed_s: float


def stored_parameters(network: nn.Module) -> int:
    """Numbers that the network would be stored with: what views train is gone after the run."""
    of_views = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, Factorization)
        for parameter in module.views.parameters()
    }
    return sum(p.numel() for p in network.parameters() if id(p) not in of_views)


def live_ranks(network: nn.Module) -> Ranks:
    """Ranks of every tensorized layer, by its name."""
    return {
        name.removesuffix(".factorization"): module.ranks
        for name, module in network.named_modules()
        if isinstance(module, Factorization)
    }


def memory_now(network: nn.Module, optimizer: Updater, device: torch.device) -> int:
    """Bytes of parameters, their gradients and the optimiser's state; on CUDA the peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kept = sum(local_bytes(p) * (2 if p.requires_grad else 1) for p in network.parameters())
    state = optimizer.state.values()
    return kept + sum(
        local_bytes(value)
        for entry in state
        for value in entry.values()
        if isinstance(value, Tensor)
    )
