"""Closed-form prices of the ways to run a factorized layer, ranks from a wish, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from edgecompress.core.arrays import Shape
from edgecompress.core.options import FixedRanks, ParameterRatio
from edgecompress.training.factorized.base import Order
from edgecompress.training.factorized.chain import Step, chain_sizes

if TYPE_CHECKING:
    from edgecompress.training.factorized.base import Factorization
    from edgecompress.training.factorized.folding import Folding

MEMORY_FACTOR = 1.25
"""An order may need so many times the least memory, what the layer holds included; MACs decide
among those.

Source: a choice that keeps the rebuilt head of a 784-512-10 network (CP of rank 50) out of a
training step, where it would set the peak: benchmarks/training/tensorly_torch.py.
"""
CHAIN_PRICE = 2
"""A MAC of the core-by-core order counts so many times: its products are small and batched.

Source: a choice near what benchmarks/training/layer_speed.py measures for one layer, a tensor
train of rank 20 for 784-512 (both are alike at batch 1, two halves are ahead from batch 4 up) and
of rank 32 for 2048-2048 (core by core is ahead up to batch 16).
"""
KEPT_SHARE = 8
"""x A is kept for the backward pass when it is under 1/8 of x.

Source: measured: benchmarks/training/layer_speed.py; CP of rank 50 for 784-512 at batch 64 needs a
tenth less time so; x A is a sixteenth of x.
"""
HELD_SHARE = 2
"""Merged halves, or the states of a chain, are kept for the backward pass when they are under 1/2
of what the layer holds.

Source: measured: benchmarks/training/layer_speed.py; a training step of a tensor train of rank
20 for 784-512-10 at batch 64 needs 5 % more memory so, and a seventh less time.
"""


def cheapest(orders: Sequence[Order], held: int = 0) -> Order:
    """The order with the least priced MACs among those within `MEMORY_FACTOR` of the least memory.

    A MAC core by core costs `CHAIN_PRICE`; equal prices are decided by memory.

    Args:
        orders: Any.
        held: Numbers that the layer holds in a training step with every order.
    """
    least = held + min(order.saved + order.scratch for order in orders)
    fit = [o for o in orders if held + o.saved + o.scratch <= MEMORY_FACTOR * least]
    return min(fit, key=lambda order: (_price(order), order.saved + order.scratch))


def held_numbers(inner: int, count: int, batch: int) -> int:
    """A layer's input; its cores, their gradients and two moments of Adam."""
    return batch * inner + 4 * count


def _price(order: Order) -> int:
    return order.macs * (CHAIN_PRICE if order.name == "pieces" else 1)


def keeps(states: int, rows: int, inner: int) -> bool:
    """Whether so many numbers of state are few beside x (rows, inner)."""
    return states * KEPT_SHARE <= rows * inner


def keeps_halves(shape: Shape, widths: tuple[int, int, bool], count: int, batch: int) -> bool:
    """Whether merged halves are few beside what the layer holds.

    Args:
        shape: (out, in).
        widths: Columns of A, rows of C, and whether a matrix stands between.
        count: Numbers in the cores.
        batch: Rows of x.
    """
    (out, inner), (left, right, _) = shape, widths
    halves = inner * left + right * out + batch * left
    return halves * HELD_SHARE <= held_numbers(inner, count, batch)


def fused_order(
    shape: Shape, widths: tuple[int, int, bool], merging: int, count: int, batch: int
) -> Order:
    """Two merged halves.

    Args:
        shape: (out, in).
        widths: Columns of A, rows of C, and whether a matrix stands between.
        merging: MACs to merge both halves.
        count: Numbers in the cores.
        batch: Rows of x.
    """
    (out, inner), (left, right, middle) = shape, widths
    merged = inner * left + right * out
    macs = merging + batch * (merged + (left * right if middle else 0))
    states = batch * (left + right)
    if keeps_halves(shape, widths, count, batch):
        saved = merged + (states if middle else batch * left)
        return Order("fused", macs, saved, max(inner * left, right * out) + states)
    saved = batch * left if keeps(batch * left, batch, inner) else 0
    return Order("fused", macs, saved, 2 * max(inner * left, right * out) + states)


def chain_order(steps: Sequence[Step], shape: Shape, batch: int) -> Order:
    """Core by core; all states are kept where they are few beside what the layer holds."""
    macs, sizes = chain_sizes(steps, batch, shape[1])
    count = sum(step.rows * step.columns for step in steps)
    states = sum(sizes[:-1])
    kept = states * HELD_SHARE <= held_numbers(shape[1], count, batch)
    widest = max((sum(pair) for pair in pairwise((0, *sizes[:-1]))), default=0)
    return Order("pieces", macs, states if kept else 0, widest if kept else states + widest)


def rebuild_order(
    folding: Folding, widths: tuple[int, int, bool], merging: int, batch: int
) -> Order:
    """The dense weight, made for the pass, forgotten, and made again going back, with gradients of
    it and the halves and products beside them."""
    out, inner = folding.shape[:2]
    left, right, middle = widths
    entries = folding.entries
    narrow = min(left, right) if middle else left
    halves = inner * left + right * out * prod(folding.kernel)
    making = merging + narrow * entries + (left * right * max(inner, out) if middle else 0)
    return Order("rebuild", making + batch * entries, 0, 3 * (entries + halves))


def start_ranks(
    kind: type[Factorization],
    folding: Folding,
    rule: FixedRanks | ParameterRatio | None,
    common: int | None = None,
) -> Shape:
    """Ranks to start from.

    Args:
        kind: The format.
        folding: The modes.
        rule: One rank for all bonds or one for each (clipped to what is useful), or the share of
            the parameters that may remain; None: ``common``.
        common: One rank for all bonds, clipped; None: the format's ceiling, of a convolution half
            of what is useful.

    Raises:
        ValueError: So many ranks do not fit the bonds.
    """
    most = kind.max_ranks(folding)
    match rule:
        case None if common is not None:
            return tuple(min(common, limit) for limit in most)
        case None if folding.kernel:
            return tuple(max(1, rank // 2) for rank in most)
        case None:
            return tuple(min(rank, kind.ceiling) for rank in most)
        case FixedRanks(ranks=(rank,)):
            return tuple(min(rank, limit) for limit in most)
        case FixedRanks(ranks=ranks):
            if len(ranks) != len(most):
                raise ValueError(f"{kind.name} has {len(most)} ranks here, not {len(ranks)}")
            return tuple(min(rank, limit) for rank, limit in zip(ranks, most, strict=True))
        case ParameterRatio(ratio=ratio):
            return _ranks_within(kind, folding, int(ratio * folding.entries))


def core_count(kind: type[Factorization], folding: Folding, ranks: Shape) -> int:
    """Numbers in the cores, without making them."""
    return sum(prod(shape) for shape in kind.core_shapes(folding, ranks))


def _ranks_within(kind: type[Factorization], folding: Folding, count: int) -> Shape:
    """The largest common rank, clipped at each bond, whose cores hold at most so many numbers."""
    most = kind.max_ranks(folding)
    low, high = 1, max(most, default=1)
    while low < high:
        level = (low + high + 1) // 2
        ranks = tuple(min(level, limit) for limit in most)
        low, high = (level, high) if core_count(kind, folding, ranks) <= count else (low, level - 1)
    return tuple(min(low, limit) for limit in most)
