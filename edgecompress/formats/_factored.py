"""What the formats share whose chain is a product of factors, group by group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeGuard

import numpy as np

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, MatMul, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats._counting import count_macs, count_parameters
from edgecompress.formats._problem import Problem, problems
from edgecompress.formats._refine import Equation, refine
from edgecompress.formats.base import Moments, check_ranks


class FactoredFormat(ABC):
    """A format given by an einsum over its factors.

    A group's weight is seen as `view`: (out / groups, in / groups, ...). Each factor becomes the
    weight of one stage.

    Attributes:
        equation: How the factors make the view.
        free_sweeps, data_sweeps: Of alternating least squares after `start`, without and with
            data; 0 where the start is the optimum.
    """

    name: ClassVar[str]
    automatic: ClassVar[bool] = True
    equation: ClassVar[Equation]
    free_sweeps: ClassVar[int] = 0
    data_sweeps: ClassVar[int] = 3

    @abstractmethod
    def why_not(self, layer: Layer) -> str | None:
        """Why this layer cannot take the format; None if it can."""

    @abstractmethod
    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """Ranks at which the chain is exact."""

    @abstractmethod
    def view(self, layer: Layer) -> Shape:
        """Shape of one group's weight as the equation makes it."""

    @abstractmethod
    def factor_shapes(self, layer: Layer, ranks: Shape) -> list[Shape]:
        """Shapes of the factors of one group."""

    @abstractmethod
    def start(self, problem: Problem, shape: Shape, ranks: Shape) -> list[FloatArray]:
        """Factors in closed form, exact at `max_ranks`."""

    @abstractmethod
    def spectrum(self, problem: Problem, shape: Shape) -> tuple[FloatArray, ...]:
        """Energies of one group, one array for each bond, falling."""

    @abstractmethod
    def chain(self, layer: Layer, weights: list[FloatArray]) -> tuple[Stage, ...]:
        """The stages, from factors (groups, *factor shape)."""

    def outline(self, layer: Layer, ranks: Shape) -> tuple[Stage, ...]:
        """The chain with weights of zeros that take no memory."""
        check_ranks(ranks, self.max_ranks(layer))
        groups = groups_of(layer)
        shapes = self.factor_shapes(layer, ranks)
        zeros = [np.broadcast_to(np.float32(0), (groups, *shape)) for shape in shapes]
        return self.chain(layer, zeros)

    def decompose(
        self, layer: Layer, ranks: Shape, moments: Moments | None = None
    ) -> tuple[Stage, ...]:
        """The chain, float32; see `Format.decompose`."""
        check_ranks(ranks, self.max_ranks(layer))
        sweeps = self.free_sweeps if moments is None else self.data_sweeps
        shape = self.view(layer)
        groups = []
        for problem in problems(layer, groups_of(layer), moments):
            factors = self.start(problem, shape, ranks)
            groups.append(refine(self.equation, factors, problem, sweeps))
        stacked = [np.stack(column).astype(np.float32) for column in zip(*groups, strict=True)]
        return self.chain(layer, stacked)

    def spectra(self, layer: Layer, moments: Moments | None = None) -> tuple[FloatArray, ...]:
        """Energies of each bond, summed over groups."""
        found = problems(layer, groups_of(layer), moments)
        each = [self.spectrum(problem, self.view(layer)) for problem in found]
        return tuple(np.sum(bond, axis=0) for bond in zip(*each, strict=True))

    def compose(self, layer: Layer, stages: Sequence[Stage]) -> FloatArray:
        """The dense weight that the chain stands for."""
        groups = groups_of(layer)
        ranks = self.ranks_of(layer, stages)
        weights = [stage.weight for stage in stages if isinstance(stage, Conv | MatMul)]
        shapes = self.factor_shapes(layer, ranks)
        factors = [
            weight.to_dense().astype(np.float64).reshape(groups, *shape)
            for weight, shape in zip(weights, shapes, strict=True)
        ]
        rebuilt = [self.equation.compose([f[g] for f in factors]) for g in range(groups)]
        return np.concatenate(rebuilt).reshape(layer.weight_shape)

    def ranks_of(self, layer: Layer, stages: Sequence[Stage]) -> tuple[int, ...]:
        """Ranks of a chain: the outputs per group of all stages but the last."""
        groups = groups_of(layer)
        sizes = [stage.weight.shape[0] // groups for stage in stages[:-1] if has_weight(stage)]
        return tuple(sizes[: len(self.max_ranks(layer))])

    def parameters(self, layer: Layer, ranks: Shape) -> int:
        """Number of weights of the chain."""
        return count_parameters(self.outline(layer, ranks))

    def macs(self, layer: Layer, ranks: Shape) -> int | None:
        """Multiply-accumulates of the chain; None where the layer's shape is open."""
        return count_macs(self.outline(layer, ranks), layer.input_shape)


def groups_of(layer: Layer) -> int:
    """Groups of a layer; a matrix product has one."""
    return layer.stage.group if isinstance(layer.stage, Conv) else 1


def has_weight(stage: Stage) -> TypeGuard[Conv | MatMul]:
    """Whether a stage is a convolution or a matrix product."""
    return isinstance(stage, Conv | MatMul)


def conv_refusal(layer: Layer) -> str | None:
    """Why no format can factor this as a convolution; None if one may."""
    match layer.stage:
        case Conv(transposed=True):
            return "transposed convolution"
        case Conv(weight=weight, group=group) if weight.shape[1] == 1 and group > 1:
            return f"depthwise convolution (group={group}) has nothing to share"
        case Conv(weight=weight) if 0 in weight.shape:
            return "a weight axis is empty"
        case Conv():
            return None
        case MatMul():
            return "a matrix product, not a convolution"
        case _:
            return "not a convolution or a matrix product"


def pointwise(weight: FloatArray, group: int, spatial: int) -> Conv:
    """A 1x1 convolution from (group, out, in)."""
    groups, out, inner = weight.shape
    return Conv(
        weight=Dense(weight.reshape(groups * out, inner, *(1,) * spatial)),
        stride=(1,) * spatial,
        pads=(0,) * (2 * spatial),
        dilation=(1,) * spatial,
        group=group,
    )
