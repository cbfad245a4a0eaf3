"""Samples to learn from: the common loader, for networks whose input follows from the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgecompress.core.arrays import Array, Shape
from edgecompress.core.errors import DataInvalid, UsageError
from edgecompress.core.preprocess import Preprocess
from edgecompress.core.samples import Samples
from edgecompress.graph.shapes import InputSpec
from edgecompress.pipeline.data import RANDOM, fit_stored, load_samples, read_stored
from edgecompress.pipeline.data_formats import images
from edgecompress.pipeline.data_formats.source import Pick
from edgecompress.pipeline.preprocess import move_axes


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network takes, as the loader wants to know it.

    Attributes:
        specs: One for each input, batch axis first.
        input_shapes: What the user chose, by input.
    """

    specs: tuple[InputSpec, ...]
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)

    def inputs(self) -> tuple[InputSpec, ...]:
        """What has to be fed."""
        return self.specs


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnable:
    """Samples in arrays.

    Attributes:
        samples: As the loader gave them.
        inputs: What a network for them takes; the batch axis is open.
        arrays: By input, (n, ...), in the input's type.
        labels: (n,) class numbers, or None.
    """

    samples: Samples
    inputs: Inputs
    arrays: Mapping[str, Array]
    labels: Array | None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of one sample, by input."""
        return tuple(tuple(array.shape[1:]) for array in self.arrays.values())


def load_training_samples(
    spec: str,
    dtypes: Mapping[str, str | None],
    *,
    preprocess: Preprocess | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    seed: int = 0,
) -> Learnable:
    """Samples to learn from; what one looks like follows from what is stored.

    Args:
        spec: As for `load_samples`; not ``random:``.
        dtypes: NumPy type of each input of the network, by name; None: whole numbers in a row are
            tokens (``int64``), all else ``float32``.
        preprocess: Steps from the stored samples to the network's input.
        input_shapes: Chosen by the user, batch axis included: the size of pictures.
        seed: Of what is drawn at random.

    Raises:
        UsageError: A chosen shape is for no input, or is not that of stored arrays.
        DataInvalid: Damaged, NaN, without an array for an input, or random.
        InputOutputFailed: A file cannot be opened.
    """
    refuse_random(spec, "--data")
    if preprocess is not None and len(dtypes) > 1:
        raise DataInvalid(
            f"preprocess works on networks with one input; this one has {', '.join(dtypes)}",
            hint="store the samples as the network takes them",
        )
    shapes = dict(input_shapes or {})
    for name in shapes:
        if name not in dtypes:
            raise UsageError(
                f"there is no input {name!r} to give a shape",
                where="--input-shape",
                hint=f"inputs: {', '.join(dtypes)}",
            )
    unread = {name: _unread(spec, name, shapes.get(name)) for name in dtypes}
    raw, preprocess = read_stored(Path(spec), unread, preprocess, Pick(limit=None, seed=seed))
    specs: dict[str, InputSpec] = {}
    for name, dtype in dtypes.items():
        shape = _moved(raw.arrays[name], preprocess, spec)
        _check_chosen(name, shapes.get(name), shape)
        tokens = len(shape) == 1 and raw.arrays[name].dtype.kind in "iu"
        kind = dtype or ("int64" if tokens else "float32")
        specs[name] = InputSpec(name, np.dtype(kind), (None, *shape))
    samples = fit_stored(spec, raw, specs, preprocess, seed)
    return _learnable(samples, Inputs(tuple(specs.values())))


def load_test_samples(spec: str, inputs: Inputs, *, preprocess: Preprocess | None) -> Learnable:
    """Samples of the same kind to measure on.

    Raises:
        DataInvalid: They do not fit the network.
    """
    refuse_random(spec, "--test-data")
    return _learnable(load_samples(spec, inputs, preprocess=preprocess), inputs)


def refuse_random(spec: str, option: str) -> None:
    """Random numbers teach nothing.

    Raises:
        DataInvalid: That is what was given.
    """
    if spec.startswith(RANDOM):
        raise DataInvalid(f"{spec} has no labels: nothing can be learned from it", where=option)


def check_labels(labels: Array | None, where: str) -> Array:
    """The labels, if there are some to learn.

    Raises:
        DataInvalid: There are none, or all are the same.
    """
    if labels is None:
        raise DataInvalid(
            "the samples have no labels, and a classifier learns from them",
            where=where,
            hint="an array 'y', 'labels' or 'clicks' beside the samples, a labels-idx1 file "
            "beside the images, or a folder for each class",
        )
    if int(labels.max()) == 0:
        raise DataInvalid("all labels are 0: there is nothing to tell apart", where=where)
    return labels


def check_pictures(shape: Shape, where: str) -> None:
    """Refuse pictures whose channels come last.

    Raises:
        DataInvalid: They do, and nobody said how to move them.
    """
    if len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3):
        raise DataInvalid(
            f"pictures of shape {shape} have their channels last",
            where=where,
            hint="--preprocess layout=nhwc",
        )


def class_warnings(labels: Array, classes: int) -> tuple[str, ...]:
    """Classes without a sample, in words."""
    missing = sorted(set(range(classes)) - set(np.unique(labels).tolist()))
    if not missing:
        return ()
    listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return (f"no sample of {len(missing)} of the {classes} classes ({listed})",)


def _unread(spec: str, name: str, chosen: Shape | None) -> InputSpec:
    """An input before the data are read: pictures have to know their channels."""
    shape: tuple[int | None, ...] = ()
    if chosen is not None:
        if Path(spec).is_dir() and len(chosen) != 4:
            raise UsageError(
                f"{name}={','.join(map(str, chosen))} is not the shape of a batch of pictures",
                where="--input-shape",
                hint=f"four numbers, batch first: {name}=1,3,32,32 for colour, {name}=1,1,32,32 "
                "for grey",
            )
        shape = (None, *chosen[1:])
    elif Path(spec).is_dir():
        shape = (None, images.channels_of_first(Path(spec)), None, None)
    return InputSpec(name, np.dtype(np.float32), shape)


def _check_chosen(name: str, chosen: Shape | None, shape: Shape) -> None:
    """Refuse a shape that samples do not have; only pictures in a folder are resized to it.

    Raises:
        UsageError: They have another one.
    """
    if chosen is not None and chosen[1:] != shape:
        text, has = (",".join(map(str, sizes)) for sizes in (chosen, ("N", *shape)))
        raise UsageError(
            f"{name}={text} is not the shape of the samples, which is {has}",
            where="--input-shape",
            hint="leave it out: samples that are stored as arrays have their shape",
        )


def _moved(values: Array, preprocess: Preprocess | None, where: str) -> Shape:
    """Shape of a sample as the network will see it."""
    moved = values if preprocess is None else move_axes(values, preprocess, where)
    return tuple(moved.shape[1:])


def _learnable(samples: Samples, inputs: Inputs) -> Learnable:
    names = [item.name for item in inputs.specs]
    arrays = {name: np.concatenate([feed[name] for feed in samples.feeds]) for name in names}
    return Learnable(samples=samples, inputs=inputs, arrays=arrays, labels=samples.labels)
