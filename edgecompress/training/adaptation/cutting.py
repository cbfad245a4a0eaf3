"""Ranks leave a network: parameters, gradients and every state of the optimiser shrink together."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Factorization, keep_slices


class HasState(Protocol):
    """An optimiser: for each parameter a mapping from names to what it remembers of it."""

    @property
    def state(self) -> MutableMapping[Any, Any]:
        """By parameter."""
        ...


def cut_bond(
    factorization: Factorization,
    bond: int,
    kept: Sequence[int] | Tensor,
    optimizer: HasState | None = None,
) -> None:
    """Keep these indices of a bond, in place, in cores, gradients, views and optimiser state.

    Every state tensor of a parameter's shape is sliced along with it (momentum, first and second
    moments, masters); others, such as step counts, stay. Parameters keep their identity, so
    parameter groups stay as they are.

    Args:
        factorization: Whose bond.
        bond: Its place in the format's bonds.
        kept: Indices in rising order; all of them change nothing.
        optimizer: What else remembers the parameters.

    Raises:
        ValueError: None is kept, or they do not rise.
    """
    kept = torch.as_tensor(kept, dtype=torch.long)
    if bool((kept.diff() <= 0).any()):
        raise ValueError("kept indices rise")
    if kept.numel() == factorization.ranks[bond]:
        return
    before = {parameter: tuple(parameter.shape) for parameter in factorization.parameters()}
    factorization.cut(bond, kept)
    if optimizer is None:
        return
    for parameter, old in before.items():
        if tuple(parameter.shape) != old:
            _cut_state(optimizer, parameter, old, kept)


def cut_parameter(parameter: nn.Parameter, axis: int, kept: Tensor, optimizer: HasState) -> None:
    """Keep these slices of one parameter, in place, in its gradient and optimiser state too."""
    old = tuple(parameter.shape)
    keep_slices(parameter, axis, kept)
    _cut_state(optimizer, parameter, old, kept)


def pool_moments(optimizer: HasState, parameters: Iterable[nn.Parameter]) -> None:
    """Make an optimiser's memory of these parameters independent of their gauge, in place.

    A rotation of a bond mixes entries, so moments by entry mean nothing after it. First moments
    and momentum begin anew; each second moment becomes the mean over its parameter, which keeps
    the step size, where zeros would make the next steps far too large.
    """
    for parameter in parameters:
        for name, value in moments(optimizer, parameter).items():
            if name in SECOND_MOMENTS:
                value.fill_(value.float().mean())
            else:
                value.zero_()


def moments(optimizer: HasState, parameter: nn.Parameter) -> dict[str, Tensor]:
    """First and second moments that an optimiser has of a parameter's entries, by name."""
    return {
        name: value
        for name, value in _memory(optimizer, parameter).items()
        if name in FIRST_MOMENTS | SECOND_MOMENTS
        and isinstance(value, Tensor)
        and value.shape == parameter.shape
    }


FIRST_MOMENTS = frozenset({"exp_avg", "momentum_buffer"})
SECOND_MOMENTS = frozenset({"exp_avg_sq", "max_exp_avg_sq"})
"""State names of torch's own optimisers. Source: torch.optim.Adam, AdamW and SGD."""


def _memory(optimizer: HasState, parameter: nn.Parameter) -> MutableMapping[str, Any]:
    # Looked up without creating: optimiser state is a defaultdict.
    empty: dict[str, Any] = {}
    memory: MutableMapping[str, Any] = optimizer.state.get(parameter, empty)
    return memory


def _cut_state(optimizer: HasState, parameter: nn.Parameter, old: Shape, kept: Tensor) -> None:
    """Slice what has the old shape along every axis that shrank."""
    axes = [a for a, (was, now) in enumerate(zip(old, parameter.shape, strict=True)) if was != now]
    memory = _memory(optimizer, parameter)
    for name, value in memory.items():
        if isinstance(value, Tensor) and tuple(value.shape) == old:
            smaller = value
            for axis in axes:
                smaller = smaller.index_select(axis, kept.to(value.device))
            memory[name] = smaller
