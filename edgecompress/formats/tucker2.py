"""1x1 to fewer channels, the kernel between fewer channels, 1x1 to all outputs."""

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
from edgecompress.formats._linalg import square_root, truncated_svd
from edgecompress.formats._problem import Problem
from edgecompress.formats._reduced_rank import output_energies, reduced_rank
from edgecompress.formats._refine import Equation


class Tucker2(FactoredFormat):
    """1x1 in -> r1, kernel r1 -> r2 with all attributes, 1x1 r2 -> out.

    Starts from the truncated higher-order SVD in the metric of the data and is improved by
    alternating least squares (without data: HOOI).

    Source: Kim et al. 2016 (arXiv 1511.06530); De Lathauwer et al. 2000 for HOSVD and HOOI.
    """

    name: ClassVar[str] = "tucker2"
    equation: ClassVar[Equation] = Equation(("pi", "qpk", "oq"), "oik")
    free_sweeps: ClassVar[int] = 8

    def why_not(self, layer: Layer) -> str | None:
        """Convolutions with a kernel."""
        match layer.stage:
            case Conv(weight=weight) if conv_refusal(layer) is None and prod(weight.shape[2:]) == 1:
                return "1x1 convolution: use svd"
            case _:
                return conv_refusal(layer)

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """(in, out), per group, less where the other axes are short."""
        out, inner, kernel = self.view(layer)
        return min(inner, out * kernel), min(out, inner * kernel)

    def view(self, layer: Layer) -> Shape:
        """(out, in, kernel)."""
        out, inner, *kernel = layer.weight_shape
        return out // groups_of(layer), inner, prod(kernel)

    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """(r1, in), (r2, r1, kernel), (out, r2)."""
        out, inner, kernel = self.view(layer)
        return [(ranks[0], inner), (ranks[1], ranks[0], kernel), (out, ranks[1])]

    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """Input subspace in the metric of the input channels, output subspace by output PCA."""
        matrix, root, inverse = _channel_metric(problem, shape)
        u, _, _ = truncated_svd(root @ matrix, ranks[0])
        first = (inverse @ u).T
        _, last = reduced_rank(problem, ranks[1])
        best = problem.best().reshape(shape)
        core = np.einsum("oik,oq,ip->qpk", best, last, root @ u, optimize=True)
        return [first, core, last]

    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """Squared singular values of the input unfolding, variances of the outputs."""
        out, inner, kernel = shape
        matrix, root, _ = _channel_metric(problem, shape)
        inputs = np.linalg.svd(root @ matrix, compute_uv=False) ** 2
        outputs = output_energies(problem)[: min(out, inner * kernel)]
        return inputs[: min(inner, out * kernel)], outputs

    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """Stride, padding and dilation stay with the kernel."""
        first, core, last = weights
        stage = layer.stage
        if not isinstance(stage, Conv):
            raise TypeError(f"{layer.name} is not a convolution")
        spatial = len(stage.stride)
        kernel = core.reshape(-1, core.shape[2], *layer.weight_shape[2:])
        return (
            pointwise(first, stage.group, spatial),
            replace(stage, weight=Dense(kernel)),
            pointwise(last, stage.group, spatial),
        )


def _channel_metric(problem: Problem, shape: Shape) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The weight as (in, out kernel), and the root of the channels' covariance with its inverse."""
    _, inner, kernel = shape
    matrix = problem.best().reshape(shape).transpose(1, 0, 2).reshape(inner, -1)
    if problem.covariance is None:
        unit = np.eye(inner)
        return matrix, unit, unit
    blocks = problem.covariance.reshape(inner, kernel, inner, kernel)
    root, inverse = square_root(np.einsum("akbk->ab", blocks) / kernel)
    return matrix, root, inverse


FORMAT = Tucker2()
