"""A tensorized network as ordinary torch layers: what is exported."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, embedding

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.pieces import Kernel, Lookup, Order, Piece, Product, View
from edgecompress.training.factorized.piecewise import digit_of, past_spare, table_rows
from edgecompress.training.layers import (
    Pair,
    TensorizedConv2d,
    TensorizedEmbedding,
    TensorizedLayer,
    TensorizedLinear,
    kernel_pieces,
)


def plain_network(network: nn.Module, *, merged: bool = True) -> nn.Module:
    """A copy in evaluation mode in which every tensorized layer is a chain of ordinary ones.

    Neighbours in a chain are merged where that takes neither more parameters nor more
    multiply-accumulates; where one layer takes neither, it is one layer. Outputs agree to rounding.

    Args:
        network: Any network.
        merged: False keeps every piece, for factors on a grid: their product is on none.

    Raises:
        ValueError: A format's pieces do not fit its layer.
    """
    copy = deepcopy(network).eval()
    if isinstance(copy, TensorizedLayer):
        return _plain(copy, merged)
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(copy.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, TensorizedLayer):
                if child not in made:
                    made[child] = _plain(child, merged)
                setattr(parent, name, made[child])
    return copy.eval()


class Reshape(nn.Module):
    """The last axes in another shape."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.shape, self.taken = view.shape, view.taken

    def forward(self, x: Tensor) -> Tensor:
        """(..., taken axes) to (..., *shape)."""
        return x.reshape(*x.shape[: x.dim() - self.taken], *self.shape)


class Permute(nn.Module):
    """The last axes in another order."""

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.axes = order.axes

    def forward(self, x: Tensor) -> Tensor:
        """The leading axes stay."""
        lead = x.dim() - len(self.axes)
        return x.permute(*range(lead), *(lead + axis for axis in self.axes))


class Bias(nn.Module):
    """Added over the last axis."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """x + bias."""
        return x + self.bias


class Table(nn.Module):
    """Rows of a table by the digits of their indices.

    Args:
        pieces: Lookups, and what follows them.
        used: Rows; the digits may name more. Other indices fail as with `torch.nn.Embedding`; in a
            graph that is made of this, as with a Gather from a dense table.
        padding: A row that gives zeros; None: no such row.
    """

    def __init__(self, pieces: Sequence[Piece], used: int, padding: int | None) -> None:
        super().__init__()
        self.used, self.padding = used, padding
        lookups = [piece for piece in pieces if isinstance(piece, Lookup)]
        self.slices = nn.ParameterList(_parameter(piece.slices.flatten(1)) for piece in lookups)
        self.digits = [
            (piece.stride, piece.slices.shape[0], tuple(piece.slices.shape[1:]))
            for piece in lookups
        ]
        self.total = table_rows(lookups)
        self.chain = nn.ModuleList(
            nn.Identity() if isinstance(p, Lookup) else _matrix(p) for p in pieces
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Indices (...) to (..., width)."""
        found: Tensor | None = None
        seen, places = 0, past_spare(rows, self.used, self.total)
        for step in self.chain:
            if isinstance(step, nn.Identity):
                picked = self._pick(places, seen)
                seen += 1
                if found is None:
                    found = picked
                else:
                    scales = len(self.digits[seen - 1][2]) == 1
                    found = found * picked if scales else torch.matmul(found, picked)
            else:
                found = step(found)
        if found is None:
            raise ValueError("a chain for a table looks something up")
        if self.padding is not None:
            # In a graph a negative index can name the padding row too.
            other = (rows != self.padding) & (rows != self.padding - self.used)
            found = found * other.unsqueeze(-1).to(found.dtype)
        return found

    def _pick(self, rows: Tensor, index: int) -> Tensor:
        stride, count, shape = self.digits[index]
        digit = digit_of(rows, stride, count, self.total)
        return embedding(digit, self.slices[index]).reshape(*rows.shape, *shape)


def _plain(layer: TensorizedLayer, merged: bool) -> nn.Module:
    with torch.no_grad():
        match layer:
            case TensorizedLinear():
                return _plain_linear(layer, merged)
            case TensorizedConv2d():
                return _plain_conv(layer, merged)
            case TensorizedEmbedding():
                return _plain_table(layer, merged)
            case _:
                raise ValueError(f"no plain form for {type(layer).__name__}")


