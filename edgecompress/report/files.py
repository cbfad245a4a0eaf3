"""Writing a report to a file: complete or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgecompress.core.errors import InputOutputFailed


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8: to a temporary name in the same folder, then renamed.

    Raises:
        InputOutputFailed: The file cannot be written; nothing is left of it.
    """
    try:
        _write(path, text)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise InputOutputFailed(f"cannot be written: {reason}", where=str(path)) from failure


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
