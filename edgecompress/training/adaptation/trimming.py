"""Which ranks to give up for a number of parameters: least worth for the most parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.costs import core_count
from edgecompress.training.factorized.folding import Folding


@dataclass(frozen=True, slots=True)
class Spectra:
    """What the ranks of one factorization carry.

    Attributes:
        kind: The format.
        folding: The modes.
        shares: For each bond what its indices are worth, in falling order and in one unit over
            all layers: shares of the layer's energy, or their effect on the loss.
    """

    kind: type[Factorization]
    folding: Folding
    shares: tuple[tuple[float, ...], ...]

    @property
    def ranks(self) -> Shape:
        """Ranks as they are."""
        return tuple(len(bond) for bond in self.shares)

    def first(self, ranks: Shape) -> Spectra:
        """With so many of each bond left, the strongest."""
        shares = zip(self.shares, ranks, strict=True)
        return Spectra(self.kind, self.folding, tuple(bond[:rank] for bond, rank in shares))

    def count(self, ranks: Shape) -> int:
        """Numbers in the cores at these ranks."""
        return core_count(self.kind, self.folding, ranks)

    def useful(self, ranks: Shape) -> Shape:
        """These ranks without what the neighbours of a bond have made useless.

        A bond between two cores has at most as many independent slices as either core has
        entries in a slice; bonds of more members (one rank for all factors) have no such limit.
        """
        current = list(ranks)
        bonds = self.kind.bonds(self.folding)
        changed = True
        while changed:
            changed = False
            shapes = self.kind.core_shapes(self.folding, tuple(current))
            for place, bond in enumerate(bonds):
                if len(bond.members) != 2:
                    continue
                most = min(prod(shapes[c]) // shapes[c][a] for c, a in bond.members)
                if current[place] > most:
                    current[place], changed = most, True
                    break
        return tuple(current)


def trimmed(layers: Sequence[Spectra], budget: int, floor: int = 1) -> list[Shape]:
    """Ranks of each layer whose cores hold at most ``budget`` numbers together.

    Index by index, the one that is worth least for each parameter it costs goes; then what of the
    given-up indices still fits comes back, most worth first, so that the sum is as near the budget
    as one rank step allows.

    Args:
        layers: The layers, balanced.
        budget: For all layers together.
        floor: The least rank of a bond.

    Returns:
        Ranks in the order of the layers; the floor everywhere when not even that fits.
    """
    ranks = [layer.ranks for layer in layers]
    total = sum(layer.count(at) for layer, at in zip(layers, ranks, strict=True))
    cheapest = [_cheapest(layer, at, floor) for layer, at in zip(layers, ranks, strict=True)]
    while total > budget:
        place = min(range(len(layers)), key=lambda i: cheapest[i][0], default=-1)
        if place < 0 or cheapest[place][1] == ranks[place]:
            break
        total -= layers[place].count(ranks[place])
        ranks[place] = cheapest[place][1]
        total += layers[place].count(ranks[place])
        cheapest[place] = _cheapest(layers[place], ranks[place], floor)
    while (best := _refund(layers, ranks, budget - total)) is not None:
        place, back = best
        total += layers[place].count(back) - layers[place].count(ranks[place])
        ranks[place] = back
    return ranks


def spare_numbers(parts: Iterable[Factorization], floor: int) -> int:
    """Numbers in the cores above what remains when all ranks have fallen to ``floor``."""
    spare = 0
    for part in parts:
        ranks = tuple(min(rank, floor) for rank in part.ranks)
        spare += part.count - core_count(type(part), part.folding, ranks)
    return spare


def _cheapest(layer: Spectra, ranks: Shape, floor: int) -> tuple[float, Shape]:
    """(worth lost per parameter, ranks after it) of the best next step down."""
    best = (float("inf"), ranks)
    count = layer.count(ranks)
    for bond, rank in enumerate(ranks):
        if rank <= floor:
            continue
        lower = layer.useful((*ranks[:bond], rank - 1, *ranks[bond + 1 :]))
        if min(lower) < floor:
            continue
        price = layer.shares[bond][rank - 1] / (count - layer.count(lower))
        if price < best[0]:
            best = (price, lower)
    return best


def _refund(
    layers: Sequence[Spectra], ranks: Sequence[Shape], room: int
) -> tuple[int, Shape] | None:
    """(layer, ranks) of the step back up that fits and brings most for its parameters."""
    best: tuple[float, int, Shape] | None = None
    for place, (layer, at) in enumerate(zip(layers, ranks, strict=True)):
        for bond, rank in enumerate(at):
            if rank == layer.ranks[bond]:
                continue
            higher = (*at[:bond], rank + 1, *at[bond + 1 :])
            price = layer.count(higher) - layer.count(at)
            if price > room or layer.useful(higher) != higher:
                continue
            gain = layer.shares[bond][rank] / price
            if best is None or gain > best[0]:
                best = (gain, place, higher)
    return None if best is None else best[1:]
