"""Reduced-rank regression: the best matrix of a rank for given inputs and outputs."""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.formats._linalg import eigenvalues, leading_eigenvectors, truncated_svd
from edgecompress.formats._problem import Problem


def reduced_rank(problem: Problem, rank: int) -> tuple[FloatArray, FloatArray]:
    """The two factors of least loss.

    With data: Q^T W and Q, with Q the leading eigenvectors of the covariance of the outputs.

    Returns:
        (rank, n) and (m, rank); the second has orthonormal columns.

    Source: Izenman 1975, reduced-rank regression; without data Eckart and Young 1936.
    """
    if problem.covariance is None:
        u, s, vt = truncated_svd(problem.weight, rank)
        return s[:, None] * vt, u
    best = problem.best()
    outputs = leading_eigenvectors(problem.weighted(best) @ best.T, rank)
    return outputs.T @ best, outputs


def output_energies(problem: Problem) -> FloatArray:
    """Variances of the principal components of the outputs, falling, (m,).

    Without data: squared singular values of the weight, (min(m, n),).
    """
    if problem.covariance is None:
        values: FloatArray = np.linalg.svd(problem.weight, compute_uv=False) ** 2
        return values
    best = problem.best()
    return eigenvalues(problem.weighted(best) @ best.T)
