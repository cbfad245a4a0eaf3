"""The knapsack against trying everything."""

from __future__ import annotations

from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from edgecompress.ranks.knapsack import Choice, choose

numbers = st.one_of(
    st.integers(0, 12).map(float), st.floats(0, 1e9, allow_nan=False, allow_subnormal=False)
)
choices = st.lists(st.builds(Choice, cost=numbers, loss=numbers), min_size=1, max_size=5)


@given(layers=st.lists(choices, min_size=1, max_size=5), share=st.floats(0, 1.2))
def test_equals_brute_force(layers: list[list[Choice]], share: float) -> None:
    limit = share * sum(max(c.cost for c in options) for options in layers)
    allowance = limit * (1 + 1e-9)  # rounding of sums is forgiven
    picks = choose(layers, limit)
    feasible = [
        sum(c.loss for c in chosen)
        for chosen in product(*layers)
        if sum(c.cost for c in chosen) <= limit
    ]
    if picks is None:
        assert not feasible
        return
    chosen = [options[k] for options, k in zip(layers, picks, strict=True)]
    assert sum(c.cost for c in chosen) <= allowance + 1e-9
    if feasible:
        best = min(feasible)
        assert sum(c.loss for c in chosen) <= best + 1e-6 * max(best, 1e-9)


@given(layers=st.lists(choices, min_size=1, max_size=6))
def test_more_budget_never_loses_more(layers: list[list[Choice]]) -> None:
    whole = sum(max(c.cost for c in options) for options in layers)
    losses = []
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        picks = choose(layers, share * whole)
        if picks is not None:
            chosen = zip(layers, picks, strict=True)
            losses.append(sum(options[k].loss for options, k in chosen))
    slack = 1e-6 * max([1e-9, *losses])
    assert all(a >= b - slack for a, b in pairwise(losses))
