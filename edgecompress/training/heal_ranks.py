"""Ranks of a decomposed graph go on falling while it is healed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgecompress.graph.bonds import Chain
from edgecompress.training.adaptation.priors import best_variances


class RankFall:
    """Drives the ranks of chains down to a budget, in place, while their weights are trained.

    In the balanced gauge of a bond the slices of both its sides are orthogonal and carry the same
    energy. There a log-uniform prior shrinks weak slices (`penalty`), and those whose removal is
    estimated to change the loss least are cut (`cut`).

    Args:
        chains: Of the graph.
        weights: Parameters by name; they shrink and keep their identity.
        fixed: What everything else costs, in units of the budget.
        optimizer: Its state shrinks along.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        weights: Mapping[str, nn.Parameter],
        fixed: float,
        optimizer: Optimizer,
    ) -> None:
        self._chains = tuple(chains)
        self._weights = weights
        self._fixed = fixed
        self._optimizer = optimizer
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
        for chain in self._chains:
            for bond in range(len(chain.stages) - 1):
                self._balance(chain, bond)
            for stage in chain.stages:
                self._forget(self._weights[stage.weight])

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

    def _balance(self, chain: Chain, bond: int) -> None:
        left, right = chain.stages[bond], chain.stages[bond + 1]
        a, b = (side.double() for side in self._sides(chain, bond))
        qa, ra = torch.linalg.qr(a.T)
        qb, rb = torch.linalg.qr(b.T)
        u, s, vt = torch.linalg.svd(ra @ rb.T, full_matrices=False)
        rank = a.shape[0]
        sides = [(qa @ u * s.sqrt()).T, (qb @ vt.T * s.sqrt()).T]
        for stage, axis, new in zip(
            (left, right), (left.leaving, right.entering), sides, strict=True
        ):
            weight = self._weights[stage.weight]
            rest = list(weight.shape)
            del rest[axis]
            full = torch.zeros((rank, new.shape[1]), dtype=torch.float64)
            full[: new.shape[0]] = new
            weight.copy_(full.reshape(rank, *rest).movedim(0, axis).to(weight.dtype))

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
        self._shrink(self._weights[left.weight], left.leaving, kept)
        self._shrink(self._weights[right.weight], right.entering, kept)
        self._importance[index, bond] = self._importance[index, bond][kept]

    def _shrink(self, weight: nn.Parameter, axis: int, kept: Tensor) -> None:
        old = weight.shape
        weight.grad = None
        weight.data = weight.data.index_select(axis, kept)
        memory = self._optimizer.state.get(weight, {})
        for name, value in memory.items():
            if isinstance(value, Tensor) and value.shape == old:
                memory[name] = value.index_select(axis, kept)

    def _forget(self, weight: nn.Parameter) -> None:
        memory = self._optimizer.state.get(weight, {})
        if memory:
            memory["exp_avg"].zero_()
            memory["exp_avg_sq"].fill_(memory["exp_avg_sq"].mean())
