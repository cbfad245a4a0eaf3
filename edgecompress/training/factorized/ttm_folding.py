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
PARAMETER_SHARE = 1 / 32
"""Foldings are compared when the factors have this share of the dense weight's parameters.

Source: a choice: the compression that the format is meant for.
"""
RANK_SHARE = 1.0
"""The share of full matrix rank that a folding must be able to reach then.

Source: a choice with weak support: benchmarks/training/folding_choice.py (Fashion-MNIST, 784-512,
rank 5 or 6, 5,000 held-back images, standard error 0.4 points). The folding that it picks, 64 x 8
by 7 x 112, has 89.6 and 89.5 % from two seeds, the others, those of more matrix rank included,
between 88.4 and 89.1 %. More than the pick is not shown by that, least of all for other data.
"""
COUNT_SLACK = 1.1
"""Parameters of one Kronecker product against the least of all foldings.

Source: a choice: many small terms let ranks be found in fine steps; 10 % leaves a few foldings to
choose from where sizes have few divisors.
"""


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


def attainable_rank(rows: Shape, columns: Shape, rank: float) -> float:
    """The largest matrix rank of a sum of so many Kronecker products."""
    pairs = zip(rows, columns, strict=True)
    return min(prod(rows), prod(columns), rank * prod(min(pair) for pair in pairs))


def _two_cores(out: int, inner: int) -> Folding:
    """The cheapest two pairs of modes among those that reach enough matrix rank.

    Cheapest: MACs for each parameter. One term has j1 i1 + j2 i2 parameters, at least about
    2 sqrt(in out); blocks i1 = j2 = m then cost m MACs a parameter and give m^2 of matrix rank, so
    the rule in effect picks m, which hardly depends on the layer's size.
    """
    full, budget = min(out, inner), out * inner * PARAMETER_SHARE
    pairs = [
        Folding((j1, out // j1), (i1, inner // i1))
        for j1 in _divisors(out)
        for i1 in _divisors(inner)
    ]
    least = min(map(_term_count, pairs))
    options = []
    for folding in pairs:
        (j1, j2), (i1, i2), count = folding.rows, folding.columns, _term_count(folding)
        if count <= COUNT_SLACK * least:
            macs = min(j2 * inner + i1 * out, j1 * inner + i2 * out)
            reached = attainable_rank(folding.rows, folding.columns, budget / count)
            missing = max(0.0, RANK_SHARE * full - reached)
            options.append((missing, macs / count, j2, i1, folding))
    return min(options, key=lambda option: option[:4])[-1]


def _term_count(folding: Folding) -> int:
    """Parameters of one Kronecker product."""
    return sum(j * i for j, i in zip(folding.rows, folding.columns, strict=True))


def _divisors(size: int) -> list[int]:
    return [d for d in range(1, size + 1) if size % d == 0]


def _padded(size: int, parts: int) -> Shape:
    """Near-equal modes; 1 in front where the size has too few divisors."""
    modes = split_size(size, parts)
    return (1,) * (parts - len(modes)) + modes
