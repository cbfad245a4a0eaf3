"""Training without back-propagation, by least squares in a random subspace.

The outputs, not only the loss, are seen at parameters perturbed along a few random directions. The
loss is a known convex function of the outputs, so the best step within the span of the directions
is a small linear system. In a subspace of P of n dimensions a step does what P / n of a
Gauss-Newton step on all parameters would, whatever the conditioning; a gradient estimated from as
many losses has n / P times its own size in noise.

Source: Levenberg 1944 and Marquardt 1963 (damping, and its change by the ratio of the decrease that
was found to the one that was predicted); Schraudolph 2002 (curvature of a loss over outputs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

GOOD, BAD = 0.6, 0.25
"""Ratios of decrease found to predicted beyond which the damping changes.

Source: Nocedal and Wright 2006, algorithm 4.1, has 3/4 and 1/4; 0.6 as a share of the minibatch's
decrease is noise: measured: benchmarks/training/backprop_free.py."""

RISE, FALL = 2.0, 1.5
DAMPING_RANGE = (1e-3, 1e3)
"""Factors of the damping, and its range. Source: a choice; the run is insensitive to them."""


class OutputLoss(Protocol):
    """A convex loss over the outputs of one batch, with its derivatives in closed form."""

    def value(self, outputs: Tensor) -> float:
        """Mean over the batch."""
        ...

    def gradient(self, outputs: Tensor) -> Tensor:
        """Of the mean, in the outputs' shape."""
        ...

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """Second derivative times each of several changes of the outputs, (p, *outputs)."""
        ...


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Mean cross-entropy of outputs (n, classes) with labels (n,)."""

    labels: Tensor

    def value(self, outputs: Tensor) -> float:
        """Mean over the batch."""
        return float(torch.nn.functional.cross_entropy(outputs, self.labels))

    def gradient(self, outputs: Tensor) -> Tensor:
        """(softmax - one-hot) / n."""
        share = outputs.softmax(1)
        share[torch.arange(len(share)), self.labels] -= 1
        return share / len(outputs)

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """(diag(p) - p p^T) changes / n."""
        share = outputs.softmax(1)
        weighted = share * changes
        return (weighted - share * weighted.sum(-1, keepdim=True)) / len(outputs)


@dataclass(frozen=True, slots=True)
class MeanSquare:
    """Mean square of outputs that should be zero: residuals."""

    def value(self, outputs: Tensor) -> float:
        """Mean over all."""
        return float(outputs.square().mean())

    def gradient(self, outputs: Tensor) -> Tensor:
        """2 r / n."""
        return outputs * (2 / outputs.numel())

    def curved(self, outputs: Tensor, changes: Tensor) -> Tensor:
        """2 changes / n."""
        return changes * (2 / outputs.numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class SubspaceOptions:
    """How a step is found.

    Attributes:
        directions: Dimensions of the subspace; one of them is the step before, when there is one.
        smoothing: Length of a perturbation of one entry.
        damping: Share of the mean curvature that is added to the curvature, at the start.
    """

    directions: int = 48
    smoothing: float = 1e-3
    damping: float = 0.1

    def __post_init__(self) -> None:
        if self.directions < 1 or self.smoothing <= 0 or self.damping <= 0:
            raise ValueError("directions, smoothing and damping are positive")


class SubspaceNewton(torch.optim.Optimizer):
    """Damped Gauss-Newton steps in random subspaces; no graph is built.

    Args:
        parameters: Tensors, or groups of them with their own ``lr``.
        lr: Share of the step that is taken.
        options: The subspace; None: its defaults.
        seed: Of the directions, which are drawn again when they are needed and never kept. The
            stream's state is part of ``state_dict``.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1.0,
        options: SubspaceOptions | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.options = options or SubspaceOptions()
        self.damping = self.options.damping
        self.evaluations = 0
        """Forward passes (calls of the closure) so far."""
        self._stream = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Tensor], loss: OutputLoss
    ) -> float:
        """One update, or none where the best step found raises the loss.

        Args:
            closure: The outputs at the parameters as they stand, on the same samples each time;
                called ``directions`` + 2 times.
            loss: Of these outputs.

        Returns:
            The loss before the update.
        """
        start = self._outputs(closure)
        before = loss.value(start)
        seeds = self._seeds()
        kept = [p.clone() for p in self._parameters()]
        changes = torch.stack([self._changed(closure, seed, kept, start) for seed in seeds])
        flat = changes.reshape(len(seeds), -1)
        curvature = flat @ loss.curved(start, changes).reshape(len(seeds), -1).T
        slope = flat @ loss.gradient(start).reshape(-1)
        ridge = self.damping * curvature.diagonal().mean() + torch.finfo(torch.float64).tiny
        weights = torch.linalg.lstsq(
            curvature + ridge * torch.eye(len(seeds), dtype=curvature.dtype, device=flat.device),
            slope[:, None],
            driver="gelsd",
        ).solution[:, 0]
        moves = self._combined(seeds, weights.tolist())
        rate = self.param_groups[0]["lr"]
        for parameter, move in zip(self._parameters(), moves, strict=True):
            parameter.sub_(move, alpha=rate)
        after = loss.value(self._outputs(closure))
        promised = rate * weights @ slope - 0.5 * rate**2 * weights @ curvature @ weights
        self._judge(before - after, float(promised))
        if after < before:
            for parameter, move in zip(self._parameters(), moves, strict=True):
                self.state[parameter]["last_step"] = move
        else:
            for parameter, old in zip(self._parameters(), kept, strict=True):
                parameter.copy_(old)
        return before

    def state_dict(self) -> dict[str, Any]:
        """Also damping, counter and random stream, to continue with the same bits."""
        own = {
            "damping": self.damping,
            "evaluations": self.evaluations,
            "stream": self._stream.get_state(),
        }
        return {**super().state_dict(), "subspace": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        rest = dict(state_dict)
        own = rest.pop("subspace")
        super().load_state_dict(rest)
        self.damping, self.evaluations = own["damping"], own["evaluations"]
        self._stream.set_state(own["stream"].cpu())

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _outputs(self, closure: Callable[[], Tensor]) -> Tensor:
        self.evaluations += 1
        return closure().double()

    def _seeds(self) -> list[int | None]:
        """One for each direction; None: the step before."""
        count = self.options.directions
        drawn: list[int | None] = torch.randint(1 << 62, (count,), generator=self._stream).tolist()
        if any("last_step" in self.state.get(p, {}) for p in self._parameters()):
            drawn[0] = None
        return drawn

    def _direction(self, seed: int | None) -> Iterator[Tensor]:
        """One tensor for each parameter, of root mean square 1."""
        if seed is None:
            moves = [self.state[p]["last_step"] for p in self._parameters()]
            square = sum(float(m.double().square().sum()) for m in moves)
            scale = (square / sum(m.numel() for m in moves)) ** -0.5 if square else 1.0
            yield from (move * scale for move in moves)
            return
        generator = torch.Generator().manual_seed(seed)
        for parameter in self._parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            yield drawn.to(parameter.device)

    def _changed(
        self, closure: Callable[[], Tensor], seed: int | None, kept: list[Tensor], start: Tensor
    ) -> Tensor:
        """Change of the outputs along a direction; parameters are as before again."""
        length = self.options.smoothing
        for parameter, move in zip(self._parameters(), self._direction(seed), strict=True):
            parameter.add_(move, alpha=length)
        change = (self._outputs(closure) - start) / length
        for parameter, old in zip(self._parameters(), kept, strict=True):
            parameter.copy_(old)
        return change

    def _combined(self, seeds: list[int | None], weights: list[float]) -> list[Tensor]:
        """The sum of the directions with these weights."""
        moves = [torch.zeros_like(p) for p in self._parameters()]
        for seed, weight in zip(seeds, weights, strict=True):
            for move, part in zip(moves, self._direction(seed), strict=True):
                move.add_(part, alpha=weight)
        return moves

    def _judge(self, found: float, promised: float) -> None:
        """Change the damping by how well the step was predicted."""
        low, high = DAMPING_RANGE
        ratio = found / promised if promised > 0 else 0.0
        if not ratio >= BAD:
            self.damping = min(self.damping * RISE, high)
        elif ratio > GOOD:
            self.damping = max(self.damping / FALL, low)
