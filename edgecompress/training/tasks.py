"""What a network is trained for: the loss of a batch, and the score that users read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.core.errors import DataInvalid

Task = Literal["classification", "regression", "next-token", "click"]

IGNORED = -100
"""Target of a place that does not count. Source: ``ignore_index`` of PyTorch's cross-entropy."""


class Objective(ABC):
    """The loss of a task, and its score over any number of batches.

    A score is made of sums that batches and processes add up, and, where ``keeps_outputs`` is
    true, of all outputs and targets.
    """

    score_name: ClassVar[str]
    keeps_outputs: ClassVar[bool] = False

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the terms of the batch.

        Raises:
            DataInvalid: The output does not fit the targets.
        """

    def terms(self, targets: Tensor) -> Tensor | None:
        """How many terms of the mean each row gives, (n,); None: as many in every row."""
        return None

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """What a batch adds to the score, float64."""
        return torch.zeros(0, dtype=torch.float64, device=output.device)

    @abstractmethod
    def score(self, sums: Tensor, outputs: Tensor | None, targets: Tensor | None) -> float:
        """The score, larger is better."""


class Classification(Objective):
    """Cross-entropy over classes; the score is the accuracy."""

    score_name = "accuracy"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the terms of the batch."""
        if output.ndim != 2 or target.ndim != 1:
            raise _misfit(output, target, "(n, classes) and (n,)")
        return functional.cross_entropy(output, target)

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """What a batch adds to the score, float64."""
        right = (output.argmax(-1) == target).sum()
        return torch.stack([right, right.new_tensor(len(target))]).double()

    def score(self, sums: Tensor, outputs: Tensor | None, targets: Tensor | None) -> float:
        """The score, larger is better."""
        right, count = sums.tolist()
        return float(right / max(count, 1.0))


class NextToken(Objective):
    """Cross-entropy of every next token; the score is the share that is guessed right."""

    score_name = "token accuracy"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the terms of the batch."""
        if output.ndim != 3 or output.shape[:2] != target.shape:
            raise _misfit(output, target, "(n, length, vocabulary) and (n, length)")
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    def terms(self, targets: Tensor) -> Tensor | None:
        """Tokens of each row that count.

        Raises:
            DataInvalid: A row has none.
        """
        counted = (targets != IGNORED).flatten(1).sum(1)
        if not bool(counted.all()):
            raise DataInvalid("a sequence has no token that counts", hint=f"{IGNORED} is ignored")
        return None if bool((counted == counted[:1]).all()) else counted

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """What a batch adds to the score, float64."""
        right = (output.argmax(-1) == target).sum()
        return torch.stack([right, (target != IGNORED).sum()]).double()

    def score(self, sums: Tensor, outputs: Tensor | None, targets: Tensor | None) -> float:
        """The score, larger is better."""
        right, count = sums.tolist()
        return float(right / max(count, 1.0))


class Regression(Objective):
    """Mean squared error; the score is the coefficient of determination."""

    score_name = "R2"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the terms of the batch."""
        return functional.mse_loss(output, _shaped(target, output))

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """What a batch adds to the score, float64."""
        wanted = _shaped(target, output).double()
        error = (output.double() - wanted).square().sum()
        count = torch.tensor(float(wanted.numel()), dtype=torch.float64, device=wanted.device)
        return torch.stack([error, wanted.sum(), wanted.square().sum(), count])

    def score(self, sums: Tensor, outputs: Tensor | None, targets: Tensor | None) -> float:
        """The score, larger is better."""
        error, total, squares, count = sums.tolist()
        spread = squares - total * total / max(count, 1.0)
        return 1.0 - error / spread if spread > 0 else 0.0


class Click(Objective):
    """Binary cross-entropy of logits; the score is the area under the ROC curve."""

    score_name = "AUC"
    keeps_outputs = True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the terms of the batch."""
        wanted = _shaped(target, output).to(output.dtype)
        return functional.binary_cross_entropy_with_logits(output, wanted)

    def score(self, sums: Tensor, outputs: Tensor | None, targets: Tensor | None) -> float:
        """The score, larger is better."""
        if outputs is None or targets is None:
            raise ValueError("the area under the curve is made of all outputs")
        return area_under_curve(outputs.flatten(), targets.flatten())


def area_under_curve(scores: Tensor, labels: Tensor) -> float:
    """Chance that a positive sample has the larger score, ties counting half; 0.5 without both.

    Source: Hanley and McNeil 1982 (the Wilcoxon statistic).
    """
    positive = labels > 0
    wins = int(positive.sum())
    losses = len(labels) - wins
    if not wins or not losses:
        return 0.5
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    last = sizes.cumsum(0).double()
    rank = last - (sizes.double() - 1) / 2
    total = float(rank[group][positive].sum())
    return (total - wins * (wins + 1) / 2) / (wins * losses)


def objective(task: Task) -> Objective:
    """The objective of a task."""
    match task:
        case "classification":
            return Classification()
        case "regression":
            return Regression()
        case "next-token":
            return NextToken()
        case "click":
            return Click()


def _shaped(target: Tensor, output: Tensor) -> Tensor:
    if target.numel() != output.numel() or len(target) != len(output):
        raise _misfit(output, target, "the same number of values in each row")
    return target.reshape(output.shape)


def _misfit(output: Tensor, target: Tensor, wanted: str) -> DataInvalid:
    return DataInvalid(
        f"the network's output {tuple(output.shape)} does not fit targets {tuple(target.shape)}: "
        f"wanted are {wanted}"
    )
