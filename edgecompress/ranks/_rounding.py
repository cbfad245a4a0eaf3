"""Ranks that a device likes."""

from __future__ import annotations

from edgecompress.core.arrays import Shape


def multiples(largest: int, multiple: int) -> list[int]:
    """Ranks from ``multiple`` up to ``largest`` in steps of ``multiple``, rising.

    A bond that is shorter than the multiple has its largest rank only.
    """
    return list(range(multiple, largest + 1, multiple)) or [largest]


def round_up(ranks: Shape, multiple: int, largest: Shape) -> tuple[int, ...]:
    """The next multiples, none above the largest rank."""
    return tuple(
        min(top, -(-rank // multiple) * multiple) for rank, top in zip(ranks, largest, strict=True)
    )
