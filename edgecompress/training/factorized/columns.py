"""y = x A C + b for column-wise Kronecker products A and C that are never made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Order

BLOCK_SHARE = 2
"""So many rows at once that what stands between is at most 1/2 of the two merged matrices.

Source: a choice: three arrays of that size are alive at the most, so a pass needs about as much
memory as with one merged matrix and its gradient, at any batch.
"""


def columns_order(shape: Shape, ends: tuple[int, int], rank: int, batch: int) -> Order:
    """Price of a pass.

    Args:
        shape: (out, in).
        ends: Sizes of the outermost modes, of the rows and of the columns.
        rank: Columns.
        batch: Rows of x.
    """
    (out, inner), (last, first) = shape, ends
    between = out // last + inner // first
    macs = rank * (inner // first + out // last + batch * (inner + out + between))
    block = block_rows(shape, ends, batch)
    state = block * max(out // last, inner // first)
    return Order("columns", macs, 0, rank * (3 * state + batch))


def block_rows(shape: Shape, ends: tuple[int, int], batch: int) -> int:
    """How many rows of x go at once."""
    (out, inner), (last, first) = shape, ends
    widest = max(out // last, inner // first)
    return max(1, min(batch, (out + inner) // (BLOCK_SHARE * widest)))


def through_columns(
    x: Tensor, bias: Tensor | None, ahead: Sequence[Tensor], behind: Sequence[Tensor]
) -> Tensor:
    """(..., in) -> (..., out); autograd keeps x and the four matrices.

    Args:
        x: Rows.
        bias: (out,).
        ahead: (m, rank) and (n, rank) with in = m n: the columns' factors, all but the outermost
            merged, and the outermost.
        behind: The rows' factors alike.
    """
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    function = _ThroughColumns.apply
    y = cast(Tensor, function(rows, bias, *ahead, *behind))  # type: ignore[no-untyped-call]
    return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[1])


Gradients = tuple[Tensor | None, Tensor | None, Tensor, Tensor, Tensor, Tensor]


class _ThroughColumns(torch.autograd.Function):
    """Z = sum over m of (X U) L, Y = (Z K) V^T, where (n m, n1) X is one large product with U."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(x, *factors)
        merged, outermost, behind, last = factors
        y = x.new_empty(x.shape[0], behind.shape[0] * last.shape[0])
        size = _block(x, factors)
        for part, into in zip(torch.split(x, size), torch.split(y, size), strict=True):
            z = _inner(part, merged, outermost)
            spread = (z.unsqueeze(1) * behind).view(-1, z.shape[1])
            torch.mm(spread, last.t(), out=into.view(-1, last.shape[0]))
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, *factors = ctx.saved_tensors
        size = _block(x, factors)
        pairs = zip(torch.split(x, size), torch.split(gradient, size), strict=True)
        parts = [_back(*pair, factors, inner_too=ctx.needs_input_grad[0]) for pair in pairs]
        rows = [row for row, _ in parts if row is not None]
        dx = torch.cat(rows) if rows else None
        sums = [_total([shares[k] for _, shares in parts]) for k in range(4)]
        db = gradient.sum(0) if ctx.needs_input_grad[1] else None
        return dx, db, sums[0], sums[1], sums[2], sums[3]


def _block(x: Tensor, factors: Sequence[Tensor]) -> int:
    _, outermost, behind, last = factors
    shape = (behind.shape[0] * last.shape[0], x.shape[1])
    return block_rows(shape, (last.shape[0], outermost.shape[0]), x.shape[0])


def _total(shares: list[Tensor]) -> Tensor:
    return shares[0] if len(shares) == 1 else torch.stack(shares).sum(0)


def _state(x: Tensor, merged: Tensor, outermost: Tensor) -> Tensor:
    """X U: (n, m, rank)."""
    return torch.mm(x.reshape(-1, outermost.shape[0]), outermost).view(-1, *merged.shape)


def _times(state: Tensor, other: Tensor) -> Tensor:
    """Product, in the place of the state unless it is to be differentiated again."""
    return state * other if torch.is_grad_enabled() else state.mul_(other)


def _inner(x: Tensor, merged: Tensor, outermost: Tensor) -> Tensor:
    """Z: (n, rank)."""
    return (_state(x, merged, outermost) * merged).sum(1)


def _back(
    x: Tensor, gradient: Tensor, factors: Sequence[Tensor], *, inner_too: bool
) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Gradients of some rows of x, if wanted, and their share in those of the factors."""
    merged, outermost, behind, last = factors
    rank = last.shape[1]
    outer = gradient.reshape(-1, last.shape[0])
    state = _state(x, merged, outermost)
    z = (state * merged).sum(1)
    spread = (z.unsqueeze(1) * behind).view(-1, rank)
    d_last = torch.mm(outer.t(), spread)
    del spread
    d_spread = torch.mm(outer, last).view(-1, *behind.shape)
    dz = (d_spread * behind).sum(1)
    d_behind = _times(d_spread, z.unsqueeze(1)).sum(0)
    del d_spread
    d_merged = _times(state, dz.unsqueeze(1)).sum(0)
    del state
    d_state = (dz.unsqueeze(1) * merged).view(-1, rank)
    d_outermost = torch.mm(x.reshape(-1, outermost.shape[0]).t(), d_state)
    dx = torch.mm(d_state, outermost.t()).view(x.shape) if inner_too else None
    return dx, (d_merged, d_outermost, d_behind, d_last)
