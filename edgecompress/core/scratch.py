"""Folders for files that live as long as a step of a run."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecompress.core.errors import InputOutputFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards.

    Raises:
        InputOutputFailed: It is full: the message names the folder that the user can change, not
            the file that did not fit.
    """
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as folder:
        try:
            yield Path(folder)
        except (InputOutputFailed, OSError) as error:
            if not _is_full(error, folder):
                raise
            raise InputOutputFailed(
                "the folder for temporary files is full",
                where=tempfile.gettempdir(),
                hint="free some space, or set TMPDIR to a folder that has more",
            ) from error


def _is_full(error: InputOutputFailed | OSError, folder: str) -> bool:
    """Whether something in the folder could not be written for want of space."""
    if isinstance(error, InputOutputFailed):
        place, cause = error.where, error.__cause__
    else:
        place, cause = str(error.filename or folder), error
    return place.startswith(folder) and isinstance(cause, OSError) and cause.errno in _FULL
