"""The quantization grids: which integers a weight code can be.

Grids of 2, 3 and 4 bits are VecQ's mid-rise grids: 2^k half-integers, no zero. They are kept as
odd integers with half the step, so that a code is always an int8. The ternary and the 8-bit grid
are mid-tread.

Source: VecQ (arXiv 2005.08501), steering: v = round(clip(w / (lambda sigma) - 0.5)) + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.core.arrays import CodeArray
from edgecompress.core.errors import ConfigurationInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A set of equally spaced integer codes, symmetric about zero.

    Attributes:
        name: ``ternary``, ``2``, ``3``, ``4`` or ``8``.
        levels: Number of codes.
        spacing: Distance of neighbouring codes: 2 on a mid-rise grid (odd codes), else 1.
        bits: Width of a code in hardware, in bits.
    """

    name: str
    levels: int
    spacing: int
    bits: int

    @property
    def largest(self) -> int:
        """Largest code; the smallest is its negative."""
        return (self.levels - 1) * self.spacing // 2

    @property
    def codes(self) -> CodeArray:
        """All codes in rising order, int8 (levels,)."""
        return np.arange(-self.largest, self.largest + 1, self.spacing).astype(np.int8)


GRIDS: dict[str, Grid] = {
    "ternary": Grid(name="ternary", levels=3, spacing=1, bits=2),
    "2": Grid(name="2", levels=4, spacing=2, bits=2),
    "3": Grid(name="3", levels=8, spacing=2, bits=3),
    "4": Grid(name="4", levels=16, spacing=2, bits=4),
    "8": Grid(name="8", levels=255, spacing=1, bits=8),
}


def grid_named(name: str) -> Grid:
    """The grid of that name.

    Raises:
        ConfigurationInvalid: No grid has this name.
    """
    if name not in GRIDS:
        raise ConfigurationInvalid(f"unknown grid {name!r}", hint=f"one of {', '.join(GRIDS)}")
    return GRIDS[name]
