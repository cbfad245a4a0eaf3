"""Spend one budget over all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgecompress.core.errors import Unsupported, UsageError
from edgecompress.core.layers import Layer
from edgecompress.core.options import Budget, DecomposeOptions, FixedRanks
from edgecompress.core.stages import Stage
from edgecompress.formats.base import count_macs, count_parameters
from edgecompress.pipeline.candidates import Candidate, Pricing, Survey, resolved
from edgecompress.ranks.knapsack import Choice, choose

KINDS = {"params": "parameters", "macs": "multiply-accumulates", "latency": "predicted seconds"}


class BudgetTooSmall(Unsupported):
    """Not even the smallest ranks meet the budget."""


def spend(
    surveys: Sequence[Survey],
    weights: Mapping[str, float],
    options: DecomposeOptions,
    pricing: Pricing | None,
) -> dict[str, Candidate]:
    """The candidates that lose least within the budget; a layer that stays dense has none.

    Args:
        surveys: One for each layer of the model.
        weights: What a layer's loss counts, by name; 1 for layers that are not in it.
        options: With a `Budget`.
        pricing: For budgets of latency, and to leave alone what does not get faster: then a
            budget given as a share is a share of what the other layers have.

    Raises:
        UsageError: A budget of latency without a target.
        BudgetTooSmall: The budget cannot be met.
        Unsupported: A layer's shape is open.
    """
    budget = options.ranks
    if not isinstance(budget, Budget):
        raise TypeError("spend needs a budget")
    price = _Price(budget.kind, pricing)
    dense = [price.dense(each) for each in surveys]
    limit = _limit(budget, surveys, dense, by_target=pricing is not None)
    tables: list[list[Choice]] = []
    for each, whole in zip(surveys, dense, strict=True):
        weight = weights.get(each.layer.name, 1.0)
        choices = [Choice(price.of(c.stages, each.layer), weight * c.loss) for c in each.candidates]
        fixed = isinstance(resolved(each.layer, options).ranks, FixedRanks) and choices
        tables.append(choices if fixed else [*choices, Choice(whole, 0.0)])
    picks = choose(tables, limit)
    if picks is None:
        least = sum(min(choice.cost for choice in table) for table in tables)
        wanted, smallest, dearest = (
            _amount(each, budget.kind) for each in (limit, least, sum(dense))
        )
        raise BudgetTooSmall(
            f"a budget of {wanted} {KINDS[budget.kind]} cannot be met: "
            f"the least is {smallest}, the dense model has {dearest}",
            hint="allow more, or set a smaller rank multiple",
        )
    return {
        each.layer.name: each.candidates[pick]
        for each, pick in zip(surveys, picks, strict=True)
        if pick < len(each.candidates)
    }


def _amount(value: float, kind: str) -> str:
    """Counts in full, seconds in a few digits."""
    return f"{value:.6g}" if kind == "latency" else f"{value:,.0f}"


class _Price:
    """What stages take of a budget."""

    def __init__(self, kind: str, pricing: Pricing | None) -> None:
        if kind not in KINDS:
            raise UsageError(f"unknown budget {kind!r}", hint=f"one of {', '.join(KINDS)}")
        if kind == "latency" and pricing is None:
            raise UsageError("a latency budget needs a target", hint="--target")
        self.kind = kind
        self.pricing = pricing

    def dense(self, survey: Survey) -> float:
        """The layer as it is; one that stays so and whose shape is open counts nothing."""
        if self.kind == "macs" and not survey.candidates:
            return survey.layer.macs or 0
        return self.of([survey.layer.stage], survey.layer)

    def of(self, stages: Sequence[Stage], layer: Layer) -> float:
        """In the unit of the budget."""
        if self.kind == "params":
            return count_parameters(stages)
        if self.kind == "latency" and self.pricing is not None:
            return self.pricing.seconds(stages, layer)
        whole = len(stages) == 1 and stages[0] is layer.stage
        macs = layer.macs if whole else count_macs(stages, layer.input_shape)
        if macs is None:
            raise Unsupported(
                "a budget of multiply-accumulates needs all shapes",
                where=layer.name,
                hint="--input-shape, or a budget of parameters",
            )
        return macs


def _limit(
    budget: Budget, surveys: Sequence[Survey], dense: Sequence[float], *, by_target: bool
) -> float:
    """The budget in its unit."""
    if budget.limit is not None:
        return budget.limit
    share = 0.5 if budget.ratio is None else budget.ratio
    if not 0 < share <= 1:
        raise UsageError(f"a budget of {share}", hint="a share above 0, at most 1")
    fixed = 0.0
    if by_target:
        fixed = sum(cost for each, cost in zip(surveys, dense, strict=True) if not each.candidates)
    return fixed + share * (sum(dense) - fixed)
