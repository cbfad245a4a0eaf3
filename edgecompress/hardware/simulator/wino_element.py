"""One Winograd processing element, clock by clock: widths, truncation and pipeline.

3x3 and 1x1 kernels share the multipliers: in the 3x3 mode tiles and kernels are transformed, in the
1x1 mode both transforms are bypassed and the one weight is given to all multipliers.

Source: kernel sharing and the truncating datapath: WinoCNN (arXiv 2107.04244) and its published
design; the transforms: `edgecompress.core.winograd`. The pipeline is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgecompress.core.winograd import IntArray, transforms

KERNEL = 3  # side of the kernels that are transformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """Low bits that are dropped (rounding down) between the stages.

    Attributes:
        input_shift, kernel_shift: After the transforms; nothing is dropped when they are bypassed.
        sum_shift: After the sum over the channels of a cycle, in the 3x3 mode.
        output_shift, bypass_output_shift: Before the accumulator, which saturates, in the 3x3 and
            in the 1x1 mode. Negative in the 1x1 mode: raised instead.
    """

    input_shift: int = 0
    kernel_shift: int = 0
    sum_shift: int = 0
    output_shift: int = 0
    bypass_output_shift: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Datapath:
    """Shape and widths of a processing element.

    Attributes:
        omega: Side of a tile, 4 or 6.
        channels: Input channels that are summed in a cycle, Q.
        input_bits, kernel_bits: Signed codes.
        output_bits: Of a result. Without truncation results are exact and have to fit; with it
            the accumulator has this width and saturates.
        truncation: What is dropped; None for exact results.
    """

    omega: int
    channels: int
    input_bits: int = 8
    kernel_bits: int = 8
    output_bits: int = 32
    truncation: Truncation | None = None

    def __post_init__(self) -> None:
        if self.omega not in (4, 6):
            raise ValueError(f"tiles are of 4 or 6 pixels a side, not {self.omega}")
        if min(self.channels, self.input_bits - 1, self.kernel_bits - 1, self.output_bits - 1) < 1:
            raise ValueError("channels must be positive and widths at least 2 bits")
        if self.value_bits <= self.input_bits or self.factor_bits <= self.kernel_bits:
            raise ValueError("truncation leaves fewer bits than the operands of the 1x1 mode have")

    @property
    def cuts(self) -> Truncation:
        """The truncation, or none at all."""
        return self.truncation or Truncation()

    @property
    def value_full_bits(self) -> int:
        """Of B^T d B."""
        return self.input_bits + _growths(self.omega)[0]

    @property
    def factor_full_bits(self) -> int:
        """Of G g G^T."""
        return self.kernel_bits + _growths(self.omega)[1]

    @property
    def value_bits(self) -> int:
        """Of a transformed input at the multiplier."""
        return self.value_full_bits - self.cuts.input_shift

    @property
    def factor_bits(self) -> int:
        """Of a transformed weight at the multiplier."""
        return self.factor_full_bits - self.cuts.kernel_shift

    @property
    def sum_bits(self) -> int:
        """Of the sum over the channels of a cycle, before truncation."""
        return self.value_bits + self.factor_bits + (self.channels - 1).bit_length()

    @property
    def scale(self) -> int:
        """What exact sums of the 3x3 mode are too large by."""
        return transforms(self.omega, KERNEL).kernel_scale ** 2

    def outputs(self, kernel: int) -> int:
        """Results a side of a tile, for kernels of 3 or 1."""
        return self.omega + 1 - kernel


# In the 1x1 mode the published design multiplies weights by 32 and cuts 5 bits again (tiles of 6),
# or multiplies them by 4 (tiles of 4); the cut of 10 bits is assumed there, so that both modes have
# about the same gain.
PUBLISHED = {
    4: (18, Truncation(bypass_output_shift=-2)),
    6: (
        9,
        Truncation(
            input_shift=4, kernel_shift=4, sum_shift=5, output_shift=6, bypass_output_shift=10
        ),
    ),
}
"""omega -> bits of the accumulator and what is dropped; see `wino_datapath`."""


def published_datapath(omega: int, channels: int) -> Datapath:
    """The datapath with the published truncation, 7-bit weights and narrow accumulators.

    Source: github.com/xliu0709/WinoCNN, as read in `wino_datapath`.
    """
    bits, truncation = PUBLISHED[omega]
    return Datapath(
        omega=omega, channels=channels, kernel_bits=7, output_bits=bits, truncation=truncation
    )


@lru_cache(maxsize=8)
def _growths(omega: int) -> tuple[int, int]:
    """Bits that the transforms of inputs and of kernels add."""
    both = transforms(omega, KERNEL)
    return _growth(both.input), _growth(both.kernel)


def _growth(matrix: IntArray) -> int:
    """Bits that ``matrix @ x @ matrix.T`` needs more than x, two's complement."""
    both = np.kron(matrix, matrix)
    above = np.where(both > 0, both, 0).sum(axis=1)
    below = -np.where(both < 0, both, 0).sum(axis=1)
    half = 1 << 16  # any width: x is in -half ... half - 1
    top = int((above * (half - 1) + below * half).max())
    bottom = int((above * half + below * (half - 1)).max())
    return max(top.bit_length(), (bottom - 1).bit_length()) - 16


