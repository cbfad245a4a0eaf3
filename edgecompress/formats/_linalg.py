"""Linear algebra with nothing left free: float64, signs fixed."""

from __future__ import annotations

import numpy as np

from edgecompress.core.arrays import FloatArray


def truncated_svd(matrix: FloatArray, rank: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best rank-``rank`` approximation of a matrix in the Frobenius norm.

    Args:
        matrix: (m, n).
        rank: 1 to min(m, n).

    Returns:
        u (m, rank), s (rank,) in falling order, vt (rank, n), all float64. The largest entry of
        each column of u is positive, so the result does not depend on the LAPACK build.

    Raises:
        ValueError: ``rank`` is out of range.

    Source: Eckart and Young 1936.
    """
    if not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"rank {rank} of a {matrix.shape} matrix")
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    signs = _signs(u[:, :rank])
    return u[:, :rank] * signs, s[:rank], vt[:rank] * signs[:, None]


def leading_eigenvectors(matrix: FloatArray, count: int) -> FloatArray:
    """Eigenvectors of the largest eigenvalues of a symmetric matrix, as columns (n, count).

    Signs as in `truncated_svd`.
    """
    _, vectors = np.linalg.eigh(symmetric(matrix))
    leading = vectors[:, ::-1][:, :count]
    return np.ascontiguousarray(leading * _signs(leading))


def eigenvalues(matrix: FloatArray) -> FloatArray:
    """Eigenvalues of a positive semi-definite matrix, falling, none below zero."""
    values: FloatArray = np.clip(np.linalg.eigvalsh(symmetric(matrix))[::-1], 0.0, None)
    return values


def symmetric(matrix: FloatArray) -> FloatArray:
    """The symmetric part, float64: what rounding left unsymmetric is evened out."""
    result: FloatArray = (matrix + matrix.T) * 0.5
    return result


def square_root(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Symmetric square root of a positive definite matrix, and its inverse.

    Eigenvalues below 1e-10 of the largest are raised to that, so the inverse exists.
    """
    values, vectors = np.linalg.eigh(symmetric(matrix))
    root = np.sqrt(np.maximum(values, max(values[-1], 1e-300) * 1e-10))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def solve_rows(right: FloatArray, gram: FloatArray) -> FloatArray:
    """X with X gram = right, for a symmetric positive semi-definite gram.

    Directions in which gram vanishes (below 1e-12 of its largest eigenvalue) get zero, so a
    singular gram gives the solution of least norm.
    """
    values, vectors = np.linalg.eigh(symmetric(gram))
    keep = values > max(values[-1], 0.0) * 1e-12
    basis = vectors[:, keep]
    result: FloatArray = ((right @ basis) / values[keep]) @ basis.T
    return result


def _signs(columns: FloatArray) -> FloatArray:
    """+1 or -1 for each column, so that its entry of largest magnitude becomes positive."""
    places = np.abs(columns).argmax(axis=0)
    picked = columns[places, np.arange(columns.shape[1])]
    signs: FloatArray = np.where(picked < 0, -1.0, 1.0)
    return signs
