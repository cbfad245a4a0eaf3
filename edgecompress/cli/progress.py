"""Progress on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgecompress.cli.streams import say
from edgecompress.report.names import plain

Progress = Callable[[str, int, int], None]
HEARTBEAT_S = 10.0
_BESIDE_TEXT = 29
"""Columns of a terminal that the bar, the elapsed time and the blanks between them take."""


@contextmanager
def progress_on_stderr(*, quiet: bool) -> Iterator[Progress]:
    """A receiver of (phase, steps done, steps in all; 0 if unknown)."""
    if quiet:
        yield _silent
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        yield from _bar()
    else:
        yield Heartbeat(time.monotonic)


class Heartbeat:
    """A line when a phase begins, and one now and then while it goes on.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._phase = ""
        self._said = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Take note of progress."""
        now = self._clock()
        if phase == self._phase and now - self._said < HEARTBEAT_S:
            return
        self._phase, self._said = phase, now
        say(f"{phase} {done}/{total}" if total else phase)


def _silent(phase: str, done: int, total: int) -> None:
    """Progress that goes nowhere."""


class Bar:
    """One line in a terminal that is drawn again and again.

    Args:
        draw: Shows a text, with steps done and steps in all (None: unknown) as a bar.
        width: Columns that the text has.
    """

    def __init__(self, draw: Callable[[str, float, float | None], None], width: int) -> None:
        self.draw = draw
        self.width = width

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Take note of progress."""
        self.draw(f"{done}/{total} {phase}" if total else phase, done, total or None)


def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Phase(TextColumn):
        """The phase as text: names in it are no markup."""

        def render(self, task: object) -> Text:
            return Text(plain(str(getattr(task, "description", ""))))

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    phase = Phase("", table_column=Column(no_wrap=True, overflow="ellipsis"))
    with Bars(BarColumn(20), TimeElapsedColumn(), phase, console=console, transient=True) as bars:
        task = bars.add_task("", total=None)

        def draw(text: str, done: float, total: float | None) -> None:
            bars.update(task, description=text, completed=done, total=total)

        yield Bar(draw, console.width - _BESIDE_TEXT)
