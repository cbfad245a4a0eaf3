"""How the axes of a weight are split into modes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from edgecompress.core.arrays import Shape


@dataclass(frozen=True, slots=True)
class Folding:
    """The modes of a weight of canonical shape (out, in, *kernel) or (rows, width).

    Attributes:
        rows: Sizes whose product is ``out`` (of a table: its rows); the last one varies fastest.
        columns: Sizes whose product is ``in`` (of a table: its width).
        kernel: Spatial sizes of a convolution; empty for a matrix.
    """

    rows: Shape
    columns: Shape
    kernel: Shape = ()

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise ValueError("both sides of a weight have at least one mode")
        if any(size < 1 for size in (*self.rows, *self.columns, *self.kernel)):
            raise ValueError("modes are at least 1")

    @property
    def shape(self) -> Shape:
        """Canonical shape of the weight."""
        return (prod(self.rows), prod(self.columns), *self.kernel)

    @property
    def entries(self) -> int:
        """Entries of the dense weight."""
        return prod(self.shape)
