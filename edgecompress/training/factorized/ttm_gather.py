"""Rows of a table of paired modes: digits of the index pick slices, slices are multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor


def merge_pair(left: Tensor, right: Tensor) -> Tensor:
    """Two cores (r, j, i, s), (s, j', i', t) as one (r, j j', i i', t)."""
    r, j, i, s = left.shape
    _, j2, i2, t = right.shape
    both = left.reshape(r * j * i, s) @ right.reshape(s, j2 * i2 * t)
    both = both.view(r, j, i, j2, i2, t).transpose(2, 3)
    return both.reshape(r, j * j2, i * i2, t)


def merge_small(cores: Sequence[Tensor], tokens: int) -> list[Tensor]:
    """Neighbours whose rows together are at most as many as tokens, merged, left to right.

    One product for all rows is then cheaper than one for each token.
    """
    merged = [cores[0]]
    for core in cores[1:]:
        if merged[-1].shape[1] * core.shape[1] <= tokens:
            merged[-1] = merge_pair(merged[-1], core)
        else:
            merged.append(core)
    return merged


def gather_table(cores: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Rows of the table (r, v, e, r') ... by index: (...) -> (..., width).

    Every distinct index is computed once; autograd keeps the indices and the cores only. Where
    indices have no values (meta tensors) all count as distinct: an upper bound.
    """
    flat = rows.reshape(-1)
    distinct, inverse = (flat, flat) if rows.is_meta else torch.unique(flat, return_inverse=True)
    merged = merge_small(cores, distinct.numel())
    found = cast(Tensor, _Chain.apply(distinct, *merged))  # type: ignore[no-untyped-call]
    return found.index_select(0, inverse).view(*rows.shape, found.shape[1])


class _Chain(torch.autograd.Function):
    """(n,) distinct rows -> (n, width); slices and products are made again going back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, *cores: Tensor) -> Tensor:
        ctx.save_for_backward(rows, *cores)
        return _states(_digits(rows, cores), cores)[-1].squeeze(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *cores = ctx.saved_tensors
        digits = _digits(rows, cores)
        states = _states(digits, cores)
        d_cores: list[Tensor] = []
        count = rows.shape[0]
        for k in range(len(cores) - 1, 0, -1):
            columns, right = cores[k].shape[2:]
            before = states[k - 1]
            gradient = gradient.reshape(count, before.shape[1], columns * right)
            d_cores.append(_scatter(torch.bmm(before.mT, gradient), digits[k], cores[k]))
            gradient = torch.bmm(gradient, _slices(cores[k], digits[k]).mT)
        d_cores.append(_scatter(gradient, digits[0], cores[0]))
        return None, *reversed(d_cores)


def _digits(rows: Tensor, cores: Sequence[Tensor]) -> list[Tensor]:
    """Digits of each index, the last one changing fastest."""
    stride = prod(core.shape[1] for core in cores)
    digits: list[Tensor] = []
    for core in cores:
        rest = rows if not digits else rows.remainder(stride)
        stride //= core.shape[1]
        digits.append(rest.div(stride, rounding_mode="floor"))
    return digits


def _states(digits: Sequence[Tensor], cores: Sequence[Tensor]) -> list[Tensor]:
    """After each core: (n, columns so far, r)."""
    count = digits[0].shape[0]
    width = cores[0].shape[2]
    state = _slices(cores[0], digits[0]).reshape(count, width, cores[0].shape[3])
    states = [state]
    for core, digit in zip(cores[1:], digits[1:], strict=True):
        width *= core.shape[2]
        state = torch.bmm(state, _slices(core, digit)).reshape(count, width, core.shape[3])
        states.append(state)
    return states


def _slices(core: Tensor, digit: Tensor) -> Tensor:
    """(n, r, e r') of the core (r, v, e, r')."""
    left, rows, columns, right = core.shape
    picked = core.reshape(left, rows, columns * right).index_select(1, digit)
    return picked.transpose(0, 1)


def _scatter(gradient: Tensor, digit: Tensor, core: Tensor) -> Tensor:
    """Sums (n, r, e r') into the core's rows."""
    left, rows, columns, right = core.shape
    total = gradient.new_zeros(rows, left * columns * right)
    total = total.index_add(0, digit, gradient.reshape(digit.shape[0], total.shape[1]))
    return total.view(rows, left, columns, right).transpose(0, 1)
