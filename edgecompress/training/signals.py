"""Signals that come in the middle of something that should end first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Pending:
    """A signal that came during a step and waits for its end."""

    number: int | None = None


@contextmanager
def deferred_signals(*, wanted: bool) -> Iterator[Pending]:
    """Let a step end before a signal is heard, so that the checkpoint is whole.

    The first SIGINT or SIGTERM waits; a second one is heard at once. Afterwards the first is sent
    again, to whoever listened before.
    """
    pending = Pending()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield pending
        return
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }

    def note(number: int, frame: FrameType | None) -> None:
        pending.number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending.number is not None:
        signal.raise_signal(pending.number)
