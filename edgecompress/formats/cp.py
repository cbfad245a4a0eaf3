"""1x1, a depthwise kernel, 1x1."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar

import numpy as np

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats._factored import FactoredFormat, conv_refusal, groups_of, pointwise
from edgecompress.formats._linalg import solve_rows, truncated_svd
from edgecompress.formats._problem import Problem
from edgecompress.formats._refine import Equation

ALS_SWEEPS = 300
"""Sweeps of alternating least squares at most. Source: on 8 x 6 x 9 test tensors the error
is within 8 % of that after 1,000."""

MOST_OPERATIONS = 1e11
"""Multiply-adds that the sweeps may take; large layers get fewer."""

NORM_PENALTY = 1e-9
"""Relative ridge in each solve; keeps diverging components from cancelling each other."""


class Cp(FactoredFormat):
    """1x1 in -> r, depthwise kernel with all attributes, 1x1 r -> out.

    Numerically the weakest form; only on request.

    Source: Lebedev et al. 2015 (arXiv 1412.6553), with the kernel axes kept together.
    """

    name: ClassVar[str] = "cp"
    automatic: ClassVar[bool] = False
    equation: ClassVar[Equation] = Equation(("ri", "rk", "or"), "oik")

    def why_not(self, layer: Layer) -> str | None:
        """Convolutions with a kernel."""
        match layer.stage:
            case Conv(weight=weight) if conv_refusal(layer) is None and prod(weight.shape[2:]) == 1:
                return "1x1 convolution: use svd"
            case _:
                return conv_refusal(layer)

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """(product of the two smaller of out, in, kernel,), per group."""
        return (min(_areas(self.view(layer))),)

    def view(self, layer: Layer) -> Shape:
        """(out, in, kernel)."""
        out, inner, *kernel = layer.weight_shape
        return out // groups_of(layer), inner, prod(kernel)

    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """(r, in), (r, kernel), (out, r)."""
        out, inner, kernel = self.view(layer)
        return [(ranks[0], inner), (ranks[0], kernel), (out, ranks[0])]

    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """Alternating least squares on the weight."""
        tensor = problem.best().reshape(shape)
        factors = _nested_svd(tensor, ranks[0])
        affordable = int(MOST_OPERATIONS / (6 * tensor.size * ranks[0]))
        sweeps = max(10, min(ALS_SWEEPS, affordable)) if ranks[0] < min(_areas(shape)) else 0
        for _ in range(sweeps):
            for axis in range(3):
                factors[axis] = _solve_axis(tensor, factors, axis)
        out, inner, kernel = factors
        size = np.linalg.norm(inner, axis=0) * np.linalg.norm(kernel, axis=0)
        scale = np.where(size > 0, size, 1.0)
        share = np.sqrt(scale)
        inner = inner / np.maximum(np.linalg.norm(inner, axis=0), 1e-300) * share
        kernel = kernel / np.maximum(np.linalg.norm(kernel, axis=0), 1e-300) * share
        return [inner.T, kernel.T, np.where(size > 0, out, 0.0)]

    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """CP has no energies: its components are not orthogonal."""
        return ()

    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """Stride, padding and dilation stay with the kernel."""
        first, kernel, last = weights
        stage = layer.stage
        if not isinstance(stage, Conv):
            raise TypeError(f"{layer.name} is not a convolution")
        spatial = len(stage.stride)
        rank = kernel.shape[0] * kernel.shape[1]
        depthwise = kernel.reshape(rank, 1, *layer.weight_shape[2:])
        return (
            pointwise(first, stage.group, spatial),
            replace(stage, weight=Dense(depthwise), group=rank),
            pointwise(last, stage.group, spatial),
        )


def _areas(shape: Shape) -> Shape:
    """Sizes of the three faces of the weight."""
    out, inner, kernel = shape
    return out * inner, out * kernel, inner * kernel


def _nested_svd(tensor: FloatArray, rank: int) -> list[FloatArray]:
    """Components (axis, rank) that are orthogonal to each other; exact at the largest rank.

    The slices of an SVD along one axis are matrices; their SVDs give rank-one terms.
    """
    out, inner, kernel = tensor.shape
    outer = 0 if out * min(inner, kernel) < inner * min(out, kernel) else 1
    unfolded = np.moveaxis(tensor, outer, 0).reshape(tensor.shape[outer], -1)
    u, s, vt = truncated_svd(unfolded, min(unfolded.shape))
    others = [axis for axis in range(3) if axis != outer]
    terms = []
    for column, size, row in zip(u.T, s, vt, strict=True):
        matrix = row.reshape([tensor.shape[axis] for axis in others])
        left, sizes, right = truncated_svd(matrix, min(matrix.shape))
        terms += [(size * part, column, left[:, k], right[k]) for k, part in enumerate(sizes)]
    terms.sort(key=lambda term: -term[0])
    terms += [(0.0, terms[0][1], terms[0][2], terms[0][3])] * (rank - len(terms))
    kept = terms[:rank]
    factors: list[FloatArray] = [np.empty(0)] * 3
    factors[outer] = np.stack([size * column for size, column, _, _ in kept], axis=1)
    factors[others[0]] = np.stack([left for _, _, left, _ in kept], axis=1)
    factors[others[1]] = np.stack([right for _, _, _, right in kept], axis=1)
    return factors


def _solve_axis(tensor: FloatArray, factors: list[FloatArray], axis: int) -> FloatArray:
    """The best factor of one axis, given the others; columns of the others are normalised."""
    others = [k for k in range(3) if k != axis]
    for k in others:
        norms = np.linalg.norm(factors[k], axis=0)
        factors[k] = factors[k] / np.where(norms > 0, norms, 1.0)
    gram = (factors[others[0]].T @ factors[others[0]]) * (factors[others[1]].T @ factors[others[1]])
    gram = gram + NORM_PENALTY * np.eye(len(gram))
    letters = "oik"
    text = f"oik,{letters[others[0]]}r,{letters[others[1]]}r->{letters[axis]}r"
    right = np.einsum(text, tensor, factors[others[0]], factors[others[1]], optimize=True)
    return solve_rows(right, gram)


FORMAT = Cp()
