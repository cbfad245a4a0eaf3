"""y = sum over r of A_r X B_r^T: a weight of two paired cores, run as two products."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Order

LAST_FIRST = "last-first"
FIRST_FIRST = "first-first"
REBUILD = "rebuild"


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
    last = rank * (j2 * inner + i1 * outer)
    first = rank * (j1 * inner + i2 * outer)
    dense = inner * outer
    return (
        Order(LAST_FIRST, batch * last, 0, batch * (2 * rank * i1 * j2 + outer)),
        Order(FIRST_FIRST, batch * first, 0, batch * (2 * rank * j1 * i2 + inner)),
        Order(REBUILD, (rank + batch) * dense, 0, 2 * dense),
    )


def kron_multiply(
    x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor, order: str
) -> Tensor:
    """(n, i1 i2) -> (n, j1 j2), and the bias; autograd keeps x and the cores only.

    Args:
        x: Rows.
        bias: (j1 j2,).
        first: (1, j1, i1, r).
        last: (r, j2, i2, 1).
        order: ``last-first``, ``first-first`` or ``rebuild``.
    """
    function = FUNCTIONS[order]
    return cast(Tensor, function.apply(x, bias, first, last))  # type: ignore[no-untyped-call]


def kron_dense(first: Tensor, last: Tensor) -> Tensor:
    """The weight (j1 j2, i1 i2)."""
    _, j1, i1, rank = first.shape
    _, j2, i2, _ = last.shape
    pairs = first.reshape(j1 * i1, rank) @ last.reshape(rank, j2 * i2)
    return pairs.view(j1, i1, j2, i2).transpose(1, 2).reshape(j1 * j2, i1 * i2)


Gradients = tuple[Tensor | None, Tensor | None, Tensor, Tensor]


def _plus(y: Tensor, bias: Tensor | None) -> Tensor:
    """In place: y is fresh."""
    y = y.contiguous()
    return y if bias is None else y.add_(bias)


def _bias(ctx: Any, gradient: Tensor) -> Tensor | None:
    return gradient.sum(0) if ctx.needs_input_grad[1] else None


class _LastFirst(torch.autograd.Function):
    """T = X B^T over (n i1) rows, then Y = A T over (n j2) columns.

    The batch stands between the modes in T and Y, so that both are one large product and the two
    copies move runs of j2 numbers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, last)
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        inner = _spread(x.reshape(-1, i2), last.reshape(rank * j2, i2), i1, j2)
        y = torch.mm(first.reshape(j1, i1 * rank), inner)
        return _plus(y.view(j1, -1, j2).transpose(0, 1).reshape(-1, j1 * j2), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, first, last = ctx.saved_tensors
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        rows, flat = x.reshape(-1, i2), last.reshape(rank * j2, i2)
        inner = _spread(rows, flat, i1, j2)
        outer = gradient.reshape(-1, j1, j2).transpose(0, 1).reshape(j1, -1)
        d_first = torch.mm(outer, inner.t()).view(first.shape)
        d_inner = torch.mm(first.reshape(j1, i1 * rank).t(), outer)
        d_inner = d_inner.view(i1, rank, -1, j2).permute(2, 0, 1, 3).reshape(-1, rank * j2)
        d_last = torch.mm(d_inner.t(), rows).view(last.shape)
        dx = torch.mm(d_inner, flat).view(x.shape) if ctx.needs_input_grad[0] else None
        return dx, _bias(ctx, gradient), d_first, d_last


def _spread(rows: Tensor, flat: Tensor, i1: int, j2: int) -> Tensor:
    """(n i1, i2) by (r j2, i2) -> (i1 r, n j2)."""
    inner = torch.mm(rows, flat.t()).view(-1, i1, flat.shape[0] // j2, j2)
    return inner.permute(1, 2, 0, 3).reshape(flat.shape[0] // j2 * i1, -1)


class _FirstFirst(torch.autograd.Function):
    """T = A^T X over (n i2) columns, then Y = T B over (n j1) rows: the transpose of the above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, last)
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        left = first.transpose(2, 3).reshape(j1 * rank, i1)
        inner = _gather(left, _fronted(x, i1, i2), j1, i2)
        y = torch.mm(inner, last.transpose(1, 2).reshape(rank * i2, j2))
        return _plus(y.view(-1, j1 * j2), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, first, last = ctx.saved_tensors
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        left = first.transpose(2, 3).reshape(j1 * rank, i1)
        right = last.transpose(1, 2).reshape(rank * i2, j2)
        columns = _fronted(x, i1, i2)
        inner = _gather(left, columns, j1, i2)
        outer = gradient.reshape(-1, j2)
        d_last = torch.mm(inner.t(), outer).view(rank, i2, j2, 1).transpose(1, 2)
        d_inner = torch.mm(outer, right.t()).view(-1, j1, rank, i2)
        d_inner = d_inner.permute(1, 2, 0, 3).reshape(j1 * rank, -1)
        d_first = torch.mm(d_inner, columns.t()).view(1, j1, rank, i1).transpose(2, 3)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(left.t(), d_inner).view(i1, -1, i2).transpose(0, 1).reshape(x.shape)
        return dx, _bias(ctx, gradient), d_first, d_last


def _fronted(x: Tensor, i1: int, i2: int) -> Tensor:
    """(n, i1 i2) -> (i1, n i2)."""
    return x.reshape(-1, i1, i2).transpose(0, 1).reshape(i1, -1)


def _gather(left: Tensor, columns: Tensor, j1: int, i2: int) -> Tensor:
    """(j1 r, i1) by (i1, n i2) -> (n j1, r i2)."""
    inner = torch.mm(left, columns).view(j1, left.shape[0] // j1, -1, i2)
    return inner.permute(2, 0, 1, 3).reshape(-1, left.shape[0] // j1 * i2)


class _Rebuilt(torch.autograd.Function):
    """Y = X W^T, W made and forgotten in both passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, first: Tensor, last: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, last)
        return _plus(torch.mm(x, kron_dense(first, last).t()), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, first, last = ctx.saved_tensors
        _, j1, i1, rank = first.shape
        _, j2, i2, _ = last.shape
        pairs = torch.mm(gradient.t(), x).view(j1, j2, i1, i2).transpose(1, 2)
        pairs = pairs.reshape(j1 * i1, j2 * i2)
        d_first = torch.mm(pairs, last.reshape(rank, -1).t()).view(first.shape)
        d_last = torch.mm(first.reshape(-1, rank).t(), pairs).view(last.shape)
        dx = torch.mm(gradient, kron_dense(first, last)) if ctx.needs_input_grad[0] else None
        return dx, _bias(ctx, gradient), d_first, d_last


FUNCTIONS: dict[str, type[torch.autograd.Function]] = {
    LAST_FIRST: _LastFirst,
    FIRST_FIRST: _FirstFirst,
    REBUILD: _Rebuilt,
}
