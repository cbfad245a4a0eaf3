"""A column kernel, then a row kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats._factored import FactoredFormat, conv_refusal, groups_of
from edgecompress.formats._linalg import square_root, truncated_svd
from edgecompress.formats._problem import Problem
from edgecompress.formats._refine import Equation


class Spatial(FactoredFormat):
    """kh x 1 in -> r, 1 x kw r -> out.

    Source: Jaderberg et al. 2014 (arXiv 1405.3866), scheme 2.
    """

    name: ClassVar[str] = "spatial"
    equation: ClassVar[Equation] = Equation(("riu", "orv"), "oiuv")

    def why_not(self, layer: Layer) -> str | None:
        """Convolutions with a kernel of two axes, both longer than 1."""
        match layer.stage:
            case Conv(weight=weight) if conv_refusal(layer) is None and (
                len(weight.shape) != 4 or min(weight.shape[2:]) < 2
            ):
                kernel = "x".join(map(str, weight.shape[2:]))
                return f"a {kernel} kernel has no two axes to separate"
            case _:
                return conv_refusal(layer)

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """(min(in * kh, out * kw),), per group."""
        out, inner, height, width = self.view(layer)
        return (min(inner * height, out * width),)

    def view(self, layer: Layer) -> Shape:
        """(out, in, kh, kw)."""
        out, inner, height, width = layer.weight_shape
        return out // groups_of(layer), inner, height, width

    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """(r, in, kh), (out, r, kw)."""
        out, inner, height, width = self.view(layer)
        return [(ranks[0], inner, height), (out, ranks[0], width)]

    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """Singular vectors of the weight in the metric of one kernel column's inputs."""
        out, inner, height, width = shape
        matrix, root, inverse = _column_metric(problem, shape)
        u, s, vt = truncated_svd(root @ matrix, ranks[0])
        first = (inverse @ u).T.reshape(ranks[0], inner, height)
        second = (s[:, None] * vt).reshape(ranks[0], out, width).transpose(1, 0, 2)
        return [first, second]

    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """Squared singular values in that metric."""
        matrix, root, _ = _column_metric(problem, shape)
        return (np.linalg.svd(root @ matrix, compute_uv=False) ** 2,)

    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """Each axis' stride, padding and dilation stay with that axis' kernel."""
        first, second = weights
        stage = layer.stage
        if not isinstance(stage, Conv):
            raise TypeError(f"{layer.name} is not a convolution")
        top, left, bottom, right = stage.pads
        column = replace(
            stage,
            weight=Dense(first.reshape(-1, *first.shape[2:], 1)),
            stride=(stage.stride[0], 1),
            pads=(top, 0, bottom, 0),
            dilation=(stage.dilation[0], 1),
        )
        row = replace(
            stage,
            weight=Dense(second.reshape(-1, second.shape[2], 1, second.shape[3])),
            stride=(1, stage.stride[1]),
            pads=(0, left, 0, right),
            dilation=(1, stage.dilation[1]),
        )
        return column, row


def _column_metric(problem: Problem, shape: Shape) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The weight as (in kh, out kw), and the root of its inputs' covariance with its inverse."""
    out, inner, height, width = shape
    best = problem.best().reshape(shape)
    matrix = best.transpose(1, 2, 0, 3).reshape(inner * height, out * width)
    if problem.covariance is None:
        unit = np.eye(inner * height)
        return matrix, unit, unit
    rows = inner * height
    blocks = problem.covariance.reshape(rows, width, rows, width)
    root, inverse = square_root(np.einsum("avbv->ab", blocks) / width)
    return matrix, root, inverse


FORMAT = Spatial()
