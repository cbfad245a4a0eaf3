"""CP: W(n1, ..., nd) = sum over r of U1[n1, r] U2[n2, r] ... Ud[nd, r]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Bond, Order
from edgecompress.training.factorized.chain import Step
from edgecompress.training.factorized.columns import columns_order, through_columns
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.halves import Flipped, Half
from edgecompress.training.factorized.linalg import cp_als, equal_norms
from edgecompress.training.factorized.pieces import Lookup, Piece, Product
from edgecompress.training.factorized.piecewise import is_recorded, sizes
from edgecompress.training.factorized.two_sided import TwoSided, Widths


@dataclass(frozen=True, slots=True)
class KhatriRao:
    """Factors (n, rank) merged to (n1 ... np, rank), column by column.

    Matrices are views of (rank, n1 ... np), so that going back is one product for each column.
    """

    rank_first: ClassVar[bool] = True

    def merge(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """From the left."""
        states = [cores[0]]
        for core in cores[1:]:
            state = states[-1].mT.unsqueeze(2) * core.mT.unsqueeze(1)
            states.append(state.reshape(core.shape[1], -1).mT)
        return states

    def spread(
        self, cores: Sequence[Tensor], partial: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """From the right."""
        gradients = []
        for core, before in zip(reversed(cores[1:]), reversed(partial), strict=True):
            blocks = gradient.mT.reshape(core.shape[1], before.shape[0], core.shape[0])
            ahead, own = before.mT.unsqueeze(1), core.mT.unsqueeze(2)
            gradients.append(torch.bmm(ahead, blocks).squeeze(1).mT)
            gradient = torch.bmm(blocks, own).squeeze(2).mT
        return [gradient, *reversed(gradients)]


def _two(factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All but the outermost merged, and the outermost."""
    if len(factors) == 1:
        return factors[0].new_ones(1, factors[0].shape[1]), factors[0]
    return KhatriRao().merge(factors[:-1])[-1], factors[-1]


class CanonicalPolyadic(TwoSided):
    """Modes: columns, the whole kernel as one mode if it is above 1x1, rows. Cores (n, rank).

    A convolution is 1x1, depthwise, 1x1.

    Source: Hitchcock 1927; Lebedev et al. 2015 for convolutions.
    """

    name: ClassVar[str] = "cp"
    ceiling: ClassVar[int] = 50

    @classmethod
    def modes(cls, folding: Folding) -> Shape:
        """Sizes of all modes, in the order of cores."""
        kernel = (prod(folding.kernel),) if prod(folding.kernel) > 1 else ()
        return (*folding.columns, *kernel, *folding.rows)

    @classmethod
    def max_ranks(cls, folding: Folding) -> Shape:
        """The product of all modes but the largest."""
        modes = cls.modes(folding)
        return (prod(modes) // max(modes),)

    @classmethod
    def core_shapes(cls, folding: Folding, ranks: Shape) -> tuple[Shape, ...]:
        """(n, rank)."""
        return tuple((size, ranks[0]) for size in cls.modes(folding))

    @classmethod
    def bonds(cls, folding: Folding) -> tuple[Bond, ...]:
        """One, in all cores.

        Source: Hawkins and Zhang 2021: one variance for a column in every factor.
        """
        members = tuple((k, 1) for k in range(len(cls.modes(folding))))
        return (Bond(members, members),)

    @classmethod
    def halves(cls, folding: Folding) -> tuple[Half, Half]:
        """Khatri-Rao products."""
        return KhatriRao(), Flipped(KhatriRao())

    @classmethod
    def widths(cls, folding: Folding, ranks: Shape) -> Widths:
        """The rank on both sides; a kernel scales each rank by itself."""
        return ranks[0], ranks[0], False

    @classmethod
    def merging(cls, folding: Folding, ranks: Shape) -> int:
        """One multiplication an entry of each partial product."""
        sides = (folding.columns, folding.rows)
        return ranks[0] * sum(prod(side[:k]) for side in sides for k in range(2, len(side) + 1))

    @classmethod
    def steps(cls, folding: Folding, ranks: Shape) -> tuple[Step, ...]:
        """None: ``columns`` is the way core by core."""
        return ()

    @classmethod
    def orders(cls, folding: Folding, ranks: Shape, batch: int) -> tuple[Order, ...]:
        """Also column by column, where neither half is made."""
        orders = super().orders(folding, ranks, batch)
        if folding.kernel:
            return orders
        ends = folding.rows[-1], folding.columns[-1]
        return (*orders, columns_order(folding.shape, ends, ranks[0], batch))

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out), the cheapest way; recorded, by its pieces."""
        if is_recorded() or self.route(x.numel() // self.folding.shape[1]).order != "columns":
            return super().multiply(x, bias)
        ahead, behind = self.sides(self.factors())
        return through_columns(x, bias, _two(ahead), _two(behind))

    def sides(self, cores: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Without the kernel's factor."""
        return cores[: len(self.folding.columns)], cores[-len(self.folding.rows) :]

    def middle(self, cores: list[Tensor]) -> Tensor | None:
        """The kernel's factor, one kernel a rank."""
        if prod(self.folding.kernel) == 1:
            return None
        factor = cores[len(self.folding.columns)]
        return factor.mT.reshape(-1, 1, *self.folding.kernel)

    def lookups(self, tokens: int) -> tuple[Piece, ...]:
        """Product of one row of each factor; trailing factors of fewer rows than tokens merge."""
        ahead, behind = self.sides(self.factors())
        rest = list(behind)
        while len(rest) > 1 and sizes(rest[-2])[0] * sizes(rest[-1])[0] <= tokens:
            rest[-2:] = KhatriRao().merge(rest[-2:])[-1:]
        pieces: list[Piece] = []
        stride = 1
        for factor in reversed(rest):
            pieces.append(Lookup(factor, stride))
            stride *= sizes(factor)[0]
        return (*pieces, Product(KhatriRao().merge(ahead)[-1]))

    @classmethod
    def from_dense(cls, weight: Tensor, folding: Folding, ranks: Shape) -> Self:
        """Alternating least squares; a good approximation, the best is not computable."""
        made = cls(folding, ranks, dtype=weight.dtype, device=weight.device)
        flat = weight.detach().double().reshape(*folding.shape[:2], -1)
        tensor = flat.permute(1, 2, 0).reshape(cls.modes(folding))
        if tensor.any():
            made.fill(equal_norms(cp_als(tensor, ranks[0])))
        return made

    def balance(self) -> None:
        """The same norm in every factor, column by column: all the freedom that CP has."""
        self.fill(equal_norms([core.detach().double() for core in self.cores]))

    def spectrum(self, bond: int) -> Tensor:
        """Norms of the rank-one terms."""
        del bond
        norms = [core.detach().double().norm(dim=0) for core in self.cores]
        return torch.stack(norms).prod(0)


FORMAT = CanonicalPolyadic
