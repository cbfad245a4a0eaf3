"""Rounding to integer codes with a power-of-two scale, and the random stream for it.

A tensor on a grid is code * 2^exponent with codes of ``bits`` bits, symmetric about zero. Its
values are exact floating-point numbers, so a simulation on them is a simulation on the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import frexp, isfinite, ldexp, nan

import torch
from torch import Tensor

FLOAT_BITS = 32
"""A width that stands for float32: nothing is rounded."""

SMALLEST_EXPONENT = -100
"""Grids are not finer, so that codes and their inverse scale stay normal float32 numbers."""


FINER = 2
"""Exponents below the widest that are tried for factors.

Source: the uniform grid of 15 codes with the least square error for normal numbers reaches 2.4
standard deviations (computed), their largest of 10^4 is at 3.9: less than a factor of 4 apart.
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
    if peak == 0 or not isfinite(peak):
        return 0
    mantissa, exponent = frexp(peak / largest_code(bits))
    return max(exponent - (mantissa == 0.5), SMALLEST_EXPONENT)


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
        saturating: The grid may be finer than the largest values allow, when cutting them off costs
            less than coarse steps for all the others: right for factors, whose codes are few.
    """

    bits: int
    noise: torch.Generator | None = None
    saturating: bool = False

    def exponent(self, x: Tensor) -> int:
        """Of the finest grid that holds the tensor, or of the one with the least square error."""
        widest = fitting_exponent(peak_of(x), self.bits)
        if not self.saturating or not x.numel():
            return widest
        wide = x.detach().double()
        nearest = Rounder(self.bits)
        tries = range(widest, max(widest - FINER, SMALLEST_EXPONENT) - 1, -1)
        return min(tries, key=lambda e: float((nearest.at(wide, e) - wide).square().sum()))

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
        scaled = x.detach() * ldexp(1.0, -exponent)
        if self.noise is None:
            scaled.round_()
        else:
            floor = scaled.floor()
            drawn = torch.rand(scaled.shape, generator=self.noise, dtype=scaled.dtype)
            scaled = floor.add_(drawn.to(scaled.device) < scaled.sub_(floor))
        limit = largest_code(self.bits)
        return scaled.clamp_(-limit, limit).mul_(ldexp(1.0, exponent))


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
