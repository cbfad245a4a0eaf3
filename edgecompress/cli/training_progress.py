"""Where a training run stands, on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgecompress.cli.progress import HEARTBEAT_S, Bar, Heartbeat, Progress, progress_on_stderr
from edgecompress.cli.streams import say
from edgecompress.report import figures

if TYPE_CHECKING:
    from edgecompress.training.progress import TrainingProgress

_WORDS = ("loss ", " left", "ranks ", " params")
"""What goes, in this order, where there is no room."""

OnTraining = Callable[["TrainingProgress"], None]


@contextmanager
def training_on_stderr(*, quiet: bool) -> Iterator[tuple[Progress, OnTraining]]:
    """A receiver of phases, and one of where the training stands."""
    with progress_on_stderr(quiet=quiet) as phases:
        match phases:
            case Bar():
                yield phases, Drawn(phases)
            case Heartbeat():
                yield phases, Now(time.monotonic)
            case _:
                yield phases, _nowhere


class Drawn:
    """The state of a run beside a bar, as much of it as the terminal has room for."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __call__(self, state: TrainingProgress) -> None:
        """Take note of progress."""
        epochs = state.epoch - 1 + state.step / max(state.steps, 1)
        self._bar.draw(fitted(pieces(state), self._bar.width), epochs, state.epochs)


class Now:
    """A line at the first step, at the last, and now and then between.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: float | None = None

    def __call__(self, state: TrainingProgress) -> None:
        """Take note of progress."""
        now = self._clock()
        last = state.epoch == state.epochs and state.step == state.steps
        if self._said is not None and now - self._said < HEARTBEAT_S and not last:
            return
        self._said = now
        say(f"epoch {state.epoch}/{state.epochs}: {', '.join(pieces(state))}")


def pieces(state: TrainingProgress) -> list[str]:
    """Time left, loss (held-back loss after the stroke), parameters, ranks, memory."""
    loss = f"loss {state.loss:.3g}"
    if state.validation_loss is not None:
        loss += f"/{state.validation_loss:.3g}"
    found = [loss, f"{figures.short_count(state.parameters)} params"]
    every = [rank for ranks in state.ranks.values() for rank in ranks]
    if every:
        low, high = min(every), max(every)
        found.append(f"ranks {low}-{high}" if low < high else f"ranks {low}")
    found.append(figures.size(state.memory_bytes))
    return [time_left(state.remaining_s), *found]


def fitted(parts: list[str], width: int) -> str:
    """As many of the parts as fit, the first ones first; commas and words go before numbers do."""
    text = ", ".join(parts)
    if len(text) <= width:
        return text
    shorter = list(parts)
    for word in ("", *_WORDS):
        shorter = [part.replace(word, "") for part in shorter]
        if len(" ".join(shorter)) <= width:
            break
    while len(shorter) > 1 and len(" ".join(shorter)) > width:
        shorter = shorter[:-1]
    return " ".join(shorter)


def time_left(seconds: float) -> str:
    """``1:23 left``, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"


def _nowhere(state: TrainingProgress) -> None:
    """Progress that is not shown."""
