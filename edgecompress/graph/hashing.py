"""Which file a model came from: its sha256 and size, external data included."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgecompress.core.errors import InputOutputFailed
from edgecompress.core.report import FileFact

_BLOCK = 1 << 20


def file_fact(path: Path, external: Iterable[Path] = ()) -> FileFact:
    """Hash and size of a model file and of its external data, in the given order.

    Raises:
        InputOutputFailed: A file cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    for part in (path, *external):
        try:
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise InputOutputFailed(f"cannot be read: {error.strerror}", where=str(part)) from error
    return FileFact(path=str(path), sha256=digest.hexdigest(), size_bytes=size)
