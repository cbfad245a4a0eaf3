"""Training of a network: epochs of steps, what is judged between them, and when it ends."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgecompress.core.training import TrainOptions
from edgecompress.core.training_report import EpochRecord
from edgecompress.training.batches import TrainingData
from edgecompress.training.checkpoint import (
    copied,
    put_tensors,
    read_checkpoint,
    refuse_other_run,
    tensors_of,
    write_checkpoint,
)
from edgecompress.training.distributed import joined_team
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.progress import (
    Ranks,
    RunOptions,
    TrainingDiverged,
    TrainingProgress,
    TrainingResult,
    live_ranks,
    memory_now,
    stored_parameters,
)
from edgecompress.training.schedule import rate_at
from edgecompress.training.session import Best, Place, Session, open_session
from edgecompress.training.sharding import gathered_into, on_cpu
from edgecompress.training.signals import Pending, deferred_signals
from edgecompress.training.steps import judged, one_step, seed_step

LOOK_EVERY = 32
"""Losses are read every so many steps of an accelerator: reading waits for it. Source: a choice."""


def train_network(
    network: nn.Module,
    data: TrainingData,
    options: TrainOptions,
    *,
    run: RunOptions | None = None,
) -> TrainingResult:
    """Train a network, tensorized or dense, in place.

    The same seed gives the same bits on the same machine with the same number of threads, and a
    run that was killed continues from its checkpoint with the same bits. Under ``torchrun`` all
    processes call this with equal arguments; their loss curve is that of one process, apart from
    rounding, unless layers look at statistics of the batch (batch normalisation: each process has
    its own) or draw a mask (dropout).

    Args:
        network: With the layers and starting ranks that training begins with.
        data: Samples; a share of them is held back to judge by.
        options: What is asked.
        run: How it is carried out.

    Raises:
        TrainingDiverged: The loss became infinite or not a number.
        ConfigurationInvalid: The checkpoint is of another run, or options cannot be met.
        UsageError: Options contradict each other.
        DataInvalid: Samples and network do not fit.
        InputOutputFailed: The checkpoint cannot be read or written.
    """
    run = run or RunOptions()
    with joined_team(run.device) as team, _own_randomness(team.device):
        seed_step(options.seed, 0, team.device)
        session = open_session(network, data, options, run, team)
        _resume(session)
        loop = _Loop(session)
        with deferred_signals(wanted=run.checkpoint is not None) as pending:
            session.pending = pending
            loop.epochs(pending)
        return loop.result()


@dataclass(slots=True)
class _Loop:
    """The parts of a run that no checkpoint needs."""

    session: Session
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    told: float = 0.0
    first_update: int = 0
    epoch_loss: Tensor | None = None
    parameters: int = 0
    ranks: Ranks = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_update = self.session.place.updates
        self._look()

    def epochs(self, pending: Pending) -> None:
        """Run until the last epoch, or until something ends the run."""
        session = self.session
        while session.place.epoch < session.options.epochs and session.stopped is None:
            if self._steps(pending):
                return
            self._end_epoch()
            if self._asked(pending, each_step=False):
                return

    def result(self) -> TrainingResult:
        """The network in evaluation mode, at its best epoch, and what happened."""
        session = self.session
        best = len(session.history)
        if session.best.tensors:
            best = session.best.epoch
            session.parallel = session.network
            put_tensors(session.network, session.best.tensors)
        session.set_width(None)
        _remove_sampling(session.network)
        network = session.network
        if session.outline is not None:
            _remove_sampling(session.outline)
            network = gathered_into(session.outline, network)
        network.eval()
        return TrainingResult(
            network=network,
            history=tuple(session.history),
            best_epoch=best,
            score_name=session.judge.score_name,
            stopped=session.stopped,
            steps=session.place.updates,
            processes=session.team.size,
            device=str(session.team.device),
            elapsed_s=self._elapsed(),
        )

    # Inside an epoch.

    def _steps(self, pending: Pending) -> bool:
        """The rest of an epoch's steps; true if the run ends here."""
        session, place = self.session, self.session.place
        session.network.train()
        order = session.train.order(session.options.seed, place.epoch)
        device = session.team.device
        self.epoch_loss = torch.tensor(place.loss, dtype=torch.float64, device=device)
        batches = torch.split(order, session.options.batch)
        for rows in batches[place.step :]:
            weight = session.train.weight(rows)
            loss = one_step(session, rows, weight)
            self.epoch_loss += loss.double() * weight
            place.terms += weight
            place.step += 1
            place.updates += 1
            if device.type == "cpu" or place.updates % LOOK_EVERY == 0:
                self._read_loss()
            if place.step < len(batches):
                self._between_steps()
                if self._asked(pending, each_step=True):
                    return True
        self._read_loss()
        self.epoch_loss = None
        return False

    def _read_loss(self) -> None:
        place = self.session.place
        if self.epoch_loss is not None:
            place.loss = float(self.epoch_loss)
        if not math.isfinite(place.loss):
            raise TrainingDiverged(
                f"the loss is no longer finite in epoch {place.epoch + 1}, step {place.step}",
                hint=f"lower the learning rate ({self.session.options.rate:g}), or check "
                "the data for values that are not finite",
            )

    def _between_steps(self) -> None:
        session, run = self.session, self.session.run
        now = time.monotonic()
        if run.on_progress is not None and now - self.told >= run.progress_s:
            self._read_loss()
            self._tell()
        by_count = run.checkpoint_steps and session.place.updates % run.checkpoint_steps == 0
        minutes = run.checkpoint_minutes
        by_age = minutes is not None and now - self.saved >= 60 * minutes
        if by_count or by_age:
            self._save()

    def _asked(self, pending: Pending, *, each_step: bool) -> bool:
        """Whether someone wants the run to end now: a signal, or ``stop``."""
        session, stop = self.session, self.session.run.stop
        if self._interrupted(pending):
            self._save()
            return True
        if stop is None or (each_step and session.team.size > 1):
            return False
        if not session.team.agree(stop()):
            return False
        if session.place.epoch < session.options.epochs:
            session.stopped = "asked"
        self._save(stopped=None)
        return True

    def _interrupted(self, pending: Pending) -> bool:
        """Whether a signal waits; several processes stop after the same step."""
        session = self.session
        if session.heard is None:
            return pending.number is not None
        looks = session.team.device.type == "cpu" or session.place.updates % LOOK_EVERY == 0
        if not looks or not float(session.heard):
            return False
        pending.number = pending.number or signal.SIGTERM
        return True

    # Between epochs.

    def _end_epoch(self) -> None:
        session, place = self.session, self.session.place
        loss = place.loss / max(place.terms, 1.0)
        validation_loss, score = judged(session, session.held)
        cuts = _adapt(session, loss, validation_loss)
        self._look()
        session.history.append(self._record(loss, validation_loss, score, cuts))
        session.place = Place(place.epoch + 1, 0, place.updates, elapsed_s=place.elapsed_s)
        _note_best(session, validation_loss, cuts)
        last = session.place.epoch == session.options.epochs or session.stopped is not None
        if last or session.place.epoch % session.run.checkpoint_epochs == 0:
            self._save()
        self._tell()

    def _look(self) -> None:
        self.parameters = stored_parameters(self.session.network)
        self.ranks = live_ranks(self.session.network)

    def _record(
        self, loss: float, validation_loss: float | None, score: float | None, cuts: int
    ) -> EpochRecord:
        session, place = self.session, self.session.place
        options = session.options
        steps = session.steps * options.epochs
        return EpochRecord(
            epoch=place.epoch + 1,
            loss=loss,
            validation_loss=validation_loss,
            score=score,
            learning_rate=rate_at(options.rate, place.updates - 1, steps),
            parameters=self.parameters,
            ranks=self.ranks,
            cuts=cuts,
            memory_bytes=memory_now(session.network, session.optimizer, session.team.device),
            elapsed_s=self._elapsed(),
        )

    # Towards the outside.

    def _elapsed(self) -> float:
        return self.session.place.elapsed_s + time.monotonic() - self.began

    def _save(self, *, stopped: str | None = "") -> None:
        """Write a checkpoint, if one is wanted; ``stopped`` overrides what it says of the end."""
        session = self.session
        path = session.run.checkpoint
        self.saved = time.monotonic()
        if path is None or not (session.team.first or session.outline is not None):
            return
        self._read_loss()
        state = session.state()
        if not session.team.first:
            return
        state["place"]["elapsed_s"] = self._elapsed()
        if stopped != "":
            state["stopped"] = stopped
        write_checkpoint(path, state)

    def _tell(self) -> None:
        session, place = self.session, self.session.place
        self.told = time.monotonic()
        if session.run.on_progress is None or not session.team.first:
            return
        done = place.updates - self.first_update
        left = session.steps * session.options.epochs - place.updates
        last = session.history[-1] if session.history else None
        ended = place.step == 0 and last is not None
        session.run.on_progress(
            TrainingProgress(
                epoch=place.epoch if ended else place.epoch + 1,
                epochs=session.options.epochs,
                step=session.steps if ended else place.step,
                steps=session.steps,
                loss=last.loss if ended and last else place.loss / max(place.terms, 1.0),
                validation_loss=last.validation_loss if last else None,
                score=last.score if last else None,
                parameters=self.parameters,
                ranks=self.ranks,
                memory_bytes=memory_now(session.network, session.optimizer, session.team.device),
                elapsed_s=self._elapsed(),
                remaining_s=(time.monotonic() - self.began) / max(done, 1) * left,
            )
        )


