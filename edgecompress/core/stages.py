"""The closed vocabulary between decomposition formats and back ends.

A layer is one stage with weights; a decomposition format turns it into a chain of stages.
Weights are in canonical order ``(out, in, ...)``; activations of a convolution are
``(n, c, *spatial)``, those of a matrix product ``(..., in)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecompress.core.arrays import Shape
from edgecompress.core.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """Convolution over any number of spatial axes.

    Attributes:
        weight: (out, in / group, *kernel).
        stride: One per spatial axis.
        pads: Begins of all spatial axes, then ends, as in ONNX.
        dilation: One per spatial axis.
        group: Number of groups; divides in and out.
        transposed: A transposed convolution (ONNX ConvTranspose). Its canonical weight is
            (out, in / group, *kernel) all the same.
    """

    weight: Tensor
    stride: Shape
    pads: Shape
    dilation: Shape
    group: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        spatial = len(self.weight.shape) - 2
        if not len(self.stride) == len(self.dilation) == spatial or len(self.pads) != 2 * spatial:
            raise ValueError("stride, dilation or pads do not fit the kernel")
        if self.weight.shape[0] % self.group:
            raise ValueError(f"{self.weight.shape[0]} outputs in {self.group} groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatMul:
    """Matrix product with a constant: y = x W^T over the last axis of x.

    Attributes:
        weight: (out, in).
    """

    weight: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Rows of a table by index.

    Attributes:
        weight: (rows, width).
    """

    weight: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent:
    """One weight of a recurrent cell (the input or the recurrence matrix of an LSTM, GRU or RNN).

    Attributes:
        weight: (directions, gates * hidden, in).
        kind: ``LSTM``, ``GRU`` or ``RNN``.
    """

    weight: Tensor
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """Reshape of an activation; -1 once for what remains, 0 keeps an axis, as in ONNX."""

    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Permute:
    """Transpose of an activation."""

    axes: Shape = field(default=())


Stage = Conv | MatMul | Embedding | Recurrent | Reshape | Permute
WeightStage = Conv | MatMul | Embedding | Recurrent
