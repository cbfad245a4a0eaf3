"""Bringing stored samples into the form that a model's input takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid, UsageError
from edgecompress.core.preprocess import Preprocess, read_preprocess

Open = tuple[int | None, ...]


def parse_preprocess(text: str | None, *, option: str = "--preprocess") -> Preprocess | None:
    """Read ``scale=1/255,mean=0.485:0.456:0.406,layout=nhwc->nchw``; None gives None.

    Raises:
        UsageError: What is wrong, with the part that is.
    """
    if text is None:
        return None
    try:
        return read_preprocess(text)
    except ValueError as error:
        raise UsageError(str(error), where=option) from None


def move_axes(values: Array, preprocess: Preprocess, where: str) -> Array:
    """Samples (n, ...) reshaped and with their axes in the model's order; values are the same.

    Raises:
        DataInvalid: The reshape or the layout does not fit the samples.
    """
    if preprocess.reshape is not None:
        if np.prod(preprocess.reshape) != np.prod(values.shape[1:]):
            wanted = ":".join(map(str, preprocess.reshape))
            message = f"a sample of shape {values.shape[1:]} cannot become reshape={wanted}"
            raise DataInvalid(message, where=where)
        values = values.reshape(len(values), *preprocess.reshape)
    if preprocess.layout is not None:
        source, destination = preprocess.layout
        if values.ndim != len(source):
            raise DataInvalid(
                f"layout={source}->{destination} needs {len(source)} axes, and the data have "
                f"{values.ndim}: {values.shape}",
                where=where,
            )
        values = values.transpose([source.index(axis) for axis in destination])
    return values


def channel_axis(values_shape: Sequence[int], preprocess: Preprocess, where: str) -> int:
    """The axis along which per-channel means and deviations lie, in the model's order.

    Raises:
        DataInvalid: No axis, or more than one, has that many entries.
    """
    count = max(len(preprocess.mean), len(preprocess.std))
    if preprocess.layout is not None and "c" in preprocess.layout[1]:
        candidates = [preprocess.layout[1].index("c")]
    else:
        candidates = sorted({1, len(values_shape) - 1})
    fitting = [axis for axis in candidates if axis > 0 and values_shape[axis] == count]
    if len(fitting) != 1:
        found = "more than one axis" if fitting else "no channel axis"
        raise DataInvalid(
            f"mean and std have {count} values, and {found} of the model's input "
            f"{tuple(values_shape)} has as many",
            where=where,
            hint="name the axes, as in 'layout=nchw->nchw'" if fitting else "",
        )
    return fitting[0]


def change_values(values: Array, preprocess: Preprocess, axis: int | None) -> Array:
    """(values * scale - mean) / std in float64; ``axis`` is that of the channels."""
    result = values.astype(np.float64)
    if preprocess.scale is not None:
        result *= preprocess.scale
    if preprocess.mean:
        result -= _along(preprocess.mean, result.ndim, axis)
    if preprocess.std:
        result /= _along(preprocess.std, result.ndim, axis)
    return result


def _along(numbers: tuple[float, ...], ndim: int, axis: int | None) -> Array:
    if axis is None or len(numbers) == 1:
        return np.array(numbers[0])
    shape = [1] * ndim
    shape[axis] = len(numbers)
    return np.array(numbers).reshape(shape)


def explain_mismatch(found: Sequence[int], wanted: Open) -> tuple[str, str]:
    """What is off between samples (n, ...) and a model's input, and what would cure it."""
    sizes = ", ".join("n" if axis == 0 else _size(size) for axis, size in enumerate(wanted))
    message = f"data is {tuple(found)}, the model wants ({sizes})"
    if len(found) == 4:
        for source, destination in (("nhwc", "nchw"), ("nchw", "nhwc")):
            moved = [found[source.index(axis)] for axis in destination]
            if fits(moved[1:], wanted[1:]):
                # The short form: a shell takes the ">" of the long one for itself.
                return message, f"--preprocess layout={source}"
    rest = wanted[1:]
    if rest and None not in rest and np.prod(found[1:]) == np.prod([size or 1 for size in rest]):
        return message, f"--preprocess reshape={':'.join(_size(size) for size in rest)}"
    return message, ""


def fits(found: Sequence[int], wanted: Open) -> bool:
    """Whether a shape is one that an input with open sizes takes."""
    return len(found) == len(wanted) and all(
        size is None or size == other for other, size in zip(found, wanted, strict=True)
    )


def _size(size: int | None) -> str:
    return "any" if size is None else str(size)