def _adapt(session: Session, loss: float, validation_loss: float | None) -> int:
    """Let ranks fall, the same in all processes; how many bonds did."""
    if session.adaptation is None:
        return 0
    seed_step(session.options.seed, -1 - session.place.epoch, session.team.device)
    if session.parallel is not session.network:
        session.parallel.zero_grad(set_to_none=True)
    changes = session.adaptation.end_epoch(
        session.place.epoch, session.optimizer, loss=loss, validation_loss=validation_loss
    )
    _make_equal(session)
    return sum(
        was != now
        for change in changes
        for was, now in zip(change.before, change.after, strict=True)
    )


def _make_equal(session: Session) -> None:
    """Take the first process's numbers: balancing may round differently on another processor."""
    team = session.team
    if team.size == 1:
        return
    ranks = live_ranks(session.network)
    differing = torch.tensor(float(team.agree(ranks) != ranks), device=team.device)
    if float(team.total(differing)):
        session.restore(team.agree(on_cpu(session.state())))
        return
    if session.adaptation is not None:
        decided = team.agree(on_cpu(session.adaptation.state_dict()))
        session.adaptation.load_state_dict(decided)
    team.copy_from_first(tensors_of(session.network).values())
    state = session.optimizer.state.values()
    team.copy_from_first(
        value for entry in state for value in entry.values() if isinstance(value, Tensor)
    )
    session.wrap()


