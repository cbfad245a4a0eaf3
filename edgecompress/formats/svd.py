"""Two smaller matrices instead of one: matrix products and 1x1 convolutions."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, MatMul, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats._factored import FactoredFormat, conv_refusal, groups_of, pointwise
from edgecompress.formats._problem import Problem
from edgecompress.formats._reduced_rank import output_energies, reduced_rank
from edgecompress.formats._refine import Equation


class Svd(FactoredFormat):
    """in -> r, r -> out.

    Without data the best approximation of the weight (Eckart and Young 1936); with data that of
    the outputs: a projection on the principal components of the outputs.
    """

    name: ClassVar[str] = "svd"
    data_sweeps: ClassVar[int] = 0
    equation: ClassVar[Equation] = Equation(("ri", "or"), "oi")

    def why_not(self, layer: Layer) -> str | None:
        """Matrix products and 1x1 convolutions only."""
        match layer.stage:
            case MatMul(weight=weight):
                return "a weight axis is empty" if 0 in weight.shape else None
            case Conv(weight=weight) if conv_refusal(layer) is None and prod(weight.shape[2:]) > 1:
                kernel = "x".join(map(str, weight.shape[2:]))
                return f"{kernel} convolution: use channel, spatial or tucker2"
            case _:
                return conv_refusal(layer)

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """(min(in, out),), per group."""
        return (min(self.view(layer)),)

    def view(self, layer: Layer) -> Shape:
        """(out, in)."""
        out, inner = layer.weight_shape[:2]
        return out // groups_of(layer), inner

    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """(r, in), (out, r)."""
        out, inner = self.view(layer)
        return [(ranks[0], inner), (out, ranks[0])]

    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """The optimum."""
        return list(reduced_rank(problem, ranks[0]))

    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """Variances of the principal components of the outputs."""
        return (output_energies(problem)[: min(shape)],)

    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """Stride and padding stay with the first piece."""
        first, second = weights
        stage = layer.stage
        if not isinstance(stage, Conv):
            return MatMul(weight=Dense(first[0])), MatMul(weight=Dense(second[0]))
        spatial = len(stage.stride)
        kernel = Dense(first.reshape(-1, first.shape[2], *(1,) * spatial))
        return replace(stage, weight=kernel), pointwise(second, stage.group, spatial)


FORMAT = Svd()
