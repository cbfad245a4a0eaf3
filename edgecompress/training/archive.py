"""What kind of file a PyTorch file is, from its bytes alone: nothing in it is run."""

from __future__ import annotations

import pickletools
import stat
import zipfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from edgecompress.core.errors import InputOutputFailed, ModelInvalid, ResourceLimit

LARGEST_ARCHIVE_BYTES = 8 << 30
LARGEST_PICKLE_BYTES = 64 << 20
SLACK_BYTES = 1 << 20

SAFE_GLOBALS = frozenset({"collections.OrderedDict", "torch.Size", "torch.device", "torch.dtype"})
SAFE_PREFIXES = ("torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.serialization._get_")


class Kind(Enum):
    """The forms in which PyTorch models are stored."""

    SAFETENSORS = "safetensors state dict"
    STATE_DICT = "state dict"
    MODULE = "pickled module"
    TORCHSCRIPT = "TorchScript archive"
    EXPORTED = "exported program"


@dataclass(frozen=True, slots=True)
class Contents:
    """A PyTorch file as seen from outside.

    Attributes:
        kind: Its form.
        globals: Names that loading it would import, apart from those of tensors.
    """

    kind: Kind
    globals: tuple[str, ...] = ()


def look_inside(path: Path) -> Contents:
    """The form of a PyTorch file.

    Raises:
        InputOutputFailed: The file cannot be opened.
        ModelInvalid: None of the forms, or damaged.
        ResourceLimit: The archive declares more than it could hold.
    """
    where = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputOutputFailed("cannot read the model: not a regular file", where=where)
        with path.open("rb") as file:
            return _look(file, status.st_size, path)
    except OSError as error:
        message = f"cannot read the model: {error.strerror or error}"
        raise InputOutputFailed(message, where=where) from error


def _look(file: IO[bytes], size_bytes: int, path: Path) -> Contents:
    if path.suffix.lower() == ".safetensors":
        return Contents(Kind.SAFETENSORS)
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"PK":
        try:
            with zipfile.ZipFile(file) as archive:
                return _look_in_archive(archive, size_bytes, str(path))
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
            raise ModelInvalid(f"a damaged archive: {error}", where=str(path)) from error
    if start[:1] == b"\x80":
        return _classify(_stream_globals(file), str(path))
    raise ModelInvalid("not a PyTorch file: neither an archive nor a pickle", where=str(path))


def _look_in_archive(archive: zipfile.ZipFile, size_bytes: int, where: str) -> Contents:
    entries = archive.infolist()
    declared = sum(entry.file_size for entry in entries)
    if declared > min(LARGEST_ARCHIVE_BYTES, size_bytes + SLACK_BYTES):
        raise ResourceLimit(
            f"the archive of {size_bytes} bytes declares {declared} bytes; PyTorch does not "
            "compress what it writes",
            where=where,
        )
    names = {entry.filename.partition("/")[2] or entry.filename for entry in entries}
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return Contents(Kind.EXPORTED)
    if any("serialized_exported_program" in name for name in names):
        return Contents(Kind.EXPORTED)
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return Contents(Kind.TORCHSCRIPT)
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1:
        raise ModelInvalid("an archive, but not one that PyTorch wrote", where=where)
    if pickles[0].file_size > LARGEST_PICKLE_BYTES:
        raise ResourceLimit("the archive's pickle is larger than 64 MiB", where=where)
    with archive.open(pickles[0]) as pickle:
        return _classify(_stream_globals(pickle), where)


def _classify(found: list[str] | None, where: str) -> Contents:
    if found is None:
        raise ModelInvalid("the pickle in the file is damaged", where=where)
    unsafe = tuple(sorted({name for name in found if not _is_safe(name)}))
    return Contents(Kind.MODULE, unsafe) if unsafe else Contents(Kind.STATE_DICT)


def _is_safe(name: str) -> bool:
    storage = name.startswith("torch.") and name.endswith("Storage")
    return storage or name in SAFE_GLOBALS or name.startswith(SAFE_PREFIXES)


def _stream_globals(file: IO[bytes]) -> list[str] | None:
    """Names that the first pickles of a stream import; None where they cannot be parsed.

    The old form of PyTorch files is a row of pickles: magic number, version, system, content.
    """
    found: list[str] = []
    for place in range(4):
        inside = _pickle_globals(file)
        if inside is None:
            return found if place else None
        found += inside
        if not file.seekable() or not file.read(1):
            break
        file.seek(-1, 1)
    return found


def _pickle_globals(file: IO[bytes]) -> list[str] | None:
    """Every ``module.name`` that one pickle imports."""
    found: list[str] = []
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if isinstance(argument, str):
                texts.append(argument)
            if opcode.name in ("GLOBAL", "INST") and isinstance(argument, str):
                found.append(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]))
    except (ValueError, EOFError, IndexError, UnicodeDecodeError, OverflowError):
        return None
    return found
