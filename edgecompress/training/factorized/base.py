"""What every tensor format of a trainable weight promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Protocol, Self, cast

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.pieces import Lookup, Piece, View
from edgecompress.training.factorized.piecewise import sizes


@dataclass(frozen=True, slots=True)
class Bond:
    """One rank of a format: the places where it runs.

    Attributes:
        members: (core, axis) pairs that all have the rank's size and are cut together.
        charged: Those of them whose slices the prior on this rank's variance is about.
    """

    members: tuple[tuple[int, int], ...]
    charged: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One way to run a layer, with its closed-form price for one batch.

    Attributes:
        name: ``fused``, ``pieces``, ``rebuild`` ...
        macs: Multiply-accumulates of a forward pass.
        saved: Numbers that autograd keeps until the backward pass, the input left out.
        scratch: Largest number of intermediate numbers alive at once.
    """

    name: str
    macs: int
    saved: int
    scratch: int


class CoreView(Protocol):
    """Cores as a pass uses them: sampled around their means, or rounded.

    Implementations are modules, so that what they train belongs to the network.
    """

    def __call__(self, cores: list[Tensor]) -> list[Tensor]:
        """The cores to compute with, differentiable."""
        ...

    def cut(self, core: int, axis: int, kept: Tensor) -> None:
        """Keep these slices of one core, in place, in whatever belongs to it."""
        ...


def replace_values(parameter: nn.Parameter, values: Tensor) -> None:
    """Give a parameter values of any shape, in place; its identity stays."""
    # While a graph that used the parameter is alive (the last batch's loss, say), autograd holds
    # on to the old shape and the next backward pass fails; a change of type makes it forget.
    other = torch.float64 if values.dtype != torch.float64 else torch.float32
    parameter.data = torch.empty(0, dtype=other, device=values.device)
    parameter.data = values


def keep_slices(parameter: nn.Parameter, axis: int, kept: Tensor) -> None:
    """Keep these slices of a parameter and of its gradient, in place; its identity stays."""
    gradient, kept = parameter.grad, kept.to(parameter.device)
    parameter.grad = None
    replace_values(parameter, parameter.data.index_select(axis, kept))
    if gradient is not None:
        parameter.grad = gradient.index_select(axis, kept)


