"""Where text is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a stream can show.

    Attributes:
        width: Columns.
        color: Escape sequences for colours may be used.
        unicode: Characters beyond ASCII may be used.
    """

    width: int = 80
    color: bool = False
    unicode: bool = True
