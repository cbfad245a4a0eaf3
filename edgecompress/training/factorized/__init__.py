"""Trainable weights that exist as tensor factors only, one format a file.

A format's file name is its name; listing them imports no torch.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from edgecompress.training.factorized.base import Factorization

__all__ = ["format_names", "load_format"]

MARK = "\nFORMAT = "


@cache
def format_names() -> tuple[str, ...]:
    """All formats, sorted: the files of this folder that end by naming a ``FORMAT``."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(
        file.stem
        for file in files
        if not file.stem.startswith("_") and MARK in file.read_text(encoding="utf-8")
    )


def load_format(name: str) -> type[Factorization]:
    """The class of a format.

    Raises:
        ValueError: There is no such format.
    """
    if name not in format_names():
        raise ValueError(f"no tensor format is called {name!r}: {', '.join(format_names())}")
    return cast("type[Factorization]", import_module(f"{__name__}.{name}").FORMAT)
