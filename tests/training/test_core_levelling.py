"""Cores of one magnitude: the same weight, and an optimiser that goes on as before."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from edgecompress.core.training import AdaptationOptions
from edgecompress.training.adaptation import RankAdaptation, levelling
from edgecompress.training.adaptation import adaptation as adaptation_module
from edgecompress.training.adaptation.levelling import (
    core_sizes,
    follow_sizes,
    follow_slices,
    level_cores,
)
from edgecompress.training.factorized import format_names, load_format
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.ttm import TensorTrainMatrix

TABLE = Folding((12, 13, 14), (2, 2, 2))


def uneven(format_name: str) -> Factorization:
    """Of three or more cores, magnitudes far apart."""
    kind = load_format(format_name)
    folding = TABLE if format_name == "ttm" else Folding((6, 8), (4, 8))
    part = kind(folding, tuple(min(3, rank) for rank in kind.max_ranks(folding)))
    part.reset(0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        part.cores[0].mul_(100.0)
    return part


def table(std: float) -> TensorTrainMatrix:
    """Balanced: the middle core has entries below 1, the others carry the norm."""
    part = TensorTrainMatrix(TABLE, (3, 3))
    part.reset(std, torch.Generator().manual_seed(0))
    part.balance()
    return part


@pytest.mark.parametrize("format_name", format_names())
def test_all_cores_have_one_magnitude_and_the_weight_is_the_same(format_name: str) -> None:
    part = uneven(format_name)
    weight = part.dense().detach()
    spectra = [part.spectrum(bond) for bond in range(len(part.ranks))]
    mean = torch.tensor(core_sizes(part)).log().mean().exp()
    assert level_cores(part)
    assert core_sizes(part) == pytest.approx([float(mean)] * len(part.cores), rel=1e-5)
    error = (part.dense() - weight).norm() / weight.norm()
    assert float(error.detach()) < 1e-6
    for bond, before in enumerate(spectra):
        torch.testing.assert_close(part.spectrum(bond), before, rtol=1e-5, atol=0)


def test_balancing_is_as_if_nothing_had_been_levelled() -> None:
    part = table(30.0)
    assert max(core_sizes(part)) > levelling.APART * min(core_sizes(part))
    cores = [core.detach().clone() for core in part.cores]
    values = [part.spectrum(bond) for bond in range(2)]
    assert level_cores(part)
    part.balance()
    for core, before in zip(part.cores, cores, strict=True):
        # Up to the sign of an index of a bond.
        torch.testing.assert_close(core.detach().abs(), before.abs(), rtol=1e-4, atol=1e-4)
    for bond, before in enumerate(values):
        torch.testing.assert_close(part.spectrum(bond), before, rtol=1e-5, atol=0)


def test_cores_of_about_one_magnitude_and_zeros_stay() -> None:
    near = TensorTrainMatrix(TABLE, (3, 3))
    near.reset(0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        near.cores[0].mul_(5.0)
    zero = TensorTrainMatrix(TABLE, (3, 3))
    for part in (near, zero):
        before = [core.detach().clone() for core in part.cores]
        assert not level_cores(part)
        assert all(torch.equal(a, b) for a, b in zip(part.cores, before, strict=True))


def step(part: TensorTrainMatrix, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What one step adds to each core."""
    before = [core.detach().clone() for core in part.cores]
    rows = torch.arange(0, 2184, 7)
    optimizer.zero_grad()
    (part.gather(rows) - 1).square().mean().backward()
    optimizer.step()
    return [core.detach() - old for core, old in zip(part.cores, before, strict=True)]


def test_cores_of_about_one_magnitude_are_levelled_once_ranks_have_settled() -> None:
    part = load_format("tt")(Folding((6, 8), (4, 8)), (3, 5, 4))
    part.reset(0.5, torch.Generator().manual_seed(0))
    part.balance()
    optimizer = torch.optim.Adam(part.cores, lr=1e-3)
    part.dense().square().sum().backward()
    optimizer.step()
    moments = [float(optimizer.state[core]["exp_avg_sq"].mean()) for core in part.cores]
    sizes = core_sizes(part)
    assert 1.2 < max(sizes) / min(sizes) < levelling.APART
    options = AdaptationOptions(cut_at=0.0, warm_up=(0.0, 0.1), settle=0.5)
    adaptation = RankAdaptation(part, options, samples=100, epochs=2)
    adaptation.end_epoch(0, optimizer, loss=1.0)
    after = core_sizes(part)
    assert adaptation.settled
    assert after == pytest.approx([after[0]] * 4, rel=1e-5)
    for core, old, was in zip(part.cores, sizes, moments, strict=True):
        now = float(optimizer.state[core]["exp_avg_sq"].mean())
        assert now == pytest.approx(was * (old / after[0]) ** 2, rel=1e-4)


def test_adam_takes_the_step_that_it_would_have_taken_core_by_core() -> None:
    # Truth: the update m / sqrt(v) of Adam does not depend on the gradient's scale, so a core moves
    # by the same amount as without levelling, gradients, m and v having followed.
    plain = table(30.0)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for _ in range(5):
        step(plain, optimizer)
    levelled, twin = deepcopy((plain, optimizer))
    sizes = core_sizes(levelled)
    assert level_cores(levelled)
    follow_sizes(twin, levelled, sizes)
    for one, other in zip(step(plain, optimizer), step(levelled, twin), strict=True):
        assert float((one - other).norm() / one.norm()) < 2e-3


