"""IDX files, plain or gzipped, with the labels in a file beside.

Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid
from edgecompress.pipeline.data_formats.source import (
    Pick,
    Raw,
    check_declared,
    check_regular,
    count_samples,
)

GZIP_MAGIC = b"\x1f\x8b"
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path: Path, inputs: tuple[str, ...], pick: Pick) -> Raw:
    """Samples from an IDX file; ``...labels-idx1...`` beside ``...images-idx3...`` has the labels.

    Raises:
        DataInvalid: Not an IDX file, damaged, too large, or the model has several inputs.
    """
    if len(inputs) != 1:
        raise DataInvalid(
            f"one array cannot feed the inputs {', '.join(map(repr, inputs))}",
            where=str(path),
            hint="use .npz or .safetensors with an array for each input",
        )
    values = read_array(path)
    total = count_samples({path.name: values.shape}, str(path))
    beside = find_labels(path)
    labels = None if beside is None else read_array(beside)
    if labels is not None and labels.shape != (total,):
        raise DataInvalid(
            f"labels of shape {labels.shape} do not fit the {total} samples of {path.name}",
            where=str(beside),
        )
    rows = pick.indices(total)
    return Raw(
        arrays={inputs[0]: values[rows]},
        labels=None if labels is None else labels[rows],
        total=total,
        details=() if beside is None else (f"labels from {beside.name}",),
    )


def find_labels(path: Path) -> Path | None:
    """The label file that belongs to a file of images, zipped or not; None if there is none."""
    name = path.name.removesuffix(".gz")
    if "images" not in name:
        return None
    stem = name.replace("images", "labels").replace("idx3", "idx1")
    candidates = (path.with_name(stem + suffix) for suffix in (path.suffix, "", ".gz"))
    return next(
        (other for other in candidates if other.name != path.name and other.is_file()), None
    )


def read_array(path: Path) -> Array:
    """The array in an IDX file.

    Raises:
        DataInvalid: Not an IDX file, damaged, or too large.
    """
    check_regular(path)
    where = str(path)
    with path.open("rb") as plain:
        zipped = plain.read(2) == GZIP_MAGIC
        plain.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if zipped else plain
        try:
            return _read(stream, where)
        except (OSError, EOFError, zlib.error) as error:
            raise DataInvalid(f"cannot be unzipped: {error}", where=where) from error


def _read(stream: IO[bytes], where: str) -> Array:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in DTYPES:
        raise DataInvalid(
            "not an IDX file: it does not begin with the IDX magic number", where=where
        )
    axes = stream.read(4 * start[3])
    if len(axes) != 4 * start[3]:
        raise DataInvalid("the IDX header is truncated", where=where)
    shape = tuple(int(size) for size in np.frombuffer(axes, ">u4"))
    dtype = np.dtype(DTYPES[start[2]])
    size_bytes = check_declared(shape, dtype, where)
    content = stream.read(size_bytes + 1)
    if len(content) != size_bytes:
        found = "more" if len(content) > size_bytes else f"{len(content)}"
        raise DataInvalid(
            f"the file has {found} bytes of values where its header says {size_bytes}",
            where=where,
            hint="the file is truncated or damaged",
        )
    values = np.frombuffer(content, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)
