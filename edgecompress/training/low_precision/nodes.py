"""What a layer does on integer codes, as autograd functions on their exact floating values.

Accumulators are wide and never rounded: a product of codes is summed in float32 when the worst
case fits its 24 bits and in float64 otherwise. What leaves a function is on a grid again, forward
(activations) and backward (gradients).

Straight-through: the gradient passes a rounding unchanged where the value was in range and is zero
where it was cut off at the end of the grid. A factor that was cut off is a parameter and has to
find its way back: its gradient is zero only where descent would move it further out.

Source: Bengio et al. 2013 (straight-through estimator); zero out of range: the derivative of the
cut-off, which is no rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, log2
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from edgecompress.training.low_precision.rounding import (
    FLOAT_BITS,
    Rounder,
    fitting_exponent,
    peak_of,
)

FLOAT32_MANTISSA = 24
"""Integers up to 2^24 are exact in float32. Source: IEEE 754."""


class Rule(Protocol):
    """A bilinear operation of an input and a weight."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The result."""
        ...

    def back(self, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Gradient of the input; of ``x`` only the shape is read."""
        ...

    def across(self, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Gradient of the weight; of ``weight`` only the shape is read."""
        ...

    def shaped(self, bias: Tensor) -> Tensor:
        """A bias as it is added to the result."""
        ...

    def summed(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of a bias of that shape."""
        ...

    def terms(self, x: Tensor, weight: Tensor) -> tuple[int, int, int]:
        """Products in a sum of the forward pass, of the input's and of the weight's gradient."""
        ...


@dataclass(frozen=True, slots=True)
class LinearRule:
    """y = x weight^T over the last axis; weight (out, in)."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """(..., out)."""
        return x @ weight.mT

    def back(self, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """(..., in)."""
        return gradient @ weight

    def across(self, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """(out, in)."""
        rows = gradient.reshape(-1, gradient.shape[-1])
        return rows.mT @ x.reshape(-1, x.shape[-1])

    def shaped(self, bias: Tensor) -> Tensor:
        """As it is."""
        return bias

    def summed(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The bias's shape: some of the last axes."""
        return gradient.reshape(-1, *shape).sum(0)

    def terms(self, x: Tensor, weight: Tensor) -> tuple[int, int, int]:
        """Inputs, outputs, rows."""
        return weight.shape[1], weight.shape[0], x.numel() // x.shape[-1]


@dataclass(frozen=True, slots=True)
class ConvolutionRule:
    """A 2-d convolution, NCHW; padding is the same on both ends of an axis."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    group: int = 1

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """(n, out, h', w')."""
        return torch.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.group)

    def back(self, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """(n, in, h, w)."""
        place = (self.stride, self.padding, self.dilation, self.group)
        found = conv2d_input(list(x.shape), weight, gradient, *place)  # type: ignore[no-untyped-call]
        return cast(Tensor, found)

    def across(self, x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """The kernel's shape."""
        place = (self.stride, self.padding, self.dilation, self.group)
        found = conv2d_weight(x, list(weight.shape), gradient, *place)  # type: ignore[no-untyped-call]
        return cast(Tensor, found)

    def shaped(self, bias: Tensor) -> Tensor:
        """(out, 1, 1)."""
        return bias[:, None, None]

    def summed(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """(out,)."""
        return gradient.sum((0, 2, 3))

    def terms(self, x: Tensor, weight: Tensor) -> tuple[int, int, int]:
        """Taps of an output, taps of an input, samples times positions (at most)."""
        taps = weight[0].numel()
        back = weight.shape[0] // self.group * weight[0, 0].numel()
        return taps, back, x.shape[0] * x.shape[2] * x.shape[3]


@dataclass(slots=True)
class Site:
    """A place where activations are put on a grid.

    Attributes:
        bits: Of a code.
        peak: Largest magnitude of late: it follows a larger one at once and decays slowly. Training
            rounds to the grid of this peak, so nothing is cut off; evaluation keeps it, so what a
            sample gives does not depend on what else is in the batch.
        exponent: Of the last rounding.
    """

    bits: int
    peak: float = 0.0
    exponent: int = 0

    def observe(self, peak: float, training: bool) -> int:
        """The exponent to round to, for a tensor with this largest magnitude."""
        if isfinite(peak) and (training or self.peak == 0):
            self.peak = max(peak, self.peak * PEAK_DECAY)
        self.exponent = fitting_exponent(self.peak, self.bits)
        return self.exponent


PEAK_DECAY = 0.999
"""Of the largest magnitude at a step without a larger one: half after 700 steps.

Source: a choice, slow against a batch and fast against a run; a grid is a power of two, so a peak
half as large again is the same grid.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """What a rounding operation needs beside its tensors.

    Attributes:
        rule: The operation.
        site: Where its result is put on a grid.
        gradient: Rounds gradients.
        biases: Rounds biases; to nearest.
        codes: Widths of a code of the input and of the weight.
        weight_bits: Width that the weight's codes do with, when those of a factor are on a finer
            grid: what decides which sums are exact.
        units: Exponent of a product of two codes: the accumulator's unit.
        training: Whether the site follows the values.
    """

    rule: Rule
    site: Site
    gradient: Rounder
    biases: Rounder
    codes: tuple[int, int]
    weight_bits: int
    units: int
    training: bool


class Operation(torch.autograd.Function):
    """An operation on codes with a bias: Q(x weight + Q(bias)), gradients rounded on their way out.

    A bias is not kept finer than the accumulator that it is added to.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        """On the site's grid, in the type of ``x``."""
        terms = call.rule.terms(x, weight)
        kind = exact_type(x.dtype, terms[0], call.codes[0], call.weight_bits)
        added = None
        if bias is not None:
            unit = max(call.biases.exponent(bias), call.units)
            added = call.biases.at(bias, unit)
            if unit + call.biases.bits - call.units >= FLOAT32_MANTISSA - 1:
                kind = torch.float64
        total = call.rule.forward(x.to(kind), weight.to(kind))
        if added is not None:
            if kind is torch.float32 and not _sum_fits(terms[0], call, unit):
                total = total.double()
            total = total + call.rule.shaped(added.to(total.dtype))
        peak = peak_of(total)
        exponent = call.site.observe(peak, call.training)
        values = Rounder(call.site.bits)
        ctx.inside = in_range(total, peak, values.end(exponent))
        ctx.call, ctx.terms = call, terms
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.save_for_backward(x, weight)
        return values.at(total, exponent if isfinite(peak) else None).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias, each on its grid."""
        x, weight = ctx.saved_tensors
        call: Call = ctx.call
        if ctx.inside is not None:
            gradient = gradient * ctx.inside
        rule, bits = call.rule, call.gradient.bits
        out_x, out_weight, out_bias = None, None, None
        if ctx.needs_input_grad[0]:
            kind = exact_type(x.dtype, ctx.terms[1], bits, call.weight_bits)
            dx = rule.back(x, weight.to(kind), gradient.to(kind))
            out_x = call.gradient(dx).to(x.dtype)
        kind = exact_type(x.dtype, ctx.terms[2], bits, call.codes[0])
        wide = gradient.to(kind)
        if ctx.needs_input_grad[1]:
            out_weight = call.gradient(rule.across(x.to(kind), weight, wide)).to(weight.dtype)
        if ctx.bias_shape is not None and ctx.needs_input_grad[2]:
            out_bias = call.gradient(rule.summed(wide, ctx.bias_shape)).to(x.dtype)
        return out_x, out_weight, out_bias, None


class Round(torch.autograd.Function):
    """Values on a grid forward, gradients on theirs backward, straight through in range."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        exponent: int | None,
        values: Rounder,
        gradient: Rounder,
        kind: torch.dtype,
    ) -> Tensor:
        """In the type ``kind``; exponent None: the finest grid that holds the tensor."""
        peak = peak_of(x)
        if exponent is None:
            exponent = values.exponent(x) if isfinite(peak) else 0
        ctx.gradient, ctx.kind = gradient, x.dtype
        ctx.inside = in_range(x, peak, values.end(exponent))
        ctx.signs = x.detach().sign() if ctx.inside is not None and values.factors else None
        return values.at(x, exponent if isfinite(peak) else None).to(kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Rounded, zero where the value was cut off and would go further out."""
        if ctx.signs is not None:
            gradient = gradient * (ctx.inside | (gradient * ctx.signs > 0))
        elif ctx.inside is not None:
            gradient = gradient * ctx.inside
        return ctx.gradient(gradient).to(ctx.kind), None, None, None, None


class RoundGradient(torch.autograd.Function):
    """The same values; their gradient on its grid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Rounder) -> Tensor:
        """The same values."""
        ctx.gradient = gradient
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Rounded."""
        return ctx.gradient(gradient), None


def exact_type(least: torch.dtype, terms: int, *bits: int) -> torch.dtype:
    """A floating type in which a sum of ``terms`` products of codes is exact, at least ``least``.

    Float operands (`FLOAT_BITS`) are not codes: they stay as they are.
    """
    if max(bits) >= FLOAT_BITS:
        return least
    worst = sum(width - 1 for width in bits) + ceil(log2(max(terms, 1)))
    return least if worst <= FLOAT32_MANTISSA else torch.promote_types(least, torch.float64)


def in_range(x: Tensor, peak: float, end: float) -> Tensor | None:
    """Where the gradient passes: all but what is rounded past the last code. None: everywhere."""
    return None if peak <= end else x.detach().abs() <= end


def _sum_fits(terms: int, call: Call, unit: int) -> bool:
    """Whether accumulator and bias together are exact in float32."""
    total = sum(width - 1 for width in call.codes) + ceil(log2(max(terms, 1)))
    bias = call.biases.bits - 1 + unit - call.units
    return max(total, bias) + 1 <= FLOAT32_MANTISSA
