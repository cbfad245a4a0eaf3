"""A matrix as a tensor train of two cores: a sum of Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import ClassVar

import numpy as np

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, MatMul, Permute, Reshape, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats._factored import FactoredFormat, conv_refusal, has_weight
from edgecompress.formats._linalg import truncated_svd
from edgecompress.formats._problem import Problem
from edgecompress.formats._refine import Equation


class TensorTrain(FactoredFormat):
    """W = sum over r of A_r (x) B_r, with in = i1 i2 and out = j1 j2 split near their roots.

    Few parameters at full matrix rank, but reshapes and permutes at run time: only on request.

    Source: Oseledets 2011 (tensor train); Van Loan and Pitsianis 1993 (nearest Kronecker sum).
    """

    name: ClassVar[str] = "tt"
    automatic: ClassVar[bool] = False
    equation: ClassVar[Equation] = Equation(("rbv", "aur"), "abuv", closed=False)

    def why_not(self, layer: Layer) -> str | None:
        """Matrix products whose sizes can be split."""
        match layer.stage:
            case MatMul(weight=weight) if 0 in weight.shape:
                return "a weight axis is empty"
            case MatMul():
                j1, _, i1, _ = self.view(layer)
                return "neither size of the matrix can be split" if j1 == i1 == 1 else None
            case Conv() if conv_refusal(layer) is None:
                return "the tensor train of a convolution is tucker2: use that"
            case _:
                return conv_refusal(layer)

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """(min(i1 j1, i2 j2),)."""
        j1, j2, i1, i2 = self.view(layer)
        return (min(i1 * j1, i2 * j2),)

    def view(self, layer: Layer) -> Shape:
        """(j1, j2, i1, i2)."""
        out, inner = layer.weight_shape[:2]
        return (*_split(out), *_split(inner))

    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """(r, j2, i2), (j1, i1, r)."""
        j1, j2, i1, i2 = self.view(layer)
        return [(ranks[0], j2, i2), (j1, i1, ranks[0])]

    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """The optimum without data."""
        j1, j2, i1, i2 = shape
        u, s, vt = truncated_svd(_rearranged(problem, shape), ranks[0])
        root = np.sqrt(s)
        first = (root[:, None] * vt).reshape(ranks[0], j2, i2)
        return [first, (u * root).reshape(j1, i1, ranks[0])]

    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """Squared singular values of the rearranged matrix."""
        return (np.linalg.svd(_rearranged(problem, shape), compute_uv=False) ** 2,)

    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """Two products with a transposition between them; leading axes are kept."""
        first, second = weights[0][0], weights[1][0]
        rank, j2, i2 = first.shape
        j1, i1, _ = second.shape
        lead = len(layer.input_shape) - 1
        keep, axes = (0,) * lead, tuple(range(lead))
        return (
            Reshape(shape=(*keep, i1, i2)),
            MatMul(weight=Dense(first.reshape(rank * j2, i2))),
            Reshape(shape=(*keep, i1, rank, j2)),
            Permute(axes=(*axes, lead + 2, lead, lead + 1)),
            Reshape(shape=(*keep, j2, i1 * rank)),
            MatMul(weight=Dense(second.reshape(j1, i1 * rank))),
            Permute(axes=(*axes, lead + 1, lead)),
            Reshape(shape=(*keep, j1 * j2)),
        )

    def ranks_of(self, layer: Layer, stages: Sequence[Stage]) -> tuple[int, ...]:
        """The first product's outputs over j2."""
        first = next(stage.weight for stage in stages if has_weight(stage))
        return (first.shape[0] // self.view(layer)[1],)


def _split(size: int) -> tuple[int, int]:
    """Two factors of a size, as near to each other as can be, the smaller first."""
    small = next(d for d in range(isqrt(size), 0, -1) if size % d == 0)
    return small, size // small


def _rearranged(problem: Problem, shape: Shape) -> FloatArray:
    """The weight as (j1 i1, j2 i2)."""
    j1, j2, i1, i2 = shape
    return problem.best().reshape(shape).transpose(0, 2, 1, 3).reshape(j1 * i1, j2 * i2)


FORMAT = TensorTrain()