def transform_inputs(datapath: Datapath, tiles: IntArray, kernel: int) -> IntArray:
    """What the multipliers get of tiles (..., omega, omega)."""
    if kernel == 1:
        return tiles
    matrix = transforms(datapath.omega, KERNEL).input
    return (matrix @ tiles @ matrix.T) >> datapath.cuts.input_shift


def transform_kernels(datapath: Datapath, kernels: IntArray) -> IntArray:
    """What the multipliers get of kernels (..., k, k), k 3 or 1: (..., omega, omega)."""
    if kernels.shape[-1] == 1:
        return np.broadcast_to(kernels, (*kernels.shape[:-2], datapath.omega, datapath.omega))
    matrix = transforms(datapath.omega, KERNEL).kernel
    return (matrix @ kernels @ matrix.T) >> datapath.cuts.kernel_shift


def transform_sums(datapath: Datapath, sums: IntArray, kernel: int) -> IntArray:
    """Sums over the channels (..., omega, omega) as results (..., m, m)."""
    if kernel == 1:
        return sums
    matrix = transforms(datapath.omega, KERNEL).output
    return matrix @ (sums >> datapath.cuts.sum_shift) @ matrix.T


def accumulate(datapath: Datapath, held: IntArray, results: IntArray, kernel: int) -> IntArray:
    """The accumulators after one more channel pass."""
    cuts = datapath.truncation
    if cuts is None:
        return held + results
    shift = cuts.output_shift if kernel == KERNEL else cuts.bypass_output_shift
    limit = 1 << (datapath.output_bits - 1)
    sums: IntArray = np.clip(held + shifted(results, shift), -limit, limit - 1)
    return sums


def shifted(values: IntArray, shift: int) -> IntArray:
    """Values without their low bits (rounded down), or raised by a negative shift."""
    return values >> shift if shift >= 0 else values << -shift


def finished(datapath: Datapath, held: IntArray, kernel: int) -> IntArray:
    """Accumulators as results leave: exact ones without the scale of the kernel transform.

    Raises:
        ValueError: An exact result does not fit in ``output_bits``.
    """
    if datapath.truncation is not None:
        return held
    results, rest = np.divmod(held, datapath.scale if kernel == KERNEL else 1)
    limit = 1 << (datapath.output_bits - 1)
    if rest.any() or results.min(initial=0) < -limit or results.max(initial=0) >= limit:
        raise ValueError(f"exact results do not fit in {datapath.output_bits} bits")
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementRun:
    """What one processing element gave.

    Attributes:
        outputs: (groups, m, m), one set for each group of channel passes.
        cycles: From the first operands to the last results.
    """

    outputs: IntArray
    cycles: int


def simulate_element(datapath: Datapath, tiles: IntArray, kernels: IntArray) -> ElementRun:
    """Run a processing element: a channel pass a cycle, without a pause.

    Args:
        datapath: The element.
        tiles: (groups, passes, channels, omega, omega) input codes.
        kernels: (groups, passes, channels, k, k), k 3 or 1.
    """
    groups, passes = tiles.shape[:2]
    kernel = kernels.shape[-1]
    queue = [(group, turn) for group in range(groups) for turn in range(passes)]
    values = factors = products = sums = results = None
    leaving: IntArray | None = None
    held = np.zeros((datapath.outputs(kernel),) * 2, dtype=np.int64)
    outputs: list[IntArray] = []
    cycles = turns = 0
    while len(outputs) < groups:
        if leaving is not None:
            outputs.append(finished(datapath, leaving, kernel))
            leaving = None
        if results is not None:
            held = accumulate(datapath, held if turns else np.zeros_like(held), results, kernel)
            turns = (turns + 1) % passes
            leaving = None if turns else held
        results = None if sums is None else transform_sums(datapath, sums, kernel)
        sums = None if products is None else products.sum(axis=0)
        products = None
        if values is not None and factors is not None:
            products = values * factors
        values = None
        if queue:
            place = queue.pop(0)
            values = transform_inputs(datapath, tiles[place], kernel)
            factors = transform_kernels(datapath, kernels[place])
        cycles += 1
    return ElementRun(outputs=np.stack(outputs), cycles=cycles)
