"""Processes that are interrupted."""

from __future__ import annotations

import signal


def hear_interrupts() -> None:
    """Undo what a shell does to jobs in the background: there SIGINT is ignored, and inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
