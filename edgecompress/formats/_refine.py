"""Alternating least squares for any chain of factors that an einsum puts together.

The loss is quadratic in the rebuilt weight, and the rebuilt weight is linear in each factor. So
each factor has a best value given the others: the last one in closed form, the others by
conjugate gradients. The loss never rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.formats._linalg import solve_rows
from edgecompress.formats._problem import Problem

STEPS_PER_FACTOR = 12
"""Conjugate-gradient steps for one factor in one sweep. Source: twice the sweeps with 25 steps
lower the error of ResNet-20's outputs by 0.3 % of itself, docs/decomposition.md."""

MOST_OPERATIONS = 4e11
"""Multiply-adds that refining one group may take; large layers get fewer steps."""


@dataclass(frozen=True, slots=True)
class Equation:
    """How factors make a weight.

    Attributes:
        operands: Axis letters of each factor, in the order in which the stages run; the last one
            starts with the weight's first letter.
        result: Axis letters of the weight.
        closed: The last factor has all of the weight's output axes and no input axis of its own,
            so its best value is a plain least-squares solution.
    """

    operands: tuple[str, ...]
    result: str
    closed: bool = True

    def compose(self, factors: list[FloatArray]) -> FloatArray:
        """The weight."""
        text = f"{','.join(self.operands)}->{self.result}"
        made: FloatArray = np.einsum(text, *factors, optimize=True)
        return made

    def pull_back(self, place: int, factors: list[FloatArray], slope: FloatArray) -> FloatArray:
        """Slope of one factor, given the slope of the weight."""
        others = [k for k in range(len(factors)) if k != place]
        sides = ",".join([*(self.operands[k] for k in others), self.result])
        made: FloatArray = np.einsum(
            f"{sides}->{self.operands[place]}", *(factors[k] for k in others), slope, optimize=True
        )
        return made

    def bond(self, left: int) -> str | None:
        """Letter that joins factor ``left`` to the next one and no other; None if there is none."""
        both = set(self.operands[left]) & set(self.operands[left + 1])
        alone = [c for c in sorted(both) if sum(c in text for text in self.operands) == 2]
        return alone[0] if len(alone) == 1 and alone[0] not in self.result else None


def refine(
    equation: Equation, factors: list[FloatArray], problem: Problem, sweeps: int
) -> list[FloatArray]:
    """Better factors for the same ranks.

    Args:
        equation: Of the format.
        factors: To start from; not changed.
        problem: Its weight, reshaped, is what the equation makes.
        sweeps: How often each factor is improved.

    Returns:
        Factors whose loss is not above that of the given ones.
    """
    descents = len(factors) - equation.closed
    steps = _steps(problem, sweeps * descents)
    current = list(factors)
    for _ in range(sweeps):
        for place in range(descents):
            _centre(equation, current, place)
            if steps:
                current[place] = _descend(equation, current, place, problem, steps)
        if equation.closed:
            _centre(equation, current, descents)
            current[-1] = fit_last(equation, current, problem)
    return current


def fit_last(equation: Equation, factors: list[FloatArray], problem: Problem) -> FloatArray:
    """The best last factor, given the others."""
    last = factors[-1]
    inner = prod(last.shape[1:])
    probes = np.eye(inner).reshape(inner, *last.shape[1:])
    basis = equation.compose([*factors[:-1], probes]).reshape(inner, -1)
    gram = problem.weighted(basis) @ basis.T
    return solve_rows(problem.cross @ basis.T, gram).reshape(last.shape)


def _steps(problem: Problem, solves: int) -> int:
    """Conjugate-gradient steps for one factor that the operations allow."""
    columns = problem.weight.shape[1]
    each = problem.weight.size * (columns if problem.covariance is not None else 1)
    return min(STEPS_PER_FACTOR, int(MOST_OPERATIONS / (max(1, solves) * each)))


def _descend(
    equation: Equation, factors: list[FloatArray], place: int, problem: Problem, steps: int
) -> FloatArray:
    """Conjugate gradients on one factor."""
    trial = list(factors)

    def slope_of(factor: FloatArray, target: FloatArray | None) -> FloatArray:
        trial[place] = factor
        weight = equation.compose(trial)
        slope = problem.weighted(weight.reshape(problem.weight.shape))
        if target is not None:
            slope = slope - target
        return equation.pull_back(place, factors, slope.reshape(weight.shape))

    factor = factors[place]
    residual = -slope_of(factor, problem.cross)
    direction = residual
    size = float(np.vdot(residual, residual))
    enough = size * 1e-16
    for _ in range(steps):
        curved = slope_of(direction, None)
        curvature = float(np.vdot(direction, curved))
        if size <= enough or curvature <= 0:
            break
        step = size / curvature
        factor = factor + step * direction
        residual = residual - step * curved
        after = float(np.vdot(residual, residual))
        direction = residual + (after / size) * direction
        size = after
    return factor


def _centre(equation: Equation, factors: list[FloatArray], place: int) -> None:
    """Make all factors but one orthonormal along the chain, in place; the weight stays.

    It is the gauge in which the problem for that factor is conditioned as well as the data.
    """
    for left in range(place):
        _push(equation, factors, left, left + 1, equation.bond(left))
    for right in range(len(factors) - 1, place, -1):
        _push(equation, factors, right, right - 1, equation.bond(right - 1))


def _push(
    equation: Equation, factors: list[FloatArray], source: int, into: int, bond: str | None
) -> None:
    """Orthonormalise one factor along a bond; its triangle goes into the neighbour."""
    if bond is None:
        return
    axis = equation.operands[source].index(bond)
    moved = np.moveaxis(factors[source], axis, -1)
    matrix = moved.reshape(-1, moved.shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        return
    q, r = np.linalg.qr(matrix)
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    q, r = q * signs, r * signs[:, None]
    factors[source] = np.moveaxis(q.reshape(moved.shape), -1, axis)
    other = equation.operands[into].index(bond)
    factors[into] = np.moveaxis(np.tensordot(r, factors[into], axes=(1, other)), 0, other)
