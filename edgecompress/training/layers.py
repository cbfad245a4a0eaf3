"""Layers whose weight is a factorization: linear, convolution, table."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.functional import conv2d

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Factorization
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.kernels import Window, plain_kernels, through_kernels
from edgecompress.training.factorized.pieces import Kernel
from edgecompress.training.factorized.piecewise import is_recorded, past_spare

MANY = 1 << 16
"""Output positions of a convolution over which its two forms are compared."""

Pair = tuple[int, int]
Made = TypeVar("Made", bound=nn.Module)


class LayerPrecision(Protocol):
    """Runs a layer with the number widths of a device."""

    def run(self, layer: TensorizedLayer, x: Tensor) -> Tensor:
        """What the layer would give for x."""
        ...


class TensorizedLayer(nn.Module):
    """What all three have in common.

    Attributes:
        factorization: The weight.
        bias: Added to the outputs, or None.
        precision: When set, it runs the layer in place of `compute`.
    """

    def __init__(self, factorization: Factorization, bias: Tensor | None) -> None:
        super().__init__()
        self.factorization = factorization
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None if bias is None else _parameter(bias))
        self.precision: LayerPrecision | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        if self.precision is not None:
            return self.precision.run(self, x)
        return self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """The layer's output in the numbers that x has."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Format, modes and ranks."""
        made, folding = self.factorization, self.factorization.folding
        modes = "x".join(map(str, folding.rows)) + "|" + "x".join(map(str, folding.columns))
        return f"format={made.name}, modes={modes}, ranks={made.ranks}"


class TensorizedLinear(TensorizedLayer):
    """y = x W^T + b."""

    def __init__(self, factorization: Factorization, bias: Tensor | None = None) -> None:
        super().__init__(factorization, bias)
        self.out_features, self.in_features = factorization.folding.shape

    def compute(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.factorization.multiply(x, self.bias)

    @classmethod
    def from_dense(
        cls, module: nn.Linear, kind: type[Factorization], ranks: Shape, cores: int | None = None
    ) -> Self:
        """The layer's approximation."""
        folding = kind.fold(tuple(module.weight.shape), cores)
        return cls(kind.from_dense(module.weight, folding, ranks), module.bias)

    def to_dense(self) -> nn.Linear:
        """The same function as an ordinary layer."""
        made = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        return _filled(made, self.factorization.dense(), self.bias)


class TensorizedConv2d(TensorizedLayer):
    """A convolution of one group as a chain of smaller ones: 1x1, the kernel, 1x1.

    Args:
        factorization: Of a weight (out, in, kh, kw).
        bias: (out,) or None.
        stride, padding, dilation: Of the layer; zeros are padded.
    """

    def __init__(
        self,
        factorization: Factorization,
        bias: Tensor | None = None,
        stride: Pair = (1, 1),
        padding: Pair | str = (0, 0),
        dilation: Pair = (1, 1),
    ) -> None:
        super().__init__(factorization, bias)
        self.out_channels, self.in_channels = factorization.folding.shape[:2]
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def compute(self, x: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, h', w')."""
        if not self.factors_pay:
            weight = self.factorization.dense()
            return conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)
        kernels = kernel_pieces(self.factorization)
        window = Window.of(
            self.stride, self.padding, self.dilation, self.factorization.folding.kernel
        )
        if _recorded(x):
            return plain_kernels(x, self.bias, kernels, window)
        if x.dim() == 3:
            return through_kernels(x.unsqueeze(0), self.bias, kernels, window).squeeze(0)
        return through_kernels(x, self.bias, kernels, window)

    @property
    def factors_pay(self) -> bool:
        """Whether the chain has fewer MACs a position than the dense kernel."""
        made = self.factorization
        return _factors_pay(type(made), made.folding, made.ranks)

    @classmethod
    def from_dense(
        cls, module: nn.Conv2d, kind: type[Factorization], ranks: Shape, cores: int | None = None
    ) -> Self:
        """The layer's approximation."""
        folding = kind.fold(tuple(module.weight.shape), cores)
        return cls.around(module, kind.from_dense(module.weight, folding, ranks))

    @classmethod
    def around(cls, module: nn.Conv2d, factorization: Factorization) -> Self:
        """The layer with another weight."""
        padding = module.padding if isinstance(module.padding, str) else _pair(module.padding)
        stride, dilation = _pair(module.stride), _pair(module.dilation)
        return cls(factorization, module.bias, stride, padding, dilation)

    def to_dense(self) -> nn.Conv2d:
        """The same function as an ordinary layer."""
        made = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            _pair(self.factorization.folding.kernel),
            self.stride,
            self.padding,
            self.dilation,
            bias=self.bias is not None,
            device="meta",
        )
        return _filled(made, self.factorization.dense(), self.bias)


