"""What a design takes on a programmable device, and what named parts have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Counts of programmable-logic resources.

    Attributes:
        dsp: DSP48 blocks.
        bram18: Block memories of 18 Kib.
        lut: Six-input look-up tables.
    """

    dsp: int
    bram18: int
    lut: int

    def fits(self, limit: Resources) -> bool:
        """Whether none is more than there is."""
        return self.dsp <= limit.dsp and self.bram18 <= limit.bram18 and self.lut <= limit.lut


def bram18_blocks(depth_words: int, width_bits: int) -> int:
    """Block memories of 18 Kib for one memory, at the best of their aspect ratios.

    Source: AMD UG573, UltraScale memory resources: 16K x 1, 8K x 2, 4K x 4, 2K x 9, 1K x 18 and
    512 x 36 (simple dual port).
    """
    shapes = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
    return min(-(-depth_words // deep) * -(-width_bits // wide) for deep, wide in shapes)
