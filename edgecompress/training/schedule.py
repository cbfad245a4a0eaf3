"""The learning rate over a run, and the optimisers that follow it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from math import cos, pi
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from edgecompress.core.training import TrainOptions
from edgecompress.training.batches import derived_seed
from edgecompress.training.distributed import is_spread
from edgecompress.training.factorized.base import Factorization

if TYPE_CHECKING:
    from edgecompress.training.subspace_newton import SubspaceNewton

MOMENTUM = 0.9
"""Source: Sutskever et al. 2013; the usual value for pictures (He et al. 2016, section 3.4)."""


SMOOTHING_OF_CODES = 0.05
"""Length of a perturbation of an entry where factors are rounded.

Source: a choice, near the step of a 4-bit grid, a third of the standard deviation of factors
(`low_precision.rounding`); what is much shorter is rounded away and changes no output."""


class Updater(Protocol):
    """What the loop needs of an optimiser."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups with their own ``lr``."""
        ...

    @property
    def state(self) -> MutableMapping[Any, Any]:
        """What is remembered of each parameter."""
        ...

    def step(self, closure: Any = None) -> Any:
        """One update."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        ...


def rate_at(start: float, step: int, steps: int) -> float:
    """Learning rate of a step, counted from 0: half a cosine from ``start`` to zero.

    Source: Loshchilov and Hutter 2017, equation 5, one period.
    """
    return 0.5 * start * (1.0 + cos(pi * min(step / max(steps, 1), 1.0)))


def make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser of a run.

    Weight decay is for dense weights: factors have their prior, and vectors (biases, scales of
    normalisations) are not decayed, as usual. Dense weights and factors are groups of their own.
    """
    groups = parameter_groups(network, options.weight_decay)
    rate = options.rate
    match options.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=rate, fused=_can_fuse(network))
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, fused=_can_fuse(network))
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, fused=_can_fuse(network))
        case "momentum":
            fused = _can_fuse(network)
            return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, fused=fused)
        case "zeroth-order":
            return subspace_newton(groups, options)
        case "spsa":
            from edgecompress.training.zeroth_order import ZerothOrder

            seed = derived_seed(options.seed, "directions", 0)
            return ZerothOrder(groups, lr=rate, seed=seed)


def subspace_newton(groups: Sequence[dict[str, Any]], options: TrainOptions) -> SubspaceNewton:
    """With as many directions as suit the parameters and the batch, long enough to cross a code."""
    from edgecompress.training.subspace_newton import (
        SubspaceNewton,
        SubspaceOptions,
        directions_for,
    )

    count = sum(parameter.numel() for group in groups for parameter in group["params"])
    subspace = SubspaceOptions(directions=directions_for(count, options.batch))
    if options.precision is not None:
        subspace = replace(subspace, smoothing=SMOOTHING_OF_CODES)
    seed = derived_seed(options.seed, "directions", 0)
    return SubspaceNewton(groups, lr=options.rate, options=subspace, seed=seed)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Dense weights, dense vectors, factors; those that are empty are left out.

    Parameters that are spread over processes are apart, as one kernel does not update both kinds.
    """
    factors = {id(parameter) for parameter in factor_parameters(network)}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    dense = [parameter for parameter in trained if id(parameter) not in factors]
    groups = (
        ([p for p in dense if p.ndim > 1], weight_decay),
        ([p for p in dense if p.ndim <= 1], 0.0),
        ([p for p in trained if id(p) in factors], 0.0),
    )
    return [
        {"params": same, "weight_decay": decay}
        for parameters, decay in groups
        for spread in (False, True)
        if (same := [p for p in parameters if is_spread(p) == spread])
    ]


def factor_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """Cores of tensorized layers, and what their views train."""
    for module in network.modules():
        if isinstance(module, Factorization):
            yield from module.parameters()


def _can_fuse(network: nn.Module) -> bool:
    """One kernel for all parameters exists for floating parameters of these devices."""
    parameters = list(network.parameters())
    return bool(parameters) and all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters
    )
