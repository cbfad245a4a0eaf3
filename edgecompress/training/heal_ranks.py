"""Ranks of a decomposed graph go on falling while it is healed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgecompress.graph.bonds import Chain
from edgecompress.training.adaptation.cutting import cut_parameter, pool_moments
from edgecompress.training.adaptation.priors import best_variances

TINY = 1e-12
"""Share of the largest below which an energy is rounding. Source: squares of float32's 1e-7, with
margin for float64."""

BondValues = Callable[[tuple[str, ...]], Iterable[Mapping[str, Tensor]]]


class RankFall:
    """Drives the ranks of chains down to a budget, in place, while their weights are trained.

    In the balanced gauge of a bond its values on the data are uncorrelated, the slices that take
    them are orthogonal, and both carry the same energy, so that dropping the last values is the
    least change of what the next stage gives (one position of a kernel at a time). There a
    log-uniform prior shrinks weak slices (`penalty`), and those whose removal is estimated to
    change the loss least are cut (`cut`).

    Args:
        chains: Of the graph.
        weights: Parameters by name; they shrink and keep their identity.
        fixed: What everything else costs, in units of the budget.
        optimizer: Its state shrinks along.
        values: Gives values of the graph on some data, by name, feed by feed.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        weights: Mapping[str, nn.Parameter],
        fixed: float,
        optimizer: Optimizer,
        values: BondValues,
    ) -> None:
        self._chains = tuple(chains)
        self._weights = weights
        self._fixed = fixed
        self._optimizer = optimizer
        self._values = values
        self._importance: dict[tuple[int, int], Tensor] = {}
        self.balance()

    @property
    def cost(self) -> float:
        """Of the whole graph, in units of the budget."""
        return self._fixed + sum(
            stage.price * self._weights[stage.weight].numel()
            for chain in self._chains
            for stage in chain.stages
        )

    def ranks(self) -> dict[str, tuple[int, ...]]:
        """Ranks by layer."""
        return {
            chain.layer: tuple(self._rank(chain, bond) for bond in range(len(chain.stages) - 1))
            for chain in self._chains
        }

    def penalty(self) -> Tensor:
        """Negative log prior of the slices at their best variances, constants left out: the sum
        of M / (2 lambda) with lambda = M / (D + 1), M the energy of a slice, D its entries."""
        total = torch.zeros(())
        for chain in self._chains:
            for bond in range(len(chain.stages) - 1):
                sides = self._sides(chain, bond)
                energy = sum((side.square().sum(1) for side in sides), torch.zeros(()))
                entries = sum(side.shape[1] for side in sides)
                variance = best_variances(energy.detach(), entries, "log-uniform", 1.0)
                total = total + 0.5 * (energy / variance).sum()
        return total

    @torch.no_grad()
    def observe(self) -> None:
        """Take note of the gradients: the squared first-order change of the loss without a slice.

        Source: Molchanov et al. 2019 (arXiv:1906.10771), there for channels.
        """
        for index, chain in enumerate(self._chains):
            for bond in range(len(chain.stages) - 1):
                stage = chain.stages[bond]
                weight = self._weights[stage.weight]
                if weight.grad is None:
                    continue
                change = (weight * weight.grad).movedim(stage.leaving, 0).flatten(1).sum(1)
                key = index, bond
                before = self._importance.get(key)
                self._importance[key] = change**2 if before is None else before + change**2

    @torch.no_grad()
    def cut(self, limit: float) -> bool:
        """Remove what matters least for what it costs, until the graph costs at most ``limit``.

        Returns:
            Whether it does; if not, every rank is as low as its multiple.
        """
        while self.cost > limit:
            best: tuple[float, int, int, Tensor] | None = None
            for index, chain in enumerate(self._chains):
                for bond in range(len(chain.stages) - 1):
                    offer = self._offer(index, bond)
                    if offer is not None and (best is None or offer[0] < best[0]):
                        best = (offer[0], index, bond, offer[1])
            if best is None:
                break
            self._remove(best[1], best[2], best[3])
        return self.cost <= limit

    @torch.no_grad()
    def balance(self) -> None:
        """Put every bond into the balanced gauge, in place; the layers stay what they are.

        What the optimiser and `observe` remember by entry means nothing after it: first moments
        begin anew, second ones become their mean.
        """
        self._importance.clear()
        moments = self._moments()
        for chain in self._chains:
            for bond in range(len(chain.stages) - 1):
                self._balance(chain, bond, moments[chain.stages[bond].output])
            pool_moments(self._optimizer, (self._weights[stage.weight] for stage in chain.stages))

    def _rank(self, chain: Chain, bond: int) -> int:
        stage = chain.stages[bond]
        return int(self._weights[stage.weight].shape[stage.leaving])

    def _sides(self, chain: Chain, bond: int) -> tuple[Tensor, Tensor]:
        """(rank, rest) of what gives and of what takes."""
        left, right = chain.stages[bond], chain.stages[bond + 1]
        return (
            self._weights[left.weight].movedim(left.leaving, 0).flatten(1),
            self._weights[right.weight].movedim(right.entering, 0).flatten(1),
        )

    def _moments(self) -> dict[str, Tensor]:
        """(rank, rank) mean products of what every bond carries, float64."""
        axes = {one.output: one.channel_axis for c in self._chains for one in c.stages[:-1]}
        sums: dict[str, Tensor] = {}
        count: dict[str, int] = {}
        for values in self._values(tuple(axes)):
            for name, axis in axes.items():
                rows = values[name].movedim(axis, -1).flatten(0, -2).double()
                product = rows.T @ rows
                sums[name] = sums[name] + product if name in sums else product
                count[name] = count.get(name, 0) + len(rows)
        return {name: total / count[name] for name, total in sums.items()}

    def _balance(self, chain: Chain, bond: int, moments: Tensor) -> None:
        """With C the moments and R the rows that take: z -> T z, R -> T^-T R such that both T C T^T
        and (T^-T R)(T^-T R)^T are the same diagonal matrix, falling."""
        if not moments.isfinite().all():  # what diverged is not kept anyway
            return
        left, right = chain.stages[bond], chain.stages[bond + 1]
        gives, takes = (side.double() for side in self._sides(chain, bond))
        energy, directions = torch.linalg.eigh(moments)
        # A value that is always zero has no scale: as small as rounding makes it.
        root = energy.clamp_min(TINY * energy[-1].clamp_min(TINY)).sqrt()
        lower = directions * root
        squares, basis = torch.linalg.eigh(lower.T @ (takes @ takes.T) @ lower)
        order = squares.argsort(descending=True, stable=True)
        floor = TINY * squares.max().clamp_min(TINY)
        quarter, basis = squares[order].clamp_min(floor).pow(0.25), basis[:, order]
        new = (
            quarter[:, None] * basis.T @ ((directions / root).T @ gives),
            (basis.T @ (lower.T @ takes)) / quarter[:, None],
        )
        for stage, axis, side in zip(
            (left, right), (left.leaving, right.entering), new, strict=True
        ):
            weight = self._weights[stage.weight]
            rest = list(weight.shape)
            rank = rest.pop(axis)
            weight.copy_(side.reshape(rank, *rest).movedim(0, axis).to(weight.dtype))

    def _offer(self, index: int, bond: int) -> tuple[float, Tensor] | None:
        """Loss for what is saved, and the slices that stay; None at the floor."""
        chain = self._chains[index]
        rank = self._rank(chain, bond)
        importance = self._importance.get((index, bond))
        fewer = rank - (rank % chain.multiple or chain.multiple)
        if importance is None or fewer < 1:
            return None
        order = importance.argsort(descending=True, stable=True)
        saved = sum(
            stage.price * self._weights[stage.weight].numel() * (rank - fewer) / rank
            for stage in chain.stages[bond : bond + 2]
        )
        loss = float(importance[order[fewer:]].sum())
        return loss / max(saved, 1e-30), order[:fewer].sort().values

    def _remove(self, index: int, bond: int, kept: Tensor) -> None:
        chain = self._chains[index]
        left, right = chain.stages[bond], chain.stages[bond + 1]
        cut_parameter(self._weights[left.weight], left.leaving, kept, self._optimizer)
        cut_parameter(self._weights[right.weight], right.entering, kept, self._optimizer)
        self._importance[index, bond] = self._importance[index, bond][kept]
