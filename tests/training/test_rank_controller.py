"""The weight of the penalty over a run, the ceiling of the parameters, and what is trimmed."""

from itertools import product
from math import nan, prod

import pytest

from edgecompress.core.training import TO_LOSS, TO_SIZE, AdaptationOptions
from edgecompress.training.adaptation.controller import FALL, GROWTH, RETREAT, Controller
from edgecompress.training.adaptation.trimming import Spectra, trimmed
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.tt import TensorTrain

FOLDING = Folding(rows=(4, 4), columns=(4, 4))


def spectra(ranks: tuple[int, ...], fall: float, folding: Folding = FOLDING) -> Spectra:
    """Squared spectra that fall geometrically."""
    shares = []
    for rank in ranks:
        energy = [fall**k for k in range(rank)]
        shares.append(tuple(e / sum(energy) for e in energy))
    return Spectra(TensorTrain, folding, tuple(shares))


def test_weight_ramps_up_and_ends_when_ranks_settle() -> None:
    controller = Controller(AdaptationOptions(strength=2.0, warm_up=(0.1, 0.5), settle=0.8))
    progress = (0.0, 0.09, 0.1, 0.3, 0.5, 0.79, 0.8, 1.0)
    expected = [0, 0, 0, 1.0, 2.0, 2.0, 0, 0]  # linear between 0.1 and 0.5, by hand
    assert [controller.weight(p) for p in progress] == pytest.approx(expected)


def test_schedule_follows_the_goal_unless_it_is_given() -> None:
    assert AdaptationOptions(target_params=5).schedule == TO_SIZE
    assert AdaptationOptions(loss_tolerance=0.1).schedule == TO_LOSS
    given = AdaptationOptions(target_params=5, warm_up=(0.3, 0.4), settle=0.9).schedule
    assert (given.begin, given.whole, given.settle) == (0.3, 0.4, 0.9)


def test_ceiling_falls_from_the_start_to_the_target_by_the_time_ranks_settle() -> None:
    options = AdaptationOptions(target_params=100, warm_up=(0.2, 0.4), settle=0.8)
    controller = Controller(options)
    assert controller.ceiling(0.5) is None  # nothing observed yet
    controller.observe(0.2, 900, 1.0)
    # By hand: 100 + 800 (1 - passed)^3.
    found = [controller.ceiling(p) for p in (0.2, 0.5, 0.8, 1.0)]
    assert found == [900, 200, 100, 100]


def test_strength_grows_to_the_target_and_retreats_from_there() -> None:
    options = AdaptationOptions(strength=1.0, target_params=100, warm_up=(0.1, 0.5), settle=0.7)
    controller = Controller(options)
    controller.observe(0.05, 1000, 1.0)
    assert controller.state.strength == 1.0
    for progress in (0.1, 0.3, 0.4, 0.7):
        controller.observe(progress, 1000, 1.0)
    # However many looks: the stated factor from the first moment to the last.
    assert controller.state.strength == pytest.approx(GROWTH)
    controller.observe(0.7, 100, 1.0)
    assert controller.state.strength == pytest.approx(GROWTH * RETREAT)
    for _ in range(100):
        controller.observe(0.7, 90, 1.0)
    assert controller.state.strength == pytest.approx(1e-3)  # the stated range


def test_tolerance_retreats_while_the_loss_is_out_of_bounds() -> None:
    controller = Controller(
        AdaptationOptions(strength=1.0, loss_tolerance=0.1, warm_up=(0, 0.5), settle=0.75)
    )
    controller.observe(0.1, 1000, 1.0)
    grown = controller.state.strength
    assert grown > 1
    controller.observe(0.2, 1000, 1.09)
    assert controller.state.in_bounds
    assert controller.state.strength > grown
    before = controller.state.strength
    controller.observe(0.3, 1000, 1.11)
    assert not controller.state.in_bounds
    assert controller.state.strength < before
    assert controller.ceiling(0.5) is None


def test_a_loss_in_bounds_lets_parameters_fall_by_the_same_factor_however_many_looks() -> None:
    options = AdaptationOptions(loss_tolerance=0.1, warm_up=(0.2, 0.4), settle=0.8)
    for looks in (6, 12, 60):
        controller, parameters = Controller(options), 1e12
        for look in range(looks):  # the last look lets nothing go
            progress = 0.2 + 0.6 * look / (looks - 1) * (1 - 1e-9)
            controller.observe(progress, int(parameters), 1.0)
            parameters = controller.ceiling(progress) or parameters
        assert parameters == pytest.approx(1e12 / FALL, rel=1e-6)


def test_what_is_allowed_falls_on_while_nothing_is_trimmed_yet() -> None:
    options = AdaptationOptions(loss_tolerance=0.1, warm_up=(0.0, 0.1), settle=1.0)
    controller = Controller(options)
    for look in range(1, 4):  # ranks are cut at every third of them
        controller.observe(look / 10, 10**9, 1.0)
    assert controller.ceiling(0.3) == pytest.approx(1e9 * FALL**-0.3, rel=1e-6)


def test_a_loss_that_is_no_number_is_out_of_bounds_and_no_reference() -> None:
    options = AdaptationOptions(loss_tolerance=0.1, warm_up=(0.0, 0.1), settle=1.0)
    controller, bearable = Controller(options), []
    for look, loss in enumerate((nan, 1.0, nan, 1.05, 1.2)):
        controller.observe((look + 1) / 10, 100, loss)
        bearable.append(controller.state.in_bounds)
    assert bearable == [False, True, False, True, False]


