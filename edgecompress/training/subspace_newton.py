"""Training without back-propagation, by least squares in a random subspace.

The outputs, not only the loss, are seen at parameters perturbed along a few random directions. The
loss is a known convex function of the outputs, so the best step within the span of the directions
is a small linear system. Along an eigenvector of the curvature, of eigenvalue k, a step does in the
mean the share m k / (1 + m k) of what a Gauss-Newton step on all parameters would, and m makes
these shares add up to the number of directions. So many directions do more than as many steps of
few: few hardly ever see the small eigenvalues. A gradient estimated from losses alone sees no
curvature at all.

Source: Levenberg 1944 and Marquardt 1963 (damping, and its change by the ratio of the decrease that
was found to the one that was predicted); Schraudolph 2002 (curvature of a loss over outputs);
arXiv 2006.10653 (2020; mean of a random projection).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgecompress.training.output_losses import OutputLoss

GOOD, BAD = 0.6, 0.25
"""Ratios of decrease found to predicted beyond which the damping falls or rises.

Source: a choice, in the manner of trust regions (Marquardt 1963); not tuned."""

FALL, RISE = 1.5, 2.0
"""What the damping is divided and multiplied by. Source: a choice, not tuned."""

DAMPING_RANGE = (1e-3, 1e3)
"""Of the damping: from a plain Gauss-Newton step to one of a thousandth. Source: a choice."""


FEWEST, MOST = 48, 512
"""Directions of a step. Source: a choice; the most bounds what the changed outputs take in memory.
"""

SHARE = 3
"""One direction for so many parameters, and for so many samples of a batch.

Source: measured: benchmarks/training/backprop_free.py (a third of the parameters, batches of 1024,
against a ninth at the same cost). More directions than samples can tell apart fit the batch and
not the data."""


def directions_for(parameters: int, batch: int) -> int:
    """How many directions suit a network of so many parameters and batches of so many samples."""
    wanted = max(min(parameters, batch) // SHARE, FEWEST)
    return max(min(wanted, parameters, MOST), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubspaceOptions:
    """How a step is found.

    Attributes:
        directions: Dimensions of the subspace; one of them is the step before, when there is one.
        smoothing: Length of a perturbation of one entry.
        damping: Share of the mean curvature that is added to the curvature, at the start.
    """

    directions: int = FEWEST
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
        self,
        closure: Callable[[], Tensor],
        loss: OutputLoss,
        *,
        price: Callable[[], Tensor] | None = None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> float:
        """One update, or none where the best step found raises the loss.

        Args:
            closure: The outputs at the parameters as they stand, on the same samples each time;
                called ``directions`` + 2 times.
            loss: Of these outputs.
            price: A cost of the parameters alone that is added to the loss, such as a prior. Of its
                curvature only that along each direction is used.
            total: Makes numbers of this process's samples those of all processes.

        Returns:
            The loss before the update, without the price.
        """
        kept = [p.clone() for p in self._parameters()]
        start = self._outputs(closure)
        seeds = self._seeds()
        paid = _paid(price)
        changes = start.expand(len(seeds), *start.shape).clone()
        seen = [
            self._seen(closure, price, seed, kept, change)
            for seed, change in zip(seeds, changes, strict=True)
        ]
        before, slope, curvature = _system(start, changes, loss, total)
        del changes  # before there is a second copy of all parameters
        if price is not None:
            slope, curvature = self._priced(slope, curvature, paid, seen)
        weights = _solved(curvature, slope, self.damping)
        moves = self._combined(seeds, weights.tolist())
        rate = self.param_groups[0]["lr"]
        for parameter, move in zip(self._parameters(), moves, strict=True):
            parameter.sub_(move, alpha=rate)
        value = loss.value(self._outputs(closure)).reshape(1)
        after = float(value if total is None else total(value))
        found = before + paid - after - _paid(price)
        self._judge(
            found, float(rate * weights @ slope - 0.5 * rate**2 * weights @ curvature @ weights)
        )
        if found > 0:
            for parameter, move in zip(self._parameters(), moves, strict=True):
                self.state[parameter]["last_step"] = move
        else:
            self._put(kept)
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
            norms = (torch.linalg.vector_norm(m, dtype=torch.float64) for m in moves)
            square = sum(float(norm) ** 2 for norm in norms)
            scale = (square / sum(m.numel() for m in moves)) ** -0.5 if square else 1.0
            yield from (move * scale for move in moves)
            return
        generator = torch.Generator().manual_seed(seed)
        for parameter in self._parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            yield drawn.to(parameter.device)

    def _seen(
        self,
        closure: Callable[[], Tensor],
        price: Callable[[], Tensor] | None,
        seed: int | None,
        kept: list[Tensor],
        change: Tensor,
    ) -> tuple[float, float]:
        """The price along a direction and on the other side; how the outputs change is written
        over what they were at the start. Parameters are as before again."""
        length = self.options.smoothing
        self._shift(seed, length)
        torch.sub(self._outputs(closure), change, out=change).div_(length)
        above, below = _paid(price), 0.0
        self._put(kept)
        if price is not None:
            self._shift(seed, -length)
            below = _paid(price)
            self._put(kept)
        return above, below

    def _priced(
        self,
        slope: Tensor,
        curvature: Tensor,
        paid: float,
        seen: list[tuple[float, float]],
    ) -> tuple[Tensor, Tensor]:
        """The system with the price's own slope, and its curvature where that is positive."""
        length = self.options.smoothing
        sides = torch.tensor(seen, dtype=torch.float64)
        slopes = (sides[:, 0] - sides[:, 1]) / (2 * length)
        bent = (sides.sum(1) - 2 * paid) / length**2
        return slope + slopes, curvature + bent.clamp_min(0).diag()

    def _shift(self, seed: int | None, length: float) -> None:
        for parameter, move in zip(self._parameters(), self._direction(seed), strict=True):
            parameter.add_(move, alpha=length)

    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters(), values, strict=True):
            parameter.copy_(value)

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


def _solved(curvature: Tensor, slope: Tensor, damping: float) -> Tensor:
    """The damped step in the subspace; zero where numbers are not finite."""
    ridge = damping * curvature.diagonal().mean() + torch.finfo(torch.float64).tiny
    damped = curvature + ridge * torch.eye(len(slope), dtype=curvature.dtype)
    if not (damped.isfinite().all() and slope.isfinite().all()):
        return torch.zeros_like(slope)
    found: Tensor = torch.linalg.lstsq(damped, slope[:, None], driver="gelsd").solution
    return found[:, 0]


def _paid(price: Callable[[], Tensor] | None) -> float:
    return 0.0 if price is None else float(price())


def _system(
    start: Tensor,
    changes: Tensor,
    loss: OutputLoss,
    total: Callable[[Tensor], Tensor] | None,
) -> tuple[float, Tensor, Tensor]:
    """Loss, slope along each direction, and curvature between them, over all processes; the last
    two on the processor."""
    count = len(changes)
    sums = system_sums(start, changes, loss)
    sums = (sums if total is None else total(sums)).cpu()
    return float(sums[0]), sums[1 : 1 + count], sums[1 + count :].reshape(count, count)


def system_sums(start: Tensor, changes: Tensor, loss: OutputLoss) -> Tensor:
    """Loss, slopes along so many changes of the outputs, and curvatures between them, in a row."""
    count = len(changes)
    flat = changes.reshape(count, -1)
    curvature = flat @ loss.curved(start, changes).reshape(count, -1).T
    slope = flat @ loss.gradient(start).reshape(-1)
    return torch.cat([loss.value(start).reshape(1), slope, curvature.reshape(-1)])
