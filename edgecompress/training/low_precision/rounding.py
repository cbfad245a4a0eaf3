"""Rounding to integer codes with a power-of-two scale, and the random stream for it.

A tensor on a grid is code * 2^exponent with codes of ``bits`` bits, symmetric about zero. Its
values are exact floating-point numbers, so a simulation on them is a simulation on the codes.

Factors are on the grids that weights are packed on (`core.grids`), so a trained factor is packed as
it is: with 3 and 4 bits these are odd codes, -15 to 15, a half step from zero and no zero itself.
What is all zero has a scale of zero instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import frexp, isfinite, ldexp, nan

import torch
from torch import Tensor

from edgecompress.core.grids import GRIDS

FLOAT_BITS = 32
"""A width that stands for float32: nothing is rounded."""

DOUBLE_MANTISSA = 53
"""Source: IEEE 754."""

SMALLEST_EXPONENT = -100
"""Grids are not finer, so that codes and their inverse scale stay normal float32 numbers."""


FINER = 2
"""Exponents below the widest that are tried for factors.

Source: the uniform grid of 16 codes with the least square error for normal numbers reaches 2.5
standard deviations (Max 1960: a step of 0.3352), their largest of 10^4 is at 3.9: less than a
factor of 4 apart.
"""


def largest_code(bits: int) -> int:
    """Largest code of a symmetric grid: 7 at 4 bits."""
    return int(2 ** (bits - 1)) - 1


def peak_of(x: Tensor) -> float:
    """Largest magnitude; 0 of an empty tensor, NaN when there is one in it."""
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x.detach())
    return max(-float(low), float(high))


def fitting_exponent(peak: float, bits: int) -> int:
    """The finest grid that reaches ``peak``: ceil(log2(peak / largest code)); 0 for a peak of 0.

    Source: a choice: a scale that is a power of two is a shift; 0 keeps an all-zero tensor (a fresh
    bias) from a scale of zero.
    """
    return reaching_exponent(peak, largest_code(bits))


def reaching_exponent(peak: float, largest: int) -> int:
    """The finest grid with this largest code that reaches ``peak``."""
    if peak == 0 or not isfinite(peak):
        return 0
    mantissa, exponent = frexp(peak / largest)
    return max(exponent - (mantissa == 0.5), SMALLEST_EXPONENT)


def lowest_exponent(value: float) -> int:
    """Of the last bit of a finite number above 0: value / 2^exponent is an odd integer."""
    mantissa, exponent = frexp(value)
    whole = int(ldexp(mantissa, DOUBLE_MANTISSA))
    return exponent - DOUBLE_MANTISSA + (whole & -whole).bit_length() - 1


def stream(seed: int, name: str) -> torch.Generator:
    """A random stream of its own for each seed and name.

    On the processor whatever the device, so that a run gives the same bits everywhere.
    """
    digest = sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return generator


@dataclass(frozen=True, slots=True)
class Rounder:
    """Rounds tensors to codes of a width.

    Attributes:
        bits: Of a code; `FLOAT_BITS`: tensors stay as they are.
        noise: Of stochastic rounding; None: to nearest, ties to even.
        factors: For factors, whose codes are few: on the grids that weights are packed on, and
            these may be finer than the largest values allow, when cutting them off costs less than
            coarse steps for all the others. Halfway between two odd codes goes up.
    """

    bits: int
    noise: torch.Generator | None = None
    factors: bool = False

    @property
    def spacing(self) -> int:
        """Distance of neighbouring codes: 2 where codes are odd, else 1."""
        grid = GRIDS.get(str(self.bits)) if self.factors else None
        return grid.spacing if grid is not None else 1

    @property
    def largest(self) -> int:
        """Largest code: of 4 bits 7, or 15 where codes are odd."""
        return 2 * largest_code(self.bits) + 1 if self.spacing == 2 else largest_code(self.bits)

    @property
    def integer_bits(self) -> int:
        """Of a two's complement that holds all codes: one more than ``bits`` where these are odd.

        A product takes the half step along as a shift; what is stored has ``bits``.
        """
        return self.largest.bit_length() + 1

    def end(self, exponent: int) -> float:
        """Magnitude up to which rounding moves a value by half a step at most."""
        return (self.largest + 0.5 * self.spacing) * 2.0**exponent

    def exponent(self, x: Tensor) -> int:
        """Of the finest grid that holds the tensor, or of the one with the least square error."""
        peak = peak_of(x)
        widest = reaching_exponent(peak, self.largest)
        if not self.factors or peak == 0 or not isfinite(peak):
            return widest
        kept = self._kept(x, peak) if self.spacing == 2 else None
        if kept is not None:
            return kept
        wide = x.detach().double()
        nearest = Rounder(self.bits, factors=True)
        tries = range(widest, max(widest - FINER, SMALLEST_EXPONENT) - 1, -1)
        return min(tries, key=lambda e: float((nearest.at(wide, e) - wide).square().sum()))

    def holds(self, x: Tensor) -> bool:
        """Whether the tensor is on a grid of these codes already."""
        peak = peak_of(x)
        return peak == 0 or (isfinite(peak) and self._kept(x, peak) is not None)

    def _kept(self, x: Tensor, peak: float) -> int | None:
        """The exponent of the grid that a tensor is on already; None: it is on none.

        On odd codes it is that of the last bit of every value.
        """
        exponent = reaching_exponent(peak, self.largest)
        if self.spacing == 2:
            exponent = lowest_exponent(peak)
            if exponent < SMALLEST_EXPONENT or peak > self.largest * 2.0**exponent:
                return None
        nearest = Rounder(self.bits, factors=self.factors)
        return exponent if torch.equal(nearest.at(x, exponent), x) else None

    def __call__(self, x: Tensor) -> Tensor:
        """The tensor on the finest grid that holds it, same type; not differentiable.

        NaN and infinity make the whole tensor NaN: a diverged run is not hidden.
        """
        if self.bits >= FLOAT_BITS:
            return x
        return self.at(x, self.exponent(x) if isfinite(peak_of(x)) else None)

    def at(self, x: Tensor, exponent: int | None) -> Tensor:
        """The tensor on a given grid; what is outside goes to the grid's end. None: all NaN."""
        if exponent is None:
            return torch.full_like(x, nan)
        odd = self.spacing == 2
        scaled = x.detach() * ldexp(1.0, -exponent)
        if odd:
            scaled.mul_(0.5)  # cell k is around the code 2 k + 1
        if self.noise is None:
            scaled = scaled.floor_() if odd else scaled.round_()
        else:
            scaled = scaled.sub_(0.5) if odd else scaled
            floor = scaled.floor()
            drawn = torch.rand(scaled.shape, generator=self.noise, dtype=scaled.dtype)
            scaled = floor.add_(drawn.to(scaled.device) < scaled.sub_(floor))
        if odd:
            scaled.mul_(2).add_(1)
        codes = scaled.clamp_(-self.largest, self.largest)
        if odd:
            codes.mul_(x.detach().any())  # a scale of zero
        return codes.mul_(ldexp(1.0, exponent))


def to_bfloat16(x: Tensor, noise: torch.Generator) -> Tensor:
    """float32 -> bfloat16, up or down at random so that the mean is exact.

    Rounding to nearest would stall an average that moves by less than 2^-9 of its value a step, as
    Adam's second moment does.

    Source: bfloat16 is the upper half of float32; Adam's 1 - 0.999 is below 2^-9 = 0.00195.
    """
    raw = x.detach().float().contiguous().view(torch.int32)
    drawn = torch.randint(0, 1 << 16, raw.shape, generator=noise, dtype=torch.int32)
    raised = (raw + drawn.to(raw.device)) & ~0xFFFF
    rounded = raised.view(torch.float32)
    return torch.where(torch.isfinite(x), rounded, x).to(torch.bfloat16)
