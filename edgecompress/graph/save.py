"""Writes a model: whole or not at all, the same bytes for the same graph."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import onnx

from edgecompress.core.errors import InputOutputFailed
from edgecompress.core.report import FileFact
from edgecompress.graph.model import Model
from edgecompress.graph.names import shorten, strip
from edgecompress.graph.origins import note_origins
from edgecompress.graph.session import proto_bytes

TEMPORARY_SUFFIX = ".edgecompress-part"


def save_model(model: Model, path: Path, *, keep_names: bool = False) -> FileFact:
    """Write a model under a temporary name in the same folder, then rename it.

    Args:
        model: Not changed.
        path: The file to write; replaced if it is there.
        keep_names: Keep the names of internal values and nodes, and the metadata of nodes; else
            internal values get short names, only nodes with weights keep theirs, and the layers
            that were decomposed are listed once for the whole file.

    Returns:
        Path, hash and size of what was written.

    Raises:
        InputOutputFailed: The folder is missing or cannot be written, the disk is full, or the
            file is the one that the model came from. Nothing is left behind.
        ResourceLimit: The graph is above the 2 GB limit of protobuf.
    """
    refuse_overwriting_input(model, path)
    data = serialized(model, keep_names=keep_names)
    write_atomically(path, data)
    return FileFact(path=str(path), sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def serialized(model: Model, *, keep_names: bool = False) -> bytes:
    """The bytes that `save_model` writes."""
    proto: onnx.ModelProto = model.to_proto()
    proto.ClearField("doc_string")
    strip(proto.graph)
    if not keep_names and not proto.functions:
        shorten(proto.graph)
        note_origins(proto, model.origins)
    return proto_bytes(proto)


def refuse_overwriting_input(model: Model, path: Path) -> None:
    """Raise if a path is the file that a model came from.

    Raises:
        InputOutputFailed: It is.
    """
    source = Path(model.file.path)
    with contextlib.suppress(OSError):
        if path.samefile(source):
            raise InputOutputFailed(
                "is the input model, which is never overwritten",
                where=str(path),
                hint="give another output path",
            )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InputOutputFailed: It cannot be written; nothing is left behind.
    """
    temporary = ""
    try:
        if path.is_dir():
            raise InputOutputFailed("is a folder", where=str(path))
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name[:100]}.", suffix=TEMPORARY_SUFFIX, dir=path.parent
        )
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        temporary = ""
        _sync_folder(path.parent)
    except OSError as error:
        raise InputOutputFailed(
            f"cannot be written: {error.strerror or error}", where=str(path)
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
