"""Names and messages that come from a model or a file are untrusted text.

Control and invisible characters are dropped before a name reaches any stream, and nothing that a
CI service would read as a command of its own is let through.

Source: GitHub Actions reads a line that starts with ``::`` (blanks before it are ignored), GitHub
and Azure Pipelines read ``##[`` and ``##vso[`` anywhere in a line.
"""

from __future__ import annotations

import re

_LINE_COMMAND = re.compile(r"^([^\S\n]*):(?=:)", re.MULTILINE)
_INLINE_COMMAND = re.compile(r"##(?=\[|vso\[)", re.IGNORECASE)


def plain(text: str) -> str:
    """One line of printable text: blanks for white space, nothing for control characters."""
    kept = "".join(
        character if character.isprintable() else " " if character.isspace() else ""
        for character in text
    )
    return defuse(kept)


def defuse(text: str) -> str:
    """The text, any number of lines, with nothing in it that a CI service would execute."""
    return _INLINE_COMMAND.sub("# #", _LINE_COMMAND.sub(r"\1: ", text))


def elide(text: str, width: int) -> str:
    """At most ``width`` characters, the middle left out; both ends of a name say most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    head = (width - 1) // 2
    tail = width - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :]}"
