"""Factors as they were before ranks fell, to go back to when the loss does not come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from edgecompress.training.adaptation.cutting import HasState
from edgecompress.training.factorized.base import replace_values


class Fallback:
    """Values and optimiser state of parameters at one moment.

    Attributes:
        kept: By parameter, in their order: ``values``, and ``memory`` of the optimiser by name.
            Empty: nothing is kept.
    """

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    @torch.no_grad()
    def keep(self, parameters: Iterable[nn.Parameter], optimizer: HasState | None) -> None:
        """Remember these parameters as they are."""
        self.kept = [
            {"values": parameter.detach().clone(), "memory": _memory(parameter, optimizer)}
            for parameter in parameters
        ]

    @torch.no_grad()
    def give_back(self, parameters: Iterable[nn.Parameter], optimizer: HasState | None) -> bool:
        """Make the same parameters what they were, in place, with the shapes of then; once.

        Returns:
            Whether there was anything to go back to.
        """
        kept, self.kept = self.kept, []
        for parameter, old in zip(parameters, kept, strict=False):
            device = parameter.device
            parameter.grad = None
            replace_values(parameter, _to(old["values"], device))
            if optimizer is not None and old["memory"]:
                optimizer.state[parameter].update(
                    {name: _to(value, device) for name, value in old["memory"].items()}
                )
        return bool(kept)


def _memory(parameter: nn.Parameter, optimizer: HasState | None) -> dict[str, Any]:
    """Of entries only: counts of steps go on."""
    if optimizer is None or parameter not in optimizer.state:
        return {}
    return {
        name: value.clone()
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim
    }


def _to(value: Tensor, device: torch.device) -> Tensor:
    return value.to(device, copy=True)
