"""A factorized layer as a chain of plain operations: the torch side of `core.stages`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgecompress.core.arrays import Shape


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """y = x weight^T over the last axis; weight (out, in)."""

    weight: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A convolution; weight (out, in / group, *kernel).

    ``whole`` says that this piece carries the layer's stride, padding and dilation; other kernels
    are 1 along every spatial axis.
    """

    weight: Tensor
    whole: bool
    group: int = 1


@dataclass(frozen=True, slots=True)
class View:
    """Reshape of the last ``taken`` axes into ``shape``; the leading ones stay."""

    shape: Shape
    taken: int = 1


@dataclass(frozen=True, slots=True)
class Order:
    """Transposition of the last ``len(axes)`` axes; ``axes`` are their old places, from 0."""

    axes: Shape


Piece = Product | Kernel | View | Order
