"""The two streams: stdout has the report and nothing else, stderr everything for people."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

from edgecompress.core.errors import InputOutputFailed

if TYPE_CHECKING:
    from edgecompress.report.terminal import Terminal

_BEYOND_ASCII = "…→±µ─"
_WIDEST = 120


def open_missing_streams() -> None:
    """Give a closed stdout or stderr a sink, so that no file that is opened takes its place."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the whole run
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the whole run


def write_report(text: str) -> None:
    """Write to stdout. A reader that has gone away is no error; a full disk is.

    Raises:
        InputOutputFailed: stdout cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(shown)
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as failure:
        discard(sys.stdout)
        reason = failure.strerror or str(failure)
        raise InputOutputFailed(f"cannot be written: {reason}", where="stdout") from failure


def discard(stream: TextIO) -> None:
    """Let what is still in the stream's buffer go nowhere, or the interpreter fails at its end."""
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)
    except (OSError, ValueError):
        return


def say(text: str) -> None:
    """Write lines to stderr, names in them made harmless; if that fails there is nobody to tell."""
    from edgecompress.report.names import plain

    lines = (plain(line) for line in text.splitlines())
    say_raw("".join(f"{line}\n" for line in lines))


def say_raw(text: str) -> None:
    """Write text that is ours to stderr as it is."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def describe_stdout() -> Terminal:
    """What stdout can show; 80 columns unless the terminal, or ``COLUMNS``, says otherwise."""
    from edgecompress.report.terminal import Terminal

    width = shutil.get_terminal_size((80, 24)).columns
    return Terminal(
        width=max(20, min(width, _WIDEST)),
        color=_allows_color(sys.stdout),
        unicode=_encodes(sys.stdout, _BEYOND_ASCII),
    )


def _allows_color(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
