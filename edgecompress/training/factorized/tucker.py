"""Tucker: W = G x1 U1 x2 U2 ... xd Ud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Bond
from edgecompress.training.factorized.chain import Step
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.halves import Flipped, Half
from edgecompress.training.factorized.linalg import TINY, hooi, mode_product, project, svd, unfold
from edgecompress.training.factorized.pieces import Lookup, Piece, Product, View
from edgecompress.training.factorized.piecewise import sizes
from edgecompress.training.factorized.two_sided import TwoSided, Widths


@dataclass(frozen=True, slots=True)
class Kronecker:
    """Factors (n, r) merged to (n1 ... np, r1 ... rp)."""

    rank_first: ClassVar[bool] = False

    def merge(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """From the left."""
        states = [cores[0]]
        for core in cores[1:]:
            state = states[-1]
            product = state[:, None, :, None] * core[None, :, None, :]
            states.append(product.reshape(-1, state.shape[1] * core.shape[1]))
        return states

    def spread(
        self, cores: Sequence[Tensor], partial: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """From the right."""
        gradients = []
        for core, before in zip(reversed(cores[1:]), reversed(partial), strict=True):
            size, rank = core.shape
            blocks = gradient.reshape(before.shape[0], size, before.shape[1], rank)
            blocks = blocks.transpose(1, 2).reshape(before.numel(), size * rank)
            gradients.append((before.reshape(1, -1) @ blocks).reshape(core.shape))
            gradient = (blocks @ core.reshape(-1, 1)).reshape(before.shape)
        return [gradient, *reversed(gradients)]


class Tucker(TwoSided):
    """Modes: columns, rows; a kernel stays in the core. Cores: all factors (n, r), then G.

    A linear layer is projected mode by mode, or by halves with G as a matrix between them; a
    convolution is 1x1, the kernel, 1x1 (Tucker-2).

    Source: Tucker 1966; Kim et al. 2016 for convolutions.
    """

    name: ClassVar[str] = "tucker"
    ceiling: ClassVar[int] = 10
    """Four modes have a core of ten thousand numbers then."""

    @classmethod
    def max_ranks(cls, folding: Folding) -> Shape:
        """min(size of the mode, product of all others)."""
        modes = (*folding.columns, *folding.rows)
        return tuple(min(size, folding.entries // size) for size in modes)

    @classmethod
    def core_shapes(cls, folding: Folding, ranks: Shape) -> tuple[Shape, ...]:
        """(n, r) for each mode, then (r1, ..., rd, *kernel)."""
        modes = (*folding.columns, *folding.rows)
        return (*zip(modes, ranks, strict=True), (*ranks, *folding.kernel))

    @classmethod
    def bonds(cls, folding: Folding) -> tuple[Bond, ...]:
        """A factor's columns with an axis of G; the prior is about the columns.

        Source: Hawkins and Zhang 2021.
        """
        last = len(folding.columns) + len(folding.rows)
        return tuple(Bond(((k, 1), (last, k)), ((k, 1),)) for k in range(last))

    @classmethod
    def halves(cls, folding: Folding) -> tuple[Half, Half]:
        """Kronecker products."""
        return Kronecker(), Flipped(Kronecker())

    @classmethod
    def widths(cls, folding: Folding, ranks: Shape) -> Widths:
        """Products of the ranks, and G between."""
        split = len(folding.columns)
        return prod(ranks[:split]), prod(ranks[split:]), True

    @classmethod
    def merging(cls, folding: Folding, ranks: Shape) -> int:
        """One multiplication an entry of each partial product."""
        split = len(folding.columns)
        sides = ((folding.columns, ranks[:split]), (folding.rows, ranks[split:]))
        return sum(
            prod(modes[:k]) * prod(widths[:k])
            for modes, widths in sides
            for k in range(2, len(modes) + 1)
        )

    @classmethod
    def steps(cls, folding: Folding, ranks: Shape) -> tuple[Step, ...]:
        """Columns shrink, the last mode first, which is one large product; G turns, rows grow."""
        split = len(folding.columns)
        ahead, behind = ranks[:split], ranks[split:]
        steps = [Step(k, folding.columns[k], ahead[k], prod(ahead[k + 1 :])) for k in range(split)]
        steps.reverse()
        steps.append(Step(len(ranks), prod(ahead), prod(behind)))
        tail = prod(behind)
        for k, (size, rank) in enumerate(zip(folding.rows, behind, strict=True)):
            tail //= rank
            steps.append(Step(split + k, rank, size, tail, flip=True))
        return tuple(steps)

    def sides(self, cores: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Without G."""
        split = len(self.folding.columns)
        return cores[:split], cores[split:-1]

    def middle(self, cores: list[Tensor]) -> Tensor | None:
        """G with its ranks merged."""
        split = len(self.folding.columns)
        left = prod(cores[-1].shape[:split])
        return cores[-1].reshape(left, -1, *self.folding.kernel)

    def lookups(self, tokens: int) -> tuple[Piece, ...]:
        """Outer product of one row of each factor, then G and the columns."""
        ahead, behind = self.sides(self.factors())
        pieces: list[Piece] = []
        stride, width = prod(self.folding.rows), 1
        for factor in behind:
            rows, rank = sizes(factor)
            stride //= rows
            width *= rank
            pieces += [Lookup(factor.unsqueeze(1), stride), View((width, 1), taken=2)]
        pieces[-1] = View((width,), taken=2)
        middle = self.factors()[-1].reshape(-1, width)
        return (*pieces, Product(middle), Product(Kronecker().merge(ahead)[-1]))

    def reset(self, std: float, generator: torch.Generator | None = None) -> None:
        """As for any format; then columns of a factor become orthogonal, at the same variance.

        Source: orthogonal columns are a choice.
        """
        super().reset(std, generator)
        each = self.deviation(std)
        with torch.no_grad():
            for factor in list(self.cores)[:-1]:
                columns, triangle = torch.linalg.qr(factor.double())
                sign = torch.where(triangle.diagonal() < 0, -1.0, 1.0)
                factor.copy_(columns * sign * each * factor.shape[0] ** 0.5)

    @classmethod
    def from_dense(cls, weight: Tensor, folding: Folding, ranks: Shape) -> Self:
        """Higher-order orthogonal iteration."""
        made = cls(folding, ranks, dtype=weight.dtype, device=weight.device)
        tensor = weight.detach().double().transpose(0, 1)
        tensor = tensor.reshape(*folding.columns, *folding.rows, *folding.kernel)
        factors, core = hooi(tensor, ranks)
        made.fill(_balanced(factors, core))
        return made

    def balance(self) -> None:
        """Orthogonal columns of factors and orthogonal slices of G (higher-order SVD); a column
        has the norm s^(1/d), s the singular value of its mode and d the number of factors, which
        keeps the entries of G at most 1.

        Source: De Lathauwer, De Moor and Vandewalle 2000.
        """
        *factors, core = [core.detach().double() for core in self.cores]
        for k, factor in enumerate(factors):
            factors[k], r = torch.linalg.qr(factor)
            core = mode_product(core, r, k)
        self.fill(_balanced(factors, core))

    def spectrum(self, bond: int) -> Tensor:
        """Norm of a factor's column times that of what the rest makes of its slice: after
        `balance` the singular values of the mode."""
        *factors, core = [core.detach().double() for core in self.cores]
        grams = [factor.mT @ factor for factor in factors]
        other = core
        for k, gram in enumerate(grams):
            other = other if k == bond else mode_product(other, gram, k)
        slices = (unfold(core, bond) * unfold(other, bond)).sum(1)
        squares: Tensor = grams[bond].diagonal() * slices
        return squares.clamp_min(0).sqrt()


def _balanced(factors: Sequence[Tensor], core: Tensor) -> list[Tensor]:
    """The balanced gauge from factors with orthonormal columns."""
    turned, values = [], []
    for k, _ in enumerate(factors):
        u, s, _ = svd(unfold(core, k))
        turned.append(torch.nn.functional.pad(u, (0, core.shape[k] - u.shape[1])))
        values.append(torch.nn.functional.pad(s, (0, core.shape[k] - s.shape[0])))
    core = project(core, turned)
    cores = []
    for k, (factor, u, s) in enumerate(zip(factors, turned, values, strict=True)):
        usable = s > TINY * s.max()
        root = torch.where(usable, s, 0.0) ** (1 / len(factors))
        inverse = torch.where(usable, 1 / torch.where(usable, root, 1.0), 0.0)
        cores.append(factor @ u * root)
        core = mode_product(core, inverse.diag(), k)
    return [*cores, core]


FORMAT = Tucker
