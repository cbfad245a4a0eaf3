"""One healing: both graphs, the data, and how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam

from edgecompress.core.healing import Healing
from edgecompress.core.options import HealOptions
from edgecompress.graph.emit import set_constant
from edgecompress.training.heal import Healed, HealTask, Progress
from edgecompress.training.heal_augment import Augmenter
from edgecompress.training.heal_data import HealData, TensorFeed
from edgecompress.training.heal_loss import Distance, Found
from edgecompress.training.heal_ranks import RankFall
from edgecompress.training.heal_slices import SliceLoss
from edgecompress.training.interpreter.interpreter import Interpreter

CUTTING = 0.5
"""Share of the passes after which ranks stay; the rest is for the weights to recover. A judgement,
not tuned."""

LOOKING = 32
"""Steps whose gradients tell what a rank matters before anything is trained. A judgement."""

RETREAT = 1.1
"""Times the lowest loss on the samples held back from which a pass is undone and the learning rate
halved: with few steps, or weights on another scale, the first rate may be far too high. A
judgement: well above what the loss of a run that comes down wavers by."""

MEASURING = 16
"""Steps whose samples the gauge of the bonds is measured on: 1,024 samples with the usual batch, as
many as calibrate a decomposition."""

SLACK = 1e-9
"""A budget counts as met this close to it."""

AT_FLOOR = "the budget was not reached: every rank that may fall is at its least"
NO_BETTER = "nothing came closer to the float model on the samples held back: nothing was changed"

State = dict[str, Tensor]


@dataclass(slots=True)
class _Kept:
    """The state to keep: weights by name, what they give, and after which pass."""

    state: State
    found: Found
    epoch: int


class HealRun:
    """Trains a student; `healed` is called once.

    Args:
        task: What is healed.
        options: How.
        progress: Called with a phase, steps done and steps in all.
    """

    def __init__(self, task: HealTask, options: HealOptions, progress: Progress) -> None:
        self._begin_s = time.perf_counter()
        self._task, self._options, self._progress = task, options, progress
        self._generator = torch.Generator().manual_seed(options.seed)
        self._data = HealData(
            task.feeds,
            open_batch=task.open_batch,
            held_back=options.held_back,
            batch=options.batch,
            generator=self._generator,
        )
        self._augment = Augmenter(options.augment, next(self._data.held_feeds()))
        # Half floats are trained as floats: their steps would round to nothing.
        self._teacher = Interpreter(task.teacher, keep_half=False)
        self._student = Interpreter(task.student, keep_half=False)
        for net in (self._teacher, self._student):
            for weight in net.parameters():
                if weight.ndim == 4:  # the faster layout for convolutions of few channels
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self._teacher.requires_grad_(False)
        self._distance = Distance(task.outputs, task.scores, options.temperature)
        self._weights = dict(self._student.weights)
        self._limit = task.fall.limit if task.fall is not None else math.inf
        self._slices = task.slices if options.slice_epochs else ()
        self._passes = (options.slice_epochs if self._slices else 0) + options.epochs
        self._steps, self._note, self._kept_cost, self._scale = 0, "", 0.0, 1.0
        self._start = self._judged()
        self._kept = _Kept(self._state(), self._start, 0)
        self._limit_l2 = self._start.relative_l2

    def healed(self) -> Healed:
        """Everything, in order."""
        optimizer = self._optimizer()
        fall = self._rank_fall(optimizer)
        if fall is not None:
            self._cut_at_once(fall, optimizer)
        before = self._kept.found
        self._limit_l2 = before.relative_l2
        if self._slices:
            self._train_slices(fall)
        self._train(optimizer, fall)
        self._restore(self._kept.state)
        errors = self._layer_errors()
        changed = fall is not None or self._kept.epoch > 0
        if changed:
            self._write()
        elif not self._note:
            self._note = NO_BETTER
        ranks = fall.ranks() if fall is not None else {}
        return Healed(healing=self._facts(before), changed=changed, ranks=ranks, errors=errors)

    # Training.

    def _train_slices(self, fall: RankFall | None) -> None:
        """Slices on their own; undone where that takes the whole farther away."""
        passes = self._options.slice_epochs
        loss, optimizer = SliceLoss(self._slices, self._student), self._optimizer()
        rates = self._rates(optimizer, passes * self._data.steps)
        state = self._state()
        for epoch in range(1, passes + 1):
            for feeds in self._pass("healing slices", epoch, passes):
                optimizer.zero_grad(set_to_none=True)
                for feed in feeds:
                    with torch.no_grad():
                        teacher = self._teacher(feed, loss.wanted)
                    torch.autograd.backward(loss(feed, teacher) / len(feeds))
                next(rates)
                optimizer.step()
        found = self._judged()
        if not found.beats(self._start, self._start.relative_l2):
            self._restore(state)
        elif fall is None:
            self._kept = _Kept(self._state(), found, passes)

    def _train(self, optimizer: Adam, fall: RankFall | None) -> None:
        """From end to end; ranks fall after each of the first passes."""
        epochs, limit = self._options.epochs, self._limit
        cutting = max(1, round(CUTTING * epochs))
        rates = self._rates(optimizer, epochs * self._data.steps)
        top = max(fall.cost, limit) if fall is not None else 0.0
        lowest = _Kept(self._state(), self._judged(), 0)
        for epoch in range(1, epochs + 1):
            for feeds in self._pass("healing", epoch, epochs):
                self._gradients(optimizer, feeds, fall)
                next(rates)
                optimizer.step()
            if fall is not None and epoch <= cutting:
                fall.cut(limit * (top / limit) ** (1 - epoch / cutting))
                fall.balance()
            found = self._consider(self._passes - epochs + epoch, fall)
            if fall is None and not found.loss <= RETREAT * lowest.found.loss:
                self._restore(lowest.state)
                optimizer.state.clear()
                self._scale /= 2
            elif found.loss < lowest.found.loss:
                lowest = _Kept(self._state(), found, epoch)

    def _gradients(
        self, optimizer: Adam, feeds: Sequence[TensorFeed], fall: RankFall | None
    ) -> None:
        optimizer.zero_grad(set_to_none=True)
        for feed in feeds:
            with torch.no_grad():
                teacher = self._teacher(feed, self._distance.outputs)
            student = self._student(feed, self._distance.outputs)
            torch.autograd.backward(self._distance.loss(teacher, student) / len(feeds))
        if fall is not None:
            fall.observe()
            strength = self._options.strength / self._data.training
            torch.autograd.backward(strength * fall.penalty())

    def _pass(self, phase: str, epoch: int, epochs: int) -> Iterator[list[TensorFeed]]:
        """The steps of one pass, augmented."""
        done, total = (epoch - 1) * self._data.steps, epochs * self._data.steps
        for step, feeds in enumerate(self._data.passes(self._generator)):
            self._progress(phase, done + step, total)
            self._steps += 1
            yield [self._augment(feed, self._generator) for feed in feeds]

    def _optimizer(self) -> Adam:
        return Adam(self._weights.values(), lr=self._options.learning_rate)

    def _rates(self, optimizer: Adam, steps: int) -> Iterator[None]:
        """Half a cosine from the learning rate to zero, set step by step."""
        for step in range(steps):
            rate = self._options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * self._scale
            yield

    # Ranks.

    def _rank_fall(self, optimizer: Adam) -> RankFall | None:
        asked = self._task.fall
        if asked is None:
            return None
        return RankFall(asked.chains, self._weights, asked.fixed, optimizer, self._values)

    @torch.no_grad()
    def _values(self, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
        """Values of the student on the first samples to train on."""
        for step in range(min(MEASURING, self._data.steps)):
            for feed in self._data.step(step):
                yield self._student(feed, names)

    def _cut_at_once(self, fall: RankFall, optimizer: Adam) -> None:
        """The first state within the budget: what training has to be better than."""
        state = self._state()
        for count, feeds in enumerate(self._data.passes(self._generator)):
            if count == LOOKING:
                break
            self._gradients(optimizer, feeds, fall)
        if not fall.cut(self._limit):
            self._note = AT_FLOOR
        fall.balance()
        self._kept_cost = fall.cost
        self._kept = _Kept(self._state(), self._judged(), 0)
        self._restore(state)
        fall.balance()

    # States.

    def _consider(self, epoch: int, fall: RankFall | None) -> Found:
        """Keep the state as it is if it is closer than the one kept."""
        found = self._judged()
        fits = fall is None or fall.cost <= max(self._limit, self._kept_cost) * (1 + SLACK)
        if fits and found.beats(self._kept.found, self._limit_l2):
            self._kept = _Kept(self._state(), found, epoch)
        return found

    @torch.no_grad()
    def _judged(self) -> Found:
        """The student on the samples held back."""
        found = Found()
        for feed in self._data.held_feeds():
            teacher = self._teacher(feed, self._distance.outputs)
            self._distance.add(found, teacher, self._student(feed, self._distance.outputs))
        return found

    def _state(self) -> State:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    def _restore(self, state: State) -> None:
        for name, weight in self._weights.items():
            weight.grad = None
            weight.data = state[name].clone()

    def _write(self) -> None:
        """Into the student's graph, in place; weights may have become smaller."""
        graph = self._task.student.ir.graph
        for name, weight in self._weights.items():
            value = graph.initializers.get(name)
            if value is not None and tuple(value.shape or ()) != tuple(weight.shape):
                kind = value.const_value.dtype.numpy() if value.const_value else np.float32
                set_constant(value, weight.detach().contiguous().numpy().astype(kind))
        self._student.write_back(self._task.student)
        self._task.student.forget_shapes()

    @torch.no_grad()
    def _layer_errors(self) -> dict[str, float]:
        """Relative L2 error of each decomposed layer's output on the samples held back."""
        names = self._task.layer_outputs
        wanted = tuple(dict.fromkeys(names.values()))
        error, size = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
        for feed in self._data.held_feeds() if wanted else ():
            teacher, student = self._teacher(feed, wanted), self._student(feed, wanted)
            for name in wanted:
                error[name] += float((student[name] - teacher[name]).double().square().sum())
                size[name] += float(teacher[name].double().square().sum())
        return {
            layer: math.sqrt(error[name] / size[name]) if size[name] else math.sqrt(error[name])
            for layer, name in names.items()
        }

    def _facts(self, before: Found) -> Healing:
        after = self._kept.found
        return Healing(
            measure=after.measure,
            before=before.value,
            after=after.value,
            agreement_before=before.agreement,
            agreement_after=after.agreement,
            samples=self._data.training,
            held_back=self._data.held,
            epochs=self._passes,
            best=self._kept.epoch,
            steps=self._steps,
            seconds=time.perf_counter() - self._begin_s,
            slices=len(self._slices),
            note=self._note,
        )
