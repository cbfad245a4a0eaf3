"""One budget over all layers: the multiple-choice knapsack problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.core.arrays import Array, FloatArray

MOST_STATES = 20_000
"""Partial choices kept between two layers; fewer than this and the answer is exact."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to do a layer.

    Attributes:
        cost: What it takes of the budget, not negative.
        loss: What it does to the model, not negative.
    """

    cost: float
    loss: float


def choose(layers: Sequence[Sequence[Choice]], limit: float) -> list[int] | None:
    """One choice for each layer, of least total loss, within the budget.

    A Lagrangian relaxation gives a bound from below and a feasible answer; dynamic programming
    over undominated partial choices within these bounds closes the gap.

    Args:
        layers: Choices of each layer, at least one each.
        limit: Budget for the sum of costs.

    Returns:
        Index of the choice for each layer; None if not even the cheapest choices fit.

    Source: Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", chapter 11.
    """
    costs = [np.array([choice.cost for choice in options]) for options in layers]
    losses = [np.array([choice.loss for choice in options]) for options in layers]
    allowance = limit + 1e-9 * max(1.0, abs(limit)) * (limit != 0)
    if sum(float(cost.min()) for cost in costs) > allowance:
        return None
    price, picked = _relaxed(costs, losses, allowance)
    best = sum(float(loss[k]) for loss, k in zip(losses, picked, strict=True))
    improved = _close_gap(costs, losses, allowance, (price, best))
    return picked if improved is None else improved


def _picks(costs: list[FloatArray], losses: list[FloatArray], price: float) -> list[int]:
    """For each layer the choice of least loss plus priced cost; the cheaper one of equals."""
    picks = []
    for cost, loss in zip(costs, losses, strict=True):
        total = loss + price * cost
        least = total.min()
        near = np.flatnonzero(total <= least + 1e-12 * abs(least))
        picks.append(int(near[np.argmin(cost[near])]))
    return picks


def _relaxed(
    costs: list[FloatArray], losses: list[FloatArray], limit: float
) -> tuple[float, list[int]]:
    """Price of the budget at which the relaxed choices just fit, and these choices."""

    def fits(price: float) -> bool:
        picks = _picks(costs, losses, price)
        return sum(float(cost[k]) for cost, k in zip(costs, picks, strict=True)) <= limit

    if fits(0.0):
        return 0.0, _picks(costs, losses, 0.0)
    spread = sum(float(np.ptp(loss)) for loss in losses) + 1e-300
    gaps = [np.diff(np.unique(cost)) for cost in costs]
    smallest = min((float(gap.min()) for gap in gaps if gap.size), default=1.0)
    low, high = 0.0, 2.0 * spread / max(smallest, 1e-300)
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    if not fits(high):
        return high, [int(np.argmin(cost)) for cost in costs]
    return high, _picks(costs, losses, high)


def _close_gap(
    costs: list[FloatArray], losses: list[FloatArray], limit: float, bound: tuple[float, float]
) -> list[int] | None:
    """Better choices than those with the loss ``bound[1]``; None if there are none."""
    price, best = bound
    rest_cost = _sums_after([float(cost.min()) for cost in costs])
    rest_priced = _sums_after(
        [float((loss + price * cost).min()) for cost, loss in zip(costs, losses, strict=True)]
    )
    total_cost, total_loss = np.zeros(1), np.zeros(1)
    trail: list[tuple[Array, Array]] = []
    for layer, (cost, loss) in enumerate(zip(costs, losses, strict=True)):
        next_cost = (total_cost[:, None] + cost).ravel()
        next_loss = (total_loss[:, None] + loss).ravel()
        bound_below = next_loss + price * (next_cost - limit) + rest_priced[layer]
        slack = 1e-9 * max(best, 1e-300)
        alive = (next_cost + rest_cost[layer] <= limit) & (bound_below <= best + slack)
        kept = np.flatnonzero(alive)
        if not kept.size:
            return None
        kept = kept[_undominated(next_cost[kept], next_loss[kept])]
        trail.append((kept // len(cost), kept % len(cost)))
        total_cost, total_loss = next_cost[kept], next_loss[kept]
    last = int(np.argmin(total_loss))
    if total_loss[last] >= best:
        return None
    answer = []
    for parents, picks in reversed(trail):
        answer.append(int(picks[last]))
        last = int(parents[last])
    return answer[::-1]


def _sums_after(values: list[float]) -> list[float]:
    """For each place the sum of the values behind it."""
    return [float(sum(values[place + 1 :])) for place in range(len(values))]


def _undominated(cost: FloatArray, loss: FloatArray) -> Array:
    """Indices, by rising cost, of those that no cheaper one beats; thinned if there are many."""
    order = np.lexsort((loss, cost))
    sorted_loss = loss[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(sorted_loss)[:-1]])
    front = order[sorted_loss < before]
    if len(front) > MOST_STATES:
        places = np.linspace(0, len(front) - 1, MOST_STATES).round().astype(np.int64)
        front = front[np.unique(places)]
    return front
