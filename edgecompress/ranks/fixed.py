"""Ranks as given."""

from __future__ import annotations

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import ConfigurationInvalid


def fixed_ranks(ranks: Shape, largest: Shape, where: str) -> tuple[int, ...]:
    """The given ranks, none above the largest; one value serves all bonds.

    Raises:
        ConfigurationInvalid: Wrong number of ranks, or one below 1.
    """
    wanted = ranks * len(largest) if len(ranks) == 1 else ranks
    if len(wanted) != len(largest):
        raise ConfigurationInvalid(
            f"{len(ranks)} ranks given, the format has {len(largest)}", where=where
        )
    if min(wanted) < 1:
        raise ConfigurationInvalid(f"rank {min(wanted)}", where=where, hint="ranks start at 1")
    return tuple(min(rank, top) for rank, top in zip(wanted, largest, strict=True))
