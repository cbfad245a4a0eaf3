"""Losses as functions of a network's outputs, with first and second derivatives in closed form.

All four are convex in the outputs, so that the best step within a few directions of the parameters
is a small positive system: see `subspace_newton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from edgecompress.training.tasks import IGNORED, Task


class OutputLoss(Protocol):
    """A convex loss over the outputs of one batch, with its derivatives in closed form."""

    def value(self, outputs: Tensor) -> Tensor:
        """Mean over the batch, a scalar."""
        ...

    def gradient(self, outputs: Tensor) -> Tensor:
        """Of the mean, in the outputs' shape."""
        ...

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """Second derivative times each of several changes of the outputs, (p, *outputs)."""
        ...


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Mean cross-entropy of outputs (..., classes) with labels (...), `IGNORED` ones left out."""

    labels: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Mean over the labels that count."""
        flat = outputs.reshape(-1, outputs.shape[-1])
        return functional.cross_entropy(flat, self.labels.flatten(), ignore_index=IGNORED)

    def gradient(self, outputs: Tensor) -> Tensor:
        """(softmax - one-hot) / n."""
        counted = self._counted(outputs)
        wanted = functional.one_hot(self.labels.clamp_min(0), outputs.shape[-1])
        return (outputs.softmax(-1) - wanted) * counted

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """(diag(p) - p p^T) changes / n."""
        share = outputs.softmax(-1)
        weighted = share * changes
        weighted -= share * weighted.sum(-1, keepdim=True)
        return weighted.mul_(self._counted(outputs))

    def _counted(self, outputs: Tensor) -> Tensor:
        """1 / n where a label counts, else 0; (..., 1)."""
        counted = (self.labels != IGNORED).to(outputs.dtype)[..., None]
        return counted / counted.sum()


@dataclass(frozen=True, slots=True)
class MeanSquare:
    """Mean square of outputs minus what is wanted: as many numbers, in any shape."""

    wanted: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Mean over all."""
        return (outputs - self.wanted.reshape(outputs.shape)).square().mean()

    def gradient(self, outputs: Tensor) -> Tensor:
        """2 r / n."""
        return (outputs - self.wanted.reshape(outputs.shape)) * (2 / outputs.numel())

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """2 changes / n."""
        return changes * (2 / outputs.numel())


@dataclass(frozen=True, slots=True)
class BinaryCrossEntropy:
    """Mean binary cross-entropy of logits with as many targets of 0 to 1, in any shape."""

    wanted: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Mean over all."""
        wanted = self.wanted.reshape(outputs.shape).to(outputs.dtype)
        return functional.binary_cross_entropy_with_logits(outputs, wanted)

    def gradient(self, outputs: Tensor) -> Tensor:
        """(sigmoid - target) / n."""
        return (outputs.sigmoid() - self.wanted.reshape(outputs.shape)) / outputs.numel()

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """p (1 - p) changes / n."""
        share = outputs.sigmoid()
        return (share * (1 - share) * changes).div_(outputs.numel())


def output_loss(task: Task, target: Tensor) -> OutputLoss:
    """The loss of a task; that a target fits its output is checked elsewhere: `Objective.loss`."""
    match task:
        case "classification" | "next-token":
            return CrossEntropy(target)
        case "regression":
            return MeanSquare(target)
        case "click":
            return BinaryCrossEntropy(target)