@pytest.mark.parametrize("format_name", ["tt", "ttm", "tucker"])
def test_second_moments_of_slices_are_those_of_the_gradients(format_name: str) -> None:
    # Truth: mean squared gradients under losses that are linear in the weight, drawn at random.
    kind, folding = load_format(format_name), Folding((8, 16), (8, 16))
    part = kind(folding, (4,) * len(kind.max_ranks(folding)))
    part.reset(0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        part.cores[0].mul_(torch.linspace(0.2, 1.0, 4))
    part.balance()
    generator = torch.Generator().manual_seed(1)
    squares = [torch.zeros_like(core) for core in part.cores]
    for _ in range(400):
        direction = torch.randn(part.folding.shape, generator=generator)
        part.zero_grad()
        (part.dense() * direction).sum().backward()
        for k, core in enumerate(part.cores):
            assert core.grad is not None
            squares[k] += core.grad.square()
    optimizer = torch.optim.Adam(part.cores)
    for core in part.cores:
        optimizer.state[core] = {"exp_avg_sq": torch.ones_like(core)}
    follow_slices(optimizer, part)
    for place in kind.bonds(part.folding):
        for core, axis in place.members:
            others = [a for a in range(squares[core].ndim) if a != axis]
            truth = squares[core].mean(others)
            now = optimizer.state[part.cores[core]]["exp_avg_sq"].mean(others)
            torch.testing.assert_close(now / now.mean(), truth / truth.mean(), rtol=0.3, atol=0.0)


def test_momentum_follows_by_the_first_power() -> None:
    part = table(30.0)
    optimizer = torch.optim.SGD(part.parameters(), lr=1e-9, momentum=0.9)
    step(part, optimizer)
    before = [optimizer.state[core]["momentum_buffer"].clone() for core in part.cores]
    old = [float(core.detach().norm()) for core in part.cores]
    sizes = core_sizes(part)
    level_cores(part)
    follow_sizes(optimizer, part, sizes)
    for core, norm, was in zip(part.cores, old, before, strict=True):
        now = optimizer.state[core]["momentum_buffer"] * float(core.detach().norm())
        torch.testing.assert_close(now, was * norm, rtol=1e-4, atol=0)


@pytest.mark.parametrize("inference", ["map", "bayesian"])
def test_adaptation_levels_cores_their_noise_and_the_optimizer(inference: str) -> None:
    part = table(30.0)
    options = AdaptationOptions(inference=inference, balance_epochs=1, cut_at=0.0)
    adaptation = RankAdaptation(part, options, samples=100, epochs=4)
    optimizer = torch.optim.Adam(part.cores, lr=1e-3)
    step(part, optimizer)
    sampled = adaptation.variances("").sampled
    shares = None if sampled is None else sampled.noise_shares(list(part.cores))
    moments = [float(optimizer.state[core]["exp_avg_sq"].mean()) for core in part.cores]
    sizes = core_sizes(part)
    adaptation.end_epoch(0, optimizer, loss=1.0)
    after = core_sizes(part)
    assert after == pytest.approx([after[0]] * 3, rel=1e-5)
    for core, old, new, was in zip(part.cores, sizes, after, moments, strict=True):
        now = optimizer.state[core]["exp_avg_sq"]
        assert float(now.mean()) == pytest.approx(was * (old / new) ** 2, rel=1e-4)
    if sampled is not None and shares is not None:
        for core, share in sampled.noise_shares(list(part.cores)).items():
            assert float(share) == pytest.approx(float(shares[core]), rel=1e-3)


def fitted(epochs: int = 6) -> float:
    """Error of a table that learns a planted one by its rows while its ranks fall; relative."""
    generator = torch.Generator().manual_seed(1)
    truth = TensorTrainMatrix(TABLE, (2, 2))
    truth.reset(10.0, generator)
    part = TensorTrainMatrix(TABLE, (3, 3))
    part.reset_table(10.0, generator)
    options = AdaptationOptions(balance_epochs=2, warm_up=(0.0, 0.1))
    adaptation = RankAdaptation(part, options, samples=6400, epochs=epochs)
    optimizer = torch.optim.Adam(part.parameters(), lr=0.05)
    for epoch in range(epochs):
        for _ in range(50):
            rows = torch.randint(0, 2184, (128,), generator=generator)
            loss = (part.gather(rows) - truth.gather(rows).detach()).square().mean()
            optimizer.zero_grad()
            (loss + adaptation.penalty()).backward()
            optimizer.step()
            adaptation.after_step()
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - (epoch + 1) / epochs)
        adaptation.end_epoch(epoch, optimizer, loss=float(loss.detach()))
    with torch.no_grad():
        wrong = (part.dense() - truth.dense()).norm() / truth.dense().norm()
    return float(wrong)


def test_a_table_learns_better_where_the_optimizer_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = fitted()
    monkeypatch.setattr(levelling, "APART", float("inf"))
    monkeypatch.setattr(levelling, "LEAST_APART", float("inf"))
    monkeypatch.setattr(adaptation_module, "follow_sizes", lambda *_: None)
    assert followed < 0.5 * fitted()
