"""Closed-form rank variances against a numerical minimiser, and the penalty they make."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from edgecompress.core.training import Prior
from edgecompress.training.adaptation.priors import best_variances, floored, slice_objective
from edgecompress.training.adaptation.sampling import SampledCores
from edgecompress.training.adaptation.variances import RankVariances
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.tt import TensorTrain

FOLDING = Folding(rows=(3, 2), columns=(4, 3))
PRIORS: tuple[Prior, ...] = ("log-uniform", "half-cauchy")


def made(seed: int = 0) -> TensorTrain:
    train = TensorTrain(FOLDING, (3, 4, 2), dtype=torch.float64)
    train.reset(0.5, torch.Generator().manual_seed(seed))
    return train


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("energy", [1e-6, 0.3, 50.0])
@pytest.mark.parametrize("entries", [1, 8, 400])
@pytest.mark.parametrize("eta", [0.01, 1.0])
def test_variance_minimises_the_stated_objective(
    prior: Prior, energy: float, entries: int, eta: float
) -> None:
    # Truth: the objective written out here in s, minimised by scipy over log s.
    def objective(log_s: float) -> float:
        s = math.exp(log_s)
        hyper = log_s if prior == "log-uniform" else math.log1p(s**2 / eta**2)
        return entries * log_s + energy / (2 * s**2) + hyper

    found = minimize_scalar(objective, bounds=(-20, 10), method="bounded", options={"xatol": 1e-9})
    variance = best_variances(torch.tensor([energy], dtype=torch.float64), entries, prior, eta)
    assert 0.5 * math.log(variance.item()) == pytest.approx(found.x, abs=1e-5)
    ours = slice_objective(
        variance, torch.tensor([energy], dtype=torch.float64), entries, prior, eta
    )
    assert ours.item() == pytest.approx(found.fun, abs=1e-9)


def test_half_cauchy_keeps_its_digits_in_float32() -> None:
    # Truth: the same quadratic solved in float64.
    energy = torch.tensor([1e-9, 1e-4, 1.0])
    exact = best_variances(energy.double(), 1000, "half-cauchy", 1.0)
    torch.testing.assert_close(
        best_variances(energy, 1000, "half-cauchy", 1.0).double(), exact, rtol=1e-5, atol=0
    )


def test_variances_have_a_floor_even_for_slices_of_zero() -> None:
    assert floored(torch.tensor([0.0, 4.0])).tolist() == pytest.approx([4e-12, 4.0])
    assert (floored(torch.zeros(3)) > 0).all()
    train = made()
    with torch.no_grad():
        train.cores[1][:, :, 0] = 0
        train.cores[2][:] = 0
    penalty = RankVariances(train, "log-uniform", 0.1).penalty()
    penalty.backward()
    assert penalty.isfinite()
    assert all(core.grad is not None and core.grad.isfinite().all() for core in train.cores)


def test_energies_and_entries_of_a_train_are_those_of_its_right_slices() -> None:
    # Truth: D = r n at each inner bond; the last bond is charged for both of its sides.
    train = made()
    variances = RankVariances(train, "log-uniform", 0.1)
    assert [variances.entries(bond) for bond in range(3)] == [4, 9, 4 * 3 + 2]
    cores = [core.detach().numpy() for core in train.cores]
    expected = [
        (cores[0] ** 2).sum((0, 1)),
        (cores[1] ** 2).sum((0, 1)),
        (cores[2] ** 2).sum((0, 1)) + (cores[3] ** 2).sum((1, 2)),
    ]
    for energy, wanted in zip(variances.energies(), expected, strict=True):
        assert energy.tolist() == pytest.approx(wanted.tolist())


@pytest.mark.parametrize("prior", PRIORS)
def test_gradient_is_that_of_the_objective_without_its_variances(prior: Prior) -> None:
    # Truth: central differences of the objective, variances minimised out at each point.
    train = made()
    variances = RankVariances(train, prior, 0.3)
    variances.penalty().backward()
    core = train.cores[2]
    assert core.grad is not None
    step = 1e-6
    for place in ((0, 0, 0), (3, 2, 1), (1, 1, 0)):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                core[place] += sign * step
                variances.refresh()
                sides.append(variances.objective())
                core[place] -= sign * step
        assert core.grad[place].item() == pytest.approx(
            (sides[0] - sides[1]) / (2 * step), rel=1e-4
        )


def test_sampled_penalty_is_the_divergence_from_the_prior() -> None:
    # Truth: torch.distributions, entry by entry, each entry with the variance of its right bond.
    train = made()
    sampled = SampledCores(list(train.cores), TensorTrain.bonds(FOLDING))
    train.views.append(sampled)
    with torch.no_grad():
        for logs in sampled.log_sigma.values():
            logs.uniform_(-4, -1, generator=torch.Generator().manual_seed(1))
    variances = RankVariances(train, "log-uniform", 0.1, sampled=sampled)
    penalty = variances.penalty()
    expected = 0.0
    for place, core in enumerate(train.cores):
        variance = variances.variances[min(place, 2)]
        shape = (1, 1, -1) if place < 3 else (-1, 1, 1)
        prior = torch.distributions.Normal(0.0, variance.sqrt().reshape(shape).expand_as(core))
        posterior = torch.distributions.Normal(core, sampled.log_sigma[str(place)].exp())
        expected += torch.distributions.kl_divergence(posterior, prior).sum().item()
    assert penalty.item() == pytest.approx(expected)


def test_samples_have_the_stated_moments_in_training_only() -> None:
    mean = torch.full((200, 50, 1), 2.0)
    generator = torch.Generator().manual_seed(0)
    bonds = TensorTrain.bonds(Folding(rows=(1,), columns=(200,)))
    sampled = SampledCores([mean, mean], bonds, generator)
    with torch.no_grad():
        sampled.log_sigma["0"].fill_(math.log(0.5))
    draw = sampled([mean, mean])[0]
    assert draw.mean().item() == pytest.approx(2.0, abs=0.03)  # 6 standard errors
    assert draw.std().item() == pytest.approx(0.5, abs=0.02)
    assert sampled.eval()([mean, mean])[0] is mean


def test_noise_keeps_its_share_of_energy_when_the_gauge_changes() -> None:
    train = made()
    sampled = SampledCores(list(train.cores), TensorTrain.bonds(FOLDING))
    with torch.no_grad():
        for logs in sampled.log_sigma.values():
            logs.uniform_(-4, -1, generator=torch.Generator().manual_seed(2))
    before = sampled.noise_shares(list(train.cores))
    train.balance()
    sampled.spread(list(train.cores), before)
    after = sampled.noise_shares(list(train.cores))
    assert after.keys() == before.keys()
    for place, share in before.items():
        assert after[place].item() == pytest.approx(share.item(), rel=1e-6)