def _note_best(session: Session, validation_loss: float | None, cuts: int) -> None:
    """Remember the best weights since ranks and widths settled, and how long they are the best."""
    patience = session.options.patience
    if patience is None or validation_loss is None:
        return
    if cuts or not session.settled:
        session.best = Best()
    elif validation_loss < session.best.loss:
        kept = copied(tensors_of(session.network))
        session.best = Best(session.place.epoch, validation_loss, 0, kept)
    else:
        session.best.waited += 1
        if session.best.waited >= patience and session.place.epoch < session.options.epochs:
            session.stopped = "patience"


def _resume(session: Session) -> None:
    """Continue from the checkpoint, if that is asked and there is one."""
    path = session.run.checkpoint
    if path is None or not session.run.resume:
        return
    state = session.team.agree(read_checkpoint(path) if session.team.first else None)
    if state is not None:
        refuse_other_run(path, state["key"], session.key())
        session.restore(state)


def _remove_sampling(network: nn.Module) -> None:
    """What was sampled around its mean is its mean from now on."""
    from edgecompress.training.adaptation.sampling import SampledCores

    for module in network.modules():
        if isinstance(module, Factorization):
            kept = [view for view in module.views if not isinstance(view, SampledCores)]
            module.views = nn.ModuleList(kept)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leave torch's own random streams as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
