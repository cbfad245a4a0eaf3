"""Tensor train of paired modes: W((j1..jd), (i1..id)) = G1[j1, i1, :] G2[:, j2, i2, :] ..."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import ClassVar, Self

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Bond, Factorization
from edgecompress.training.factorized.base import Order as Way
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.kron import (
    FIRST_FIRST,
    chosen_order,
    kron_dense,
    kron_multiply,
    kron_orders,
)
from edgecompress.training.factorized.linalg import balance_train, train_spectrum, tt_svd
from edgecompress.training.factorized.pieces import Lookup, Order, Piece, Product, View
from edgecompress.training.factorized.piecewise import (
    gather_rows,
    is_recorded,
    sizes,
    through_pieces,
)
from edgecompress.training.factorized.ttm_folding import paired_folding
from edgecompress.training.factorized.ttm_gather import gather_table, merge_pair, merge_small

SHARED_FROM = 3
"""Cores of a table from which on its slices start with a common part."""
COMMON_SHARE = 0.7
"""Share of a slice's variance that all slices of a core start with.

Source: measured: benchmarks/training/recommender.py at a thousandth of the rows and width 32, one
seed: after 1 million samples 7.1 points under the generating model, 7.5 from independent slices.
"""


class TensorTrainMatrix(Factorization):
    """Cores (r, j, i, r'), one for each pair of a row mode and a column mode.

    With two cores W is a sum of Kronecker products, of full matrix rank at few parameters. More
    cores are run as two halves, merged for every pass: fewer parameters and not faster.

    Source: Oseledets 2010 (tensor train of matrices); Van Loan and Pitsianis 1993 (nearest
    Kronecker sum).
    """

    name: ClassVar[str] = "ttm"
    ceiling: ClassVar[int] = 8

    @classmethod
    def fold(cls, shape: Shape, cores: int | None = None) -> Folding:
        """Two pairs of modes for a matrix, more for a table of many rows.

        Raises:
            ValueError: A convolution, or fewer than two cores.
        """
        if len(shape) != 2:
            raise ValueError(
                "a convolution as a sum of Kronecker products is no chain of plain operations: "
                "use tucker, tt or cp"
            )
        if cores is not None and cores < 2:
            raise ValueError(f"paired modes need at least 2 cores, not {cores}")
        return paired_folding(shape, cores)

    @classmethod
    def max_ranks(cls, folding: Folding) -> Shape:
        """min(product of the paired modes before, product of those behind)."""
        pairs = _pairs(folding)
        return tuple(min(prod(pairs[:k]), prod(pairs[k:])) for k in range(1, len(pairs)))

    @classmethod
    def core_shapes(cls, folding: Folding, ranks: Shape) -> tuple[Shape, ...]:
        """(r, j, i, r')."""
        _pairs(folding)
        modes = zip((1, *ranks), folding.rows, folding.columns, (*ranks, 1), strict=True)
        return tuple(modes)

    @classmethod
    def bonds(cls, folding: Folding) -> tuple[Bond, ...]:
        """Right axis of a core with the left axis of the next; the prior is about the right axis,
        at the last bond about both.

        Source: Hawkins and Zhang 2021.
        """
        count = len(folding.rows)
        bonds = []
        for k in range(count - 1):
            members = ((k, 3), (k + 1, 0))
            bonds.append(Bond(members, members if k == count - 2 else members[:1]))
        return tuple(bonds)

    @classmethod
    def orders(cls, folding: Folding, ranks: Shape, batch: int) -> tuple[Way, ...]:
        """Both orders of two cores, or of the best two halves, and the dense weight.

        The order to run has the least memory among those of about the fewest MACs; with more than
        two cores these are seldom below the dense layer's, batch * in * out.
        """
        split = _split(folding, ranks, batch)
        merging, kept = _merging(folding, ranks, split)
        return tuple(
            Way(way.name, way.macs + merging, way.saved + kept, way.scratch + kept)
            for way in kron_orders(_halved(folding, split), ranks[split - 1], batch)
        )

    def dense(self) -> Tensor:
        """The weight (out, in)."""
        return kron_dense(*_halves(self.factors(), _route(self.folding, self.ranks, 1)[0]))

    def pieces(self) -> tuple[Piece, ...]:
        """Two products with transpositions around the last."""
        split, order, _ = _route(self.folding, self.ranks, 1)
        first, last = _halves(self.factors(), split)
        _, j1, i1, rank = sizes(first)
        _, j2, i2, _ = sizes(last)
        if order != FIRST_FIRST:
            return (
                View((i1, i2)),
                Product(last.reshape(rank * j2, i2)),
                View((i1 * rank, j2), taken=2),
                Order((1, 0)),
                Product(first.reshape(j1, i1 * rank)),
                Order((1, 0)),
                View((j1 * j2,), taken=2),
            )
        return (
            View((i1, i2)),
            Order((1, 0)),
            Product(first.transpose(2, 3).reshape(j1 * rank, i1)),
            View((i2, j1, rank), taken=2),
            Order((1, 2, 0)),
            View((j1, rank * i2), taken=3),
            Product(last.transpose(0, 1).reshape(j2, rank * i2)),
            View((j1 * j2,), taken=2),
        )

    def lookups(self, tokens: int) -> tuple[Piece, ...]:
        """A table as one lookup and product for each digit of the row index."""
        cores = merge_small(self.factors(), tokens)
        stride = prod(self.folding.rows)
        width = 1
        pieces: list[Piece] = []
        for core in cores:
            left, rows, columns, right = sizes(core)
            stride //= rows
            slices = core.transpose(0, 1)
            if not pieces:
                pieces.append(Lookup(slices.reshape(rows, columns, right), stride))
            else:
                pieces.append(Lookup(slices.reshape(rows, left, columns * right), stride))
            width *= columns
            pieces.append(View((width, right), taken=2))
        return (*pieces[:-1], View((width,), taken=2))

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out), the cheapest way; recorded, by its pieces."""
        if is_recorded():
            return through_pieces(self.pieces(), x, bias)
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        cores = self.factors()
        ranks = tuple(core.shape[3] for core in cores[:-1])
        split, order, keep = _route(self.folding, ranks, rows.shape[0])
        y = kron_multiply(rows, bias, *_halves(cores, split), order, keep=keep)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[1])

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of the table by index; each distinct index is computed once, nothing is kept."""
        if is_recorded():
            return gather_rows(self.lookups(1), rows)
        return gather_table(self.factors(), rows)

    def reset_table(self, std: float, generator: torch.Generator | None = None) -> None:
        """With three or more cores: slices of a core share `COMMON_SHARE` of their variance.

        The gradient of a slice is a mean over samples of products with slices of the other cores.
        Of independent slices of zero mean that mean is near zero, 1 / sqrt(slices) of what it is of
        slices that agree, and the signal drowns in noise. Entries have the wanted deviation over
        draws all the same.
        """
        if len(self.cores) < SHARED_FROM:
            self.reset(std, generator)
            return
        each = self.deviation(std)
        with torch.no_grad():
            for core in self.cores:
                common = torch.empty_like(core[:, :1]).normal_(generator=generator)
                core.normal_(generator=generator).mul_((1 - COMMON_SHARE) ** 0.5)
                core.add_(common, alpha=COMMON_SHARE**0.5).mul_(each)

    @classmethod
    def from_dense(cls, weight: Tensor, folding: Folding, ranks: Shape) -> Self:
        """TT-SVD of the tensor of paired modes: with two cores the nearest sum of Kronecker
        products, else within sqrt(bonds) of the least error.

        Source: Van Loan and Pitsianis 1993; Oseledets 2011.
        """
        made = cls(folding, ranks, dtype=weight.dtype, device=weight.device)
        count = len(folding.rows)
        tensor = weight.detach().double().reshape(*folding.rows, *folding.columns)
        axes = [axis for k in range(count) for axis in (k, count + k)]
        made._fill(balance_train(tt_svd(tensor.permute(axes).reshape(_pairs(folding)), ranks)))
        return made

    def balance(self) -> None:
        """Singular values at each bond, their roots on both sides."""
        self._fill(balance_train(self._train()))

    def spectrum(self, bond: int) -> Tensor:
        """After `balance` the singular values of the bond."""
        return train_spectrum(self._train(), bond)

    def _train(self) -> list[Tensor]:
        """Float64 cores with paired modes as one: (r, j i, r')."""
        return [c.detach().double().reshape(c.shape[0], -1, c.shape[3]) for c in self.cores]

    def _fill(self, cores: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, core in zip(self.cores, cores, strict=True):
                parameter.copy_(core.reshape(parameter.shape))


def _pairs(folding: Folding) -> Shape:
    """Sizes of the paired modes.

    Raises:
        ValueError: Modes are not in pairs, or a kernel is left over.
    """
    if len(folding.rows) != len(folding.columns) or len(folding.rows) < 2 or folding.kernel:
        raise ValueError(
            f"rows {folding.rows} and columns {folding.columns} are not two or more pairs of modes"
        )
    return tuple(j * i for j, i in zip(folding.rows, folding.columns, strict=True))


def _halves(cores: list[Tensor], split: int) -> tuple[Tensor, Tensor]:
    """The cores as two, (1, j1, i1, r) and (r, j2, i2, 1), differentiable."""
    first, last = cores[0], cores[-1]
    for core in cores[1:split]:
        first = merge_pair(first, core)
    for core in reversed(cores[split:-1]):
        last = merge_pair(core, last)
    return first, last


def _halved(folding: Folding, split: int) -> tuple[Shape, Shape]:
    """((j1, j2), (i1, i2)) of the halves."""
    rows, columns = folding.rows, folding.columns
    return (
        (prod(rows[:split]), prod(rows[split:])),
        (prod(columns[:split]), prod(columns[split:])),
    )


def _merging(folding: Folding, ranks: Shape, split: int) -> tuple[int, int]:
    """MACs of merging the cores of both halves, and numbers in what is merged."""
    pairs, bonds = _pairs(folding), (1, *ranks, 1)
    macs = sum(prod(pairs[: k + 1]) * bonds[k] * bonds[k + 1] for k in range(1, split))
    macs += sum(prod(pairs[k:]) * bonds[k] * bonds[k + 1] for k in range(split, len(pairs) - 1))
    left, right = prod(pairs[:split]), prod(pairs[split:])
    kept = left * ranks[split - 1] if split > 1 else 0
    kept += right * ranks[split - 1] if split < len(pairs) - 1 else 0
    return macs, kept


def _split(folding: Folding, ranks: Shape, batch: int) -> int:
    """The bond between the halves that run with the fewest MACs."""
    if len(folding.rows) == 2:
        return 1
    return min(range(1, len(folding.rows)), key=lambda k: _halves_macs(folding, ranks, k, batch))


def _halves_macs(folding: Folding, ranks: Shape, split: int, batch: int) -> int:
    ways = kron_orders(_halved(folding, split), ranks[split - 1], batch)
    return min(way.macs for way in ways) + _merging(folding, ranks, split)[0]


@lru_cache(maxsize=4096)
def _route(folding: Folding, ranks: Shape, batch: int) -> tuple[int, str, bool]:
    """The bond between the halves, the order, and whether it keeps what stands between."""
    split = _split(folding, ranks, batch)
    order = chosen_order(kron_orders(_halved(folding, split), ranks[split - 1], batch))
    return split, order.name, order.saved > 0


FORMAT = TensorTrainMatrix
