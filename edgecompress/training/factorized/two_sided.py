"""What tensor train, CP and Tucker share: columns and rows merge apart, a kernel stands between."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from edgecompress.core.arrays import Shape
from edgecompress.training.factorized.base import Factorization, Order
from edgecompress.training.factorized.chain import Step, through_chain
from edgecompress.training.factorized.costs import (
    chain_order,
    cheapest,
    core_count,
    fused_order,
    held_numbers,
    keeps,
    keeps_halves,
    rebuild_order,
)
from edgecompress.training.factorized.folding import Folding, split_size, usual_modes
from edgecompress.training.factorized.halves import Half, Halves, through_halves
from edgecompress.training.factorized.kernels import BLOCK_SHARE
from edgecompress.training.factorized.pieces import Kernel, Piece, Product
from edgecompress.training.factorized.piecewise import (
    gather_rows,
    is_recorded,
    sizes,
    through_pieces,
)

Widths = tuple[int, int, bool]


@dataclass(frozen=True, slots=True)
class Route:
    """How a pass runs.

    Attributes:
        order: Which.
        keep: Whether narrow states are kept for the backward pass.
        halves: How cores merge.
        steps: Core by core.
        whole: Whether the merged halves are kept too.
    """

    order: str
    keep: bool
    halves: Halves
    steps: tuple[Step, ...]
    whole: bool = False


class TwoSided(Factorization):
    """W = C^T M A^T: A (in, left) from the columns' cores, C (right, out) from the rows'.

    Cores come in the order of modes: columns, rows; what stands between them is the format's.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._routes: dict[tuple[int, ...], Route] = {}

    # What a format adds.

    @classmethod
    @abstractmethod
    def halves(cls, folding: Folding) -> tuple[Half, Half]:
        """How the columns' cores make A and the rows' cores make C."""

    @classmethod
    @abstractmethod
    def widths(cls, folding: Folding, ranks: Shape) -> Widths:
        """Columns of A, rows of C, and whether a matrix stands between in a linear layer."""

    @classmethod
    @abstractmethod
    def merging(cls, folding: Folding, ranks: Shape) -> int:
        """MACs of merging both halves."""

    @classmethod
    @abstractmethod
    def steps(cls, folding: Folding, ranks: Shape) -> tuple[Step, ...]:
        """A linear layer core by core; empty where that never pays."""

    @abstractmethod
    def sides(self, cores: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The columns' and the rows' cores."""

    @abstractmethod
    def middle(self, cores: list[Tensor]) -> Tensor | None:
        """What stands between: (left, right), of a convolution (left, right, *kernel), or, scaling
        each rank by itself, (rank, 1, *kernel); None for nothing."""

    # What follows.

    @classmethod
    def fold(cls, shape: Shape, cores: int | None = None) -> Folding:
        """Near-equal modes, the larger ones outside, where one rank touches them; a convolution's
        channels stay whole unless cores are named."""
        out, inner, *kernel = shape
        if cores is None:
            parts = (1, 1) if kernel else (usual_modes(out), usual_modes(inner))
        else:
            free = max(2, cores - (1 if kernel else 0))
            parts = (free // 2, free - free // 2)
        columns = split_size(inner, parts[1])[::-1]
        return Folding(split_size(out, parts[0]), columns, tuple(kernel))

    @classmethod
    def orders(cls, folding: Folding, ranks: Shape, batch: int) -> tuple[Order, ...]:
        """Fused halves, core by core, rebuilt; a convolution is its pieces, or rebuilt."""
        widths, merging = cls.widths(folding, ranks), cls.merging(folding, ranks)
        rebuild = rebuild_order(folding, widths, merging, batch)
        if folding.kernel:
            return (_piece_order(folding, widths, merging, batch), rebuild)
        fused = fused_order(folding.shape, widths, merging, core_count(cls, folding, ranks), batch)
        steps = cls.steps(folding, ranks)
        pieces = (chain_order(steps, folding.shape, batch),) if steps else ()
        return (fused, *pieces, rebuild)

    def merged(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """A (in, left), what stands between, C (right, out); differentiable."""
        return self._merged(self.factors())

    def _merged(self, cores: list[Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
        ahead, behind = self.sides(cores)
        left, right = self.halves(self.folding)
        return left.merge(ahead)[-1], self.middle(cores), right.merge(behind)[-1]

    def dense(self) -> Tensor:
        """The weight (out, in, *kernel)."""
        return self._dense(self.factors())

    def _dense(self, cores: list[Tensor]) -> Tensor:
        a, middle, c = self._merged(cores)
        if middle is None:
            return (a @ c).mT.reshape(self.folding.shape)
        if not self.folding.kernel:
            return (a @ middle @ c).mT.contiguous()
        if sizes(middle)[1] == 1 and sizes(c)[0] > 1:
            inner = a.mT[:, :, None] * middle.reshape(middle.shape[0], 1, -1)
            weight = c.mT @ inner.reshape(inner.shape[0], -1)
        else:
            flat = middle.reshape(a.shape[1], -1)
            inner = (a @ flat).reshape(a.shape[0], c.shape[0], -1).transpose(0, 1)
            weight = c.mT @ inner.reshape(c.shape[0], -1)
        return weight.reshape(self.folding.shape)

    def pieces(self) -> tuple[Piece, ...]:
        """Two or three products, or 1x1, the kernel, 1x1."""
        a, middle, c = self.merged()
        if not self.folding.kernel:
            between = () if middle is None else (Product(middle.mT),)
            return (Product(a.mT), *between, Product(c.mT))
        ones = (1,) * len(self.folding.kernel)
        if middle is None:
            return (
                Kernel(a.mT.reshape(-1, a.shape[0], *ones), whole=True),
                Kernel(c.mT.reshape(c.shape[1], -1, *ones), whole=False),
            )
        group = 1
        if sizes(middle)[1] == 1 and sizes(c)[0] > 1:
            group = middle.shape[0]
        else:
            middle = middle.transpose(0, 1)
        return (
            Kernel(a.mT.reshape(-1, a.shape[0], *ones), whole=False),
            Kernel(middle, whole=True, group=group),
            Kernel(c.mT.reshape(c.shape[1], -1, *ones), whole=False),
        )

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out), the cheapest way; recorded, by its pieces."""
        if is_recorded():
            return through_pieces(self.pieces(), x, bias)
        route = self.route(x.numel() // self.folding.shape[1])
        if route.order == "fused" and route.whole:
            return self._through_merged(x, bias)
        if route.order == "fused":
            return through_halves(x, bias, route.halves, self.factors(), keep=route.keep)
        if route.order == "pieces":
            return through_chain(x, bias, route.steps, self.factors(), keep=route.keep)
        return self._through_dense(x, bias)

    def _through_merged(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """In operations that autograd knows: it keeps the halves, and going back costs least."""
        a, middle, c = self.merged()
        inner = torch.mm(x.reshape(-1, x.shape[-1]), a)
        if middle is not None:
            inner = torch.mm(inner, middle)
        y = torch.mm(inner, c) if bias is None else torch.addmm(bias, inner, c)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[1])

    def _through_dense(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The weight is forgotten after the pass and made again going back."""

        def run(x: Tensor, *cores: Tensor) -> Tensor:
            return linear(x, self._dense(list(cores)), bias)

        cores = self.factors()
        if not torch.is_grad_enabled():
            return run(x, *cores)
        y: Tensor = checkpoint(run, x, *cores, use_reentrant=False, preserve_rng_state=False)
        return y

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of the table by index."""
        return gather_rows(self.lookups(1 if is_recorded() else rows.numel()), rows)

    def fill(self, cores: Sequence[Tensor]) -> None:
        """Put these numbers into the cores, in place."""
        with torch.no_grad():
            for parameter, core in zip(self.cores, cores, strict=True):
                parameter.copy_(core)

    def route(self, batch: int) -> Route:
        """How a pass on so many rows runs; remembered until a rank changes."""
        key = (batch, *[core.numel() for core in self.parameters_of_cores()])
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) > 64:
                self._routes.clear()
            route = self._routes[key] = _route(type(self), self.folding, self.ranks, batch)
        return route

    def __getstate__(self) -> dict[str, Any]:
        """Routes are not part of the state."""
        return {**self.__dict__, "_routes": {}}


def _piece_order(folding: Folding, widths: Widths, merging: int, batch: int) -> Order:
    """1x1, kernel, 1x1; ``batch`` output positions, stride 1. States are made again going back, in
    blocks."""
    out, inner = folding.shape[:2]
    left, right, full = widths
    kernel = prod(folding.kernel) * (left * right if full else left)
    states = min(left + right, (inner + out) // BLOCK_SHARE)
    return Order(
        "pieces",
        merging + batch * (inner * left + kernel + right * out),
        inner * left + right * out,
        batch * states,
    )


@lru_cache(maxsize=4096)
def _route(kind: type[TwoSided], folding: Folding, ranks: Shape, batch: int) -> Route:
    count = core_count(kind, folding, ranks)
    held = held_numbers(folding.shape[1], count, batch)
    order = cheapest(kind.orders(folding, ranks, batch), held)
    left, right = kind.halves(folding)
    widths = kind.widths(folding, ranks)
    whole = not folding.kernel and keeps_halves(folding.shape, widths, count, batch)
    split = len(folding.columns)
    if order.name == "fused":
        keep = keeps(batch * widths[0], batch, folding.shape[1])
    else:
        keep = order.saved > 0
    steps = () if folding.kernel else kind.steps(folding, ranks)
    return Route(order.name, keep, Halves(left, right, split, widths[2]), steps, whole)
