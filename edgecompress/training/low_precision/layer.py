"""Layers that run on integer codes: tensorized ones by their pieces, dense ones as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.core.training import PrecisionOptions
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.pieces import Kernel, Lookup, Order, Piece, Product, View
from edgecompress.training.low_precision.nodes import (
    Call,
    ConvolutionRule,
    LinearRule,
    Operation,
    Round,
    RoundGradient,
    Rule,
    Site,
)
from edgecompress.training.low_precision.rounding import Rounder, peak_of, stream

if TYPE_CHECKING:
    from edgecompress.training.layers import TensorizedConv2d, TensorizedLayer


class RoundedCores(nn.Module):
    """Cores rounded on their way into a pass, their gradients on the way out: a view of cores.

    Args:
        options: Widths.
        seed: Of stochastic rounding.
        name: Of the layer, for a stream of its own.

    In evaluation factors are rounded to nearest. Inside `exact_cores` the cores come in float64, in
    which products of several cores, and the gradients that flow back through them, are exact.
    """

    def __init__(self, options: PrecisionOptions, *, seed: int, name: str) -> None:
        super().__init__()
        self.options = options
        self.generator = stream(seed, f"{name}.factors")
        self.wide = False

    def __call__(self, cores: list[Tensor]) -> list[Tensor]:
        """Each core on its own grid."""
        random = self.options.rounding == "stochastic"
        noise = self.generator if random else None
        values = Rounder(self.options.factor_bits, noise if self.training else None, factors=True)
        gradients = Rounder(self.options.gradient_bits, noise)
        return [
            rounded(core, None, values, gradients, torch.float64 if self.wide else core.dtype)
            for core in cores
        ]

    def cut(self, core: int, axis: int, kept: Tensor) -> None:
        """Nothing here has the shape of a core."""


class LayerPrecision(nn.Module):
    """Runs a layer on codes.

    The input is put on a grid of ``activation_bits``; then each piece (a merged half, a kernel) is
    rounded to ``activation_bits``, multiplied with a wide accumulator, and its result put on a grid
    of ``activation_bits``; the bias joins the last accumulator. Gradients are rounded to
    ``gradient_bits`` where a device would store them: of each result, of each merged half, of each
    factor and bias. What merges cores into a half is not rounded in between.

    Args:
        options: Widths.
        sites: Places where activations are rounded: the input, and each piece's result.
        seed: Of stochastic rounding.
        name: Of the layer, for a stream of its own.

    ``peaks``, a buffer, holds the largest magnitude of late at each site.

    Source: tensor factors trained in few bits: arXiv 2104.03420 (2021). The widths and where they
    apply are a choice; what they cost: benchmarks/training/low_precision.py.
    """

    peaks: Tensor

    def __init__(self, options: PrecisionOptions, sites: int, *, seed: int, name: str) -> None:
        super().__init__()
        self.options = options
        self.generator = stream(seed, f"{name}.passes")
        self.register_buffer("peaks", torch.zeros(sites, dtype=torch.float64))

    @property
    def gradients(self) -> Rounder:
        """Of activations, merged halves and biases."""
        return Rounder(self.options.gradient_bits, self._noise(True))

    def run(self, layer: TensorizedLayer | RoundedLinear | RoundedConv2d, x: Tensor) -> Tensor:
        """What ``layer(x)`` gives on codes."""
        kind = next(layer.parameters()).dtype
        if isinstance(layer, RoundedLinear | RoundedConv2d):
            values = Rounder(self.options.factor_bits, self._noise(self.training), factors=True)
            weight = rounded(layer.weight, None, values, self.gradients, kind)
            piece: Piece = Product(weight)
            if isinstance(layer, RoundedConv2d):
                piece = Kernel(weight, True, layer.groups)
            return self._chain(layer, x, (piece,), self._factors.integer_bits)
        factorization = layer.factorization
        with exact_cores(factorization):
            if not x.is_floating_point():
                return self._gathered(factorization, x)
            pieces = tuple(self._rounded(piece, kind) for piece in factorization.pieces())
        return self._chain(layer, x, pieces, self._half_bits)

    def _gathered(self, factorization: Factorization, rows: Tensor) -> Tensor:
        """Rows of a table: one rounding, of the result."""
        found = factorization.gather(rows)
        exponent = self._observe(0, found)
        values = Rounder(self.options.activation_bits)
        kind = factorization.cores[0].dtype
        return rounded(found, exponent, values, self.gradients, kind)

    def _rounded(self, piece: Piece, kind: torch.dtype) -> Piece:
        """The piece with its weight, a merged half, on a grid and in the network's type."""
        match piece:
            case Product(weight=weight):
                return Product(self._half(weight, kind))
            case Kernel(weight=weight, whole=whole, group=group):
                return Kernel(self._half(weight, kind), whole, group)
            case _:
                return piece

    def _half(self, weight: Tensor, kind: torch.dtype) -> Tensor:
        """A merged half on its grid; a single core stays the codes that it is."""
        bits = self.options.activation_bits
        if bits < self._half_bits and self._factors.holds(weight):
            bits = self._half_bits
        return rounded(weight, None, Rounder(bits), self.gradients, kind)

    def _chain(
        self,
        layer: TensorizedLayer | RoundedLinear | RoundedConv2d,
        x: Tensor,
        pieces: Sequence[Piece],
        weight_bits: int,
    ) -> Tensor:
        """The pieces one after another; the last product or kernel takes the bias."""
        values = Rounder(self.options.activation_bits)
        exponent = self._observe(0, x)
        x = rounded(x, exponent, values, self.gradients, x.dtype)
        last = max(k for k, piece in enumerate(pieces) if isinstance(piece, Product | Kernel))
        place = 0
        for k, piece in enumerate(pieces):
            match piece:
                case Product() | Kernel():
                    place += 1
                    x, rule = self._prepared(layer, x, piece)
                    call = Call(
                        rule=rule,
                        site=self._site(place),
                        gradient=self.gradients,
                        biases=values,
                        codes=(self.options.activation_bits, weight_bits),
                        weight_bits=self._codes(piece.weight, weight_bits),
                        units=exponent + Rounder(weight_bits).exponent(piece.weight),
                        training=self.training,
                    )
                    bias = None
                    if k == last and layer.bias is not None:
                        bias = placed(layer.bias, (*x.shape[:-1], len(piece.weight)), pieces[k:])
                    x = cast(Tensor, Operation.apply(x, piece.weight, bias, call))  # type: ignore[no-untyped-call]
                    self.peaks[place] = call.site.peak
                    exponent = call.site.exponent
                case View() | Order():
                    x = moved(x, piece)
                case Lookup():
                    raise ValueError("a lookup stands in a table, not in a chain of products")
        return cast(Tensor, RoundGradient.apply(x, self.gradients))  # type: ignore[no-untyped-call]

    def _prepared(
        self,
        layer: TensorizedLayer | RoundedLinear | RoundedConv2d,
        x: Tensor,
        piece: Product | Kernel,
    ) -> tuple[Tensor, Rule]:
        """The input, padded where both ends differ, and the operation."""
        if isinstance(piece, Product):
            return x, LinearRule()
        if not piece.whole:
            return x, ConvolutionRule()
        wide = cast("TensorizedConv2d", layer)
        dilation, padding = pair(wide.dilation), wide.padding
        if padding == "same":
            ends = [
                step * (size - 1)
                for step, size in zip(dilation, piece.weight.shape[2:], strict=True)
            ]
            x = nn.functional.pad(x, [side for end in ends[::-1] for side in _halves(end)])
        zeros = (0, 0) if isinstance(padding, str) else pair(padding)
        return x, ConvolutionRule(pair(wide.stride), zeros, dilation, piece.group)

    def _codes(self, weight: Tensor, bits: int) -> int:
        """The width that a rounded weight needs: a single core keeps that of factors."""
        narrow = self._factors
        return min(bits, narrow.integer_bits) if narrow.holds(weight) else bits

    @property
    def _factors(self) -> Rounder:
        """Of factors, to nearest."""
        return Rounder(self.options.factor_bits, factors=True)

    @property
    def _half_bits(self) -> int:
        """Of a merged half's integers: odd codes are a bit longer than what is stored."""
        bits = self.options.activation_bits
        fits = self.options.factor_bits <= bits
        return max(bits, self._factors.integer_bits) if fits else bits

    def _noise(self, wanted: bool) -> torch.Generator | None:
        return self.generator if wanted and self.options.rounding == "stochastic" else None

    def _site(self, place: int) -> Site:
        return Site(self.options.activation_bits, float(self.peaks[place]))

    def _observe(self, place: int, x: Tensor) -> int:
        """The exponent of a site for this tensor, its peak remembered."""
        site = self._site(place)
        exponent = site.observe(peak_of(x), self.training)
        self.peaks[place] = site.peak
        return exponent


