"""The least-squares problem that a format solves for one group of one layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.layers import Layer
from edgecompress.formats.base import Moments

FEW_SAMPLES_SHRINKAGE = 0.05
"""Share of the mean variance that is added in every direction when there are as many weights in
a row as samples or more. Source: measured, docs/decomposition.md."""

LEAST_SHRINKAGE = 1e-4
"""The same with very many samples: keeps the matrix invertible after float32 sums."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Find W' of low rank with mean ||y - W' x||^2 small.

    Without data x is white noise and y = W x, which makes it the plain weight error.

    Attributes:
        weight: W, (m, n) float64.
        covariance: Mean of x x^T, (n, n), positive definite; None for white noise.
        cross: Mean of y x^T, (m, n).
    """

    weight: FloatArray
    covariance: FloatArray | None
    cross: FloatArray

    def best(self) -> FloatArray:
        """The best W' of full rank, (m, n)."""
        if self.covariance is None:
            return self.weight
        solved: FloatArray = np.linalg.solve(self.covariance, self.cross.T).T
        return solved

    def weighted(self, matrix: FloatArray) -> FloatArray:
        """matrix times the covariance; matrix is (any, n)."""
        if self.covariance is None:
            return matrix
        result: FloatArray = matrix @ self.covariance
        return result

    def loss(self, rebuilt: FloatArray) -> float:
        """Mean ||y - W' x||^2 less the mean of ||y||^2 (that of W x without data)."""
        return float(np.vdot(self.weighted(rebuilt) - 2.0 * self.cross, rebuilt))


def problems(layer: Layer, groups: int, moments: Moments | None) -> list[Problem]:
    """One problem for each group of a layer.

    Noise is added to x, with the float layer's answer to it as the target: with few samples
    the weights keep their say in directions that the data do not show.
    """
    dense = layer.stage.weight.to_dense().astype(np.float64)
    weights = dense.reshape(groups, dense.shape[0] // groups, -1)
    if moments is None:
        return [Problem(weight, None, weight) for weight in weights]
    columns = weights.shape[2]
    share = max(LEAST_SHRINKAGE, FEW_SAMPLES_SHRINKAGE * min(1.0, columns / moments.count))
    found = []
    for weight, covariance, cross in zip(weights, moments.covariance, moments.cross, strict=True):
        noise = share * float(np.trace(covariance)) / columns
        noise = noise if noise > 0 else 1.0
        shrunk = covariance + noise * np.eye(columns)
        found.append(Problem(weight, shrunk, cross + noise * weight))
    return found
