"""Training without back-propagation: gradients estimated from losses at perturbed parameters.

The same random signs perturb every entry at once, so one pair of forward passes gives one sample of
the whole gradient; pairs are antithetic and their samples averaged. Nothing is differentiated and
no graph is built: what a step needs beside the parameters is a copy of them, the running estimate
and the optimiser's moments.

Source: Spall 1992 (simultaneous perturbation, symmetric Bernoulli directions); for tensor factors,
whose small count is what keeps the variance of the estimate low, arXiv 2308.09858 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

Rule = Literal["adam", "momentum", "sgd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZerothOrderOptions:
    """How the gradient is estimated and used.

    Attributes:
        directions: Pairs of evaluations that are averaged in a step; with ``per_factor``, for each
            parameter.
        smoothing: Length of a perturbation of one entry at the start.
        smoothing_end: Length after ``smoothing_steps`` steps; in between it falls geometrically.
        smoothing_steps: 0: it does not fall.
        per_factor: Parameters are perturbed one after another. Each estimate is then free of the
            noise that the other parameters' gradients put into it; evaluations grow with the
            number of parameters.
        rule: What is done with the estimate.
        betas: Decay of the first moment (momentum, Adam) and of the second (Adam).
        epsilon: Added to the root of the second moment.

    Raises:
        ValueError: A value is out of range.

    Source: moments and their defaults: Kingma and Ba 2015.
    """

    directions: int = 32
    smoothing: float = 1e-2
    smoothing_end: float = 1e-2
    smoothing_steps: int = 0
    per_factor: bool = False
    rule: Rule = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.directions < 1 or self.smoothing_steps < 0:
            raise ValueError("directions are at least 1, smoothing steps at least 0")
        if self.smoothing <= 0 or self.smoothing_end <= 0:
            raise ValueError("smoothing is positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas are from 0 to below 1")

    def smoothing_at(self, step: int) -> float:
        """Length of a perturbation at a step, counted from 0."""
        if not self.smoothing_steps:
            return self.smoothing
        share = min(1.0, step / self.smoothing_steps)
        return float(self.smoothing * (self.smoothing_end / self.smoothing) ** share)


class ZerothOrder(torch.optim.Optimizer):
    """Simultaneous perturbation with the interface of a torch optimiser.

    Args:
        parameters: Tensors, or groups of them with their own ``lr``.
        lr: Step size.
        options: The estimator; None: its defaults.
        seed: Of the directions.

    The moments are entries of ``state`` of the parameter's shape, so whoever cuts a parameter cuts
    them along. The state of the random stream is part of ``state_dict``.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        options: ZerothOrderOptions | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.options = options or ZerothOrderOptions()
        self.evaluations = 0
        """Forward passes (calls of the closure) so far."""
        self.steps = 0
        self._seed = seed
        self._generator: torch.Generator | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float | Tensor] | None = None) -> float:  # type: ignore[override]
        """One update.

        Args:
            closure: The loss at the parameters as they stand; called twice for each direction, on
                the same samples each time. It calls no ``backward``.

        Returns:
            The mean of the losses seen, close to the loss before the update.

        Raises:
            ValueError: No closure.
        """
        if closure is None:
            raise ValueError("a zeroth-order step needs a closure that returns the loss")
        parameters = [p for group in self.param_groups for p in group["params"]]
        blocks = [[p] for p in parameters] if self.options.per_factor else [parameters]
        before = self.evaluations
        estimates = {p: torch.zeros_like(p) for p in parameters}
        total = 0.0
        for block in blocks:
            for _ in range(self.options.directions):
                total += self._sample(block, closure, estimates)
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                estimate = estimates[parameter].div_(self.options.directions)
                parameter.sub_(self._moved(parameter, estimate), alpha=group["lr"])
        return total / (self.evaluations - before)

    def state_dict(self) -> dict[str, Any]:
        """Also the counters and the random stream, to continue with the same bits."""
        stream = None if self._generator is None else self._generator.get_state()
        own = {"steps": self.steps, "evaluations": self.evaluations, "stream": stream}
        return {**super().state_dict(), "zeroth_order": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        rest = dict(state_dict)
        own = rest.pop("zeroth_order")
        super().load_state_dict(rest)
        self.steps, self.evaluations = own["steps"], own["evaluations"]
        if own["stream"] is not None:
            self._stream().set_state(own["stream"].cpu())

    def _sample(
        self,
        block: Sequence[Tensor],
        closure: Callable[[], float | Tensor],
        estimates: dict[Tensor, Tensor],
    ) -> float:
        """One antithetic pair, added to the estimates; the sum of its losses."""
        length = self.options.smoothing_at(self.steps)
        kept = [p.clone() for p in block]
        signs = [self._signs(p) for p in block]
        losses = []
        for side in (length, -length):
            for parameter, start, sign in zip(block, kept, signs, strict=True):
                torch.add(start, sign, alpha=side, out=parameter)
            losses.append(float(closure()))
            self.evaluations += 1
        slope = (losses[0] - losses[1]) / (2 * length)
        for parameter, start, sign in zip(block, kept, signs, strict=True):
            parameter.copy_(start)
            estimates[parameter].add_(sign, alpha=slope)
        return sum(losses)

    def _moved(self, parameter: Tensor, estimate: Tensor) -> Tensor:
        """What the rule makes of an estimate."""
        rule, (decay, decay_square) = self.options.rule, self.options.betas
        if rule == "sgd":
            return estimate
        state = self.state[parameter]
        first = state.setdefault("exp_avg", torch.zeros_like(parameter))
        if rule == "momentum":
            return cast(Tensor, first.mul_(decay).add_(estimate))
        second = state.setdefault("exp_avg_sq", torch.zeros_like(parameter))
        first.mul_(decay).add_(estimate, alpha=1 - decay)
        second.mul_(decay_square).addcmul_(estimate, estimate, value=1 - decay_square)
        root = (second / (1 - decay_square**self.steps)).sqrt_().add_(self.options.epsilon)
        return cast(Tensor, first / (1 - decay**self.steps) / root)

    def _signs(self, parameter: Tensor) -> Tensor:
        """+1 and -1 with equal chance, drawn on the processor whatever the device."""
        drawn = torch.randint(0, 2, parameter.shape, generator=self._stream(), dtype=torch.int8)
        return drawn.to(parameter).mul_(2).sub_(1)

    def _stream(self) -> torch.Generator:
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self._seed)
        return self._generator


def trainable_without_gradients(network: nn.Module) -> list[nn.Parameter]:
    """Factors of tensorized layers and all biases: what `ZerothOrder` is meant to train.

    The count has to be small, as the variance of an estimate grows with it: dense weights stay as
    they are.
    """
    from edgecompress.training.factorized.base import Factorization

    chosen = {}
    for module in network.modules():
        if isinstance(module, Factorization):
            chosen.update({id(core): core for core in module.cores})
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            chosen[id(bias)] = bias
    return list(chosen.values())
