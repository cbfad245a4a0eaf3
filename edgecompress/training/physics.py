"""Differential equations with known solutions, their residuals, and two ways to differentiate.

A network gives a function f; a trial function built from it meets the initial, boundary or terminal
condition whatever f is, so that only the residual of the equation is left to train on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Derivatives:
    """A function at points, with what the equations here need of its derivatives.

    Attributes:
        gradient: First derivatives, (n, coordinates).
        curvature: Sum of the second derivatives along the coordinates of space, (n,).
    """

    gradient: Tensor
    curvature: Tensor


class Differentiation(Protocol):
    """A way to differentiate a function (n, coordinates) -> (n,)."""

    def __call__(self, function: Function, points: Tensor, space: int) -> Derivatives:
        """Derivatives at the points; the first ``space`` coordinates are those of space."""
        ...


def by_autograd(function: Function, points: Tensor, space: int) -> Derivatives:
    """Exact, by back-propagation twice; differentiable with respect to what made the function."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        value = function(points)
        (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=True)
        curvature = torch.zeros_like(value)
        for axis in range(space):
            slope = gradient[:, axis].sum()
            (second,) = torch.autograd.grad(slope, points, create_graph=True)
            curvature = curvature + second[:, axis]
    return Derivatives(gradient, curvature)


@dataclass(frozen=True, slots=True)
class CentralDifferences:
    """By values at neighbours, no graph: two for each coordinate, all in one forward pass.

    Attributes:
        step: Distance of a neighbour. The error is step^2 / 6 times the third derivative (first)
            and step^2 / 12 times the fourth (second), and rounding: 2^-24 / step^2 of the value.
            0.02 balances both for functions that vary over distances of about 1.

    Neighbours of points on the border lie outside of it by a step.
    """

    step: float = 0.02

    def __call__(self, function: Function, points: Tensor, space: int) -> Derivatives:
        """Derivatives at the points."""
        count, axes = points.shape
        moves = self.step * torch.eye(axes, dtype=points.dtype, device=points.device)
        around = torch.cat([points[None], points + moves[:, None], points - moves[:, None]])
        values = function(around.reshape(-1, axes)).reshape(1 + 2 * axes, count)
        above, below = values[1 : 1 + axes], values[1 + axes :]
        gradient = (above - below).T / (2 * self.step)
        second = (above[:space] + below[:space] - 2 * values[0]) / self.step**2
        return Derivatives(gradient, second.sum(0))


class Equation(Protocol):
    """A differential equation on the unit cube of its coordinates, time last."""

    @property
    def coordinates(self) -> int:
        """Coordinates of space, and time."""
        ...

    def solution(self, points: Tensor) -> Tensor:
        """The known solution, (n,)."""
        ...

    def trial(self, network: nn.Module, points: Tensor) -> Tensor:
        """The function that a network with one output stands for, (n,)."""
        ...

    def residual(
        self, network: nn.Module, points: Tensor, differentiate: Differentiation
    ) -> Tensor:
        """What the equation leaves, (n,): zero everywhere for the solution."""
        ...


@dataclass(frozen=True, slots=True)
class HeatEquation:
    """u_t = diffusivity * u_xx for x and t in 0..1, u(x, 0) = sin(pi x), u(0, t) = u(1, t) = 0.

    Attributes:
        diffusivity: 0.1: the solution falls to 37 % by t = 1.

    Source: separation of variables: u = exp(-diffusivity pi^2 t) sin(pi x).
    """

    diffusivity: float = 0.1
    coordinates: ClassVar[int] = 2

    def solution(self, points: Tensor) -> Tensor:
        """(n,)."""
        decay = torch.exp(-self.diffusivity * pi**2 * points[:, 1])
        return decay * torch.sin(pi * points[:, 0])

    def trial(self, network: nn.Module, points: Tensor) -> Tensor:
        """sin(pi x) + t x (1 - x) f."""
        x, t = points[:, 0], points[:, 1]
        inside: Tensor = network(points)[:, 0]
        return torch.sin(pi * x) + t * x * (1 - x) * inside

    def residual(
        self, network: nn.Module, points: Tensor, differentiate: Differentiation
    ) -> Tensor:
        """u_t - diffusivity * u_xx."""
        found = differentiate(lambda at: self.trial(network, at), points, 1)
        return found.gradient[:, 1] - self.diffusivity * found.curvature


@dataclass(frozen=True, slots=True)
class HamiltonJacobiBellman:
    """u_t + lap u - (d / 4) |grad u|^2 = 0 for x in the unit cube of d dimensions and t in 0..1,
    u(x, 1) = |x|^2 / d: the value of a linear-quadratic control problem.

    Attributes:
        dimensions: d.

    Source: with u = a(t) |x|^2 + b(t) the equation is a' = d a^2 and b' = -2 d a; with the terminal
    condition a = 1 / (d (2 - t)) and b = 2 ln(2 - t). 20 dimensions as in arXiv 2308.09858 (2023),
    whose own equation is another one.
    """

    dimensions: int = 20

    @property
    def coordinates(self) -> int:
        """Of space, and time."""
        return self.dimensions + 1

    def solution(self, points: Tensor) -> Tensor:
        """|x|^2 / (d (2 - t)) + 2 ln(2 - t)."""
        left = 2 - points[:, -1]
        return self._square(points) / left + 2 * torch.log(left)

    def trial(self, network: nn.Module, points: Tensor) -> Tensor:
        """|x|^2 / d + (1 - t) f."""
        before: Tensor = network(points)[:, 0]
        return self._square(points) + (1 - points[:, -1]) * before

    def residual(
        self, network: nn.Module, points: Tensor, differentiate: Differentiation
    ) -> Tensor:
        """u_t + lap u - (d / 4) |grad u|^2."""
        found = differentiate(lambda at: self.trial(network, at), points, self.dimensions)
        slope = found.gradient[:, :-1].square().sum(1)
        return found.gradient[:, -1] + found.curvature - self.dimensions / 4 * slope

    def _square(self, points: Tensor) -> Tensor:
        return points[:, :-1].square().mean(1)


def draw_points(equation: Equation, count: int, generator: torch.Generator) -> Tensor:
    """Points spread evenly at random over the unit cube of the coordinates, float32."""
    return torch.rand(count, equation.coordinates, generator=generator)


@torch.no_grad()
def relative_error(equation: Equation, network: nn.Module, points: Tensor) -> float:
    """Root mean square of trial minus solution, as a share of the solution's."""
    wanted = equation.solution(points)
    missed = equation.trial(network, points) - wanted
    return float((missed.square().mean() / wanted.square().mean()).sqrt())
