"""Sums behind accuracy and fidelity, taken feed by feed so that no outputs have to be kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid, Unsupported, VerificationFailed

LARGEST_SQNR_DB = 300.0


class Hits:
    """Counts how often the first output names the label.

    Of several scores for a sample the largest names the class. One score tells class 1 from
    class 0: above 0.5 if all scores are from 0 to 1 (probabilities), else above 0 (logits).
    """

    def __init__(self) -> None:
        self.right = 0
        self.count = 0
        self._one = False
        self._above_half = 0
        self._probabilities = True

    def add(self, outputs: Sequence[Any], labels: Array) -> None:
        """Count the samples of one feed.

        Raises:
            DataInvalid: The first output has no scores for each sample, or fewer than a label says.
        """
        first = outputs[0] if outputs else None
        rows = len(labels)
        if not isinstance(first, np.ndarray) or first.dtype.kind not in "biuf" or not first.size:
            raise DataInvalid("labels need a model whose first output is a tensor of scores")
        if first.size % rows or (first.ndim and first.shape[0] not in (rows, 1)):
            raise DataInvalid(
                f"labels do not fit: the first output is {first.shape} for {rows} samples"
            )
        scores = first.reshape(rows, -1)
        largest = int(labels.max())
        if scores.shape[1] == 1 and largest <= 1:
            self._add_one(scores[:, 0], labels)
            return
        if scores.shape[1] < 2 or largest >= scores.shape[1]:
            raise DataInvalid(
                f"labels do not fit: the largest is {largest}, and the model gives "
                f"{scores.shape[1]} scores for each sample"
            )
        self.right += int((scores.argmax(axis=1) == labels).sum())
        self.count += rows

    def _add_one(self, scores: Array, labels: Array) -> None:
        """Of one score each: right at both thresholds, until all have been seen."""
        self._one = True
        self._probabilities &= bool(((scores >= 0) & (scores <= 1)).all())
        self._above_half += int(((scores > 0.5) == labels).sum())
        self.right += int(((scores > 0) == labels).sum())
        self.count += len(labels)

    @property
    def accuracy(self) -> float:
        """Share of samples that are right, 0 to 1."""
        right = self._above_half if self._one and self._probabilities else self.right
        return right / self.count


class Differences:
    """Sums up how far outputs are from those of a reference."""

    def __init__(self) -> None:
        self.error = 0.0
        self.size = 0.0
        self.agreements = 0
        self.places = 0

    def add(self, expected: Sequence[Any], found: Sequence[Any]) -> None:
        """Compare the outputs of one feed.

        Raises:
            Unsupported: The outputs cannot be compared.
            VerificationFailed: NaN or infinite where the reference is not.
        """
        left, right = list(_tensors(expected)), list(_tensors(found))
        if not left:
            raise Unsupported("the model has no numeric outputs to compare")
        if [a.shape for a in left] != [b.shape for b in right]:
            raise Unsupported(
                "the two models give outputs of different shapes: "
                f"{[a.shape for a in left]} and {[b.shape for b in right]}"
            )
        for a, b in zip(left, right, strict=True):
            self._add_error(a.astype(np.float64), b.astype(np.float64))
        axis = score_axis(left[0])
        if axis is not None:
            same = left[0].argmax(axis=axis) == right[0].argmax(axis=axis)
            self.agreements += int(np.sum(same))
            self.places += int(np.size(same))

    def _add_error(self, expected: Array, found: Array) -> None:
        finite = np.isfinite(expected)
        if not np.array_equal(finite, np.isfinite(found)):
            wrong = int((finite != np.isfinite(found)).sum())
            raise VerificationFailed(
                f"an output is NaN or infinite at {wrong} of {finite.size} places where the "
                "reference is not, or the other way round"
            )
        difference = (found - expected)[finite]
        self.error += float(difference @ difference)
        kept = expected[finite]
        self.size += float(kept @ kept)

    @property
    def relative_l2(self) -> float:
        """|a - b| / |b| over everything; against an output of zeros, |a| on its own."""
        return math.sqrt(self.error / self.size) if self.size else math.sqrt(self.error)

    @property
    def sqnr_db(self) -> float:
        """-20 log10 of `relative_l2`, at most 300: equal outputs have no finite ratio."""
        relative = self.relative_l2
        return min(LARGEST_SQNR_DB, -20.0 * math.log10(relative)) if relative else LARGEST_SQNR_DB

    @property
    def top1_agreement(self) -> float | None:
        """Share of score vectors whose largest entry is at the same place; None without any."""
        return self.agreements / self.places if self.places else None


def score_axis(output: Array) -> int | None:
    """The axis of scores: 1 of a map of four axes, else the last; None where there are none.

    An output of one axis has one number for each sample.
    """
    if output.ndim < 2 or output.dtype.kind != "f" or not output.size:
        return None
    axis = 1 if output.ndim == 4 else output.ndim - 1
    return axis if output.shape[axis] > 1 else None


def _tensors(outputs: Any) -> list[Array]:
    """Numeric tensors among outputs, those in sequences included."""
    found: list[Array] = []
    for output in outputs:
        if isinstance(output, list):
            found += _tensors(output)
        elif isinstance(output, np.ndarray) and output.dtype.kind in "biuf":
            found.append(output)
    return found
