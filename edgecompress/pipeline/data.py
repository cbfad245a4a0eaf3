"""Calibration and test data: one loader for all forms, fitted to a model's inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgecompress.core.arrays import Array, Shape
from edgecompress.core.errors import DataInvalid, InputOutputFailed, UsageError
from edgecompress.core.preprocess import Preprocess
from edgecompress.core.samples import Feed, Samples
from edgecompress.pipeline import fitting
from edgecompress.pipeline.data_formats import drawn, idx, images, npy, npz, safetensors
from edgecompress.pipeline.data_formats.source import Pick, Raw, check_regular
from edgecompress.pipeline.preprocess import move_axes

if TYPE_CHECKING:
    from edgecompress.graph.model import InputSpec

RANDOM = "random:"
RANDOM_SAMPLES = 64
READERS = {".npz": npz.read, ".npy": npy.read, ".safetensors": safetensors.read}
IDX_STARTS = (b"\0\0", idx.GZIP_MAGIC)


class TakesSamples(Protocol):
    """What samples are for: a graph, or anything else that says what it is fed with."""

    @property
    def input_shapes(self) -> Mapping[str, Shape]:
        """Sizes that the user chose for open axes, by input."""
        ...

    def inputs(self) -> tuple[InputSpec, ...]:
        """What has to be fed."""
        ...


def load_samples(
    spec: str,
    model: TakesSamples,
    *,
    preprocess: Preprocess | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Samples:
    """Samples for a model.

    Args:
        spec: An ``.npz``, ``.npy``, ``.safetensors`` or IDX file (also gzipped), a folder of
            pictures, or ``random:SEED``.
        model: Its inputs say which shapes and types are needed.
        preprocess: Steps from the stored samples to the model's input.
        limit: At most this many samples, drawn at random, in their stored order.
        seed: Of that draw.

    Returns:
        Feeds of up to 64 samples where the batch axis is open, else of the model's own batch.

    Raises:
        DataInvalid: The data do not fit the model, or are damaged, empty, NaN or too large.
        InputOutputFailed: A file cannot be opened.
        UsageError: ``limit`` or the seed of ``random:`` is not a number that makes sense.
        Unsupported: The model has an input that takes text.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} samples are none", where="limit")
    inputs = {item.name: item for item in model.inputs()}
    if not inputs and not spec.startswith(RANDOM):
        raise UsageError("the model has no inputs, so it takes no data")
    if preprocess is not None and len(inputs) > 1:
        raise DataInvalid(
            f"preprocess works on models with one input; this one has {', '.join(inputs)}",
            hint="store the samples as the model takes them",
        )
    chosen = {name: _chosen(item, model) for name, item in inputs.items()}
    if spec.startswith(RANDOM):
        return _draw(spec, chosen, limit)
    pick = Pick(limit=limit, seed=seed)
    raw, preprocess = read_stored(Path(spec), chosen, preprocess, pick)
    return fit_stored(spec, raw, inputs, preprocess, seed)


def _chosen(item: InputSpec, model: TakesSamples) -> InputSpec:
    """An input with the sizes that the user chose for open axes; the batch axis stays open."""
    given = model.input_shapes.get(item.name)
    return item if given is None else replace(item, shape=(*item.shape[:1], *given[1:]))


def read_stored(
    path: Path, inputs: Mapping[str, InputSpec], preprocess: Preprocess | None, pick: Pick
) -> tuple[Raw, Preprocess | None]:
    """Stored samples, and the preprocessing with the axes of pictures in it.

    Shapes of the inputs matter for pictures alone.

    Raises:
        DataInvalid: Not data, damaged, or without an array for an input.
        InputOutputFailed: A file cannot be opened.
    """
    try:
        if path.is_dir():
            name, wanted, layout = _pictures(str(path), inputs, preprocess)
            raw = images.read(path, name, wanted, pick)
            return raw, replace(preprocess or Preprocess(), layout=layout)
        reader = READERS.get(path.suffix.lower())
        if reader is not None:
            return reader(path, tuple(inputs), pick), preprocess
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(2)
        if start in IDX_STARTS:
            return idx.read(path, tuple(inputs), pick), preprocess
    except OSError as error:
        message = f"cannot read the data: {error.strerror or error}"
        raise InputOutputFailed(message, where=str(path)) from error
    raise DataInvalid(
        "not data of a known form",
        where=str(path),
        hint="npz, npy, safetensors, IDX (also gzipped), a folder of pictures, or random:SEED",
    )


