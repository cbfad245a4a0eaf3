"""Masters and optimiser state of a few bits, and the account of what is stored."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgecompress.core.training import PrecisionOptions
from edgecompress.training.adaptation.cutting import cut_bond, pool_moments
from edgecompress.training.factorized import load_format
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.layers import TensorizedLinear
from edgecompress.training.low_precision import (
    PreciseOptimizer,
    apply_precision,
    dense_bits,
    stored_bits,
)
from edgecompress.training.low_precision.rounding import stream, to_bfloat16


def network_of(options: PrecisionOptions) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    factorization = load_format("ttm")(Folding((4, 8), (4, 4)), (3,))
    factorization.reset(0.3, generator)
    network = nn.Sequential(
        TensorizedLinear(factorization, torch.zeros(32)), nn.ReLU(), nn.Linear(32, 2)
    )
    nn.init.normal_(network[2].weight, 0, 0.2, generator=generator)
    nn.init.zeros_(network[2].bias)
    apply_precision(network, options, seed=1)
    return network


def adam(network: nn.Module, options: PrecisionOptions, lr: float = 1e-2) -> PreciseOptimizer:
    return PreciseOptimizer(torch.optim.Adam(network.parameters(), lr=lr), network, options, seed=2)


def steps(network: nn.Module, optimizer: PreciseOptimizer, count: int) -> float:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(64, 16, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    loss = torch.zeros(())
    for _ in range(count):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def on_grid(values: Tensor, bits: int) -> bool:
    """Whether some power of two makes all values integers of that width."""
    limit = 2 ** (bits - 1) - 1
    for exponent in range(-60, 10):
        codes = values.detach().double() * 2.0**-exponent
        if codes.abs().max() <= limit:
            return torch.equal(codes, codes.round())
    return False


def on_odd_grid(values: Tensor, largest: int) -> bool:
    """Whether some power of two makes all values odd integers up to the largest."""
    for exponent in range(-60, 10):
        codes = values.detach().double() * 2.0**-exponent
        if bool((codes.remainder(2) == 1).all() and codes.abs().max() <= largest):
            return True
    return False


@pytest.mark.parametrize(("master", "factor", "bias"), [(16, 16, 16), (8, 8, 8), (0, 4, 8)])
def test_parameters_are_codes_after_a_step(master: int, factor: int, bias: int) -> None:
    options = PrecisionOptions(master_bits=master, state_bits=16)
    network = network_of(options)
    optimizer = adam(network, options)
    before = steps(network, optimizer, 1)
    assert steps(network, optimizer, 60) < before
    for weight in (*network[0].factorization.cores, network[2].weight):
        assert on_grid(weight, factor) if master else on_odd_grid(weight, 15)
        assert on_grid(weight.grad, 16)
    assert on_grid(network[0].bias, bias)
    for parameter in network.parameters():
        assert optimizer.state[parameter]["exp_avg_sq"].dtype is torch.bfloat16
        assert optimizer.state[parameter]["exp_avg_sq"].shape == parameter.shape


def test_float_masters_and_state_are_torch_adam() -> None:
    """Truth: torch's Adam on the same gradients."""
    options = PrecisionOptions()
    network, twin = network_of(options), network_of(options)
    plain = torch.optim.Adam(twin.parameters(), lr=1e-2)
    precise = adam(network, options)
    x, y = torch.ones(3, 16), torch.tensor([0, 1, 1])
    for _ in range(3):
        for model, optimizer in ((network, precise), (twin, plain)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_penalty_from_outside_is_rounded_as_well() -> None:
    options = PrecisionOptions(gradient_bits=8)
    network = network_of(options)
    optimizer = adam(network, options)
    network(torch.ones(2, 16)).sum().backward()
    for core in network[0].factorization.cores:
        core.grad += 1e-3 * core.detach()
    optimizer.step()
    assert all(on_grid(core.grad, 8) for core in network[0].factorization.cores)


def test_state_dict_continues_with_the_same_bits() -> None:
    options = PrecisionOptions(master_bits=12, state_bits=16, rounding="stochastic")
    network = network_of(options)
    optimizer = adam(network, options)
    steps(network, optimizer, 5)
    twin = copy.deepcopy(network)
    other = adam(twin, options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.state[next(twin.parameters())]["exp_avg"].dtype is torch.bfloat16
    steps(network, optimizer, 5)
    steps(twin, other, 5)
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_second_moment_does_not_stall() -> None:
    """Truth: v_n = (1 - 0.999^n) of a constant square; nearest rounding stops where an update is
    below half a unit in the last place, at v = 0.001 / 2^-9 of it at the latest."""
    start = torch.ones(4000)
    nearest, random, noise = start.bfloat16(), start.bfloat16(), stream(0, "moment")
    for _ in range(1000):
        nearest = (nearest.float() * 0.999).bfloat16()
        random = to_bfloat16(random.float() * 0.999, noise)
    assert nearest.float().mean() > 0.99
    assert abs(random.float().mean().item() - 0.999**1000) < 0.01


def test_bfloat16_keeps_what_is_exact() -> None:
    values = torch.tensor([0.0, 1.0, -2.5, float("inf"), float("nan"), -1e38])
    exact = values.bfloat16()
    again = to_bfloat16(exact.float(), stream(0, "x"))
    assert torch.equal(again[:4], exact[:4])
    assert again[4].isnan()
    assert torch.equal(again[5], exact[5])


def test_learning_rate_schedulers_work() -> None:
    options = PrecisionOptions()
    network = network_of(options)
    optimizer = adam(network, options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    steps(network, optimizer, 1)
    scheduler.step()
    assert optimizer.inner.param_groups[0]["lr"] == 0.5e-2


def test_account_adds_up() -> None:
    """Truth: counted by hand. Cores 4*4*3 + 3*8*4 = 144, head 64: 208 factors; 34 biases; 5 tensors
    (2 cores, 2 biases, 1 weight); sites: input and two products, input and one product."""
    options = PrecisionOptions(master_bits=16, state_bits=16)
    network = network_of(options)
    optimizer = adam(network, options)
    steps(network, optimizer, 1)
    stored = stored_bits(network, optimizer)
    parameter_bits = 208 * 4 + 34 * 8 + 5 * 8 + 5 * 8
    assert stored.parameter_bits == parameter_bits
    training_bits = parameter_bits + 242 * (16 + 16 + 2 * 16) + 2 * 5 * 8
    assert stored.training_bits == training_bits + 208 * (8 - 4)  # wide at first
    always = replace(options, wide_share=0.0)
    network = network_of(always)
    optimizer = adam(network, always)
    steps(network, optimizer, 1)
    assert stored_bits(network, optimizer).training_bits == training_bits
    assert dense_bits(407050, 2) == 407050 * 16 * 8


@pytest.mark.parametrize("master", [0, 16, 32])
def test_a_cut_carries_masters_and_state_along(master: int) -> None:
    """Truth: slices of what was there; training goes on with the same widths."""
    options = PrecisionOptions(master_bits=master, state_bits=16, rounding="stochastic")
    network = network_of(options)
    optimizer = adam(network, options)
    steps(network, optimizer, 3)
    part = network[0].factorization
    core = part.cores[0]
    kept = torch.tensor([0, 2])
    values = core.detach().index_select(3, kept)
    moment = optimizer.state[core]["exp_avg"].index_select(3, kept)
    cut_bond(part, 0, kept, optimizer)
    assert torch.equal(core, values)
    assert torch.equal(optimizer.state[core]["exp_avg"], moment)
    assert optimizer.state[core]["exp_avg"].dtype is torch.bfloat16
    part.balance()
    pool_moments(optimizer, part.cores)
    before = steps(network, optimizer, 1)
    assert steps(network, optimizer, 30) < before
    state = optimizer.state[core]["exp_avg_sq"]
    assert state.shape == core.shape
    assert state.dtype is torch.bfloat16
    count = sum(p.numel() for p in network.parameters())
    moments = [part for part in stored_bits(network, optimizer).parts if "state" in part.name]
    assert [(part.count, part.bits) for part in moments] == [(2 * count, 16)]
