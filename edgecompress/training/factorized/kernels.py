"""x through a chain of convolutions, where autograd keeps x and the kernels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torch.nn.grad import conv2d_input, conv2d_weight

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.chain import for_each, summed_products
from edgecompress.training.factorized.pieces import Kernel
from edgecompress.training.factorized.piecewise import sizes

BLOCK_SHARE = 4
"""So many samples at once that what stands between is at most 1/4 of their inputs and outputs.

Source: measured: benchmarks/training/conv_chains.py; a step of one layer is no slower than with
everything kept, and a network's peak is that of the dense one at most.
"""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Where a kernel looks.

    Attributes:
        stride, dilation: Of the kernel.
        padding: Zeros on both ends of both axes.
        spare: Zeros more on the far ends: "same" padding of an even kernel.
    """

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    spare: Pair = (0, 0)

    @classmethod
    def of(cls, stride: Pair, padding: Pair | str, dilation: Pair, kernel: Shape) -> Window:
        """As `torch.nn.Conv2d` takes them.

        Raises:
            ValueError: The padding is a word other than ``same`` and ``valid``.
        """
        match padding:
            case "valid":
                return cls(stride, (0, 0), dilation)
            case "same":
                high, wide = (
                    step * (size - 1) for step, size in zip(dilation, kernel, strict=True)
                )
                return cls(stride, (high // 2, wide // 2), dilation, (high % 2, wide % 2))
            case str():
                raise ValueError(f"padding is {padding!r}, not 'same' or 'valid'")
        return cls(stride, padding, dilation)

    def after(self, size: Shape, kernel: Shape) -> Shape:
        """Positions that are left of (h, w)."""
        axes = zip(size, kernel, self.stride, self.padding, self.dilation, self.spare, strict=True)
        return tuple((n + 2 * p + e - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, e in axes)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A 1x1 kernel (out, in, 1, 1) at every position: one matrix product for each sample."""

    weight: Tensor

    def shape_after(self, shape: Shape) -> Shape:
        """Of one sample."""
        return (self.weight.shape[0], *shape[1:])

    def run(self, state: Tensor, bias: Tensor | None = None, into: Tensor | None = None) -> Tensor:
        """The next state; written into what is given."""
        matrix, flat = self.weight.flatten(1), state.flatten(2)
        place = None if into is None else into.flatten(2)
        if bias is None:
            y = for_each(matrix, flat, out=place)
        else:
            each = matrix.expand(flat.shape[0], -1, -1)
            y = torch.baddbmm(bias[:, None], each, flat, out=place)
        return y.view(*y.shape[:2], *state.shape[2:]) if into is None else into

    def to_weight(self, state: Tensor, gradient: Tensor) -> Tensor:
        """The weight's gradient."""
        found = summed_products(gradient.flatten(2).mT, state.flatten(2).mT)
        return found.view(self.weight.shape)

    def to_state(self, gradient: Tensor, shape: Shape, into: Tensor | None = None) -> Tensor:
        """The state's gradient, of samples of this shape; written into what is given."""
        place = None if into is None else into.flatten(2)
        found = for_each(self.weight.flatten(1).t(), gradient.flatten(2), out=place)
        return found.view(found.shape[0], *shape) if into is None else into


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A kernel (out, in / group, kh, kw) that looks around."""

    weight: Tensor
    window: Window
    group: int

    def shape_after(self, shape: Shape) -> Shape:
        """Of one sample."""
        return (self.weight.shape[0], *self.window.after(shape[1:], self.weight.shape[2:]))

    def run(self, state: Tensor, bias: Tensor | None = None, into: Tensor | None = None) -> Tensor:
        """The next state; written into what is given."""
        found = conv2d(self._padded(state), self.weight, bias, *self._setting())
        return found if into is None else into.copy_(found)

    def to_weight(self, state: Tensor, gradient: Tensor) -> Tensor:
        """The weight's gradient."""
        seen, shape = self._padded(state), list(self.weight.shape)
        found = conv2d_weight(seen, shape, gradient, *self._setting())  # type: ignore[no-untyped-call]
        return cast(Tensor, found)

    def to_state(self, gradient: Tensor, shape: Shape, into: Tensor | None = None) -> Tensor:
        """The state's gradient, of samples of this shape; written into what is given."""
        channels, *size = shape
        high, wide = (n + more for n, more in zip(size, self.window.spare, strict=True))
        seen = [gradient.shape[0], channels, high, wide]
        found = conv2d_input(seen, self.weight, gradient, *self._setting())  # type: ignore[no-untyped-call]
        found = found[:, :, : size[0], : size[1]]
        return cast(Tensor, found) if into is None else into.copy_(found)

    def _padded(self, state: Tensor) -> Tensor:
        high, wide = self.window.spare
        return pad(state, (0, wide, 0, high)) if high or wide else state

    def _setting(self) -> tuple[Pair, Pair, Pair, int]:
        return self.window.stride, self.window.padding, self.window.dilation, self.group


Link = Points | Windows
Place = tuple[Window, int] | None
"""Of a kernel that looks around: where, and its groups; None of one that does not."""


def through_kernels(
    x: Tensor, bias: Tensor | None, kernels: Sequence[Kernel], window: Window
) -> Tensor:
    """(n, in, h, w) -> (n, out, h', w'), one convolution after the other.

    Args:
        window: Of the kernel that is ``whole``.
    """
    places = tuple(_place(piece, window) for piece in kernels)
    weights = [piece.weight for piece in kernels]
    function = _ThroughKernels.apply
    return cast(Tensor, function(x, bias, places, *weights))  # type: ignore[no-untyped-call]


def plain_kernels(
    x: Tensor, bias: Tensor | None, kernels: Sequence[Kernel], window: Window
) -> Tensor:
    """The same in operations that can be recorded, and differentiated any number of times."""
    weights = [piece.weight for piece in kernels]
    return _chained(x, bias, _links([_place(piece, window) for piece in kernels], weights))


class _ThroughKernels(torch.autograd.Function):
    """Some samples at a time; what stands between is made again going back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, places: tuple[Place, ...], *weights: Tensor
    ) -> Tensor:
        ctx.places = places
        ctx.save_for_backward(x, bias, *weights)
        links = _links(places, [weight.contiguous() for weight in weights])
        shapes = _shapes(links, tuple(x.shape[1:]))
        y = x.new_empty(x.shape[0], *shapes[-1])
        size = block_samples(shapes, x.shape[0])
        for part, into in zip(torch.split(x, size), torch.split(y, size), strict=True):
            state = part
            for link in links[:-1]:
                state = link.run(state)
            links[-1].run(state, bias, into)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, *weights = ctx.saved_tensors
        wants_x, wants_bias, _, *wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():
            found = _again(x, bias, weights, ctx.places, gradient, ctx.needs_input_grad)
            return (*found[:2], None, *found[2:])
        gradient = gradient.contiguous()
        links = _links(ctx.places, [weight.contiguous() for weight in weights])
        shapes = _shapes(links, tuple(x.shape[1:]))
        size = block_samples(shapes, x.shape[0])
        dx = x.new_empty(x.shape) if wants_x else None
        parts = torch.split(x, size)
        into = [None] * len(parts) if dx is None else torch.split(dx, size)
        totals: list[Tensor | None] = [None] * len(links)
        for part, down, place in zip(parts, torch.split(gradient, size), into, strict=True):
            for index, share in enumerate(_back(links, shapes, part, down, place, wanted)):
                total = totals[index]
                totals[index] = share if total is None or share is None else total.add_(share)
        db = gradient.sum((0, 2, 3)) if bias is not None and wants_bias else None
        return (dx, db, None, *totals)


def block_samples(shapes: Sequence[Shape], samples: int) -> int:
    """How many samples go at once, by the shapes of a sample's input, states and output."""
    first, *between, last = (prod(shape) for shape in shapes)
    blocks = max(1, -(-BLOCK_SHARE * sum(between) // max(1, first + last)))
    return max(1, -(-samples // blocks))


def _back(
    links: Sequence[Link],
    shapes: Sequence[Shape],
    x: Tensor,
    gradient: Tensor,
    into: Tensor | None,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The samples' share in the weights' gradients; their own is written into what is given."""
    states = [x]
    if any(wanted):
        for link in links[:-1]:
            states.append(link.run(states[-1]))
    found: list[Tensor | None] = [None] * len(links)
    for index in reversed(range(len(links))):
        if any(wanted):
            state = states.pop()
            found[index] = links[index].to_weight(state, gradient) if wanted[index] else None
            del state  # before its gradient is made
        if index or into is not None:
            gradient = links[index].to_state(gradient, shapes[index], None if index else into)
    return found


def _again(
    x: Tensor,
    bias: Tensor | None,
    weights: Sequence[Tensor],
    places: tuple[Place, ...],
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of x, the bias and the weights that can be differentiated again."""
    # Views, as a tensor may also be what another one was made from: only its own share counts.
    given = [None if item is None else item.view_as(item) for item in (x, bias, *weights)]
    seen, added, *kernels = given
    flags = (*needed[:2], *needed[3:])
    asked = [k for k, item in enumerate(given) if item is not None and flags[k]]
    y = _chained(cast(Tensor, seen), added, _links(places, cast(list[Tensor], kernels)))
    own = torch.autograd.grad(
        y, [cast(Tensor, given[k]) for k in asked], gradient, create_graph=True
    )
    found: list[Tensor | None] = [None] * len(given)
    for k, item in zip(asked, own, strict=True):
        found[k] = item
    return found


def _chained(x: Tensor, bias: Tensor | None, links: Sequence[Link]) -> Tensor:
    for link in links[:-1]:
        x = _convolved(x, None, link)
    return _convolved(x, bias, links[-1])


def _convolved(x: Tensor, bias: Tensor | None, link: Link) -> Tensor:
    if isinstance(link, Windows):
        return link.run(x, bias)
    return conv2d(x, link.weight, bias)


def _place(piece: Kernel, window: Window) -> Place:
    own = window if piece.whole else Window()
    still = prod(sizes(piece.weight)[2:]) == 1 and own in (Window(), Window(dilation=own.dilation))
    return None if still and piece.group == 1 else (own, piece.group)


def _links(places: Sequence[Place], weights: Sequence[Tensor]) -> list[Link]:
    return [
        Points(weight) if place is None else Windows(weight, *place)
        for place, weight in zip(places, weights, strict=True)
    ]


def _shapes(links: Sequence[Link], shape: Shape) -> list[Shape]:
    """Of one sample: x, every state, y."""
    shapes = [shape]
    for link in links:
        shapes.append(link.shape_after(shapes[-1]))
    return shapes
