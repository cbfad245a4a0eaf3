"""Cores as random variables: a Gaussian around each entry, sampled in every training pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from edgecompress.training.factorized.base import Bond, keep_slices

START_SHARE = 0.05
"""Standard deviation of an entry at the start, as a share of its core's root mean square: small
enough not to disturb a network that begins to learn. Source: our choice."""
LEAST_LOG = log(1e-12)


class SampledCores(nn.Module):
    """A core view that draws every charged core around its mean while it trains.

    Cores that no rank is charged for stay points, as in the released code of the method. In
    evaluation the means are used.

    Args:
        cores: The means.
        bonds: Of their format.
        generator: Of the noise; None: torch's own, whose state the training loop keeps.
    """

    def __init__(
        self,
        cores: Sequence[Tensor],
        bonds: Sequence[Bond],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        charged = {core for bond in bonds for core, _ in bond.charged}
        self.log_sigma = nn.ParameterDict(
            {
                str(core): nn.Parameter(
                    torch.full_like(means.detach(), START_SHARE)
                    .mul(means.detach().square().mean().sqrt())
                    .log()
                    .clamp_min(LEAST_LOG)
                )
                for core, means in enumerate(cores)
                if core in charged
            }
        )
        self._axes: dict[int, tuple[int, ...]] = {
            core: tuple(sorted({a for bond in bonds for c, a in bond.members if c == core}))
            for core in charged
        }
        self._generator = generator

    def forward(self, cores: list[Tensor]) -> list[Tensor]:
        """Samples in training, the means in evaluation; gradients reach means and deviations.

        Source: the reparametrised Gaussian of Kingma and Welling 2014.
        """
        if not self.training:
            return cores
        return [
            self._sample(core, str(place)) if str(place) in self.log_sigma else core
            for place, core in enumerate(cores)
        ]

    def variance(self, core: int) -> Tensor | None:
        """Posterior variances of a core's entries, differentiable; None: it is a point."""
        if str(core) not in self.log_sigma:
            return None
        logs: Tensor = self.log_sigma[str(core)]
        return torch.exp(2 * logs)

    def entropy(self) -> Tensor:
        """Sum of log sigma + 1/2 over all sampled entries; a scalar, differentiable."""
        logs: list[Tensor] = list(self.log_sigma.values())
        entries = sum(part.numel() for part in logs)
        return torch.stack([part.sum() for part in logs]).sum() + 0.5 * entries

    def cut(self, core: int, axis: int, kept: Tensor) -> None:
        """Keep these slices of one core's deviations, in place."""
        if str(core) not in self.log_sigma:
            return
        keep_slices(self.log_sigma[str(core)], axis, kept)

    @torch.no_grad()
    def noise_shares(self, cores: Sequence[Tensor]) -> dict[int, Tensor]:
        """Noise energy of each core as a share of its signal's; scalars."""
        tiny = torch.finfo(cores[0].dtype).tiny
        return {
            int(name): torch.exp(2 * logs).sum() / cores[int(name)].square().sum().clamp_min(tiny)
            for name, logs in self.log_sigma.items()
        }

    @torch.no_grad()
    def spread(self, cores: Sequence[Tensor], shares: dict[int, Tensor]) -> None:
        """Lay the noise anew over cores whose gauge has changed, in place.

        A rotation of a bond mixes entries, so deviations by entry have no counterpart after it.
        Each core keeps its share of noise, laid over its slices in proportion to their energy.
        """
        for core, share in shares.items():
            energy = cores[core].square()
            total = energy.sum()
            tiny = torch.finfo(energy.dtype).tiny
            level = torch.full_like(energy, 1.0 / energy.numel())
            for axis in self._axes[core]:
                others = [a for a in range(energy.ndim) if a != axis]
                part = energy.sum(others, keepdim=True) if others else energy
                level = level * part * part.numel() / total.clamp_min(tiny)
            logs = 0.5 * (level * total * share).clamp_min(tiny).log()
            self.log_sigma[str(core)].data = logs.clamp_min(LEAST_LOG)

    def _sample(self, core: Tensor, name: str) -> Tensor:
        noise = torch.empty_like(core).normal_(generator=self._generator)
        return torch.addcmul(core, torch.exp(self.log_sigma[name]), noise)
