"""y = x A M C + b, where A and C are merged from cores and autograd keeps only x and the cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Half(Protocol):
    """How the cores of one side become a matrix, and how its gradient goes back to them.

    Both are written in ordinary operations, so they can be differentiated again.
    """

    @property
    def rank_first(self) -> bool:
        """Whether the matrix and its gradient lie in memory with the rank's axis first."""
        ...

    def merge(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """Partial results; the last one is the matrix: (in, rank) or (rank, out)."""
        ...

    def spread(
        self, cores: Sequence[Tensor], partial: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """Gradients of the cores from that of the matrix.

        ``partial`` is what `merge` gave but for the matrix itself, which is free again by then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Flipped:
    """The transpose of another half: makes (rank, out) of (out, rank)."""

    half: Half

    @property
    def rank_first(self) -> bool:
        """As the other half; (rank, out) is then an ordinary matrix."""
        return self.half.rank_first

    def merge(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """The other half's, the matrix transposed."""
        partial = self.half.merge(cores)
        return [*partial[:-1], partial[-1].mT]

    def spread(
        self, cores: Sequence[Tensor], partial: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """The other half's."""
        return self.half.spread(cores, partial, gradient.mT)


@dataclass(frozen=True, slots=True)
class Halves:
    """Which cores are in which half; the middle core, if there is one, is the last of all.

    Attributes:
        left: Merges the first ``split`` cores to (in, rank).
        right: Merges the following ones to (rank, out).
        split: Cores of the left half.
        middle: Whether a core stands between them, reshaped to a matrix.
    """

    left: Half
    right: Half
    split: int
    middle: bool = False

    def sides(self, cores: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Cores of the left and of the right half."""
        end = len(cores) - 1 if self.middle else len(cores)
        return cores[: self.split], cores[self.split : end]


def through_halves(
    x: Tensor, bias: Tensor | None, halves: Halves, cores: Sequence[Tensor], *, keep: bool
) -> Tensor:
    """y = x A M C + b for x (..., in).

    Args:
        keep: Whether x A is kept for the backward pass too; it is recomputed otherwise.
    """
    result: Tensor = _ThroughHalves.apply(x, bias, halves, keep, *cores)  # type: ignore[no-untyped-call]
    return result


class _ThroughHalves(torch.autograd.Function):
    """Merges in the forward pass, forgets, merges again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, halves: Halves, keep: bool, *cores: Tensor
    ) -> Tensor:
        ahead, behind = halves.sides(cores)
        inner = x.reshape(-1, x.shape[-1]) @ halves.left.merge(ahead)[-1]
        ctx.halves, ctx.has_bias = halves, bias is not None
        ctx.save_for_backward(x, inner if keep else None, *cores)
        c = halves.right.merge(behind)[-1]
        if halves.middle:
            inner = inner @ cores[-1].reshape(inner.shape[1], c.shape[0])
        y = inner @ c if bias is None else torch.addmm(bias, inner, c)
        return y.reshape(*x.shape[:-1], c.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, *cores = ctx.saved_tensors
        halves: Halves = ctx.halves
        ahead, behind = halves.sides(cores)
        rows = x.reshape(-1, x.shape[-1])
        if inner is None or torch.is_grad_enabled():
            inner = rows @ halves.left.merge(ahead)[-1]
        dy = gradient.reshape(rows.shape[0], gradient.shape[-1])
        needed = ctx.needs_input_grad[4:]
        d_inner, d_behind, d_middle = _right(halves, inner, dy, cores, behind)
        del inner
        left = halves.left.merge(ahead)  # not before: the right half is gone from memory by now
        a: Tensor | None = left.pop()
        if not ctx.needs_input_grad[0]:
            a = None  # free for what follows
        d_ahead: list[Tensor | None] = [None] * len(ahead)
        if any(needed[: halves.split]):
            d_ahead = [*halves.left.spread(ahead, left, _left(halves, rows, d_inner))]
        dx = None if a is None else (d_inner @ a.mT).reshape(x.shape)
        db = dy.sum(0) if ctx.has_bias and ctx.needs_input_grad[1] else None
        return dx, db, None, None, *d_ahead, *d_behind, *d_middle


def _left(halves: Halves, rows: Tensor, d_inner: Tensor) -> Tensor:
    """Gradient of A, (in, left)."""
    return (d_inner.mT @ rows).mT if halves.left.rank_first else rows.mT @ d_inner


def _right(
    halves: Halves, inner: Tensor, dy: Tensor, cores: Sequence[Tensor], behind: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of x A, of the right half's cores and of the middle core."""
    right = halves.right.merge(behind)
    d_outer = dy @ right.pop().mT
    if not halves.middle:
        return d_outer, halves.right.spread(behind, right, inner.mT @ dy), []
    matrix = cores[-1].reshape(inner.shape[1], d_outer.shape[1])
    d_behind = halves.right.spread(behind, right, (inner @ matrix).mT @ dy)
    return d_outer @ matrix.mT, d_behind, [(inner.mT @ d_outer).reshape(cores[-1].shape)]