def test_after_a_loss_out_of_bounds_parameters_fall_half_as_fast() -> None:
    options = AdaptationOptions(loss_tolerance=0.1, warm_up=(0.0, 0.1), settle=1.0)
    controller = Controller(options)
    controller.observe(0.1, 10**9, 1.0)
    assert controller.ceiling(0.1) == pytest.approx(1e9 * FALL**-0.1, rel=1e-6)
    controller.observe(0.2, 10**9, 1.2)
    assert controller.ceiling(0.2) is None
    controller.observe(0.3, 10**9, 1.05)
    assert controller.ceiling(0.3) == pytest.approx(1e9 * FALL**-0.05, rel=1e-6)


def test_a_loss_that_stays_out_of_bounds_takes_the_last_cut_back() -> None:
    options = AdaptationOptions(loss_tolerance=0.1, warm_up=(0.0, 0.1), settle=0.9)
    controller = Controller(options)
    taken = []
    for progress, loss in ((0.1, 1.0), (0.2, 1.2), (0.3, 1.2), (0.4, 1.0), (0.9, 1.2)):
        controller.observe(progress, 100, loss)
        taken.append(controller.takes_back(progress))
    # Twice in a row, or once at the end.
    assert taken == [False, False, True, False, True]


def test_both_limits_follow_the_larger_relative_gap() -> None:
    options = AdaptationOptions(
        strength=1.0, loss_tolerance=0.1, target_params=100, warm_up=(0, 0.5)
    )
    large = Controller(options)
    large.observe(0.1, 1000, 1.0)
    before = large.state.strength
    large.observe(0.2, 1000, 1.2)  # loss gap 0.1/1.2 under size gap 0.9: hold
    assert large.state.strength == before
    large.observe(0.3, 101, 1.2)  # size gap 0.01: the loss counts more
    assert large.state.strength < before
    assert large.ceiling(0.3) is None  # no trimming while the loss is out of bounds


def test_without_limits_the_strength_stays() -> None:
    controller = Controller(AdaptationOptions(strength=0.5, warm_up=(0, 0.5)))
    for loss in (1.0, 5.0, 0.1):
        controller.observe(0.5, 10, loss)
    assert controller.state.strength == 0.5


@pytest.mark.parametrize("budget", [200, 150, 97, 60, 17])
@pytest.mark.parametrize("fall", [0.9, 0.3])
def test_trimmed_is_under_the_budget_and_no_step_up_fits(budget: int, fall: float) -> None:
    layers = [spectra((4, 9, 4), fall), spectra((3, 5), 0.5, Folding(rows=(6,), columns=(4, 4)))]
    ranks = trimmed(layers, budget + 40)
    total = sum(layer.count(at) for layer, at in zip(layers, ranks, strict=True))
    assert total <= budget + 40
    for place, (layer, at) in enumerate(zip(layers, ranks, strict=True)):
        assert layer.useful(at) == at
        for bond in range(len(at)):
            if at[bond] == layer.ranks[bond]:
                continue
            higher = (*at[:bond], at[bond] + 1, *at[bond + 1 :])
            if layer.useful(higher) == higher:
                rest = total - layer.count(at)
                assert rest + layer.count(higher) > budget + 40, (place, higher)


def test_trimmed_keeps_what_fits_and_stops_at_the_floor() -> None:
    layer = spectra((4, 9, 4), 0.5)
    assert trimmed([layer], layer.count(layer.ranks)) == [(4, 9, 4)]
    assert trimmed([layer], 0, floor=2) == [(2, 2, 2)]
    assert trimmed([layer], 0) == [(1, 1, 1)]


def test_trimmed_gives_up_the_layer_that_carries_least() -> None:
    # Equal layers, one with a flat and one with a steep spectrum: the steep one pays. 48 numbers
    # are what ranks of 2 hold, by hand.
    flat, steep = spectra((4, 4, 4), 0.99), spectra((4, 4, 4), 0.2)
    kept_flat, kept_steep = trimmed([flat, steep], flat.count((4, 4, 4)) + 48)
    assert kept_flat == (4, 4, 4)
    assert max(kept_steep) < 4


def test_trimmed_is_near_the_best_choice_of_all() -> None:
    # Truth: every combination of ranks tried; energy left in both layers.
    layers = [
        spectra((4, 6), 0.6, Folding(rows=(6,), columns=(4, 4))),
        spectra((5,), 0.8, Folding(rows=(5,), columns=(6,))),
    ]

    def kept(ranks: list[tuple[int, ...]]) -> float:
        return sum(
            sum(sum(bond[:rank]) for bond, rank in zip(layer.shares, at, strict=True))
            for layer, at in zip(layers, ranks, strict=True)
        )

    for budget in (40, 60, 80, 110):
        every = [[(a, b), (c,)] for a, b, c in product(range(1, 5), range(1, 7), range(1, 6))]
        best = max(
            kept(ranks)
            for ranks in every
            if sum(layer.count(at) for layer, at in zip(layers, ranks, strict=True)) <= budget
        )
        assert kept(trimmed(layers, budget)) >= 0.93 * best


def test_useful_clips_a_train_to_what_its_neighbours_allow() -> None:
    # Truth: rank k is at most n times either neighbour's rank; modes are 4.
    assert spectra((4, 16, 4), 0.5).useful((1, 16, 2)) == (1, 4, 2)
    assert spectra((4, 16, 4), 0.5).useful((4, 1, 4)) == (4, 1, 4)
    assert spectra((4, 16, 4), 0.5).useful((4, 16, 4)) == (4, 16, 4)


def test_counts_are_those_of_the_cores() -> None:
    layer = spectra((2, 3, 4), 0.5)
    assert layer.count((2, 3, 4)) == sum(map(prod, ((1, 4, 2), (2, 4, 3), (3, 4, 4), (4, 4, 1))))
