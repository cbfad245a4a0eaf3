"""What each rank matters to the loss, read off the gradients while the network trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.linalg import slice_sums

EVERY = 4
"""Steps between two looks at the gradients. Source: a choice; a quarter of an epoch is enough for a
mean, and a look costs as much as a few small products."""


class RankImportance:
    """Mean squares of the loss's change, to first order, when an index of a bond is taken away.

    The energy that an index carries in the weight says little where inputs are far from white:
    directions that no input has keep what they were drawn with. The gradient knows.

    Args:
        factorization: Whose bonds.

    Source: Molchanov et al. 2019 (arXiv:1906.10771), there for channels.
    """

    def __init__(self, factorization: Factorization) -> None:
        self._factorization = factorization
        bonds = type(factorization).bonds(factorization.folding)
        self._places = [bond.members[0] for bond in bonds]
        self.sums: list[Tensor] = []

    @torch.no_grad()
    def observe(self) -> None:
        """Take note of the gradients as they are; none, or spread over processes: nothing."""
        seen = []
        for core, axis in self._places:
            parameter: Tensor = self._factorization.cores[core]
            gradient = parameter.grad
            if type(gradient) is not Tensor:
                return
            seen.append(slice_sums(parameter.detach() * gradient, axis).square())
        if self.sums:
            torch._foreach_add_(self.sums, seen)
        else:
            self.sums = seen

    def clear(self) -> None:
        """Forget everything: the gauge is about to change."""
        self.sums = []

    def load(self, sums: Sequence[Tensor]) -> None:
        """Take sums from a checkpoint, in place."""
        like = self._factorization.cores[0]
        self.sums = [part.to(like, copy=True) for part in sums]
