"""Clicks drawn from a known model whose tables are tensor trains of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, log

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.ttm import TensorTrainMatrix

CRITEO_KAGGLE_LARGEST = (10_131_227, 8_351_593, 7_046_547, 5_461_306, 2_202_608)
"""Rows of the five largest tables of Criteo's display advertising challenge.

Source: Kaggle data set of 2014 as numbered by github.com/facebookresearch/dlrm (Naumov et al.
2019); its 26 table sizes are listed in github.com/Oneflow-Inc/models, RecommenderSystems/dcn. At
width 128 these five are the 4,248,739,968 parameters that Hawkins et al. 2022 start from.
"""
CLICK_SHARE = 0.256
"""Source: share of clicks in the training data of the same challenge."""
MAIN_EFFECT = 2.0
"""Weight of a category by itself, against 1 for its interaction with the features.

Source: a choice; with five tables main effects are then about half of the logit's variance.
"""
COMMON_SHARE = 0.5
"""Share of a slice's variance that all slices of a core share.

Source: a choice. Of the variance of an entry over the rows of three cores it makes 1/8 the same
everywhere, 3/8 sums over single digits, 3/8 over pairs of digits and 1/8 over all three; 0 would
leave only the last, which is far harder to learn and of which nothing is claimed here.
"""
PROBES = 16384


@dataclass(frozen=True, slots=True, eq=False)
class Clicks:
    """Samples: features (n, f) float32, categories (n, t) int64, clicks (n,) float32, and the
    probability that each was drawn with."""

    features: Tensor
    categories: Tensor
    clicks: Tensor
    probability: Tensor


class ClickModel:
    """logit = offset + scale (z . sum of rows + sum of pairwise products), z = m + M features.

    Attributes:
        tables: One factorization each; never made dense.

    Args:
        cardinalities: Rows of each table.
        foldings: Of each table; they may have rows to spare.
        rank: Of all bonds of all tables.
        generator: Of the model.
        features: Dense features, standard normal.
        spread: Standard deviation of the logit.

    A factorization machine whose vectors are rows of tables of low tensor-train rank, with one more
    vector z that is affine in the features. Categories follow a power law of exponent 1, most
    frequent rows scattered over the table, and say nothing about each other or the features. What
    is drawn from it shows whether a truth of low rank is found, and nothing about real clicks.

    Source: Rendle 2010 (factorization machines).
    """

    def __init__(
        self,
        cardinalities: Shape,
        foldings: tuple[Folding, ...],
        rank: int,
        generator: torch.Generator,
        *,
        features: int = 13,
        spread: float = 1.5,
    ) -> None:
        self.cardinalities = cardinalities
        self.tables = [_planted(folding, rank, generator) for folding in foldings]
        width = foldings[0].shape[1]
        self.mean = torch.randn(width, generator=generator) * MAIN_EFFECT
        self.mix = torch.randn(features, width, generator=generator) * features**-0.5
        self.strides = tuple(_stride(rows) for rows in cardinalities)
        self.features, self.scale, self.offset = features, 1.0, 0.0
        logits = self.logits(*self._inputs(PROBES, generator))
        self.scale = spread / float(logits.std())
        self.offset = _offset_for((logits - logits.mean()) * self.scale, CLICK_SHARE)
        self.offset -= float(logits.mean()) * self.scale

    def draw(self, count: int, generator: torch.Generator) -> Clicks:
        """So many samples."""
        features, categories = self._inputs(count, generator)
        probability = self.logits(features, categories).sigmoid()
        clicks = torch.bernoulli(probability, generator=generator)
        return Clicks(features, categories, clicks, probability)

    @torch.no_grad()
    def logits(self, features: Tensor, categories: Tensor) -> Tensor:
        """(n,)."""
        columns = categories.unbind(1)
        total = features.new_zeros(features.shape[0], self.mean.shape[0])
        squares = features.new_zeros(features.shape[0])
        for table, column in zip(self.tables, columns, strict=True):
            row = table.gather(column)
            total += row
            squares += torch.linalg.vecdot(row, row)
        vector = torch.addmm(self.mean, features, self.mix) + total / 2
        terms = torch.linalg.vecdot(vector, total) - squares / 2
        logits: Tensor = self.offset + self.scale * terms
        return logits

    def _inputs(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        features = torch.randn(count, self.features, generator=generator)
        columns = []
        for rows, stride in zip(self.cardinalities, self.strides, strict=True):
            uniform = torch.rand(count, generator=generator, dtype=torch.float64)
            popularity = (uniform * log(rows + 1)).exp().long().sub(1).clamp(0, rows - 1)
            columns.append(popularity * stride % rows)
        return features, torch.stack(columns, 1)


def _planted(folding: Folding, rank: int, generator: torch.Generator) -> TensorTrainMatrix:
    """A table of variance 1 whose slices are half what a core's slices have in common."""
    bonds = len(folding.rows) - 1
    table = TensorTrainMatrix(folding, (rank,) * bonds)
    each = (rank**-bonds) ** (1 / (2 * len(folding.rows)))
    with torch.no_grad():
        for core in table.cores:
            common = _signed(core[:, :1].shape, generator) * COMMON_SHARE**0.5
            own = _signed(core.shape, generator) * (1 - COMMON_SHARE) ** 0.5
            core.copy_((common + own) * each)
    return table.requires_grad_(False)


def _signed(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """+-(0.5 to 1.5), scaled to variance 1: products have lighter tails than of normal numbers,
    so that no few rows decide."""
    size = (torch.rand(shape, generator=generator) + 0.5) / (13 / 12) ** 0.5
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    signed: Tensor = size * sign
    return signed


def _stride(rows: int) -> int:
    """A step near the golden section that visits all rows."""
    step = max(1, int(rows * 0.618))
    while gcd(step, rows) != 1:
        step += 1
    return step


def _offset_for(logits: Tensor, share: float) -> float:
    """What to add so that the mean probability is ``share``; by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((logits + middle).sigmoid().mean()) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
