"""Training without back-propagation."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from edgecompress.core.training import PrecisionOptions, TrainOptions
from edgecompress.training.factorized import load_format
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.layers import TensorizedLinear
from edgecompress.training.low_precision import PreciseOptimizer, apply_precision
from edgecompress.training.output_losses import BinaryCrossEntropy, CrossEntropy, MeanSquare
from edgecompress.training.schedule import make_optimizer
from edgecompress.training.subspace_newton import SubspaceNewton, SubspaceOptions
from edgecompress.training.tasks import IGNORED
from edgecompress.training.zeroth_order import (
    ZerothOrder,
    ZerothOrderOptions,
    trainable_without_gradients,
)


def classifier(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    factorization = load_format("ttm")(Folding((4, 4), (4, 4)), (2,))
    factorization.reset(0.35, generator)
    network = nn.Sequential(
        TensorizedLinear(factorization, torch.zeros(16)), nn.Tanh(), nn.Linear(16, 2)
    )
    nn.init.normal_(network[2].weight, 0, 0.25, generator=generator)
    nn.init.zeros_(network[2].bias)
    return network


def samples() -> tuple[Tensor, Tensor]:
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(5))
    return x, (x[:, 0] + x[:, 5] > 0).long()


def test_estimate_is_the_gradient_in_the_mean() -> None:
    """Truth: the gradient of a quadratic is A w; antithetic pairs have no second-order error."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = matrix @ matrix.T
    start = torch.randn(6, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(start.clone())
    options = ZerothOrderOptions(directions=5000, rule="sgd", smoothing=0.5)
    ZerothOrder([parameter], 1.0, options, seed=1).step(
        lambda: 0.5 * parameter @ matrix @ parameter
    )
    wanted = matrix @ start
    error = (start - parameter.detach() - wanted).norm() / wanted.norm()
    assert error < 5 * (6 / 5000) ** 0.5


@pytest.mark.parametrize("per_factor", [False, True])
@pytest.mark.parametrize("rule", ["adam", "momentum", "sgd"])
def test_loss_falls_and_no_graph_is_built(per_factor: bool, rule: str) -> None:
    network = classifier()
    x, y = samples()
    options = ZerothOrderOptions(directions=8, rule=rule, per_factor=per_factor)  # type: ignore[arg-type]
    lr = {"adam": 0.02, "momentum": 0.01, "sgd": 0.1}[rule]
    optimizer = ZerothOrder(network.parameters(), lr, options)

    def closure() -> Tensor:
        loss = nn.functional.cross_entropy(network(x), y)
        assert loss.grad_fn is None
        return loss

    first = optimizer.step(closure)
    for _ in range(60):
        last = optimizer.step(closure)
    assert last < 0.75 * first
    blocks = len(list(network.parameters())) if per_factor else 1
    assert optimizer.evaluations == 61 * 2 * 8 * blocks
    assert all(p.grad is None for p in network.parameters())


def test_parameters_come_back_exactly() -> None:
    """A step with a rate of 0 leaves every bit, though perturbations were added and removed."""
    network = classifier()
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = ZerothOrder(network.parameters(), 0.0, ZerothOrderOptions(smoothing=0.1234567))
    x, y = samples()
    optimizer.step(lambda: nn.functional.cross_entropy(network(x), y))
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_zeroth_order_continues_with_the_same_bits() -> None:
    x, y = samples()
    network = classifier()
    optimizer = ZerothOrder(network.parameters(), 0.02, ZerothOrderOptions(directions=2), seed=3)
    for _ in range(3):
        optimizer.step(lambda: nn.functional.cross_entropy(network(x), y))
    twin = copy.deepcopy(network)
    other = ZerothOrder(twin.parameters(), 0.02, ZerothOrderOptions(directions=2), seed=9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(lambda: nn.functional.cross_entropy(network(x), y))
        other.step(lambda: nn.functional.cross_entropy(twin(x), y))
    assert other.evaluations == optimizer.evaluations == 24
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_smoothing_falls_geometrically() -> None:
    """Truth: the middle of 1e-1 and 1e-3 on a logarithmic scale is 1e-2."""
    options = ZerothOrderOptions(smoothing=1e-1, smoothing_end=1e-3, smoothing_steps=10)
    assert [options.smoothing_at(step) for step in (0, 5, 10, 99)] == pytest.approx(
        [1e-1, 1e-2, 1e-3, 1e-3]
    )


@pytest.mark.parametrize(
    "wrong", [{"directions": 0}, {"smoothing": 0.0}, {"betas": (1.0, 0.9)}, {"smoothing_steps": -1}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"at least|positive|below"):
        ZerothOrderOptions(**wrong)  # type: ignore[arg-type]


def test_a_closure_is_needed() -> None:
    with pytest.raises(ValueError, match="needs a closure"):
        ZerothOrder([nn.Parameter(torch.zeros(1))]).step()


def test_works_forward_only_on_codes() -> None:
    """Perturbations as large as a step of the factors' grid are seen through 4-bit rounding."""
    options = PrecisionOptions(master_bits=16, state_bits=16)
    network = classifier()
    apply_precision(network, options, seed=0)
    inner = ZerothOrder(network.parameters(), 0.02, ZerothOrderOptions(directions=8, smoothing=0.1))
    optimizer = PreciseOptimizer(inner, network, options, seed=0)
    x, y = samples()
    losses = [
        optimizer.step(lambda: nn.functional.cross_entropy(network(x), y).detach())
        for _ in range(25)
    ]
    assert losses[-1] < 0.75 * losses[0]
    assert inner.state[next(network.parameters())]["exp_avg"].dtype is torch.bfloat16


def test_what_is_trained_without_gradients() -> None:
    network = classifier()
    chosen = trainable_without_gradients(network)
    cores = list(network[0].factorization.cores)
    assert {id(p) for p in chosen} == {id(p) for p in (*cores, network[0].bias, network[2].bias)}


def test_whole_space_step_solves_least_squares() -> None:
    """Truth: numpy's least squares; with as many directions as dimensions one step is exact."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(30, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    options = SubspaceOptions(directions=5, damping=1e-12)
    optimizer = SubspaceNewton([parameter], 1.0, options)
    optimizer.step(lambda: matrix @ parameter, MeanSquare(target))
    wanted = torch.linalg.lstsq(matrix, target[:, None]).solution[:, 0]
    torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-6, atol=1e-8)
    assert optimizer.evaluations == 7


def test_mean_step_of_a_random_subspace() -> None:
    """Truth: the mean of a random projection, arXiv 2006.10653 (2020): along an eigenvector of
    eigenvalue k the share m k / (1 + m k) of a whole Newton step, with shares that add up to the
    directions."""
    count, directions, steps = 24, 8, 500
    curvature = torch.logspace(0, -3, count, dtype=torch.float64)
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        shares = middle * curvature / (1 + middle * curvature)
        low, high = (middle, high) if shares.sum() < directions else (low, middle)
    moved = torch.zeros(count, dtype=torch.float64)
    options = SubspaceOptions(directions=directions, damping=1e-12)
    for seed in range(steps):
        parameter = nn.Parameter(torch.ones(count, dtype=torch.float64))
        SubspaceNewton([parameter], 1.0, options, seed=seed).step(
            lambda p=parameter: curvature.sqrt() * p, MeanSquare(torch.zeros(count))
        )
        moved += (1 - parameter.detach()) / steps
    in_newton_steps = (moved * curvature.sqrt(), shares * curvature.sqrt())
    torch.testing.assert_close(*in_newton_steps, rtol=0, atol=0.04)
    assert shares[0] > 0.85
    assert shares[-1] < 0.1


@pytest.mark.parametrize(
    ("parameters", "batch", "directions"),
    [(1082, 1024, 341), (1082, 4096, 360), (1082, 128, 48), (100_000, 4096, 512), (20, 1024, 20)],
)
def test_directions_follow_parameters_and_batch(
    parameters: int, batch: int, directions: int
) -> None:
    """Truth: a third of the fewer of the two, from 48 to 512, by hand."""
    network = nn.Linear(parameters, 1, bias=False)
    options = TrainOptions(optimizer="zeroth-order", batch=batch)
    optimizer = make_optimizer(network, options)
    assert isinstance(optimizer, SubspaceNewton)
    assert optimizer.options.directions == directions


def test_derivatives_of_the_losses_over_outputs() -> None:
    """Truth: torch's automatic derivatives in float64."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    changes = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    partly = torch.tensor([0, IGNORED, 2, 3, IGNORED, 1, 2])
    wanted = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    clicks = (wanted > 0).double()
    for loss, function in (
        (CrossEntropy(labels), lambda z: nn.functional.cross_entropy(z, labels)),
        (CrossEntropy(partly), lambda z: nn.functional.cross_entropy(z, partly)),
        (MeanSquare(wanted), lambda z: (z - wanted).square().mean()),
        (
            BinaryCrossEntropy(clicks),
            lambda z: nn.functional.binary_cross_entropy_with_logits(z, clicks),
        ),
    ):
        gradient = torch.autograd.functional.jacobian(function, outputs)
        torch.testing.assert_close(loss.gradient(outputs), gradient)
        curved = torch.stack(
            [torch.autograd.functional.hvp(function, outputs, change)[1] for change in changes]
        )
        torch.testing.assert_close(loss.curved(outputs, changes), curved)
        assert loss.value(outputs) == pytest.approx(float(function(outputs)))


def test_subspace_steps_learn_and_continue_with_the_same_bits() -> None:
    x, y = samples()
    network = classifier()
    options = SubspaceOptions(directions=8)
    optimizer = SubspaceNewton(network.parameters(), 1.0, options, seed=1)
    losses = [optimizer.step(lambda: network(x), CrossEntropy(y)) for _ in range(15)]
    assert losses[-1] < 0.4 * losses[0]
    assert all(after <= before for before, after in pairwise(losses))
    twin = copy.deepcopy(network)
    other = SubspaceNewton(twin.parameters(), 1.0, options, seed=7)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(lambda: network(x), CrossEntropy(y))
        other.step(lambda: twin(x), CrossEntropy(y))
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_that_raises_the_loss_is_taken_back() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = SubspaceNewton([parameter], 50.0, SubspaceOptions(directions=1))
    damping = optimizer.damping
    optimizer.step(lambda: parameter.detach().clone(), MeanSquare(torch.zeros(1)))
    assert parameter.item() == 1.0
    assert optimizer.damping > damping


def test_a_price_of_the_parameters_takes_part() -> None:
    """Truth: the minimum of (a w - b)^2 / 3 + c w^2 summed by entry, by hand: 3 c is added to a^2.

    The directions span the whole space but are not orthogonal, and of the price only its curvature
    along each is used: the minimum takes several steps."""
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    target = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = SubspaceNewton([parameter], 1.0, SubspaceOptions(directions=3))
    for _ in range(100):
        optimizer.step(
            lambda: scale * parameter,
            MeanSquare(target),
            price=lambda: 0.5 * parameter.square().sum(),
        )
    wanted = scale * target / (scale.square() + 1.5)
    torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-4, atol=1e-4)


def test_samples_that_do_not_count_change_no_step() -> None:
    x, y = samples()
    network, twin = classifier(), classifier()
    SubspaceNewton(network.parameters(), 1.0, seed=3).step(lambda: network(x), CrossEntropy(y))
    more = torch.cat([y, torch.full((128,), IGNORED)])
    SubspaceNewton(twin.parameters(), 1.0, seed=3).step(
        lambda: twin(torch.cat([x, x[:128]])), CrossEntropy(more)
    )
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_numbers_that_are_not_finite_move_nothing() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = SubspaceNewton([parameter], 1.0, SubspaceOptions(directions=1))
    found = optimizer.step(lambda: parameter.detach() * torch.inf, MeanSquare(torch.zeros(1)))
    assert found == torch.inf
    assert parameter.item() == 1.0