def _pictures(
    where: str, inputs: Mapping[str, InputSpec], preprocess: Preprocess | None
) -> tuple[str, images.PictureShape, tuple[str, str]]:
    """Input name, size and order of axes that a model takes pictures in."""
    (name, item), *others = inputs.items()
    shape = item.shape
    if others or len(shape) != 4:
        raise DataInvalid(
            f"pictures need a model with one input of four axes; {name!r} takes {shape}",
            where=where,
        )
    if preprocess is not None and preprocess.layout is not None:
        source, order = preprocess.layout
        if source != "nhwc" or sorted(order) != sorted("nhwc"):
            raise DataInvalid(f"pictures are read as nhwc, not {source}", where=where)
    else:
        order = "nchw" if shape[1] in (1, 3) else "nhwc"
    channels, height, width = (shape[order.index(axis)] for axis in "chw")
    if channels not in (1, 3):
        raise DataInvalid(
            f"pictures have 1 or 3 channels; the model takes {shape}",
            where=where,
            hint="say where the channels are with --preprocess layout=nhwc",
        )
    wanted = images.PictureShape(channels=channels, height=height, width=width)
    return name, wanted, ("nhwc", order)


def fit_stored(
    spec: str,
    raw: Raw,
    inputs: Mapping[str, InputSpec],
    preprocess: Preprocess | None,
    seed: int,
) -> Samples:
    """Stored samples as feeds.

    Raises:
        DataInvalid: They do not fit the inputs, or are NaN.
        Unsupported: An input takes text.
    """
    fitted: dict[str, fitting.Fitted] = {}
    warnings = list(raw.warnings)
    for name, values in raw.arrays.items():
        moved = values if preprocess is None else move_axes(values, preprocess, spec)
        fitted[name] = fitting.fit(moved, inputs[name], spec)
        warnings += [fitted[name].note] if fitted[name].note else []
        warnings += fitting.value_warnings(values, inputs[name], preprocess)
    feeds = fitting.cut(fitted, preprocess, spec)
    count = sum(rows_of(feed) for feed in feeds)
    taken = len(next(iter(raw.arrays.values())))
    if not any(item.whole for item in fitted.values()) and count < taken:
        warnings.append(f"the last {taken - count} samples do not fill a batch and were left out")
    labels = None if raw.labels is None else _labels(raw.labels, count, taken, spec)
    drawn_note = (f"{taken} of {raw.total} samples, seed {seed}",) if taken < raw.total else ()
    details = "; ".join((*drawn_note, *raw.details))
    return Samples(
        feeds=tuple(feeds),
        labels=labels,
        count=count,
        source=f"{Path(spec).name} ({details})" if details else Path(spec).name,
        sha256=_hash(raw),
        warnings=tuple(warnings),
    )


def _labels(labels: Array, count: int, taken: int, where: str) -> Array:
    """(count,) class numbers.

    Raises:
        DataInvalid: Not one whole number of at least 0 for each sample.
    """
    flat = labels.reshape(-1)
    if labels.size not in (count, taken) or labels.size < count:
        raise DataInvalid(
            f"labels of shape {labels.shape} are not one class number for each of {count} samples",
            where=where,
        )
    if flat.dtype.kind not in "iu" or int(flat.min()) < 0:
        raise DataInvalid(
            f"labels are {flat.dtype} from {flat.min()} to {flat.max()}, not class numbers",
            where=where,
        )
    return flat[:count].astype(np.int64)


def _draw(spec: str, inputs: Mapping[str, InputSpec], limit: int | None) -> Samples:
    text = spec.removeprefix(RANDOM)
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"{spec!r}: the seed is a whole number, as in random:0", where="--data")
    seed = int(text)
    feeds = drawn.draw_feeds(inputs, limit or RANDOM_SAMPLES, fitting.LARGEST_BATCH, seed)
    count = sum(rows_of(feed) for feed in feeds)
    notes = [drawn.assumption(name, item.shape[1:], 1) for name, item in inputs.items()]
    return Samples(
        feeds=tuple(feeds),
        labels=None,
        count=count,
        source=f"RANDOM NUMBERS (seed {seed}, {count} samples): not real data",
        sha256=hashlib.sha256(f"{RANDOM}{seed}".encode()).hexdigest(),
        warnings=(
            "the inputs are random numbers: no statement about accuracy",
            *(note for note in notes if note),
        ),
    )


def rows_of(feed: Feed) -> int:
    """Samples in a feed: the first axis of its first input, if it has one."""
    first = next(iter(feed.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1


def _hash(raw: Raw) -> str:
    """SHA-256 of the samples that were taken: names, types, shapes and values."""
    digest = hashlib.sha256()
    arrays = dict(raw.arrays) if raw.labels is None else {**raw.arrays, "\0labels": raw.labels}
    for name, values in sorted(arrays.items()):
        digest.update(f"{name}\0{values.dtype.str}\0{values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