class RoundedLinear(nn.Linear):
    """A dense layer that stays in the network, its weight at ``factor_bits``."""

    precision: LayerPrecision

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.precision.run(self, x)


class RoundedConv2d(nn.Conv2d):
    """A dense convolution that stays in the network, its kernel at ``factor_bits``."""

    precision: LayerPrecision

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h', w')."""
        return self.precision.run(self, x)


def moved(x: Tensor, piece: View | Order) -> Tensor:
    """The same numbers in other places."""
    if isinstance(piece, View):
        return x.reshape(*x.shape[: x.dim() - piece.taken], *piece.shape)
    lead = x.dim() - len(piece.axes)
    return x.permute(*range(lead), *(lead + axis for axis in piece.axes))


def placed(bias: Tensor, shape: Shape, pieces: Sequence[Piece]) -> Tensor:
    """A layer's bias as it is added to a result of that shape, which the pieces behind the first
    still move to its place."""
    if not isinstance(pieces[0], Product):
        return bias
    axes: Shape = ()
    while prod(axes) < len(bias):
        axes = (shape[len(shape) - len(axes) - 1], *axes)
    if axes == tuple(bias.shape):
        return bias
    order = torch.arange(len(bias), device=bias.device).reshape(axes)
    for piece in pieces[1:]:
        if isinstance(piece, View | Order):
            order = moved(order, piece)
    return bias[order.reshape(-1).argsort()].reshape(axes)


def rounded(
    x: Tensor, exponent: int | None, values: Rounder, gradients: Rounder, kind: torch.dtype
) -> Tensor:
    """On a grid, in a type; gradients rounded on their way back."""
    return cast(Tensor, Round.apply(x, exponent, values, gradients, kind))  # type: ignore[no-untyped-call]


@contextmanager
def exact_cores(factorization: Factorization) -> Iterator[None]:
    """Rounded cores come in float64."""
    views = [view for view in factorization.views if isinstance(view, RoundedCores)]
    for view in views:
        view.wide = True
    try:
        yield
    finally:
        for view in views:
            view.wide = False


def pair(sizes: int | Sequence[int]) -> tuple[int, int]:
    """Height and width."""
    return (sizes, sizes) if isinstance(sizes, int) else (sizes[0], sizes[1])


def _halves(total: int) -> tuple[int, int]:
    """Padding before and after: the odd one goes behind, as in torch."""
    return total // 2, total - total // 2
