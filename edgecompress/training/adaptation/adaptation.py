"""Ranks of a whole network, found while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.core.training import AdaptationOptions
from edgecompress.training.adaptation.controller import Controller, ControllerState
from edgecompress.training.adaptation.cutting import HasState, cut_bond, pool_moments
from edgecompress.training.adaptation.fallback import Fallback
from edgecompress.training.adaptation.importance import EVERY, RankImportance
from edgecompress.training.adaptation.levelling import (
    core_sizes,
    follow_sizes,
    follow_slices,
    level_cores,
)
from edgecompress.training.adaptation.sampling import SampledCores
from edgecompress.training.adaptation.trimming import Spectra, spare_numbers, trimmed
from edgecompress.training.adaptation.variances import RankVariances
from edgecompress.training.factorized.base import Factorization


@dataclass(frozen=True, slots=True)
class RankChange:
    """What one layer's ranks became.

    Attributes:
        layer: Name of the factorization in the network.
        before: Ranks until now.
        after: Ranks from now on.
    """

    layer: str
    before: Shape
    after: Shape


class RankAdaptation:
    """Puts the prior on all factorizations of a network and lets their ranks fall.

    Use: add `penalty` to the mean loss of a batch, call `after_step` after each step of the
    optimiser and `end_epoch` after each epoch. Make the optimiser afterwards: in the Bayesian form
    the network has more parameters then.

    Args:
        network: Any module with factorizations in it.
        options: What was asked.
        samples: Training samples.
        epochs: Length of the run.
        generator: Of the noise of sampled cores.

    Raises:
        ValueError: The target is below what the network has at its least ranks.
    """

    def __init__(
        self,
        network: nn.Module,
        options: AdaptationOptions,
        *,
        samples: int,
        epochs: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.options = options
        self.network = network
        self.samples = samples
        self.epochs = epochs
        self.settled = False
        self.controller = Controller(options)
        self._fallback = Fallback()
        self.layers = tuple(_factorizations(network))
        self._epoch = 0
        self._step = 0
        self._steps = 0
        least = self.least_parameters()
        if options.target_params is not None and options.target_params < least:
            raise ValueError(
                f"{options.target_params} parameters cannot be had: "
                f"{least} remain at rank {options.floor}"
            )
        self._variances = {name: self._prior(part, generator) for name, part in self.layers}
        self._importance = {name: RankImportance(part) for name, part in self.layers}

    # What the training loop calls.

    def penalty(self, *, refresh: bool = True) -> Tensor:
        """Cost of the cores under the prior, to be added to a batch's mean loss; a scalar.

        Args:
            refresh: Let the variances follow the cores first. The cost at perturbed cores, from
                which a slope is found, is that under the variances of the cores themselves.
        """
        weight = self.weight
        if weight == 0 or not self._variances:
            return self._zero()
        parts = [variances.penalty(refresh=refresh) for variances in self._variances.values()]
        return torch.stack(parts).sum() * (weight / self.samples)

    def after_step(self) -> None:
        """Count a step of the optimiser, before its gradients are forgotten: the warm-up advances
        inside an epoch as well, and what ranks matter to the loss is learned."""
        self._step += 1
        if self.controller.limited and not self.settled and self._step % EVERY == 0:
            for importance in self._importance.values():
                importance.observe()

    def end_epoch(
        self,
        epoch: int,
        optimizer: HasState | None,
        *,
        loss: float,
        validation_loss: float | None = None,
    ) -> tuple[RankChange, ...]:
        """Balance the gauge, let dead ranks go and trim to what is allowed now, in place; or take
        back what was trimmed last.

        Args:
            epoch: The one that has ended, from 0.
            optimizer: Its state shrinks along.
            loss: Mean training loss of the epoch.
            validation_loss: What the tolerance is judged by where there is one.

        Returns:
            The layers whose ranks changed.
        """
        self._epoch, self._steps, self._step = epoch + 1, max(self._step, 1), 0
        if self.settled:
            return ()
        progress = (epoch + 1) / self.epochs
        judged = loss if validation_loss is None else validation_loss
        self.controller.observe(progress, self.parameter_count(), judged)
        last = progress >= self.options.schedule.settle
        if not last and (epoch + 1) % self.options.balance_epochs:
            return ()
        before = {name: part.ranks for name, part in self.layers}
        self._secure(progress, optimizer)
        if self.controller.pressing(progress):
            self._trim(progress, optimizer)
        self._balance(optimizer, last=last)
        if self.controller.pressing(progress):
            self._cut(progress, optimizer)
        for variances in self._variances.values():
            variances.refresh()
        self.settled = last
        if last:
            self._fallback.kept = []
        return tuple(
            RankChange(name, before[name], part.ranks)
            for name, part in self.layers
            if part.ranks != before[name]
        )

    # What there is to know.

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        part = min(self._step / self._steps, 1.0) if self._steps else 0.0
        return (self._epoch + part) / self.epochs

    @property
    def weight(self) -> float:
        """Weight of the penalty now, in units of 1/N."""
        return 0.0 if self.settled else self.controller.weight(self.progress)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the Bayesian form trains beside the network's own parameters."""
        for _, part in self.layers:
            for view in part.views:
                if isinstance(view, SampledCores):
                    yield from view.parameters()

    def parameter_count(self) -> int:
        """Parameters of the whole network, deviations of sampled cores left out."""
        beside = {id(parameter) for parameter in self.parameters()}
        return sum(p.numel() for p in self.network.parameters() if id(p) not in beside)

    def least_parameters(self) -> int:
        """Parameters of the whole network at the least ranks."""
        spare = spare_numbers((part for _, part in self.layers), self.options.floor)
        return self.parameter_count() - spare

    def variances(self, layer: str) -> RankVariances:
        """The rank variances of one layer."""
        return self._variances[layer]

    def objective(self) -> float:
        """The whole negative log prior, constants left out."""
        return sum(variances.objective() for variances in self._variances.values())

    # Checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to continue bit for bit."""
        return {
            "controller": asdict(self.controller.state),
            "fallback": self._fallback.kept,
            "settled": self.settled,
            "place": (self._epoch, self._step, self._steps),
            "importance": {name: list(part.sums) for name, part in self._importance.items()},
            "variances": {name: list(v.variances) for name, v in self._variances.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, in place; the network has the ranks of that moment."""
        self.controller.state = ControllerState(**state["controller"])
        self._fallback.kept = state["fallback"]
        self.settled = state["settled"]
        self._epoch, self._step, self._steps = state["place"]
        for name, variances in self._variances.items():
            variances.load(state["variances"][name])
            self._importance[name].load(state["importance"][name])

    # How.

    def _prior(self, part: Factorization, generator: torch.Generator | None) -> RankVariances:
        sampled = None
        if self.options.inference == "bayesian":
            bonds = type(part).bonds(part.folding)
            sampled = SampledCores(list(part.cores), bonds, generator)
            sampled.train(part.training)
            part.views.insert(0, sampled)
        return RankVariances(part, self.options.prior, self.options.scale, sampled=sampled)

    def _zero(self) -> Tensor:
        like = next(self.network.parameters(), None)
        if like is None:
            return torch.zeros(())
        return torch.zeros((), dtype=like.dtype, device=like.device)  # never a spread one

    @torch.no_grad()
    def _balance(self, optimizer: HasState | None, *, last: bool) -> None:
        for name, part in self.layers:
            self._importance[name].clear()
            sampled = self._variances[name].sampled
            shares = None if sampled is None else sampled.noise_shares(list(part.cores))
            sizes = core_sizes(part)
            part.balance()
            level_cores(part, settled=last)
            if sampled is not None and shares is not None:
                sampled.spread(list(part.cores), shares)
            if optimizer is not None:
                pool_moments(optimizer, part.parameters())
                follow_sizes(optimizer, part, sizes)
                follow_slices(optimizer, part)

    def _secure(self, progress: float, optimizer: HasState | None) -> None:
        """Keep factors whose loss is within the tolerance, or go back to them."""
        if self.options.loss_tolerance is None or not self.controller.pressing(progress):
            return
        parameters = [p for _, part in self.layers for p in part.parameters()]
        if self.controller.state.in_bounds:
            self._fallback.keep(parameters, optimizer)
        elif self.controller.takes_back(progress):
            self._fallback.give_back(parameters, optimizer)
            for importance in self._importance.values():
                importance.clear()

    @torch.no_grad()
    def _trim(self, progress: float, optimizer: HasState | None) -> None:
        """Trim to what is allowed now by what ranks matter to the loss, where that is known."""
        allowed, count = self.controller.ceiling(progress), self.parameter_count()
        sums = [self._importance[name].sums for name, _ in self.layers]
        if allowed is None or count <= allowed or not all(sums):
            return
        spectra = [
            _spectra(part, values) for (_, part), values in zip(self.layers, sums, strict=True)
        ]
        rest = count - sum(part.count for _, part in self.layers)
        wanted = trimmed(spectra, allowed - rest, self.options.floor)
        for (_, part), values, ranks in zip(self.layers, sums, wanted, strict=True):
            for bond, rank in enumerate(ranks):
                _keep(part, bond, rank, values[bond], optimizer)

    @torch.no_grad()
    def _cut(self, progress: float, optimizer: HasState | None) -> None:
        """Let dead ranks go, but not below the target, and trim to what is allowed now."""
        spectra = [_spectra(part, _energies(part)) for _, part in self.layers]
        alive = [self._alive(layer) for layer in spectra]
        left = [layer.first(ranks) for layer, ranks in zip(spectra, alive, strict=True)]
        rest = self.parameter_count() - sum(part.count for _, part in self.layers)
        count = rest + sum(layer.count(layer.ranks) for layer in left)
        target, allowed = self.options.target_params, self.controller.ceiling(progress)
        wanted = alive
        if target is not None and count < target:
            wanted = trimmed(spectra, target - rest, self.options.floor)
        elif allowed is not None and count > allowed:
            wanted = trimmed(left, allowed - rest, self.options.floor)
        for (_, part), ranks in zip(self.layers, wanted, strict=True):
            for bond, rank in enumerate(ranks):
                _keep(part, bond, rank, part.spectrum(bond), optimizer)

    def _alive(self, layer: Spectra) -> Shape:
        """Ranks without the dead; shares are squares."""
        least = self.options.cut_at**2
        return layer.useful(
            tuple(
                max(
                    sum(share > least * bond[0] for share in bond),
                    min(self.options.floor, len(bond)),
                )
                for bond in layer.shares
            )
        )


def _keep(
    part: Factorization, bond: int, rank: int, values: Tensor, optimizer: HasState | None
) -> None:
    """Cut a bond to the ``rank`` indices of the largest values."""
    if rank < values.numel():
        largest = torch.argsort(values, descending=True, stable=True)[:rank]
        cut_bond(part, bond, largest.sort().values, optimizer)


def _factorizations(network: nn.Module) -> Iterator[tuple[str, Factorization]]:
    for name, module in network.named_modules():
        if isinstance(module, Factorization):
            yield name, module


def _energies(part: Factorization) -> list[Tensor]:
    """Squares of the spectrum of each bond, as shares of its sum."""
    squares = [part.spectrum(bond).double().square() for bond in range(len(part.ranks))]
    tiny = torch.finfo(torch.float64).tiny
    return [square / square.sum().clamp_min(tiny) for square in squares]


def _spectra(part: Factorization, values: Sequence[Tensor]) -> Spectra:
    shares = (bond.double().sort(descending=True).values.tolist() for bond in values)
    return Spectra(type(part), part.folding, tuple(tuple(bond) for bond in shares))
