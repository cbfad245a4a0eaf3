"""Rows of a table of paired modes: digits of the index pick slices, slices are multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor

from edgecompress.training.factorized.piecewise import sizes


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
        if sizes(merged[-1])[1] * sizes(core)[1] <= tokens:
            merged[-1] = merge_pair(merged[-1], core)
        else:
            merged.append(core)
    return merged


def gather_table(cores: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Rows of the table (r, v, e, r') ... by index: (...) -> (..., width).

    Every distinct index is computed once; autograd keeps the indices and the cores only. A table
    of fewer rows than are asked for is made. Where indices have no values (meta tensors) all count
    as distinct: an upper bound.
    """
    flat = rows.reshape(-1)
    distinct, inverse = (flat, flat) if rows.is_meta else torch.unique(flat, return_inverse=True)
    merged = merge_small(cores, distinct.numel())
    if len(merged) == 1:
        table = merged[0].reshape(merged[0].shape[1:3])
        return table.index_select(0, flat).view(*rows.shape, table.shape[1])
    found = cast(Tensor, _Chain.apply(distinct, *merged))  # type: ignore[no-untyped-call]
    return found.index_select(0, inverse).view(*rows.shape, found.shape[1])


class _Chain(torch.autograd.Function):
    """(n,) distinct rows -> (n, width); slices and products are made again going back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, *cores: Tensor) -> Tensor:
        ctx.save_for_backward(rows, *cores)
        digits = _digits(rows, cores)
        return _states(_slices(digits, cores))[-1].squeeze(1).T.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *cores = ctx.saved_tensors
        digits = _digits(rows, cores)
        slices = _slices(digits, cores)
        states = _states(slices[:-1])
        d_cores: list[Tensor] = []
        gradient = gradient.T.contiguous().unsqueeze(1)
        for k in range(len(cores) - 1, 0, -1):
            before = states[k - 1]
            own = slices[k].flatten(1, 2)
            gradient = gradient.reshape(before.shape[0], own.shape[1], rows.shape[0])
            d_slices = _products(before.transpose(0, 1), gradient)
            d_cores.append(_scatter(d_slices, digits[k], cores[k]))
            gradient = _products(gradient, own.transpose(0, 1))
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


def _slices(digits: Sequence[Tensor], cores: Sequence[Tensor]) -> list[Tensor]:
    """Of each core (r, v, e, r'): (r, e, r', n)."""
    pairs = zip(cores, digits, strict=True)
    return [core.permute(0, 2, 3, 1).contiguous().index_select(3, digit) for core, digit in pairs]


def _states(slices: Sequence[Tensor]) -> list[Tensor]:
    """After each core: (columns so far, r, n)."""
    states = [slices[0].squeeze(0)]
    for own in slices[1:]:
        _, columns, right, count = own.shape
        state = _products(states[-1], own.flatten(1, 2))
        states.append(state.reshape(state.shape[0] * columns, right, count))
    return states


def _products(left: Tensor, right: Tensor) -> Tensor:
    """(a, b, n) and (b, c, n) to (a, c, n), a matrix product for each of the n.

    With samples last every sum runs over contiguous numbers; batched products of matrices this
    small take up to ten times as long (measured: rank 2, 2,048 rows, one core).
    """
    total = left[:, 0, None] * right[0]
    for k in range(1, left.shape[1]):
        total = total.addcmul_(left[:, k, None], right[k])
    return total


def _scatter(gradient: Tensor, digit: Tensor, core: Tensor) -> Tensor:
    """Sums (r, e r', n) into the core's rows."""
    left, rows, columns, right = core.shape
    total = gradient.new_zeros(rows, left * columns * right)
    each = gradient.reshape(total.shape[1], digit.shape[0]).T.contiguous()
    return total.index_add(0, digit, each).view(rows, left, columns, right).transpose(0, 1)
