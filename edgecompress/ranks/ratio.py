"""Ranks that leave a share of a layer's parameters."""

from __future__ import annotations

from collections.abc import Callable

from edgecompress.core.arrays import Shape


def ratio_ranks(
    largest: Shape, multiple: int, parameters: Callable[[Shape], int], limit: float
) -> tuple[int, ...] | None:
    """The largest ranks, all at the same share of their largest, whose parameters fit.

    Args:
        largest: Largest rank of each bond.
        multiple: Ranks are multiples of this where a bond is long enough.
        parameters: Number of weights for some ranks; grows with each rank.
        limit: Number of weights allowed.

    Returns:
        None if not even the smallest ranks fit.
    """
    smallest = tuple(min(multiple, top) for top in largest)
    best = smallest if parameters(smallest) <= limit else None
    low, high = 0, max(largest)
    while best is not None and low < high:
        middle = (low + high + 1) // 2
        share = middle / max(largest)
        ranks = tuple(
            max(least, int(share * top + 1e-9) // multiple * multiple)
            for least, top in zip(smallest, largest, strict=True)
        )
        if parameters(ranks) <= limit:
            best, low = ranks, middle
        else:
            high = middle - 1
    return best