class TensorizedEmbedding(TensorizedLayer):
    """Rows of a table that is never made.

    Args:
        factorization: Of a table (rows, width).
        num_embeddings: Rows in use; the folding may have some to spare. None: all.
        padding_idx: A row that gives zeros and learns nothing; None: no such row.
    """

    def __init__(
        self,
        factorization: Factorization,
        num_embeddings: int | None = None,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__(factorization, None)
        rows, self.embedding_dim = factorization.folding.shape
        self.num_embeddings = rows if num_embeddings is None else num_embeddings
        self.padding_idx = padding_idx

    def forward(self, x: Tensor) -> Tensor:
        """Indices (...) to (..., width).

        Raises:
            IndexError: An index is negative, or there is no such row; not looked at while traced.
        """
        if not _traced(x) and x.numel():
            low, high = (int(end) for end in x.aminmax())
            if low < 0 or high >= self.num_embeddings:
                wrong = low if low < 0 else high
                raise IndexError(f"index {wrong} is not in a table of {self.num_embeddings} rows")
        return super().forward(x)

    def compute(self, x: Tensor) -> Tensor:
        """As `forward`; rows are taken to be in the table. Recorded, a graph that is asked for
        other rows does what it would do with a dense table."""
        total = self.factorization.folding.shape[0]
        rows = past_spare(x, self.num_embeddings, total) if is_recorded() else x
        found = self.factorization.gather(rows)
        if self.padding_idx is not None:
            found = found * (x != self.padding_idx).unsqueeze(-1)
        return found

    @classmethod
    def from_dense(
        cls, module: nn.Embedding, kind: type[Factorization], ranks: Shape, cores: int | None = None
    ) -> Self:
        """The layer's approximation."""
        folding = kind.fold(tuple(module.weight.shape), cores)
        made = kind.from_dense(module.weight, folding, ranks)
        return cls(made, module.num_embeddings, module.padding_idx)

    def to_dense(self) -> nn.Embedding:
        """The same table as an ordinary layer."""
        weight = self.factorization.dense().detach()[: self.num_embeddings].clone()
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        rows, width = weight.shape
        return nn.Embedding(rows, width, self.padding_idx, _weight=weight)


def kernel_pieces(factorization: Factorization) -> list[Kernel]:
    """A convolution's chain.

    Raises:
        ValueError: The format writes a convolution with other pieces.
    """
    pieces = factorization.pieces()
    kernels = [piece for piece in pieces if isinstance(piece, Kernel)]
    if len(kernels) != len(pieces):
        raise ValueError(f"{factorization.name} is not a chain of convolutions")
    return kernels


@lru_cache(maxsize=4096)
def _factors_pay(kind: type[Factorization], folding: Folding, ranks: Shape) -> bool:
    """Over many positions, where making the weight costs nothing."""
    macs = {order.name: order.macs for order in kind.orders(folding, ranks, MANY)}
    return macs.get("pieces", 0) <= macs.get("rebuild", macs.get("pieces", 0))


def _traced(x: Tensor) -> bool:
    """Whether there are no numbers to look at, or looking would be recorded or not allowed."""
    return x.is_meta or _recorded(x) or (x.is_cuda and torch.cuda.is_current_stream_capturing())


def _recorded(x: Tensor) -> bool:
    """Whether operations on x are written down rather than only carried out."""
    return (
        isinstance(x, FakeTensor)
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def _pair(value: tuple[int, ...]) -> Pair:
    first, second = value
    return first, second


def _parameter(value: Tensor) -> nn.Parameter:
    """A parameter stays the same object, so that an optimiser that has it keeps it."""
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value)


def _filled(made: Made, weight: Tensor, bias: Tensor | None) -> Made:
    """An ordinary layer with copies of these numbers."""
    made.register_parameter("weight", nn.Parameter(weight.detach().clone()))
    if bias is not None:
        made.register_parameter("bias", nn.Parameter(bias.detach().clone()))
    return made
