"""y = sum over r of A_r X B_r^T: a weight of two paired cores, run as two products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Order

LAST_FIRST = "last-first"
FIRST_FIRST = "first-first"
REBUILD = "rebuild"

PARTS = 4
"""The dense weight is made in so many parts, one after the other.

Source: measured: benchmarks/training/tensorly_torch.py; a rebuilt 784 x 512 layer needs a quarter
of the memory then and the same time.
"""
KEPT_SHARE = 2
"""What stands between both products is kept for the backward pass when it is under 1/2 of x.

Source: measured: benchmarks/training/layer_speed.py; at 784-512, rank 5, batch 64 keeping it is a
tenth more memory in a training step and saves a sixth of the layer's time.
"""
SLOWER = 1.25
"""An order may have so many times the fewest MACs when it needs less memory.

Source: a choice: MACs tell times apart no better than that.
"""


def kron_orders(modes: tuple[Shape, Shape], rank: int, batch: int) -> tuple[Order, ...]:
    """Both orders of contraction, and the dense weight made for the pass.

    Args:
        modes: ((j1, j2), (i1, i2)): of the outputs and of the inputs.
        rank: Terms of the sum.
        batch: Rows of x.

    With I = i1 i2 and O = j1 j2, last-first needs r (j2 I + i1 O) MACs a row and r i1 j2
    numbers between, first-first r (j1 I + i2 O) and r j1 i2.
    """
    (j1, j2), (i1, i2) = modes
    outer, inner = j1 * j2, i1 * i2
    dense = inner * outer
    between = (rank * i1 * j2, rank * j1 * i2)
    saved = between[0] if between[0] * KEPT_SHARE <= inner else 0
    last = rank * (j2 * inner + i1 * outer)
    first = rank * (j1 * inner + i2 * outer)
    return (
        Order(LAST_FIRST, batch * last, batch * saved, batch * (2 * between[0] + outer)),
        Order(FIRST_FIRST, batch * first, 0, batch * (2 * between[1] + inner)),
        Order(REBUILD, (rank + batch) * dense, 0, 2 * dense // min(PARTS, j1)),
    )


def chosen_order(orders: Sequence[Order]) -> Order:
    """The least memory among orders of about the fewest MACs."""
    least = min(order.macs for order in orders)
    fit = [order for order in orders if order.macs <= SLOWER * least]
    return min(fit, key=lambda order: (order.saved + order.scratch, order.macs))


def kron_multiply(
    x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor, order: str, *, keep: bool = False
) -> Tensor:
    """(n, i1 i2) -> (n, j1 j2), and the bias.

    Args:
        x: Rows.
        bias: (j1 j2,).
        first: (1, j1, i1, r).
        last: (r, j2, i2, 1).
        order: ``last-first``, ``first-first`` or ``rebuild``.
        keep: Whether autograd keeps what stands between both products of last-first; x and the
            cores only, otherwise.
    """
    if keep and order == LAST_FIRST:
        return _keeping(x, bias, first, last)
    function = FUNCTIONS[order]
    return cast(Tensor, function.apply(x, bias, first, last))  # type: ignore[no-untyped-call]


def kron_dense(first: Tensor, last: Tensor) -> Tensor:
    """The weight (j1 j2, i1 i2)."""
    _, j1, i1, rank = first.shape
    _, j2, i2, _ = last.shape
    pairs = first.reshape(j1 * i1, rank) @ last.reshape(rank, j2 * i2)
    return pairs.view(j1, i1, j2, i2).transpose(1, 2).reshape(j1 * j2, i1 * i2)


Gradients = tuple[Tensor | None, Tensor | None, Tensor, Tensor]


def _bias(ctx: Any, gradient: Tensor) -> Tensor | None:
    return gradient.sum(0) if ctx.needs_input_grad[1] else None


def _keeping(x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
    """As `_LastFirst`, in operations that autograd knows."""
    _, j1, i1, rank = first.shape
    j2 = last.shape[1]
    inner = _fronted(_to_last(x, last), i1 * rank, j2)
    y = torch.mm(first.reshape(j1, i1 * rank), inner)
    y = y.view(j1, -1, j2).transpose(0, 1).reshape(-1, j1 * j2).contiguous()
    if bias is None:
        return y
    return y + bias if y._is_view() else y.add_(bias)


class _LastFirst(torch.autograd.Function):
    """T = X B^T over (n i1) rows, then Y = A T, one product for each row of x.

    Going back, the batch stands between the modes in T and Y, so that all are large products and
    the copies move runs of j2 numbers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, last)
        _, j1, i1, rank = first.shape
        _, j2, _, _ = last.shape
        inner = _to_last(x, last).view(-1, i1 * rank, j2)
        left = first.reshape(j1, i1 * rank).expand(inner.shape[0], -1, -1)
        y = torch.bmm(left, inner).view(-1, j1 * j2)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, first, last = ctx.saved_tensors
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        outer = _fronted(gradient, j1, j2)
        d_first = _first_gradient(x, outer, first, last)
        d_inner = torch.mm(first.reshape(j1, i1 * rank).t(), outer)
        d_inner = d_inner.view(i1 * rank, -1, j2).transpose(0, 1).reshape(-1, rank * j2)
        d_last = torch.mm(d_inner.t(), x.reshape(-1, i2)).view(last.shape)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(d_inner, last.reshape(rank * j2, i2)).view(x.shape)
        return dx, _bias(ctx, gradient), d_first, d_last


