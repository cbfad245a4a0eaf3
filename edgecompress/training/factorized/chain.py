"""x through one core after the other, where autograd keeps x and the cores, and little else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape


@dataclass(frozen=True, slots=True)
class Step:
    """Contraction of the state, seen as (lead, rows, tail), with a core: (lead, columns, tail).

    Attributes:
        core: Which core.
        rows: The core as a matrix has so many rows,
        columns: and so many columns;
        flip: its transpose is taken, then.
        tail: Entries behind the contracted axis.
    """

    core: int
    rows: int
    columns: int
    tail: int = 1
    flip: bool = False

    def matrix(self, cores: Sequence[Tensor]) -> Tensor:
        """The core as (rows, columns)."""
        core = cores[self.core]
        if self.flip:
            return core.reshape(self.columns, self.rows).t()
        return core.reshape(self.rows, self.columns)

    def run(self, state: Tensor, cores: Sequence[Tensor]) -> Tensor:
        """The next state."""
        matrix = self.matrix(cores)
        if self.tail == 1:
            return torch.mm(state.reshape(-1, self.rows), matrix)
        return for_each(matrix.t(), state.reshape(-1, self.rows, self.tail))

    def back(
        self, state: Tensor, cores: Sequence[Tensor], gradient: Tensor, *, state_too: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Gradients of the state, if it is wanted, and of the core."""
        if self.tail == 1:
            gradient = gradient.reshape(-1, self.columns)
            d_matrix = torch.mm(state.reshape(-1, self.rows).t(), gradient)
        else:
            gradient = gradient.reshape(-1, self.columns, self.tail)
            d_matrix = summed_products(state.reshape(-1, self.rows, self.tail).mT, gradient.mT)
        d_state = None
        if state_too:
            matrix = self.matrix(cores)
            if self.tail == 1:
                d_state = torch.mm(gradient, matrix.t())
            else:
                d_state = for_each(matrix, gradient)
        d_core = d_matrix.t() if self.flip else d_matrix
        return d_state, d_core.reshape(cores[self.core].shape)


def for_each(matrix: Tensor, states: Tensor, out: Tensor | None = None) -> Tensor:
    """A product with each state; torch.matmul would copy all of them."""
    return torch.bmm(matrix.expand(states.shape[0], -1, -1), states, out=out)


def summed_products(first: Tensor, second: Tensor) -> Tensor:
    """(a, b) from (n, tail, a) and (n, tail, b), summed over both: one product for each n, summed,
    or both copied into one product, whichever needs less memory."""
    (tail, rows), columns = first.shape[1:], second.shape[2]
    if rows * columns <= tail * (rows + columns):
        return torch.bmm(first.mT, second).sum(0)
    seen = first.mT.transpose(0, 1).reshape(rows, -1)
    return seen @ second.mT.transpose(0, 1).reshape(columns, -1).mT


def chain_sizes(steps: Sequence[Step], batch: int, inner: int) -> tuple[int, Shape]:
    """MACs of a forward pass on (batch, inner), and the entries of every state after x."""
    macs, entries, sizes = 0, batch * inner, []
    for step in steps:
        macs += entries * step.columns
        entries = entries // step.rows * step.columns
        sizes.append(entries)
    return macs, tuple(sizes)


def through_chain(
    x: Tensor, bias: Tensor | None, steps: Sequence[Step], cores: Sequence[Tensor], *, keep: bool
) -> Tensor:
    """y = x W^T + b for x (..., in), core by core.

    Args:
        keep: Whether the states between are kept for the backward pass; recomputed otherwise.
    """
    if keep:
        return _finished(steps[-1].run(_states(x, steps, cores)[-1], cores), x, bias, steps)
    result: Tensor = _ThroughChain.apply(x, bias, steps, *cores)  # type: ignore[no-untyped-call]
    return result


class _ThroughChain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, steps: Sequence[Step], *cores: Tensor
    ) -> Tensor:
        ctx.steps, ctx.has_bias = steps, bias is not None
        ctx.save_for_backward(x, *cores)
        y = x
        for step in steps:
            y = step.run(y, cores)
        return _finished(y, x, bias, steps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        steps: Sequence[Step] = ctx.steps
        x, *cores = ctx.saved_tensors
        states = _states(x, steps, cores)
        d_cores: list[Tensor | None] = [None] * len(cores)
        down: Tensor | None = gradient
        for step in reversed(steps):
            state = states.pop()
            wanted = bool(states) or ctx.needs_input_grad[0]
            if down is not None:
                down, d_cores[step.core] = step.back(state, cores, down, state_too=wanted)
        dx = None if down is None else down.reshape(x.shape)
        db = None
        if ctx.has_bias and ctx.needs_input_grad[1]:
            db = gradient.reshape(-1, gradient.shape[-1]).sum(0)
        return dx, db, None, *d_cores


def _finished(y: Tensor, x: Tensor, bias: Tensor | None, steps: Sequence[Step]) -> Tensor:
    """The last state as (..., out), and the bias."""
    rows = prod(x.shape[:-1])
    y = y.reshape(rows, y.numel() // rows if rows else _width(x, steps))
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], y.shape[1])


def _states(x: Tensor, steps: Sequence[Step], cores: Sequence[Tensor]) -> list[Tensor]:
    """What enters each step."""
    states = [x]
    for step in steps[:-1]:
        states.append(step.run(states[-1], cores))
    return states


def _width(x: Tensor, steps: Sequence[Step]) -> int:
    """Entries that one row of x becomes."""
    return chain_sizes(steps, 1, x.shape[-1])[1][-1]
