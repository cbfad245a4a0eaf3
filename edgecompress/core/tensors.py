"""How the values of a weight are stored: dense, or integer codes times a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.core.arrays import CodeArray, FloatArray, Shape
from edgecompress.core.grids import Grid


@dataclass(frozen=True, slots=True)
class Dense:
    """Floating-point values.

    Attributes:
        values: Any shape, any float type.
    """

    values: FloatArray

    @property
    def shape(self) -> Shape:
        """Shape of the tensor."""
        return self.values.shape

    @property
    def storage_bits(self) -> int:
        """Bits that the values take, scales included."""
        return int(self.values.size * self.values.dtype.itemsize * 8)

    def to_dense(self) -> FloatArray:
        """The values."""
        return self.values


@dataclass(frozen=True, slots=True)
class Affine:
    """Integer codes times a scale: value = scale * code.

    Attributes:
        codes: int8, any shape, every entry on ``grid``.
        scale: float32, same number of axes as ``codes``, each axis 1 or that of ``codes``.
        grid: The codes that are allowed.

    Raises:
        ValueError: A code is off the grid, or the scale does not broadcast.
    """

    codes: CodeArray
    scale: FloatArray
    grid: Grid

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8:
            raise ValueError(f"codes are {self.codes.dtype}, not int8")
        if self.scale.ndim != self.codes.ndim or any(
            s not in (1, c) for s, c in zip(self.scale.shape, self.codes.shape, strict=True)
        ):
            raise ValueError(f"scale {self.scale.shape} does not fit codes {self.codes.shape}")
        if not np.isin(self.codes, self.grid.codes).all():
            raise ValueError(f"a code is not on the grid {self.grid.name}")

    @property
    def shape(self) -> Shape:
        """Shape of the tensor."""
        return self.codes.shape

    @property
    def storage_bits(self) -> int:
        """Bits at the width of the code in hardware, scales included; packing is not counted."""
        return int(self.codes.size * self.grid.bits + self.scale.size * 32)

    def to_dense(self) -> FloatArray:
        """float32 values."""
        return (self.codes.astype(np.float32) * self.scale).astype(np.float32)

    def transpose(self, axes: Shape) -> Affine:
        """The same tensor with its axes permuted."""
        return Affine(
            np.ascontiguousarray(self.codes.transpose(axes)), self.scale.transpose(axes), self.grid
        )


Tensor = Dense | Affine
