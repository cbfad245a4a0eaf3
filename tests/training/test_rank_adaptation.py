"""Ranks of whole networks: found, driven to a target, resumed, and never dead."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgecompress.core.training import AdaptationOptions, Inference
from edgecompress.training.adaptation import RankAdaptation, RankChange
from edgecompress.training.adaptation.importance import EVERY, RankImportance
from edgecompress.training.factorized import format_names, load_format
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.tt import TensorTrain

SQUARE = Folding(rows=(8, 8), columns=(8, 8))


class Layer(nn.Module):
    """A matrix of factors with a bias."""

    def __init__(self, factorization: Factorization) -> None:
        super().__init__()
        self.factorization = factorization
        self.bias = nn.Parameter(torch.zeros(factorization.folding.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.factorization.multiply(x, self.bias)


def classifier(format_name: str, seed: int = 0) -> nn.Sequential:
    """64 -> 32 -> 4 in a format, at ranks clipped to 6."""
    kind = load_format(format_name)
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for out, inner in ((32, 64), (4, 32)):
        folding = kind.fold((out, inner))
        part = kind(folding, tuple(min(6, rank) for rank in kind.max_ranks(folding)))
        part.reset((2 / inner) ** 0.5, generator)
        layers += [Layer(part), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def clusters(samples: int = 400) -> tuple[Tensor, Tensor]:
    """Four clouds in 64 dimensions."""
    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(4, 64, generator=generator)
    y = torch.randint(4, (samples,), generator=generator)
    return centres[y] + 1.5 * torch.randn(samples, 64, generator=generator), y


@dataclass
class Training:
    """A run that can stop after any epoch."""

    network: nn.Module
    adaptation: RankAdaptation
    optimizer: torch.optim.Optimizer
    generator: torch.Generator

    @classmethod
    def of(cls, network: nn.Module, options: AdaptationOptions, epochs: int) -> "Training":
        generator = torch.Generator().manual_seed(3)
        adaptation = RankAdaptation(
            network, options, samples=400, epochs=epochs, generator=generator
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        return cls(network, adaptation, optimizer, generator)

    def epoch(self, number: int) -> tuple[RankChange, ...]:
        x, y = clusters()
        self.network.train()
        total = 0.0
        for rows in torch.randperm(400, generator=self.generator).split(50):
            fit = cross_entropy(self.network(x[rows]), y[rows])
            self.optimizer.zero_grad()
            (fit + self.adaptation.penalty()).backward()
            self.optimizer.step()
            self.adaptation.after_step()
            total += fit.item() / 8
        return self.adaptation.end_epoch(number, self.optimizer, loss=total)


def accuracy(network: nn.Module) -> float:
    x, y = clusters()
    with torch.no_grad():
        return (network.eval()(x).argmax(1) == y).float().mean().item()


def test_planted_ranks_are_found_exactly() -> None:
    # Truth: the ranks the data were made with; a slice of benchmarks/training/planted_ranks.py.
    generator = torch.Generator().manual_seed(0)
    truth = TensorTrain(SQUARE, (3, 3, 3))
    truth.reset(1 / 8, generator)
    x = torch.randn(2000, 64, generator=generator)
    y = x @ truth.dense().detach().T + 0.1 * torch.randn(2000, 64, generator=generator)
    train = TensorTrain(SQUARE, (8, 16, 8))
    train.reset(1 / 8, generator)
    options = AdaptationOptions(
        strength=1.0, balance_epochs=2, cut_at=1e-3, warm_up=(0.0, 0.05), settle=1.0
    )
    epochs = 24
    adaptation = RankAdaptation(train, options, samples=2000, epochs=epochs)
    optimizer = torch.optim.Adam(train.parameters(), lr=0.02)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - epoch / epochs)
        for rows in torch.randperm(2000, generator=generator).split(100):
            loss = (train.multiply(x[rows]) - y[rows]).square().mean() + adaptation.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        adaptation.end_epoch(epoch, optimizer, loss=loss.item())
    assert train.ranks == (3, 3, 3)
    error = (train.dense() - truth.dense()).square().sum() / truth.dense().square().sum()
    assert error.item() < 1e-3


@pytest.mark.parametrize("format_name", format_names())
def test_target_is_reached_before_settling_and_the_network_still_learns(format_name: str) -> None:
    network = classifier(format_name)
    start = sum(p.numel() for p in network.parameters())
    least = RankAdaptation(network, AdaptationOptions(), samples=1, epochs=1).least_parameters()
    target = (start + least) // 2
    options = AdaptationOptions(target_params=target, warm_up=(0.0, 0.3), settle=0.5)
    run = Training.of(network, options, 12)
    for number in range(12):
        run.epoch(number)
        if number == 5:
            ranks = [part.ranks for _, part in run.adaptation.layers]
            assert run.adaptation.settled
    reached = sum(p.numel() for p in network.parameters())
    assert least <= reached <= target
    assert [part.ranks for _, part in run.adaptation.layers] == ranks
    assert run.adaptation.penalty().item() == 0
    assert accuracy(network) > 0.6  # four classes; a dead layer gives 0.25
    # As near as one step allows: one more index of any bond would not fit.
    for _, part in run.adaptation.layers:
        shapes = type(part).core_shapes
        for bond, rank in enumerate(part.ranks):
            higher = (*part.ranks[:bond], rank + 1, *part.ranks[bond + 1 :])
            more = sum(torch.Size(s).numel() for s in shapes(part.folding, higher)) - part.count
            legal = rank < type(part).max_ranks(part.folding)[bond]
            started_higher = rank < min(6, type(part).max_ranks(part.folding)[bond])
            if legal and started_higher and format_name in ("cp", "ttm"):
                assert reached + more > target


def test_penalty_that_kills_too_much_does_not_take_the_network_below_its_target() -> None:
    network = classifier("ttm")
    options = AdaptationOptions(
        strength=1e3, target_params=600, warm_up=(0.0, 0.0), settle=0.5, cut_at=0.9
    )
    run = Training.of(network, options, 8)
    for number in range(8):
        run.epoch(number)
    reached = run.adaptation.parameter_count()
    steps = [part.count // part.ranks[0] for _, part in run.adaptation.layers]
    assert 600 - max(steps) < reached <= 600


def test_changes_are_told_and_add_up() -> None:
    network = classifier("tt")
    options = AdaptationOptions(target_params=300, warm_up=(0.0, 0.3), settle=0.6)
    run = Training.of(network, options, 8)
    known = {name: part.ranks for name, part in run.adaptation.layers}
    for number in range(8):
        for change in run.epoch(number):
            assert known[change.layer] == change.before
            assert change.after != change.before
            assert all(a <= b for a, b in zip(change.after, change.before, strict=True))
            known[change.layer] = change.after
    assert known == {name: part.ranks for name, part in run.adaptation.layers}


@pytest.mark.parametrize("goal", ["target_params", "loss_tolerance"])
@pytest.mark.parametrize("inference", ["map", "bayesian"])
def test_resumed_run_ends_with_the_same_bits(inference: Inference, goal: str) -> None:
    aims: dict[str, Any] = {"target_params": 400, "loss_tolerance": 0.05}
    options = AdaptationOptions(
        warm_up=(0.0, 0.3), settle=0.8, inference=inference, **{goal: aims[goal]}
    )
    torch.manual_seed(1)
    whole = Training.of(classifier("tt"), options, 6)
    for number in range(3):
        whole.epoch(number)
    ranks = {name: part.ranks for name, part in whole.adaptation.layers}
    resumed = Training.of(classifier("tt"), options, 6)
    for name, part in resumed.adaptation.layers:
        for bond, rank in enumerate(ranks[name]):
            part.cut(bond, range(rank))
    resumed.network.load_state_dict(whole.network.state_dict())
    resumed.optimizer.load_state_dict(deepcopy(whole.optimizer.state_dict()))
    resumed.adaptation.load_state_dict(whole.adaptation.state_dict())
    resumed.generator.set_state(whole.generator.get_state())
    for number in range(3, 6):
        whole.epoch(number)
        resumed.epoch(number)
    pairs = zip(whole.network.parameters(), resumed.network.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_bayesian_form_trains_deviations_and_cuts_them_along() -> None:
    network = classifier("tt")
    plain = sum(p.numel() for p in network.parameters())
    options = AdaptationOptions(
        inference="bayesian", strength=0.3, target_params=400, warm_up=(0.0, 0.3), settle=0.6
    )
    run = Training.of(network, options, 12)
    assert run.adaptation.parameter_count() == plain
    cores = sum(part.count for _, part in run.adaptation.layers)
    assert sum(p.numel() for p in run.adaptation.parameters()) == cores
    for number in range(12):
        run.epoch(number)
    assert run.adaptation.parameter_count() <= 400
    for _, part in run.adaptation.layers:
        sampled = part.views[0]
        assert [tuple(p.shape) for p in sampled.parameters()] == [
            tuple(c.shape) for c in part.cores
        ]
    assert accuracy(network) > 0.8  # four classes


def test_pretrained_network_falls_from_its_decomposition() -> None:
    # Truth: the dense weight has matrix rank 2, so a train that holds it needs no more.
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 2, generator=generator) @ torch.randn(2, 64, generator=generator) / 16
    train = TensorTrain.from_dense(weight, SQUARE, (8, 16, 8))
    options = AdaptationOptions(strength=0.01, warm_up=(0.0, 0.0), settle=1.0)
    adaptation = RankAdaptation(train, options, samples=1000, epochs=2)
    adaptation.end_epoch(0, None, loss=1.0)
    assert train.ranks[1] == 2
    torch.testing.assert_close(train.dense(), weight, rtol=0, atol=2e-2 * weight.abs().max().item())


@pytest.mark.parametrize("floor", [1, 2])
def test_no_layer_dies_however_hard_the_penalty_presses(floor: int) -> None:
    network = classifier("tt")
    options = AdaptationOptions(
        strength=1e4, warm_up=(0.0, 0.0), settle=1.0, cut_at=0.5, floor=floor
    )
    run = Training.of(network, options, 5)
    for number in range(5):
        run.epoch(number)
    for _, part in run.adaptation.layers:
        limits = type(part).max_ranks(part.folding)
        assert all(r >= min(floor, most) for r, most in zip(part.ranks, limits, strict=True))
        assert all(core.isfinite().all() for core in part.cores)


@pytest.mark.parametrize("format_name", ["ttm", "cp", "tucker"])
def test_tolerance_alone_decides_how_far_ranks_fall(format_name: str) -> None:
    left, learned = {}, {}
    for tolerance in (0.0, 3.0):
        network = classifier(format_name)
        start = sum(p.numel() for p in network.parameters())
        run = Training.of(network, AdaptationOptions(loss_tolerance=tolerance), 20)
        for number in range(20):
            run.epoch(number)
        left[tolerance] = run.adaptation.parameter_count() / start
        learned[tolerance] = accuracy(network)
    assert left[3.0] < 0.7
    assert left[3.0] < left[0.0]
    assert learned[0.0] > 0.85


def test_what_was_trimmed_comes_back_when_the_loss_does_not() -> None:
    network = classifier("tt")
    run = Training.of(network, AdaptationOptions(loss_tolerance=0.1, warm_up=(0.0, 0.1)), 10)
    run.epoch(0)
    full = {name: part.ranks for name, part in run.adaptation.layers}
    adaptation, optimizer = run.adaptation, run.optimizer
    weights = [part.dense().detach().clone() for _, part in adaptation.layers]
    memory = [len(optimizer.state[p]) for p in network.parameters()]
    adaptation.end_epoch(1, optimizer, loss=0.1)
    assert {name: part.ranks for name, part in adaptation.layers} != full
    adaptation.end_epoch(2, optimizer, loss=9.0)
    saved = adaptation.state_dict()["fallback"]
    kept = deepcopy(saved)
    changes = adaptation.end_epoch(3, optimizer, loss=9.0)
    assert {name: part.ranks for name, part in adaptation.layers} == full
    assert {change.layer: change.after for change in changes}.items() <= full.items()
    for (_, part), weight in zip(adaptation.layers, weights, strict=True):
        torch.testing.assert_close(part.dense(), weight, rtol=0, atol=1e-5)
    for parameter, entries in zip(network.parameters(), memory, strict=True):
        state = optimizer.state[parameter]
        assert len(state) == entries
        assert state["exp_avg_sq"].shape == parameter.shape
    run.epoch(4)  # and training goes on
    for now, then in zip(saved, kept, strict=True):  # a checkpoint is not what is trained
        torch.testing.assert_close(now["values"], then["values"], rtol=0, atol=0)


def test_importance_is_the_squared_change_without_an_index() -> None:
    # Truth: the loss is linear in the weight here, so taking an index away changes it by exactly
    # its first-order term.
    train = TensorTrain(SQUARE, (3, 4, 2), dtype=torch.float64)
    train.reset(0.2, torch.Generator().manual_seed(0))
    direction = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).double()
    loss = (train.dense() * direction).sum()
    loss.backward()
    importance = RankImportance(train)
    importance.observe()
    importance.observe()
    for bond, rank in enumerate(train.ranks):
        for index in range(rank):
            less = deepcopy(train)
            less.cut(bond, [k for k in range(rank) if k != index])
            change = (loss - (less.dense() * direction).sum()).item()
            assert importance.sums[bond][index].item() == pytest.approx(2 * change**2)


def test_ranks_that_inputs_never_reach_go_first() -> None:
    # Two outer products of equal energy; the inputs excite only the first one's direction.
    network = nn.Sequential(Layer(TensorTrain(Folding(rows=(8,), columns=(8,)), (4,))))
    options = AdaptationOptions(
        strength=0.0, target_params=8 + 16 * 2, warm_up=(0.0, 0.0), settle=0.5, cut_at=0.0
    )
    adaptation = RankAdaptation(network, options, samples=1, epochs=2)
    part = adaptation.layers[0][1]
    basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    with torch.no_grad():
        part.cores[0].copy_(basis[:, :4][None] * torch.tensor([1.0, 1.1, 1.2, 1.3]))
        part.cores[1].copy_(
            basis[:, 4:].T[..., None] * torch.tensor([1.0, 1.1, 1.2, 1.3])[:, None, None]
        )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    seen = basis[:, :2].T
    for _ in range(EVERY):
        optimizer.zero_grad()
        network(seen).square().sum().backward()
        optimizer.step()
        adaptation.after_step()
    adaptation.end_epoch(0, optimizer, loss=1.0)
    assert part.ranks == (2,)
    weight = part.dense().detach()
    assert (weight @ basis[:, 2:4]).abs().max() < 1e-5
    assert (weight @ basis[:, :2]).norm(dim=0).tolist() == pytest.approx([1.0, 1.21], abs=1e-4)


def test_target_below_the_least_ranks_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"10 parameters cannot be had: \d+ remain at rank 1"):
        RankAdaptation(classifier("tt"), AdaptationOptions(target_params=10), samples=1, epochs=1)


def test_network_without_factors_has_no_penalty() -> None:
    adaptation = RankAdaptation(nn.Linear(3, 2), AdaptationOptions(), samples=10, epochs=2)
    assert adaptation.penalty().item() == 0
    assert adaptation.end_epoch(0, None, loss=1.0) == ()
