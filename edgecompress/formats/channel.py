"""The full kernel to fewer channels, then 1x1 to all outputs."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats._factored import FactoredFormat, conv_refusal, groups_of, pointwise
from edgecompress.formats._problem import Problem
from edgecompress.formats._reduced_rank import output_energies, reduced_rank
from edgecompress.formats._refine import Equation


class Channel(FactoredFormat):
    """Kernel in -> r with all attributes, 1x1 r -> out.

    With data the r channels are the principal components of the layer's outputs. The kernel
    keeps its shape, so a Winograd array can still use it.

    Source: Zhang et al. 2015 (arXiv 1505.06798), section 2.
    """

    name: ClassVar[str] = "channel"
    data_sweeps: ClassVar[int] = 0
    equation: ClassVar[Equation] = Equation(("rik", "or"), "oik")

    def why_not(self, layer: Layer) -> str | None:
        """Convolutions with a kernel."""
        match layer.stage:
            case Conv(weight=weight) if conv_refusal(layer) is None and prod(weight.shape[2:]) == 1:
                return "1x1 convolution: use svd"
            case _:
                return conv_refusal(layer)

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """(min(out, in * kernel),), per group."""
        out, inner, kernel = self.view(layer)
        return (min(out, inner * kernel),)

    def view(self, layer: Layer) -> Shape:
        """(out, in, kernel)."""
        out, inner, *kernel = layer.weight_shape
        return out // groups_of(layer), inner, prod(kernel)

    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """(r, in, kernel), (out, r)."""
        out, inner, kernel = self.view(layer)
        return [(ranks[0], inner, kernel), (out, ranks[0])]

    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """The optimum."""
        first, second = reduced_rank(problem, ranks[0])
        return [first.reshape(ranks[0], *shape[1:]), second]

    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """Variances of the principal components of the outputs."""
        return (output_energies(problem)[: min(shape[0], shape[1] * shape[2])],)

    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """Stride, padding and dilation stay with the kernel."""
        first, second = weights
        stage = layer.stage
        if not isinstance(stage, Conv):
            raise TypeError(f"{layer.name} is not a convolution")
        kernel = first.reshape(-1, *layer.weight_shape[1:])
        return (
            replace(stage, weight=Dense(kernel)),
            pointwise(second, stage.group, len(stage.stride)),
        )


FORMAT = Channel()