class Factorization(nn.Module, ABC):
    """A weight that exists as cores only.

    Args:
        folding: The modes.
        ranks: One for each bond, from 1 to `max_ranks`.

    The cores are zero until `reset` or `from_dense` fills them. ``views`` change the cores on their
    way into a pass; parameters stay what the optimiser sees.
    """

    name: ClassVar[str]
    ceiling: ClassVar[int] = 20
    """Largest rank to start from when nobody named one."""

    def __init__(
        self,
        folding: Folding,
        ranks: Shape,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        largest = self.max_ranks(folding)
        if len(ranks) != len(largest) or any(
            not 1 <= rank <= most for rank, most in zip(ranks, largest, strict=True)
        ):
            raise ValueError(f"ranks {ranks} are not between 1 and {largest}")
        self.folding = folding
        self.cores = nn.ParameterList(
            torch.zeros(shape, dtype=dtype, device=device)
            for shape in self.core_shapes(folding, ranks)
        )
        self.views = nn.ModuleList()

    # What a format says without existing.

    @classmethod
    @abstractmethod
    def fold(cls, shape: Shape, cores: int | None = None) -> Folding:
        """The folding that the format would choose for a canonical weight shape."""

    @classmethod
    @abstractmethod
    def max_ranks(cls, folding: Folding) -> Shape:
        """The largest useful rank of each bond; the weight is exact there."""

    @classmethod
    @abstractmethod
    def core_shapes(cls, folding: Folding, ranks: Shape) -> tuple[Shape, ...]:
        """Shapes of the cores."""

    @classmethod
    @abstractmethod
    def bonds(cls, folding: Folding) -> tuple[Bond, ...]:
        """All bonds, in the order of ranks."""

    @classmethod
    @abstractmethod
    def orders(cls, folding: Folding, ranks: Shape, batch: int) -> tuple[Order, ...]:
        """Ways to run the layer on ``batch`` rows (of a convolution: output positions)."""

    # What it is.

    @property
    def ranks(self) -> Shape:
        """Rank of each bond, read off the cores."""
        first = (bond.members[0] for bond in self.bonds(self.folding))
        return tuple(sizes(self.cores[core])[axis] for core, axis in first)

    @property
    def count(self) -> int:
        """Numbers in the cores."""
        return sum(core.numel() for core in self.cores)

    def factors(self) -> list[Tensor]:
        """The cores as this pass uses them."""
        cores = self.parameters_of_cores()
        for view in self._views():
            cores = view(cores)
        return cores

    def parameters_of_cores(self) -> list[Tensor]:
        """The cores as a list; faster than iterating the parameter list, which looks names up."""
        return cast(list[Tensor], list(self.cores._parameters.values()))

    @abstractmethod
    def dense(self) -> Tensor:
        """The weight, canonical shape, differentiable."""

    @abstractmethod
    def pieces(self) -> tuple[Piece, ...]:
        """The layer as a chain of plain operations, differentiable; what is exported."""

    def lookups(self, tokens: int) -> tuple[Piece, ...]:
        """The table as a chain that starts from row indices, differentiable; what is exported.

        Args:
            tokens: About how many rows are asked at once; says how much may be merged before.
        """
        del tokens
        table = self.dense()
        return (Lookup(table.unsqueeze(1), 1), View((table.shape[1],), taken=2))

    # What it does.

    @abstractmethod
    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out), the cheapest way; matrices only."""

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """Rows of a table by index: (...) -> (..., width); the table is never made."""

    # How it is filled.

    def reset(self, std: float, generator: torch.Generator | None = None) -> None:
        """Draw cores such that entries of the weight have this standard deviation, in place."""
        each = self.deviation(std)
        with torch.no_grad():
            for core in self.cores:
                core.normal_(0.0, each, generator=generator)

    def reset_table(self, std: float, generator: torch.Generator | None = None) -> None:
        """As `reset`, for a table whose rows are looked up; formats may have a better start."""
        self.reset(std, generator)

    def deviation(self, std: float) -> float:
        """Of entries of the cores where those of the weight have ``std``: an entry of the weight is
        a sum of prod(ranks) products of one number from each core.

        Source: the variance of such a sum; Hawkins and Zhang 2021 with all ranks equal.
        """
        return float((std**2 / prod(self.ranks)) ** (1 / (2 * len(self.cores))))

    @classmethod
    @abstractmethod
    def from_dense(cls, weight: Tensor, folding: Folding, ranks: Shape) -> Self:
        """The best (or a good) approximation of a weight; computed in float64."""

    # How ranks are read and cut.

    @abstractmethod
    def balance(self) -> None:
        """Put the cores into the balanced gauge, in place; the weight does not change.

        In it, slices of a bond are orthogonal on each side where the format has that freedom, and
        both sides carry the same energy.
        """

    @abstractmethod
    def spectrum(self, bond: int) -> Tensor:
        """What each index of a bond contributes, after `balance`: singular values of the bond, or
        the norms that the format has instead; (rank,), not sorted."""

    def cut(self, bond: int, kept: Sequence[int] | Tensor) -> None:
        """Keep these indices of a bond, in place: parameters, their gradients and views shrink.

        Parameters keep their identity. Optimiser state is the caller's (`adaptation.cutting`).

        Raises:
            ValueError: None is kept.
        """
        kept = torch.as_tensor(kept, dtype=torch.long, device=self.cores[0].device)
        if not kept.numel():
            raise ValueError("at least one index of a bond is kept")
        for core, axis in self.bonds(self.folding)[bond].members:
            keep_slices(self.cores[core], axis, kept)
            for view in self._views():
                view.cut(core, axis, kept)

    def _views(self) -> list[CoreView]:
        return cast(list[CoreView], list(self.views._modules.values()))
