"""NumPy array files: one array of samples, with no labels.

Source: NumPy enhancement proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from edgecompress.core.arrays import Array, Shape
from edgecompress.core.errors import DataInvalid
from edgecompress.pipeline.data_formats.source import (
    Pick,
    Raw,
    check_declared,
    check_regular,
    count_samples,
)

MAGIC = b"\x93NUMPY"
LARGEST_HEADER_BYTES = 4096
NUMERIC_KINDS = "biuf"


@dataclass(frozen=True, slots=True)
class Header:
    """What an array file says about its array.

    Attributes:
        shape, dtype: Of the array.
        fortran: Stored with the first axis fastest.
        size_bytes: Of the values.
        offset: Where the values begin.
    """

    shape: Shape
    dtype: np.dtype[np.generic]
    fortran: bool
    size_bytes: int
    offset: int


def read(path: Path, inputs: tuple[str, ...], pick: Pick) -> Raw:
    """Samples from an ``.npy`` file; only the rows that are taken are read.

    Raises:
        DataInvalid: Not an array file, damaged, too large, or the model has several inputs.
    """
    where = str(path)
    file_bytes = check_regular(path)
    if len(inputs) != 1:
        raise DataInvalid(
            f"one array cannot feed the inputs {', '.join(map(repr, inputs))}",
            where=where,
            hint="use .npz or .safetensors with an array for each input",
        )
    with path.open("rb") as file:
        header = read_header(file, where)
    if file_bytes - header.offset != header.size_bytes:
        raise DataInvalid(
            f"the file has {file_bytes - header.offset} bytes of values where its header says "
            f"{header.size_bytes}",
            where=where,
            hint="the file is truncated or damaged",
        )
    total = count_samples({inputs[0]: header.shape}, where)
    order = "F" if header.fortran else "C"
    stored = np.memmap(path, header.dtype, "r", header.offset, header.shape, order)  # type: ignore[call-overload]
    rows = np.ascontiguousarray(stored[pick.indices(total)])
    return Raw(arrays={inputs[0]: rows}, labels=None, total=total)


def read_header(file: IO[bytes], where: str) -> Header:
    """Read the header, and check what it declares before any value is read.

    Raises:
        DataInvalid: Not an array, not numbers, or too large.
    """
    start = file.read(8)
    if len(start) < 8 or not start.startswith(MAGIC):
        raise DataInvalid("not a NumPy array", where=where)
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LARGEST_HEADER_BYTES:
        raise DataInvalid(f"the array's header declares {length} bytes", where=where)
    text = file.read(length)
    try:
        fields = ast.literal_eval(text.decode("latin-1").strip())
        description, shape, fortran = fields["descr"], fields["shape"], fields["fortran_order"]
        dtype = np.dtype(description)
        sizes = tuple(int(size) for size in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise DataInvalid("the array's header is damaged", where=where) from error
    if dtype.hasobject:
        raise DataInvalid(
            "the array holds Python objects, which could run code when read", where=where
        )
    if dtype.kind not in NUMERIC_KINDS:
        raise DataInvalid(f"the array holds {dtype}, not numbers", where=where)
    size_bytes = check_declared(sizes, dtype, where)
    return Header(sizes, dtype, bool(fortran), size_bytes, 8 + width + len(text))


def read_values(file: IO[bytes], header: Header, where: str) -> Array:
    """The array whose header was read from the same stream.

    Raises:
        DataInvalid: There are fewer values than the header says.
    """
    content = file.read(header.size_bytes)
    if len(content) != header.size_bytes:
        raise DataInvalid(
            f"the array has {len(content)} bytes where its header says {header.size_bytes}",
            where=where,
            hint="the file is truncated or damaged",
        )
    order = "F" if header.fortran else "C"
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=order)  # type: ignore[no-any-return, call-overload]
