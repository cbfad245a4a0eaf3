"""What a reader gives, and the checks that all readers share."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid, InputOutputFailed

LABEL_NAMES = ("y", "labels", "label", "clicks")
SOLE_INPUT_NAMES = ("x", "images", "data")
LARGEST_DATA_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Which samples to take: all, or a random subset.

    Attributes:
        limit: At most this many; None for all.
        seed: Of the draw.
    """

    limit: int | None
    seed: int

    def indices(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Positions to take of ``count`` samples, rising; the same for the same seed."""
        if self.limit is None or self.limit >= count:
            return np.arange(count)
        generator = np.random.default_rng([self.seed, zlib.crc32(b"samples")])
        return np.sort(generator.choice(count, self.limit, replace=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Samples as they are stored.

    Attributes:
        arrays: By input name, (n, ...).
        labels: (n,) or None.
        total: Number of samples in the file, of which n were taken.
        layout: Axes as letters where the reader knows them (``nhwc`` for pictures), or empty.
        details: For the description of the source, in words.
        warnings: In words.
    """

    arrays: Mapping[str, Array]
    labels: Array | None
    total: int
    layout: str = ""
    details: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_regular(path: Path) -> int:
    """Size of a file in bytes.

    Raises:
        InputOutputFailed: There is no such file, or it is a pipe, a device or a folder.
    """
    try:
        status = path.stat()
    except OSError as error:
        message = f"cannot open the data: {error.strerror}"
        raise InputOutputFailed(message, where=str(path)) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputOutputFailed("cannot open the data: not a regular file", where=str(path))
    return status.st_size


def check_declared(shape: Sequence[int], dtype: np.dtype[np.generic], where: str) -> int:
    """Bytes that an array of this shape takes, checked before anything is read.

    Raises:
        DataInvalid: A size is negative, or the array is larger than the limit.
    """
    if any(size < 0 for size in shape):
        raise DataInvalid(f"the shape {tuple(shape)} has a negative size", where=where)
    size_bytes = prod(shape) * dtype.itemsize
    if size_bytes > LARGEST_DATA_BYTES:
        raise DataInvalid(
            f"the shape {tuple(shape)} of {dtype} takes {size_bytes / 2**30:.3g} GiB, more than "
            f"the {LARGEST_DATA_BYTES >> 30} GiB that data may have",
            where=where,
            hint="store fewer samples in the file",
        )
    return size_bytes


def match_names(
    available: Sequence[str], inputs: Sequence[str], where: str
) -> tuple[dict[str, str], str | None, tuple[str, ...]]:
    """Which stored array feeds which input.

    Returns:
        Input name -> array name; the name of the labels or None; the names that are not used.

    Raises:
        DataInvalid: An input has no array.
    """
    names = {name: name for name in inputs if name in available}
    labels = next((name for name in LABEL_NAMES if name in available and name not in names), None)
    if len(inputs) == 1 and not names:
        others = [name for name in available if name != labels]
        found = next((name for name in SOLE_INPUT_NAMES if name in others), None)
        if found is None and len(others) == 1:
            found = others[0]
        if found is not None:
            names[inputs[0]] = found
    missing = [name for name in inputs if name not in names]
    if missing:
        alternatives = f" or {', '.join(SOLE_INPUT_NAMES)}" if len(inputs) == 1 else ""
        raise DataInvalid(
            f"no array for the model's input {missing[0]!r}; the file has "
            f"{', '.join(map(repr, available)) or 'none'}",
            where=where,
            hint=f"name it {missing[0]!r}{alternatives}",
        )
    unused = tuple(name for name in available if name != labels and name not in names.values())
    return names, labels, unused


def count_samples(shapes: Mapping[str, Sequence[int]], where: str) -> int:
    """The number of samples that all arrays agree on.

    Raises:
        DataInvalid: An array is a single number, is empty, or has another number of samples.
    """
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        if not shape:
            raise DataInvalid(f"array {name!r} is a single number, not samples", where=where)
        if not prod(shape):
            raise DataInvalid(f"array {name!r} is empty: its shape is {tuple(shape)}", where=where)
        counts[name] = shape[0]
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise DataInvalid(f"the arrays differ in their number of samples: {listed}", where=where)
    return next(iter(counts.values()))
