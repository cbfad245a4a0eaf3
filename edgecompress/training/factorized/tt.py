"""Tensor train: W(n1, ..., nd) = G1[n1, :] G2[:, n2, :] ... Gd[:, nd]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

from torch import Tensor

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Bond
from edgecompress.training.factorized.chain import Step
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.halves import Half
from edgecompress.training.factorized.linalg import balance_train, train_spectrum, tt_svd
from edgecompress.training.factorized.pieces import Lookup, Piece, Product, View
from edgecompress.training.factorized.piecewise import sizes
from edgecompress.training.factorized.two_sided import TwoSided, Widths


@dataclass(frozen=True, slots=True)
class TrainLeft:
    """Cores (r, n, r'), the first r is 1, merged to (n1 ... np, r')."""

    rank_first: ClassVar[bool] = False

    def merge(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """From the left."""
        state = cores[0].reshape(-1, cores[0].shape[2])
        states = [state]
        for core in cores[1:]:
            left, _, right = core.shape
            state = (state @ core.reshape(left, -1)).reshape(-1, right)
            states.append(state)
        return states

    def spread(
        self, cores: Sequence[Tensor], partial: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """From the right."""
        gradients = []
        for core, before in zip(reversed(cores[1:]), reversed(partial), strict=True):
            flat = core.reshape(core.shape[0], -1)
            gradient = gradient.reshape(before.shape[0], flat.shape[1])
            gradients.append((before.mT @ gradient).reshape(core.shape))
            gradient = gradient @ flat.mT
        return [gradient.reshape(cores[0].shape), *reversed(gradients)]


@dataclass(frozen=True, slots=True)
class TrainRight:
    """Cores (r, n, r'), the last r' is 1, merged to (r, n1 ... nq)."""

    rank_first: ClassVar[bool] = False

    def merge(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """From the right."""
        state = cores[-1].reshape(cores[-1].shape[0], -1)
        states = [state]
        for core in reversed(cores[:-1]):
            left, _, right = core.shape
            state = (core.reshape(-1, right) @ state).reshape(left, -1)
            states.append(state)
        return states

    def spread(
        self, cores: Sequence[Tensor], partial: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """From the left."""
        gradients = []
        for core, before in zip(cores[:-1], reversed(partial), strict=True):
            flat = core.reshape(-1, core.shape[2])
            gradient = gradient.reshape(flat.shape[0], before.shape[1])
            gradients.append((gradient @ before.mT).reshape(core.shape))
            gradient = flat.mT @ gradient
        return [*gradients, gradient.reshape(cores[-1].shape)]


class TensorTrain(TwoSided):
    """Modes: columns, the whole kernel as one mode if it is above 1x1, rows. Cores (r, n, r').

    Source: Oseledets 2011; two halves: the bond between columns and rows is the matrix rank.
    """

    name: ClassVar[str] = "tt"

    @classmethod
    def modes(cls, folding: Folding) -> Shape:
        """Sizes of all modes, in the order of cores."""
        kernel = (prod(folding.kernel),) if prod(folding.kernel) > 1 else ()
        return (*folding.columns, *kernel, *folding.rows)

    @classmethod
    def max_ranks(cls, folding: Folding) -> Shape:
        """min(product of the modes before, product of those behind)."""
        modes = cls.modes(folding)
        return tuple(min(prod(modes[:k]), prod(modes[k:])) for k in range(1, len(modes)))

    @classmethod
    def core_shapes(cls, folding: Folding, ranks: Shape) -> tuple[Shape, ...]:
        """(r, n, r')."""
        modes = cls.modes(folding)
        return tuple(zip((1, *ranks), modes, (*ranks, 1), strict=True))

    @classmethod
    def bonds(cls, folding: Folding) -> tuple[Bond, ...]:
        """Right axis of a core with the left axis of the next; the prior is about the right axis,
        at the last bond about both.

        Source: Hawkins and Zhang 2021.
        """
        count = len(cls.modes(folding))
        bonds = []
        for k in range(count - 1):
            members = ((k, 2), (k + 1, 0))
            bonds.append(Bond(members, members if k == count - 2 else members[:1]))
        return tuple(bonds)

    @classmethod
    def halves(cls, folding: Folding) -> tuple[Half, Half]:
        """Merged towards the middle bond."""
        return TrainLeft(), TrainRight()

    @classmethod
    def widths(cls, folding: Folding, ranks: Shape) -> Widths:
        """The ranks next to the middle."""
        split, kernel = len(folding.columns), prod(folding.kernel) > 1
        return ranks[split - 1], ranks[split if kernel else split - 1], kernel

    @classmethod
    def merging(cls, folding: Folding, ranks: Shape) -> int:
        """Each core but the outermost is one product with what is merged already."""
        shapes = cls.core_shapes(folding, ranks)
        ahead, behind = shapes[: len(folding.columns)], shapes[-len(folding.rows) :]
        macs = sum(prod(folding.columns[:k]) * prod(shape) for k, shape in enumerate(ahead) if k)
        rows = folding.rows
        return macs + sum(prod(rows[k + 1 :]) * prod(shape) for k, shape in enumerate(behind[:-1]))

    @classmethod
    def steps(cls, folding: Folding, ranks: Shape) -> tuple[Step, ...]:
        """Columns contract (r n) to r', rows expand r to (n r')."""
        steps, tail = [], prod(folding.columns)
        for k, (left, size, right) in enumerate(cls.core_shapes(folding, ranks)):
            if k < len(folding.columns):
                tail //= size
                steps.append(Step(k, left * size, right, tail))
            else:
                steps.append(Step(k, left, size * right))
        return tuple(steps)

    def sides(self, cores: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Without the kernel's core."""
        return cores[: len(self.folding.columns)], cores[-len(self.folding.rows) :]

    def middle(self, cores: list[Tensor]) -> Tensor | None:
        """The kernel's core."""
        if prod(self.folding.kernel) == 1:
            return None
        core = cores[len(self.folding.columns)]
        return core.transpose(1, 2).reshape(core.shape[0], core.shape[2], *self.folding.kernel)

    def lookups(self, tokens: int) -> tuple[Piece, ...]:
        """From the last digit to the first; trailing cores of fewer rows than tokens are merged."""
        ahead, behind = self.sides(self.factors())
        merged, rest = behind[-1], list(behind[:-1])
        while rest and sizes(rest[-1])[1] * sizes(merged)[1] <= tokens:
            core = rest.pop()
            left, _, right = sizes(core)
            merged = (core.reshape(-1, right) @ merged.reshape(right, -1)).reshape(left, -1, 1)
        stride = sizes(merged)[1]
        pieces: list[Piece] = [Lookup(merged.permute(1, 2, 0), 1)]
        for core in reversed(rest):
            pieces.append(Lookup(core.permute(1, 2, 0), stride))
            stride *= sizes(core)[1]
        left_half = TrainLeft().merge(ahead)[-1]
        return (*pieces, View(sizes(left_half)[1:], taken=2), Product(left_half))

    @classmethod
    def from_dense(cls, weight: Tensor, folding: Folding, ranks: Shape) -> Self:
        """TT-SVD; its error is at most sqrt(bonds) times the least.

        Source: Oseledets 2011.
        """
        made = cls(folding, ranks, dtype=weight.dtype, device=weight.device)
        flat = weight.detach().double().reshape(*folding.shape[:2], -1)
        cores = tt_svd(flat.permute(1, 2, 0).reshape(cls.modes(folding)), ranks)
        made.fill(balance_train(cores))
        return made

    def balance(self) -> None:
        """Singular values at each bond, their roots on both sides."""
        self.fill(balance_train([core.detach().double() for core in self.cores]))

    def spectrum(self, bond: int) -> Tensor:
        """After `balance` the singular values of the bond."""
        return train_spectrum([core.detach().double() for core in self.cores], bond)


FORMAT = TensorTrain
