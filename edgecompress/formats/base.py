"""What a decomposition format promises, and the numbers it works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Stage
from edgecompress.formats._counting import count_macs, count_parameters

__all__ = ["Format", "Moments", "check_ranks", "count_macs", "count_parameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Second moments of what enters a layer and what should leave it, on calibration data.

    ``x`` is a column of the layer's input patches (one entry for each weight of an output
    channel, order ``(in / group, *kernel)``), ``y`` the float layer's output at the same place.
    Both have their means taken out: the bias absorbs them.

    Attributes:
        covariance: (groups, columns, columns) float64, mean of x x^T.
        cross: (groups, out / groups, columns) float64, mean of y x^T.
        energy: Mean of y^T y over all outputs.
        input_mean: (groups, columns) float64.
        output_mean: (out,) float64.
        count: Number of columns x that were averaged.
    """

    covariance: FloatArray
    cross: FloatArray
    energy: float
    input_mean: FloatArray
    output_mean: FloatArray
    count: int


class Format(Protocol):
    """A way to write one layer as a chain of smaller stages.

    Attributes:
        name: As on the command line; the name of the file it is in.
        automatic: Whether ``auto`` may choose it.
    """

    name: str
    automatic: bool

    def why_not(self, layer: Layer) -> str | None:
        """Why this layer cannot take the format, in words; None if it can."""
        ...

    def max_ranks(self, layer: Layer) -> tuple[int, ...]:
        """Ranks at which the chain is exact, one for each bond."""
        ...

    def outline(self, layer: Layer, ranks: Shape) -> tuple[Stage, ...]:
        """The chain with weights of zeros that take no memory: shapes only, for counting."""
        ...

    def decompose(
        self, layer: Layer, ranks: Shape, moments: Moments | None = None
    ) -> tuple[Stage, ...]:
        """The chain, float32.

        Args:
            layer: One for which `why_not` is None.
            ranks: One for each bond, 1 to `max_ranks`.
            moments: Makes the output error on the data small; without, the weight error.

        Raises:
            ValueError: Ranks out of range or of the wrong number.
        """
        ...

    def spectra(self, layer: Layer, moments: Moments | None = None) -> tuple[FloatArray, ...]:
        """Energy (squared singular values) of each bond, falling; empty if there is none."""
        ...

    def compose(self, layer: Layer, stages: Sequence[Stage]) -> FloatArray:
        """The dense weight that the chain stands for, canonical order, float64."""
        ...

    def parameters(self, layer: Layer, ranks: Shape) -> int:
        """Number of weights of the chain."""
        ...

    def macs(self, layer: Layer, ranks: Shape) -> int | None:
        """Multiply-accumulates of the chain; None where the layer's shape is open."""
        ...


def check_ranks(ranks: Shape, largest: Shape) -> None:
    """Refuse ranks that a format cannot have.

    Raises:
        ValueError: Wrong number, below 1, or above the largest.
    """
    if len(ranks) != len(largest) or any(
        not 1 <= r <= m for r, m in zip(ranks, largest, strict=True)
    ):
        raise ValueError(f"ranks {ranks} are not between 1 and {largest}")
