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


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """One digit of a table's row index picks a slice; it joins what came before.

    The digit of row i is (i // stride) % n. A slice matrix (a, b) is multiplied from the right to
    the last two axes (m, a) of what is there, at the start a single 1; a slice vector (a,) scales
    the last axis.

    Attributes:
        slices: (n, a, b) or (n, a).
        stride: Rows between two changes of the digit.
    """

    slices: Tensor
    stride: int


Piece = Product | Kernel | View | Order | Lookup