def _to_last(x: Tensor, last: Tensor) -> Tensor:
    """(n, i1 i2) by (r, j2, i2) -> (n i1, r j2)."""
    rank, j2, i2, _ = last.shape
    return linear(x.reshape(-1, i2), last.reshape(rank * j2, i2))


def _first_gradient(x: Tensor, outer: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Of the first core; what stands between is free again on return."""
    _, _, i1, rank = first.shape
    inner = _fronted(_to_last(x, last), i1 * rank, last.shape[1])
    return torch.mm(outer, inner.t()).view(first.shape)


def _fronted(x: Tensor, ahead: int, behind: int) -> Tensor:
    """(n, ahead behind) -> (ahead, n behind)."""
    return x.reshape(-1, ahead, behind).transpose(0, 1).reshape(ahead, -1)


class _FirstFirst(torch.autograd.Function):
    """T = A^T X, one product for each row of x, then Y = T B over (n j1) rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, last)
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        left = first.transpose(2, 3).reshape(j1 * rank, i1).expand(x.shape[0], -1, -1)
        inner = torch.bmm(left, x.reshape(-1, i1, i2)).view(-1, rank * i2)
        y = torch.mm(inner, last.transpose(1, 2).reshape(rank * i2, j2)).view(-1, j1 * j2)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, first, last = ctx.saved_tensors
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        outer = gradient.reshape(-1, j2)
        inner = _between(x, first, i2).view(-1, rank, i2).transpose(0, 1)
        d_last = torch.bmm(outer.t().expand(rank, -1, -1), inner).view(last.shape)
        del inner
        d_inner = torch.bmm(outer.expand(rank, -1, -1), last.view(rank, j2, i2))
        d_inner = d_inner.view(rank, -1, j1, i2).permute(2, 0, 1, 3).reshape(j1 * rank, -1)
        d_first = torch.mm(d_inner, _fronted(x, i1, i2).t()).view(1, j1, rank, i1).transpose(2, 3)
        dx = None
        if ctx.needs_input_grad[0]:
            left = first.transpose(2, 3).reshape(j1 * rank, i1)
            dx = torch.mm(left.t(), d_inner).view(i1, -1, i2).transpose(0, 1).reshape(x.shape)
        return dx, _bias(ctx, gradient), d_first, d_last


def _between(x: Tensor, first: Tensor, i2: int) -> Tensor:
    """(n, i1 i2) by (j1, i1, r) -> (n j1, r i2)."""
    _, j1, i1, rank = first.shape
    left = first.transpose(2, 3).reshape(j1 * rank, i1)
    inner = torch.mm(left, _fronted(x, i1, i2)).view(j1, rank, -1, i2)
    return inner.permute(2, 0, 1, 3).reshape(-1, rank * i2)


class _Rebuilt(torch.autograd.Function):
    """Y = X W^T, W made and forgotten in both passes, some rows of the first core at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, last)
        y = x.new_empty(x.shape[0], first.shape[1] * last.shape[1])
        for part, columns in _parts(first, y, last.shape[1]):
            torch.mm(x, kron_dense(part, last).t(), out=columns)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, first, last = ctx.saved_tensors
        _, j2, i2, _ = last.shape
        flat = last.reshape(last.shape[0], -1)
        d_first, d_last, dx = [], torch.zeros_like(flat), None
        for part, columns in _parts(first, gradient, j2):
            _, j1, i1, rank = part.shape
            pairs = torch.mm(columns.t(), x).view(j1, j2, i1, i2).transpose(1, 2)
            pairs = pairs.reshape(j1 * i1, j2 * i2)
            d_first.append(torch.mm(pairs, flat.t()).view(part.shape))
            d_last = torch.addmm(d_last, part.reshape(-1, rank).t(), pairs)
            del pairs
            if ctx.needs_input_grad[0]:
                share = torch.mm(columns, kron_dense(part, last))
                dx = share if dx is None else dx + share
        return dx, _bias(ctx, gradient), torch.cat(d_first, 1), d_last.view(last.shape)


def _parts(first: Tensor, y: Tensor, j2: int) -> list[tuple[Tensor, Tensor]]:
    """Rows of the first core, and the columns of y that they make."""
    size = -(-first.shape[1] // PARTS)
    return list(zip(torch.split(first, size, 1), torch.split(y, size * j2, 1), strict=True))


FUNCTIONS: dict[str, type[torch.autograd.Function]] = {
    LAST_FIRST: _LastFirst,
    FIRST_FIRST: _FirstFirst,
    REBUILD: _Rebuilt,
}
