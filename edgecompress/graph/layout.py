"""How a weight lies in the graph, and how it is seen by the planner: ``(out, in, ...)``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.tensors import Affine, Dense, Tensor


class Order(Enum):
    """Order of the axes of a weight in the graph."""

    CANONICAL = "canonical"
    TRANSPOSED = "transposed"
    TRANSPOSED_CONVOLUTION = "transposed convolution"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Axis order of a weight in the graph, and a factor that the operator puts on it.

    Attributes:
        order: ``TRANSPOSED`` is (in, out); ``TRANSPOSED_CONVOLUTION`` is
            (in, out / group, *kernel).
        group: Of a transposed convolution.
        factor: The canonical weight is the graph's times this (``alpha`` of Gemm).
    """

    order: Order = Order.CANONICAL
    group: int = 1
    factor: float = 1.0

    def to_canonical(self, values: Array) -> Array:
        """The weight in canonical order."""
        turned = self._turn(values, back=False)
        return turned if self.factor == 1.0 else (turned * self.factor).astype(values.dtype)

    def to_graph(self, tensor: Tensor) -> Tensor:
        """The weight in the graph's order."""
        match tensor:
            case Dense(values):
                turned = self._turn(values, back=True)
                return Dense(
                    turned if self.factor == 1.0 else (turned / self.factor).astype(values.dtype)
                )
            case Affine(codes, scale, grid):
                return Affine(
                    self._turn(codes, back=True), self._turn_scale(scale, codes.shape), grid
                )

    def _turn(self, values: Array, *, back: bool) -> Array:
        match self.order:
            case Order.CANONICAL:
                return values
            case Order.TRANSPOSED:
                return np.ascontiguousarray(values.T)
            case Order.TRANSPOSED_CONVOLUTION:
                # Both ways split the first axis by group and swap inside the group.
                first, second, *kernel = values.shape
                split = values.reshape(self.group, first // self.group, second, *kernel)
                swapped = np.swapaxes(split, 1, 2)
                shape = (self.group * second, first // self.group, *kernel)
                return np.asarray(swapped, order="C").reshape(shape)

    def _turn_scale(self, scale: Array, shape: tuple[int, ...]) -> Array:
        if self.order is Order.TRANSPOSED_CONVOLUTION and self.group > 1:
            scale = np.broadcast_to(scale, (*shape[:2], *scale.shape[2:]))
        turned = (
            np.swapaxes(scale, 0, 1)
            if self.order is Order.TRANSPOSED_CONVOLUTION and self.group == 1
            else self._turn(scale, back=True)
        )
        return np.ascontiguousarray(turned / self.factor).astype(scale.dtype)
