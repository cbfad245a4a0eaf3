"""Weight quantizers, one a file; the file's name is the quantizer's name everywhere.

Nothing is imported until a quantizer is asked for, so a command line can list them for free.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.core.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from edgecompress.quantizers.base import Quantizer


class QuantizerRegistry:
    """The quantizers in this folder, found by listing it."""

    def names(self) -> tuple[str, ...]:
        """Names in alphabetical order."""
        files = Path(__file__).parent.glob("[a-z]*.py")
        return tuple(sorted(file.stem for file in files if file.stem != "base"))

    def get(self, name: str) -> Quantizer:
        """The quantizer of that name.

        Raises:
            ConfigurationInvalid: There is none.
        """
        if name not in self.names():
            raise ConfigurationInvalid(
                f"unknown quantization method {name!r}", hint=f"one of {', '.join(self.names())}"
            )
        found: Quantizer = import_module(f"{__name__}.{name}").QUANTIZER
        return found


QUANTIZERS = QuantizerRegistry()
