"""How far a decomposed model is from the float model: to train by, and to judge by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import kl_div

LEAST_PROBABILITY = 1e-7
"""Below it the logarithm of a probability says nothing. Source: rounding of float32 near 1."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The first output as scores of classes.

    Attributes:
        axis: Of the classes.
        probabilities: They are probabilities already, not what a softmax takes.
    """

    axis: int
    probabilities: bool


@dataclass(slots=True)
class Found:
    """Sums over samples held back.

    Attributes:
        divergence: Kullback-Leibler divergence of the student's scores, summed, in nats.
        vectors, agreements: Score vectors, and those whose largest is at the same place.
        error, size: Squares of differences and of the teacher's outputs.
        loss: What is trained by, summed over feeds.
    """

    divergence: float = 0.0
    vectors: int = 0
    agreements: int = 0
    error: float = 0.0
    size: float = 0.0
    loss: float = 0.0

    @property
    def relative_l2(self) -> float:
        """|a - b| / |b| over all outputs."""
        return sqrt(self.error / self.size) if self.size else sqrt(self.error)

    @property
    def measure(self) -> str:
        """Name of `value`."""
        return "kl" if self.vectors else "relative-l2"

    @property
    def value(self) -> float:
        """The mean divergence; the relative error where there are no scores."""
        return self.divergence / self.vectors if self.vectors else self.relative_l2

    @property
    def agreement(self) -> float | None:
        """Share of score vectors whose largest is at the same place."""
        return self.agreements / self.vectors if self.vectors else None

    def beats(self, other: Found, limit: float) -> bool:
        """Whether this is closer, and the outputs as such not farther off than ``limit``."""
        return self.value < other.value and self.relative_l2 <= limit


class Distance:
    """Distance between the outputs of two models.

    Args:
        outputs: Names of the float outputs; the first one may be scores.
        scores: How the first output holds scores; None if it does not.
        temperature: That the scores are divided by in `loss`.
    """

    def __init__(self, outputs: Sequence[str], scores: Scores | None, temperature: float) -> None:
        self.outputs = tuple(outputs)
        self._scores = scores
        self._temperature = temperature

    def loss(self, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor]) -> Tensor:
        """What is trained by: a scalar, differentiable in the student's outputs.

        For scores T^2 KL(teacher/T, student/T), the mean over vectors (Hinton et al. 2015,
        arXiv:1503.02531). To it, and for other outputs alone, the squared relative error is
        added: a softmax does not see what all scores have in common.
        """
        error = sum(
            (relative_error(teacher[name], student[name]) for name in self.outputs),
            start=torch.zeros(()),
        )
        if self._scores is None:
            return error
        name = self.outputs[0]
        heat = self._temperature
        return error + heat**2 * self._divergence(teacher[name], student[name], heat).mean()

    @torch.no_grad()
    def add(
        self, sums: Found, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor]
    ) -> None:
        """Add the samples of one feed to what was found, in place."""
        sums.loss += float(self.loss(teacher, student))
        for name in self.outputs:
            expected, found = teacher[name].double(), student[name].double()
            sums.error += float((found - expected).square().sum())
            sums.size += float(expected.square().sum())
        if self._scores is not None:
            first = self.outputs[0]
            divergence = self._divergence(teacher[first], student[first], 1.0)
            sums.divergence += float(divergence.double().sum())
            sums.vectors += divergence.numel()
            places = [one[first].argmax(self._scores.axis) for one in (teacher, student)]
            sums.agreements += int((places[0] == places[1]).sum())

    def _divergence(self, teacher: Tensor, student: Tensor, heat: float) -> Tensor:
        """One for each score vector, in nats."""
        expected, found = (self._logarithms(one, heat) for one in (teacher, student))
        each = kl_div(found, expected, reduction="none", log_target=True)
        return each.sum(dim=-1)

    def _logarithms(self, scores: Tensor, heat: float) -> Tensor:
        if self._scores is None:
            raise ValueError("there are no scores")
        moved = scores.movedim(self._scores.axis, -1)
        logits = moved.clamp_min(LEAST_PROBABILITY).log() if self._scores.probabilities else moved
        return (logits / heat).log_softmax(-1)


def relative_error(expected: Tensor, found: Tensor) -> Tensor:
    """|a - b|^2 / |b|^2 over a tensor, differentiable in ``found``; |a|^2 where b is zero."""
    size = expected.square().sum()
    return (found - expected).square().sum() / torch.where(size > 0, size, torch.ones_like(size))
