"""An optimiser whose masters and state are as narrow as a device would keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgecompress.core.training import PrecisionOptions
from edgecompress.training.low_precision.apply import check_widths, parameter_widths
from edgecompress.training.low_precision.rounding import (
    FLOAT_BITS,
    Rounder,
    stream,
    to_bfloat16,
)
from edgecompress.training.zeroth_order import ZerothOrder

BFLOAT16_BITS = 16


class PreciseOptimizer(torch.optim.Optimizer):
    """Adam, SGD or any other torch optimiser, with narrow storage between its steps.

    * Gradients are on a grid of ``gradient_bits``, the share of a penalty that was added outside of
      the layers included.
    * Parameters are masters: float32, or fixed point of ``master_bits``, an update rounded
      up or down at random so that small ones count on average. Without masters (0), the
      parameters are the codes of the factors and biases themselves, updated the same way.
    * State is float32, or bfloat16, rounded at random as well.

    Everything per element is in ``state[parameter]`` and has the parameter's shape, in place for
    whoever cuts ranks; grids follow from the values, so nothing else has to be carried along.

    Args:
        inner: The optimiser; it owns parameters and groups.
        network: Turned by `apply_precision`; what it does not cover keeps float32 parameters.
        options: Widths.
        seed: Of stochastic rounding. Its stream is part of ``state_dict``.

    Source: fixed point of 16 bits with stochastic rounding: Gupta et al. 2015.
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        network: nn.Module,
        options: PrecisionOptions,
        *,
        seed: int,
    ) -> None:
        check_widths(options)
        super().__init__(inner.param_groups, inner.defaults)
        self.inner = inner
        self.options = options
        self.generator = stream(seed, "optimizer")
        self.widths = parameter_widths(network)
        self._join()
        for parameter, rounder in self._masters():
            nearest = Rounder(rounder.bits, factors=rounder.factors)
            parameter.data = nearest(parameter.data)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; what the closure returned, or the mean of a `ZerothOrder`'s losses."""
        forward_only = isinstance(self.inner, ZerothOrder)
        loss = None
        if closure is not None and not forward_only:
            with torch.enable_grad():
                loss = closure()
        gradient = Rounder(self.options.gradient_bits)
        for parameter in self.widths:
            if parameter.grad is not None:
                parameter.grad.copy_(gradient(parameter.grad))
        self._convert(widen)
        if forward_only:
            loss = self.inner.step(closure)
        else:
            self.inner.step()
        self._convert(self._narrow)
        for parameter, rounder in self._masters():
            if forward_only or parameter.grad is not None:
                parameter.copy_(rounder(parameter))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients."""
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The inner optimiser's, with the random stream."""
        return {**self.inner.state_dict(), "rounding": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`, with the same bits."""
        rest = dict(state_dict)
        rounding = rest.pop("rounding")
        self.inner.load_state_dict(rest)
        self._join()
        self._convert(self._narrow)  # draws from the stream, though values do not change
        self.generator.set_state(rounding.cpu())

    def _join(self) -> None:
        """Groups and state are the inner optimiser's own."""
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state

    def _masters(self) -> list[tuple[nn.Parameter, Rounder]]:
        """Parameters on a grid, with the rounding of an update."""
        bits = self.options.master_bits
        if bits >= FLOAT_BITS:
            return []
        return [
            (p, Rounder(bits or width, self.generator, factors=not bits and p.dim() > 1))
            for p, width in self.widths.items()
        ]

    def _convert(self, change: Callable[[Tensor], Tensor]) -> None:
        """Change the type of every state tensor of a covered parameter's shape."""
        if self.options.state_bits >= FLOAT_BITS:
            return
        for parameter in self.widths:
            state = self.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and key != "step":
                    state[key] = change(value)

    def _narrow(self, value: Tensor) -> Tensor:
        """float32 -> bfloat16; values that are in bfloat16 already do not change."""
        return to_bfloat16(value, self.generator)


def widen(value: Tensor) -> Tensor:
    """bfloat16 -> float32, exact."""
    return value.float()
