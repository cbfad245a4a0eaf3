"""Differential equations: known solutions, derivatives, training with and without a graph."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch import Tensor, nn

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.options import FixedRanks
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.architectures import SampleShape, load_architecture
from edgecompress.training.architectures.physics import tanh_network
from edgecompress.training.output_losses import MeanSquare
from edgecompress.training.physics import (
    CentralDifferences,
    Equation,
    HamiltonJacobiBellman,
    HeatEquation,
    by_autograd,
    draw_points,
    relative_error,
)
from edgecompress.training.subspace_newton import SubspaceNewton, SubspaceOptions
from edgecompress.training.tensorize import tensorize

EQUATIONS = [HeatEquation(), HamiltonJacobiBellman(3), HamiltonJacobiBellman(20)]


class Exact(nn.Module):
    """The function f for which the trial function is the solution."""

    def __init__(self, equation: Equation) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, points: Tensor) -> Tensor:
        class Zero(nn.Module):
            def forward(self, at: Tensor) -> Tensor:
                return torch.zeros(len(at), 1, dtype=at.dtype)

        class One(nn.Module):
            def forward(self, at: Tensor) -> Tensor:
                return torch.ones(len(at), 1, dtype=at.dtype)

        base = self.equation.trial(Zero(), points)
        weight = self.equation.trial(One(), points) - base
        return ((self.equation.solution(points) - base) / weight)[:, None]


def points_of(equation: Equation, count: int = 40) -> Tensor:
    """Away from the border, where the trial function's factor of f is zero."""
    drawn = draw_points(equation, count, torch.Generator().manual_seed(1)).double()
    return 0.05 + 0.9 * drawn


@pytest.mark.parametrize("equation", EQUATIONS)
def test_solution_leaves_no_residual(equation: Equation) -> None:
    """Truth: the equation itself, with exact derivatives in float64."""
    points = points_of(equation)
    residual = equation.residual(Exact(equation), points, by_autograd)
    assert residual.abs().max() < 1e-9
    assert relative_error(equation, Exact(equation), points) < 1e-12


@pytest.mark.parametrize("equation", EQUATIONS)
def test_trial_meets_the_conditions_whatever_the_network(equation: Equation) -> None:
    network = tanh_network((equation.coordinates, 8, 1), torch.Generator().manual_seed(0))
    points = draw_points(equation, 20, torch.Generator().manual_seed(1))
    if isinstance(equation, HeatEquation):
        start = torch.stack([points[:, 0], torch.zeros(20)], 1)
        wanted = torch.sin(pi * points[:, 0])
        torch.testing.assert_close(equation.trial(network, start), wanted)
        for side in (0.0, 1.0):
            border = torch.stack([torch.full((20,), side), points[:, 1]], 1)
            assert equation.trial(network, border).abs().max() < 1e-6
        return
    points[:, -1] = 1.0
    wanted = points[:, :-1].square().sum(1) / (equation.coordinates - 1)
    torch.testing.assert_close(equation.trial(network, points), wanted)


def test_differences_are_the_derivatives() -> None:
    """Truth: sin and a square by hand; error below step^2 / 6 and step^2 / 12."""
    points = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = CentralDifferences(0.01)(
        lambda at: torch.sin(at[:, 0]) + at[:, 1] ** 2 * at[:, 2], points, 2
    )
    x, y, t = points.T
    gradient = torch.stack([torch.cos(x), 2 * y * t, y**2], 1)
    torch.testing.assert_close(found.gradient, gradient, rtol=0, atol=0.01**2 / 6)
    torch.testing.assert_close(found.curvature, -torch.sin(x) + 2 * t, rtol=0, atol=0.01**2 / 12)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_both_ways_give_the_same_residual(equation: Equation) -> None:
    network = tanh_network((equation.coordinates, 16, 1), torch.Generator().manual_seed(0)).double()
    points = points_of(equation)
    exact = equation.residual(network, points, by_autograd).detach()
    with torch.no_grad():
        near = equation.residual(network, points, CentralDifferences(1e-3))
    assert not near.requires_grad
    torch.testing.assert_close(near, exact, rtol=1e-4, atol=1e-4)


def test_tensorized_network_learns_the_heat_equation_without_back_propagation() -> None:
    equation, generator = HeatEquation(), torch.Generator().manual_seed(0)
    network = tanh_network((2, 32, 32, 1), generator)
    options = TensorizeOptions(format="ttm", ranks=FixedRanks((2,)), cores=2)
    made = tensorize(network, options, generator=generator, pretrained=False)
    assert any(layer.format == "ttm" for layer in made.layers)
    optimizer = SubspaceNewton(network.parameters(), 1.0, SubspaceOptions(directions=32))
    fresh = draw_points(equation, 500, torch.Generator().manual_seed(9))
    start = relative_error(equation, network, fresh)
    for _ in range(25):
        points = draw_points(equation, 100, generator)
        optimizer.step(
            lambda at=points: equation.residual(network, at, CentralDifferences()),
            MeanSquare(torch.zeros(len(points))),
        )
    assert start > 0.05
    assert relative_error(equation, network, fresh) < 0.01


def test_architecture_builds_and_refuses() -> None:
    architecture = load_architecture("physics")
    sample = SampleShape(inputs=((21,),), dtypes=("float32",), classes=1)
    network = architecture.build(sample, torch.Generator().manual_seed(0), hidden=(8,))
    assert network(torch.zeros(3, 21)).shape == (3, 1)
    with pytest.raises(ConfigurationInvalid, match="at least 1"):
        architecture.build(sample, torch.Generator(), hidden=(0,))
