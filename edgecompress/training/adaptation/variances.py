"""The variances of a factorization's ranks, and the penalty that they put on its cores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecompress.core.training import Prior
from edgecompress.training.adaptation.priors import best_variances, slice_objective
from edgecompress.training.adaptation.sampling import SampledCores
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.linalg import slice_sums


class RankVariances:
    """One variance for each rank of a factorization, in closed form.

    Args:
        factorization: Whose bonds; which slices a rank is charged for is the format's
            `Bond.charged`.
        prior: The hyper-prior on the standard deviations.
        scale: eta of the half-Cauchy prior.
        sampled: The view that samples the cores; None: the cores are points.
    """

    def __init__(
        self,
        factorization: Factorization,
        prior: Prior,
        scale: float,
        *,
        sampled: SampledCores | None = None,
    ) -> None:
        self.factorization = factorization
        self.prior: Prior = prior
        self.scale = scale
        self.sampled = sampled
        self.variances: list[Tensor] = []
        self._bonds = type(factorization).bonds(factorization.folding)
        self.refresh()

    def energies(self) -> list[Tensor]:
        """Squares (plus posterior variances) of the slices of each bond; differentiable."""
        squares: dict[int, Tensor] = {}
        result = []
        for bond in self._bonds:
            parts = []
            for core, axis in bond.charged:
                if core not in squares:
                    squares[core] = self._square(core)
                parts.append(slice_sums(squares[core], axis))
            result.append(sum(parts[1:], parts[0]))
        return result

    def entries(self, bond: int) -> int:
        """Entries that one rank of a bond is charged for."""
        cores = self.factorization.cores
        return sum(
            cores[core].numel() // cores[core].shape[axis]
            for core, axis in self._bonds[bond].charged
        )

    def penalty(self, *, refresh: bool = True) -> Tensor:
        """Cost of the cores under their variances, which are updated first unless ``refresh`` is
        false; a scalar.

        Points: sum of mu^2 / (2 lambda), whose gradient is that of the whole objective, since the
        variances sit at its minimum. Sampled: the divergence of the posterior from the prior,
        sum of (sigma^2/lambda + mu^2/lambda - 1 - log(sigma^2/lambda)) / 2.
        """
        energies = self.energies()
        if not energies:
            nothing: Tensor = next(iter(self.factorization.cores)).new_zeros(())
            return nothing
        if refresh:
            self.variances = self._best(energies)
        terms = [
            0.5 * (energy / variance).sum()
            for energy, variance in zip(energies, self.variances, strict=True)
        ]
        if self.sampled is not None:
            logs = [
                0.5 * self.entries(bond) * variance.log().sum()
                for bond, variance in enumerate(self.variances)
            ]
            terms += [*logs, -self.sampled.entropy()]
        return torch.stack(terms).sum()

    @torch.no_grad()
    def objective(self) -> float:
        """The whole negative log prior of cores and variances, constants left out."""
        parts = [
            slice_objective(variance, energy, self.entries(bond), self.prior, self.scale).sum()
            for bond, (energy, variance) in enumerate(
                zip(self.energies(), self.variances, strict=True)
            )
        ]
        return float(sum(parts))

    @torch.no_grad()
    def refresh(self) -> None:
        """Put every variance at its best for the cores as they are, in place."""
        self.variances = self._best(self.energies())

    def load(self, variances: Sequence[Tensor]) -> None:
        """Take variances from a checkpoint, in place."""
        likes = self.energies()
        if [v.shape for v in variances] != [e.shape for e in likes]:
            raise ValueError("the variances do not belong to these ranks")
        self.variances = [v.to(e, copy=True) for v, e in zip(variances, likes, strict=True)]

    def _square(self, core: int) -> Tensor:
        square: Tensor = self.factorization.cores[core].square()
        if self.sampled is not None and (spread := self.sampled.variance(core)) is not None:
            return square + spread
        return square

    def _best(self, energies: Sequence[Tensor]) -> list[Tensor]:
        return [
            best_variances(energy.detach(), self.entries(bond), self.prior, self.scale)
            for bond, energy in enumerate(energies)
        ]
