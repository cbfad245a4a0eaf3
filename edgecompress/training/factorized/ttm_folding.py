"""How a matrix or a table is folded for paired modes."""

from __future__ import annotations

from math import log, prod

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.folding import Folding, split_size

TABLE_RATIO = 64
"""A matrix of so many times more rows than columns is folded as a table.

Source: a choice; vocabularies are thousands of rows, layers are seldom 64 times as wide as deep.
"""
TABLE_MODE = 256
"""Rows of a core of a table, about.

Source: 11 million rows as 200 x 220 x 250 in the published recommender of Hawkins et al. 2022.
"""
REFERENCE_RANK = 8
"""Rank at which a folding must reach full matrix rank."""


def paired_folding(shape: Shape, cores: int | None) -> Folding:
    """Modes of (out, in) or (rows, width), as many on both sides.

    Args:
        shape: Canonical, no kernel.
        cores: None: two for a matrix; for a table what leaves about 256 rows each.
    """
    out, inner = shape
    if cores is None:
        table = out >= TABLE_RATIO * inner
        cores = max(2, round(log(max(out, 2), TABLE_MODE))) if table else 2
    if cores == 2 and out < TABLE_RATIO * inner:
        return _two_cores(out, inner)
    return Folding(_padded(out, cores), _padded(inner, cores))


def attainable_rank(rows: Shape, columns: Shape, rank: int) -> int:
    """The largest matrix rank of a sum of Kronecker products."""
    pairs = zip(rows, columns, strict=True)
    return min(prod(rows), prod(columns), rank * prod(min(pair) for pair in pairs))


def _two_cores(out: int, inner: int) -> Folding:
    """The cheapest two pairs of modes whose matrix rank is full at the reference rank."""
    options = []
    for j1 in _divisors(out):
        for i1 in _divisors(inner):
            rows, columns = (j1, out // j1), (i1, inner // i1)
            missing = min(out, inner) - attainable_rank(rows, columns, REFERENCE_RANK)
            count = j1 * i1 + rows[1] * columns[1]
            macs = min(
                rows[1] * inner + i1 * out,
                j1 * inner + columns[1] * out,
            )
            options.append((missing, macs * count, macs, rows, columns))
    _, _, _, rows, columns = min(options)
    return Folding(rows, columns)


def _divisors(size: int) -> list[int]:
    return [d for d in range(1, size + 1) if size % d == 0]


def _padded(size: int, parts: int) -> Shape:
    """Near-equal modes; 1 in front where the size has too few divisors."""
    modes = split_size(size, parts)
    return (1,) * (parts - len(modes)) + modes
