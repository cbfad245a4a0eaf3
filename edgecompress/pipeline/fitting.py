"""Fitting arrays of samples to the inputs of a model, without ever guessing an order of axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid, Unsupported
from edgecompress.core.preprocess import Preprocess
from edgecompress.core.samples import Feed
from edgecompress.pipeline.preprocess import (
    change_values,
    channel_axis,
    explain_mismatch,
    fits,
)

if TYPE_CHECKING:
    from edgecompress.graph.model import InputSpec

LARGEST_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Samples of one input, in its order of axes.

    Attributes:
        spec: The input.
        values: (n, ...).
        whole: One entry is a whole input, batch axis included; else one row of the batch axis.
        note: What was done to the shape, in words; empty if nothing.
    """

    spec: InputSpec
    values: Array
    whole: bool
    note: str = ""


def fit(values: Array, spec: InputSpec, where: str) -> Fitted:
    """Decide what one entry of an array is for an input.

    Raises:
        DataInvalid: The shapes do not fit; the message says both, and the hint a cure.
    """
    shape = values.shape
    if spec.shape and fits(shape[1:], spec.shape[1:]):
        return Fitted(spec=spec, values=values, whole=False)
    if fits(shape[1:], spec.shape):
        return Fitted(spec=spec, values=values, whole=True)
    for axis, size in enumerate(spec.shape):
        wider = (*shape[:axis], 1, *shape[axis:])
        if axis and size == 1 and fits(wider[1:], spec.shape[1:]):
            note = f"data {shape} got an axis of size 1 to become {wider}"
            return Fitted(spec=spec, values=values.reshape(wider), whole=False, note=note)
    message, hint = explain_mismatch(shape, spec.shape)
    raise DataInvalid(f"input {spec.name!r}: {message}", where=where, hint=hint)


def batch_size(inputs: Mapping[str, Fitted], where: str) -> int | None:
    """Rows of one feed; None where an entry is a whole input.

    Raises:
        DataInvalid: The inputs have different fixed batch sizes, or there are too few samples.
    """
    if any(item.whole for item in inputs.values()):
        return None
    fixed = {item.spec.shape[0] for item in inputs.values()} - {None}
    if len(fixed) > 1:
        raise DataInvalid(
            f"the inputs {', '.join(map(repr, inputs))} differ in their first axis",
            where=where,
            hint="store whole inputs: one more axis in front, one entry per inference",
        )
    size = next(iter(fixed)) if fixed else LARGEST_BATCH
    count = len(next(iter(inputs.values())).values)
    if fixed and size is not None and count < size:
        raise DataInvalid(
            f"{count} samples are fewer than the model's batch of {size}", where=where
        )
    return size


def cut(inputs: Mapping[str, Fitted], preprocess: Preprocess | None, where: str) -> list[Feed]:
    """Feeds for a model, in the order of the samples; an incomplete fixed batch is left out.

    Raises:
        DataInvalid: A value does not fit the input's type, or the numbers of inferences differ.
    """
    batch = batch_size(inputs, where)
    for item in inputs.values():
        check_type(item, preprocess, where)
    columns = {name: _pieces(item, batch) for name, item in inputs.items()}
    counts = {len(column) for column in columns.values()}
    if len(counts) > 1:
        raise DataInvalid("the inputs give different numbers of inferences", where=where)
    feeds: list[Feed] = []
    for place in range(counts.pop()):
        feeds.append(
            {
                name: convert(column[place], inputs[name].spec, preprocess, where)
                for name, column in columns.items()
            }
        )
    return feeds


def _pieces(item: Fitted, batch: int | None) -> list[Array]:
    if item.whole:
        return list(item.values)
    fixed = item.spec.shape[0]
    rows = (fixed or 1) if batch is None else batch
    count = len(item.values)
    end = count - count % rows if fixed or batch is None else count
    return [item.values[start : start + rows] for start in range(0, end, rows)]


def check_type(item: Fitted, preprocess: Preprocess | None, where: str) -> None:
    """Refuse values that an input's type cannot hold.

    Raises:
        DataInvalid: Fractions for an integer input, or integers out of range.
        Unsupported: The input takes text.
    """
    dtype, stored = item.spec.dtype, item.values.dtype
    name = repr(item.spec.name)
    if is_float(dtype):
        return
    if dtype.kind not in "iub":
        raise Unsupported(f"input {name} takes {dtype}, for which no data are read")
    if preprocess is not None and preprocess.changes_values:
        raise DataInvalid(
            f"input {name} takes {dtype}: scale, mean and std need a float input", where=where
        )
    if stored.kind not in "iub":
        raise DataInvalid(f"data are {stored}, input {name} takes {dtype}", where=where)
    low, high = int(item.values.min()), int(item.values.max())
    allowed = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if low < allowed[0] or high > allowed[1]:
        raise DataInvalid(
            f"values from {low} to {high} do not fit input {name} of type {dtype} "
            f"({allowed[0]} to {allowed[1]})",
            where=where,
        )


def convert(values: Array, spec: InputSpec, preprocess: Preprocess | None, where: str) -> Array:
    """One input of one feed in the model's type.

    Raises:
        DataInvalid: A value is NaN or infinite, or becomes so in the model's type.
    """
    if not is_float(spec.dtype):
        return np.asarray(values.astype(spec.dtype), order="C")
    _check_finite(values, f"{where}: the data have")
    if preprocess is not None and preprocess.changes_values:
        several = max(len(preprocess.mean), len(preprocess.std)) > 1
        axis = channel_axis(values.shape, preprocess, where) if several else None
        values = change_values(values, preprocess, axis)
    with np.errstate(over="ignore"):  # the check below says it better
        result = np.asarray(values.astype(spec.dtype), order="C")
    _check_finite(result, f"{where}: as {spec.dtype} the data have")
    return result


def _check_finite(values: Array, what: str) -> None:
    if not is_float(values.dtype):
        return
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise DataInvalid(f"{what} {bad} values that are NaN or infinite")


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether values of this type are floating-point numbers, bfloat16 included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def value_warnings(
    values: Array, spec: InputSpec, preprocess: Preprocess | None
) -> tuple[str, ...]:
    """What looks off about the values without being wrong, in words."""
    found: list[str] = []
    low, high = values.min(), values.max()
    if low == high:
        found.append(f"input {spec.name!r}: all values are {low}")
    plain = preprocess is None or not preprocess.changes_values
    if plain and is_float(spec.dtype) and values.dtype.kind in "iu" and high > 1:
        found.append(
            f"input {spec.name!r}: values reach {high} and go into a float input as they are; "
            "most models want them scaled (--preprocess scale=1/255)"
        )
    return tuple(found)
