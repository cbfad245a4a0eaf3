"""Decomposition formats, one a file; the file's name is the format's name everywhere.

Nothing is imported until a format is asked for, so a command line can list them for free.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.core.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from edgecompress.formats.base import Format


class FormatRegistry:
    """The formats in this folder, found by listing it."""

    def names(self) -> tuple[str, ...]:
        """Names in alphabetical order."""
        files = Path(__file__).parent.glob("[a-z]*.py")
        return tuple(sorted(file.stem for file in files if file.stem != "base"))

    def get(self, name: str) -> Format:
        """The format of that name.

        Raises:
            ConfigurationInvalid: There is none.
        """
        if name not in self.names():
            raise ConfigurationInvalid(
                f"unknown format {name!r}", hint=f"one of {', '.join(self.names())}"
            )
        found: Format = import_module(f"{__name__}.{name}").FORMAT
        return found


FORMATS = FormatRegistry()