def _plain_linear(layer: TensorizedLinear, merged: bool) -> nn.Module:
    whole = layer.factorization.pieces()
    pieces = _merged(whole) if merged else list(whole)
    macs = _macs(pieces, layer.in_features)
    dense = layer.in_features * layer.out_features
    if merged and dense <= macs and dense <= _count(pieces):
        return layer.to_dense()
    modules = [_matrix(piece) for piece in pieces]
    last = modules[-1]
    if layer.bias is not None:
        if isinstance(last, nn.Linear):
            last.bias = _parameter(layer.bias)
        else:
            modules.append(Bias(layer.bias))
    return nn.Sequential(*modules)


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbouring products become one where that has no more numbers."""
    chain: list[Piece] = []
    for piece in pieces:
        match chain[-1:], piece:
            case [Product(weight=first)], Product(weight=second) if (
                first.shape[1] * second.shape[0] <= first.numel() + second.numel()
            ):
                chain[-1] = Product(_product(second, first))
            case _:
                chain.append(piece)
    return chain


def _macs(pieces: Sequence[Piece], width: int) -> int:
    """Of one row of inputs."""
    entries, macs = width, 0
    for piece in pieces:
        if isinstance(piece, Product):
            macs += entries * piece.weight.shape[0]
            entries = entries // piece.weight.shape[1] * piece.weight.shape[0]
    return macs


def _count(pieces: Sequence[Piece]) -> int:
    return sum(p.weight.numel() for p in pieces if isinstance(p, Product | Kernel))


def _matrix(piece: Piece) -> nn.Module:
    """One piece over the last axes as a module."""
    match piece:
        case Product(weight=weight):
            out, inner = weight.shape
            made = nn.Linear(inner, out, bias=False, device="meta")
            made.weight = _parameter(weight)
            return made
        case View():
            return Reshape(piece)
        case Order():
            return Permute(piece)
        case _:
            raise ValueError(f"{type(piece).__name__} is no operation on the last axes")


@dataclass(frozen=True, slots=True)
class _Setting:
    """Of a convolution."""

    stride: Pair
    padding: Pair | str
    dilation: Pair


NO_SETTING = _Setting((1, 1), (0, 0), (1, 1))


def _plain_conv(layer: TensorizedConv2d, merged: bool) -> nn.Module:
    setting = _Setting(layer.stride, layer.padding, layer.dilation)
    kernels = kernel_pieces(layer.factorization)
    while merged and (shorter := _shorten(kernels, setting)) is not None:
        kernels = shorter
    dense = Kernel(layer.factorization.dense(), whole=True)
    if merged and _cheaper([dense], kernels, setting):
        return layer.to_dense()
    bias = layer.bias
    last = len(kernels) - 1
    modules = [
        _conv(kernel, setting, bias if index == last else None)
        for index, kernel in enumerate(kernels)
    ]
    return nn.Sequential(*modules)


def _shorten(kernels: list[Kernel], setting: _Setting) -> list[Kernel] | None:
    """The first two neighbours that are better as one, merged; None if there are none."""
    for index, (first, second) in enumerate(pairwise(kernels)):
        if first.group > 1 or second.group > 1:
            continue
        merged = [*kernels[:index], _compose(first, second), *kernels[index + 2 :]]
        if _cheaper(merged, kernels, setting):
            return merged
    return None


def _compose(first: Kernel, second: Kernel) -> Kernel:
    """Both as one convolution; at least one of them is 1x1."""
    whole = first.whole or second.whole
    middle, inner = first.weight.shape[:2]
    if prod(first.weight.shape[2:]) > 1:
        flat = _product(second.weight.flatten(1), first.weight.reshape(middle, -1))
        return Kernel(flat.reshape(-1, inner, *first.weight.shape[2:]), whole)
    weight = conv2d(second.weight, first.weight.transpose(0, 1))
    return Kernel(weight, whole)


def _cheaper(new: Sequence[Kernel], old: Sequence[Kernel], setting: _Setting) -> bool:
    """Whether neither numbers nor work grow."""
    return _count(new) <= _count(old) and _work(new, setting) <= _work(old, setting)


def _work(kernels: Sequence[Kernel], setting: _Setting) -> int:
    """Multiply-accumulates of one output position; before the stride there are more positions."""
    positions = prod(setting.stride)
    macs = 0
    for kernel in kernels:
        if kernel.whole:
            positions = 1
        macs += positions * kernel.weight.numel()
    return macs


def _conv(kernel: Kernel, setting: _Setting, bias: Tensor | None) -> nn.Conv2d:
    out, inner, *size = kernel.weight.shape
    used = setting if kernel.whole else NO_SETTING
    made = nn.Conv2d(
        inner * kernel.group,
        out,
        _pair(tuple(size)),
        used.stride,
        used.padding,
        used.dilation,
        groups=kernel.group,
        bias=bias is not None,
        device="meta",
    )
    made.weight = _parameter(kernel.weight)
    if bias is not None:
        made.bias = _parameter(bias)
    return made


def _plain_table(layer: TensorizedEmbedding, merged: bool) -> nn.Module:
    pieces = layer.factorization.lookups(1)
    numbers = sum(p.slices.numel() for p in pieces if isinstance(p, Lookup))
    if merged and layer.num_embeddings * layer.embedding_dim <= numbers + _count(pieces):
        return layer.to_dense()
    return Table(pieces, layer.num_embeddings, layer.padding_idx)


def _product(second: Tensor, first: Tensor) -> Tensor:
    """In float64, rounded once."""
    return (second.double() @ first.double()).to(first.dtype)


def _pair(size: Shape) -> Pair:
    height, width = size
    return height, width


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format))
