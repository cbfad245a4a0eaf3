"""Samples as a task for a network: what goes in, and what should come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid
from edgecompress.core.preprocess import Preprocess
from edgecompress.pipeline.train_request import TrainRequest
from edgecompress.pipeline.training_data import (
    Learnable,
    check_labels,
    load_test_samples,
    load_training_samples,
)

if TYPE_CHECKING:
    from edgecompress.training.architectures import Architecture, SampleShape
    from edgecompress.training.batches import TrainingData
    from edgecompress.training.tasks import Task

VERIFY_SAMPLES = 16
MOST_UNSEEN = 2**18
"""Classes or tokens that may be named by fewer labels. Source: a choice above the largest usual
vocabularies; a number beyond it, and beyond the number of labels, is a key or a damaged value."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Samples as a task: what goes in, and what should come out.

    Attributes:
        names: Of the network's inputs.
        inputs: (n, ...) each.
        targets: As `TrainingData` has them.
        task: What they mean.
    """

    names: tuple[str, ...]
    inputs: tuple[Array, ...]
    targets: Array
    task: Task

    @property
    def count(self) -> int:
        """Samples."""
        return len(self.targets)

    def data(self) -> TrainingData:
        """As the training loop takes them."""
        from edgecompress.training.batches import TrainingData

        return TrainingData(inputs=self.inputs, targets=self.targets, task=self.task)

    @property
    def examples(self) -> dict[str, Array]:
        """A few samples by input, as they are stored: with the token that only is predicted."""
        few = [array[:VERIFY_SAMPLES] for array in self.inputs]
        if self.task == "next-token":
            few = [np.concatenate([few[0], self.targets[:VERIFY_SAMPLES, -1:]], axis=1)]
        return dict(zip(self.names, few, strict=True))


def read_lesson(request: TrainRequest, preprocess: Preprocess | None) -> tuple[Learnable, Lesson]:
    """The samples to learn from, as read and as a task.

    Raises:
        DataInvalid: They are damaged, do not fit the network, or have no labels.
        InputOutputFailed: A file cannot be opened.
    """
    request.progress(f"reading {request.data}", 0, 0)
    read = load_training_samples(
        request.data,
        _input_types(request),
        preprocess=preprocess,
        input_shapes=request.input_shapes,
        seed=request.options.seed,
    )
    lesson = _lesson(request, read, request.data)
    _check_sizes(lesson, request.data)
    return read, lesson


def _check_sizes(lesson: Lesson, where: str) -> None:
    """Refuse labels and tokens that would make an output for every number up to a huge one.

    Raises:
        DataInvalid: Most of their classes or tokens do not occur.
    """
    sample = sample_shape(lesson)
    sizes = (
        ("classes", sample.classes, lesson.targets.size),
        ("tokens", sample.vocabulary, lesson.targets.size + lesson.inputs[0].size),
    )
    for what, size, labels in sizes:
        if size is not None and size > max(MOST_UNSEEN, labels):
            raise DataInvalid(
                f"numbers up to {size - 1:,} name {size:,} {what}; there are {labels:,} of them",
                where=where,
                hint=f"number the {what} from 0 without gaps",
            )


def guessed_score(targets: Array, task: Task) -> float:
    """The score of a network that answers the same to everything.

    Args:
        targets: (n, ...) of samples that the score is taken on.
        task: Accuracy of the most frequent class or token; AUC and R2 of a constant.
    """
    if task in ("classification", "next-token"):
        _, counts = np.unique(targets, return_counts=True)
        return float(counts.max() / targets.size)
    return 0.5 if task == "click" else 0.0


def _input_types(request: TrainRequest) -> dict[str, str | None]:
    """What the network takes, by input: floats, or, if it can, whatever the samples are."""
    kinds = architecture_of(request.arch).kinds if request.arch else ("tokens",)
    if "categories" in kinds:
        return {"dense": "float32", "categories": "int64"}
    return {"input": None if "tokens" in kinds else "float32"}


def _lesson(request: TrainRequest, read: Learnable, where: str) -> Lesson:
    """Labels are learned; without any, the next token of sequences by a network that can."""
    names, inputs = tuple(read.arrays), tuple(read.arrays.values())
    if read.labels is None and inputs[0].dtype.kind == "i" and _can_predict_tokens(request):
        return _next_tokens(names, inputs[0], where)
    labels = check_labels(read.labels, where)
    if "categories" not in names:
        return Lesson(names=names, inputs=inputs, targets=labels, task="classification")
    if int(labels.max()) > 1:
        raise DataInvalid(f"clicks are 0 or 1, not {labels.max()}", where=where)
    if int(read.arrays["categories"].min()) < 0:
        raise DataInvalid("categories start at 0", where=where)
    return Lesson(names=names, inputs=inputs, targets=labels, task="click")


def _can_predict_tokens(request: TrainRequest) -> bool:
    return request.arch is not None and "next-token" in architecture_of(request.arch).tasks


def _next_tokens(names: tuple[str, ...], tokens: Array, where: str) -> Lesson:
    if tokens.shape[1] < 2:
        raise DataInvalid("sequences of one token have no next one", where=where)
    if int(tokens.min()) < 0:
        raise DataInvalid(f"tokens start at 0, not at {tokens.min()}", where=where)
    inputs = np.ascontiguousarray(tokens[:, :-1])
    return Lesson(names=names, inputs=(inputs,), targets=tokens[:, 1:], task="next-token")


def read_test(
    request: TrainRequest, read: Learnable, lesson: Lesson, preprocess: Preprocess | None
) -> tuple[Learnable | None, Lesson | None]:
    """The samples to measure on, likewise; None without any.

    Raises:
        DataInvalid: They are damaged, or do not fit the network.
        InputOutputFailed: A file cannot be opened.
    """
    if request.test_data is None:
        return None, None
    request.progress(f"reading {request.test_data}", 0, 0)
    test = load_test_samples(request.test_data, read.inputs, preprocess=preprocess)
    tested = _lesson(request, test, request.test_data)
    _check_known(tested, lesson, request.test_data)
    return test, tested


def _check_known(tested: Lesson, lesson: Lesson, where: str) -> None:
    """Refuse numbers that name something which the network has never heard of.

    Raises:
        DataInvalid: A class, a token or a category is above those of the training data.
    """
    found, known = sample_shape(tested), sample_shape(lesson)
    pairs = [
        ("class", found.classes, known.classes),
        ("token", found.vocabulary, known.vocabulary),
        *(
            (f"category of table {place}", new, old)
            for place, (new, old) in enumerate(
                zip(found.cardinalities, known.cardinalities, strict=True)
            )
        ),
    ]
    for what, new, old in pairs:
        if new is not None and old is not None and new > old:
            raise DataInvalid(
                f"the test data have {what} {new - 1}; the training data end at {old - 1}",
                where=where,
            )


def architecture_of(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ConfigurationInvalid: There is none.
    """
    from edgecompress.training.architectures import load_architecture

    return load_architecture(name)


def sample_shape(lesson: Lesson) -> SampleShape:
    """What a network for these samples has to know."""
    from edgecompress.training.architectures import SampleShape

    classes = vocabulary = None
    if lesson.task == "classification":
        classes = int(lesson.targets.max()) + 1
    if lesson.inputs[0].dtype.kind == "i":
        vocabulary = int(lesson.inputs[0].max()) + 1
    if lesson.task == "next-token":
        vocabulary = max(vocabulary or 0, int(lesson.targets.max()) + 1)
    return SampleShape(
        inputs=tuple(array.shape[1:] for array in lesson.examples.values()),
        dtypes=tuple(array.dtype.name for array in lesson.inputs),
        classes=classes,
        vocabulary=vocabulary,
        cardinalities=(
            tuple(int(size) + 1 for size in lesson.inputs[1].max(axis=0))
            if lesson.task == "click"
            else ()
        ),
    )
