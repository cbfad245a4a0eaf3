"""Rank rules on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.ranks._rounding import multiples, round_up
from edgecompress.ranks.energy import energy_ranks, lost_energy
from edgecompress.ranks.fixed import fixed_ranks
from edgecompress.ranks.knapsack import Choice, choose
from edgecompress.ranks.ratio import ratio_ranks


def test_fixed() -> None:
    assert fixed_ranks((8,), (16, 6), "conv") == (8, 6)
    assert fixed_ranks((4, 9), (16, 6), "conv") == (4, 6)
    with pytest.raises(ConfigurationInvalid, match="conv: 2 ranks given, the format has 1"):
        fixed_ranks((4, 9), (16,), "conv")
    with pytest.raises(ConfigurationInvalid, match="conv: rank 0"):
        fixed_ranks((0,), (16,), "conv")


def test_energy() -> None:
    spectrum = np.array([6.0, 3.0, 1.0])
    assert energy_ranks([spectrum], 0.6) == (1,)
    assert energy_ranks([spectrum], 0.61) == (2,)
    assert energy_ranks([spectrum, spectrum], 1.0) == (3, 3)
    assert energy_ranks([np.zeros(4)], 0.9) == (1,)
    assert lost_energy([spectrum], [1]) == pytest.approx(0.4)
    assert lost_energy([spectrum, spectrum], [2, 2]) == pytest.approx(0.2)
    with pytest.raises(ConfigurationInvalid, match=r"energy 1\.5"):
        energy_ranks([spectrum], 1.5)


def test_rounding() -> None:
    assert multiples(40, 16) == [16, 32]
    assert multiples(10, 16) == [10]
    assert round_up((17, 3), 16, (40, 8)) == (32, 8)


def test_ratio() -> None:
    def parameters(ranks: tuple[int, ...]) -> int:
        return ranks[0] * (10 + 20)

    assert ratio_ranks((10,), 1, parameters, 0.5 * 200) == (3,)
    assert ratio_ranks((10,), 2, parameters, 0.5 * 200) == (2,)
    assert ratio_ranks((10,), 1, parameters, 29) is None


def test_knapsack_prefers_what_loses_least() -> None:
    # Dense costs 10 and loses nothing; halving the first layer loses 1, the second 5.
    layers = [[Choice(10, 0), Choice(5, 1)], [Choice(10, 0), Choice(5, 5)]]
    assert choose(layers, 20) == [0, 0]
    assert choose(layers, 15) == [1, 0]
    assert choose(layers, 10) == [1, 1]
    assert choose(layers, 9) is None


def test_knapsack_closes_the_gap_of_the_relaxation() -> None:
    # On the convex hull there is only 0 and 10; the budget of 9 is best filled by 4 + 5.
    layers = [[Choice(0, 10), Choice(4, 7), Choice(10, 0)], [Choice(0, 10), Choice(5, 6)]]
    assert choose(layers, 9) == [1, 1]
