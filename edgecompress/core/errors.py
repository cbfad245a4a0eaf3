"""Failures that a user can cause or cure; the class carries the exit code.

The exit codes are public API (see ``docs/exit-codes.md``). Anything that is not an
`EdgeCompressError` is a bug: it keeps its traceback and ends with code 1.
"""

from __future__ import annotations

from typing import ClassVar


class EdgeCompressError(Exception):
    """One clear sentence for the user, with the place and a way out.

    Args:
        message: What is wrong, with the offending value.
        where: File, layer or field that it is about; empty when the message says it.
        hint: What to do about it; empty when there is nothing to say.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{advice}"


class UsageError(EdgeCompressError):
    """Options that contradict each other or miss something."""

    exit_code = 2


class GateNotMet(EdgeCompressError):
    """A limit that the user set does not hold; outputs and report were written."""

    exit_code = 3


class ModelInvalid(EdgeCompressError):
    """The model file cannot be read, or is not a valid model."""

    exit_code = 4


class Unsupported(EdgeCompressError):
    """A valid model that cannot be handled, or that has nothing to compress."""

    exit_code = 5


class DataInvalid(EdgeCompressError):
    """Calibration or test data that do not fit the model or cannot be read."""

    exit_code = 6


class ConfigurationInvalid(EdgeCompressError):
    """A recipe, plan or target file that is wrong, or an extra that is not installed."""

    exit_code = 7


class InputOutputFailed(EdgeCompressError):
    """A file that cannot be opened, read or written."""

    exit_code = 8


class VerificationFailed(EdgeCompressError):
    """The compressed model is not what it should be; nothing is at the final name."""

    exit_code = 9


class ResourceLimit(EdgeCompressError):
    """The work would take, or took, more memory, time or size than allowed."""

    exit_code = 10


class UnsafeInput(EdgeCompressError):
    """An input that could run code or reach outside its folder."""

    exit_code = 11
