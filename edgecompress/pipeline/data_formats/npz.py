"""NumPy archives: an array for each input, and the labels as ``y`` or ``labels``."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid
from edgecompress.pipeline.data_formats import npy
from edgecompress.pipeline.data_formats.source import (
    LARGEST_DATA_BYTES,
    Pick,
    Raw,
    check_regular,
    count_samples,
    match_names,
)

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged, an encrypted or an unknown kind of archive raises."""


def read(path: Path, inputs: tuple[str, ...], pick: Pick) -> Raw:
    """Samples from an ``.npz`` file; arrays that feed nothing are not read.

    Raises:
        DataInvalid: Not an archive, damaged, too large, or an input has no array.
    """
    check_regular(path)
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            names, labels, unused = match_names(list(members), inputs, where)
            wanted = {*names.values()} | ({labels} if labels else set())
            headers = {name: _header(archive, members[name], where) for name in wanted}
            if sum(header.size_bytes for header in headers.values()) > LARGEST_DATA_BYTES:
                raise DataInvalid("the arrays together are too large", where=where)
            total = count_samples({name: headers[name].shape for name in sorted(wanted)}, where)
            rows = pick.indices(total)
            arrays = {name: _values(archive, members[name], where)[rows] for name in sorted(wanted)}
    except DAMAGE as error:
        raise DataInvalid(f"not a readable archive: {error}", where=where) from error
    warnings = (f"arrays not used: {', '.join(unused)}",) if unused else ()
    return Raw(
        arrays={target: arrays[name] for target, name in names.items()},
        labels=arrays[labels] if labels else None,
        total=total,
        warnings=warnings,
    )


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Array name -> entry."""
    return {
        entry.filename.removesuffix(".npy"): entry
        for entry in archive.infolist()
        if entry.filename.endswith(".npy")
    }


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> npy.Header:
    place = f"{where}: {entry.filename}"
    with archive.open(entry) as file:
        header = npy.read_header(file, place)
    if entry.file_size != header.offset + header.size_bytes:
        raise DataInvalid(
            f"the archive holds {entry.file_size} bytes where the array's header says "
            f"{header.offset + header.size_bytes}",
            where=place,
        )
    return header


def _values(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> Array:
    place = f"{where}: {entry.filename}"
    with archive.open(entry) as file:
        header = npy.read_header(file, place)
        values = npy.read_values(file, header, place)
        if file.read(1):  # reaches the end, where the checksum is compared
            raise DataInvalid("the array goes on after its end", where=place)
    return np.asarray(values)
