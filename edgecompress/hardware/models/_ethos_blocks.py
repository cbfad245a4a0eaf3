"""How an operator is cut into blocks that fit the buffers of an Ethos-U.

Every block size that fits is tried, and the one taken that reads fewest bytes per output.
Source: ethos-u-vela 5.2.0, what its search for block configurations minimises and allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgecompress.hardware.models._ethos_cores import (
    KILOBYTE,
    Core,
    SharedBuffer,
    Size,
    SplitBuffers,
)
from edgecompress.hardware.timeline import aligned, ratio_up

Kind = Literal["conv", "depthwise", "product", "pool", "element"]
Grid = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Kernels are worked off in parts of at most 8 x 8; channels of a block come in 16s when there are
# more blocks; accumulators have 32 bits; of equally good blocks those of at most 4 x 4 are told
# apart. Source: ethos-u-vela 5.2.0.
KERNEL_PART = 8
DEPTH_STEP = 16
ACCUMULATOR_BYTES = 4
SMALL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NpuOp:
    """An operator as the processor sees it, one image.

    Attributes:
        kind: ``product`` is a matrix product: one pixel per row.
        inputs, outputs: Feature maps; inputs without padding.
        kernel, stride, dilation: (vertical, horizontal).
        element_bytes: 1 or 2.
        upscale: The input is spread by this with zeros in between (transposed convolutions).
    """

    kind: Kind
    inputs: Size
    outputs: Size
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    element_bytes: int = 1
    upscale: int = 1

    @property
    def equal_depth(self) -> bool:
        """Whether an output channel needs its own input channel only."""
        return self.kind in ("depthwise", "pool", "element")

    @property
    def has_weights(self) -> bool:
        """Whether there are weights."""
        return self.kind in ("conv", "depthwise", "product")

    def kernel_parts(self) -> Iterator[int]:
        """Taps of each part of the kernel that is worked off at once."""
        limit = 1 if self.kind in ("product", "element") else KERNEL_PART
        for top in range(0, self.kernel[0], limit):
            for left in range(0, self.kernel[1], limit):
                yield min(limit, self.kernel[0] - top) * min(limit, self.kernel[1] - left)


@dataclass(frozen=True, slots=True)
class Blocks:
    """How an operator is cut.

    Attributes:
        outputs, inputs: Of one block.
        micro: Outputs that are computed together.
        part_kernel: Four taps of eight channels at a time instead of one tap of 32 (64 on U85).
    """

    outputs: Size
    inputs: Size
    micro: Size
    part_kernel: bool


@lru_cache(maxsize=4096)
def choose_blocks(op: NpuOp, core: Core) -> Blocks:
    """The blocks that read fewest bytes per output.

    Two blocks of inputs and of accumulators are held, so that one is filled while the other is
    worked on; where that is impossible on the U85, one. Depthwise convolutions and pooling on the
    U85 hold one and the next row of inputs.
    """
    part_kernel = op.kind == "conv" and (
        _part_kernel_u85(op) if core.is_u85 else _part_kernel_u55(op)
    )
    place = _micro_block(op, core)
    micro = core.micro_blocks[place]
    search = _Search(op, core, place, _input_depth(op, core, part_kernel))
    copies = (1,) if core.is_u85 and op.equal_depth else (2, 1) if core.is_u85 else (2,)
    for held in copies:
        found = search.best(held)
        if found is not None:
            return Blocks(*found, micro, part_kernel)
    # A kernel so wide that nothing fits: one micro-block at a time.
    step = micro._replace(depth=DEPTH_STEP) if core.is_u85 else micro
    height, width = (int(_needed(np.array(size), axis, op)) for axis, size in enumerate(step[:2]))
    needed = Size(height, width, min(op.inputs.depth, search.input_depth))
    return Blocks(step, needed, micro, part_kernel)


@dataclass(frozen=True, slots=True)
class _Search:
    """Every block size of an operator on a configuration.

    Attributes:
        op, core: What and on what.
        place: Of the micro-block.
        input_depth: Of an input block, where that does not follow from the output block.
    """

    op: NpuOp
    core: Core
    place: int
    input_depth: int

    def best(self, held: int) -> tuple[Size, Size] | None:
        """(Output, input) block of the lowest cost with so many of each held; None: none fits."""
        op, core = self.op, self.core
        micro = core.micro_blocks[self.place]
        heights, widths, depths = _candidates(op, core, micro)
        ahead = micro.height * op.stride[0] if held == 1 and op.equal_depth else 0
        best: _Choice | None = None
        plane: _Plane | None = None
        for depth in depths:
            each = depth if op.equal_depth else self.input_depth
            unit = _input_unit(core, self.place, micro, each * op.element_bytes)
            if plane is None or plane.unit[:2] != unit[:2]:
                plane = _plane(op, heights, widths, unit)
            inside = ((plane.high + ahead) * plane.wide, each, unit.depth)
            fit = _fits(core, op, inside, (plane.outputs, depth), held)
            if not fit.any():
                break
            now = _cheapest(op, core, plane, fit, (depth, each))
            best = now if best is None else best.or_later(now)
        return None if best is None else (best.outputs, best.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """Every height and width of a block, whatever its depth.

    Attributes:
        unit: What inputs are given out in.
        heights, widths: Of outputs, (h, 1) and (1, w).
        outputs: Their products.
        high, wide: Of inputs under them.
        inputs: Their products.
        map_reads: Input elements read for one channel block of outputs, all channels of inputs.
        weight_reads: Weights read.
        cover: Parts of the input that an input block takes, where blocks are small; else infinite.
    """

    unit: Size
    heights: Grid
    widths: Grid
    outputs: Grid
    high: Grid
    wide: Grid
    inputs: Grid
    map_reads: Reals
    weight_reads: Grid
    cover: Reals


def _plane(op: NpuOp, heights: Grid, widths: Grid, unit: Size) -> _Plane:
    """Block areas with what they make of the reads."""
    rows, columns = heights[:, None], widths[None, :]
    whole, inputs = op.outputs, op.inputs
    high = -(-_needed(rows, 0, op) // unit[0]) * unit[0]
    wide = -(-_needed(columns, 1, op) // unit[1]) * unit[1]
    area = high * wide
    parts = 1
    for size, dilation in zip(op.kernel, op.dilation, strict=True):
        parts *= ratio_up((size - 1) * dilation + 1, KERNEL_PART)
    weights = 0
    if op.kind in ("conv", "depthwise"):
        channels = inputs.depth * (1 if op.kind == "depthwise" else whole.depth)
        weights = op.kernel[0] * op.kernel[1] * channels
    around = -(-whole.height // rows) * -(-whole.width // columns)
    pixels = inputs.height * inputs.width
    small = (rows <= SMALL) & (columns <= SMALL)
    return _Plane(
        unit=unit,
        heights=rows,
        widths=columns,
        outputs=rows * columns,
        high=high,
        wide=wide,
        inputs=area,
        map_reads=area * inputs.depth * parts * (whole.height / rows) * (whole.width / columns),
        weight_reads=weights * around,
        cover=np.where(small, pixels / np.minimum(area, pixels), np.inf),
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """A block and its cost.

    Attributes:
        cost: Bytes read per output.
        cover: Parts of the input that it takes, if it is small; else infinite.
        outputs, inputs: The block.
    """

    cost: float
    cover: float
    outputs: Size
    inputs: Size

    def or_later(self, other: _Choice) -> _Choice:
        """The cheaper; of equals the later one if it is small."""
        if other.cost == self.cost:
            return other if other.cover < np.inf else self
        return other if other.cost < self.cost else self


def _part_kernel_u55(op: NpuOp) -> bool:
    """Whether four taps of eight channels keep the multipliers busier than one tap of 32."""
    depth, taps = op.inputs.depth, op.kernel[0] * op.kernel[1]
    if depth <= 8:
        return True
    whole, few = 32 // op.element_bytes, 4 // op.element_bytes
    by_depth = depth / aligned(depth, whole)
    return depth / aligned(depth, 8) * taps / aligned(taps, few) >= by_depth


def _part_kernel_u85(op: NpuOp) -> bool:
    """Likewise: taps in fives, the last ones at least two."""
    depth, taps = op.inputs.depth, op.kernel[0] * op.kernel[1]
    padded = taps // 5 * 5 + max(taps % 5, 2)
    return depth / aligned(depth, 16) * taps / padded >= depth / aligned(depth, 64)


def _micro_block(op: NpuOp, core: Core) -> int:
    """Place of the micro-block that wastes least."""
    deep = core.deep_micro_blocks
    usable = range(len(core.micro_blocks))
    if op.equal_depth:
        usable = range(deep[0], deep[-1] + 1)
    elif deep[0] and core.macs < 512:  # the smallest have one that is for channels alone
        usable = range(deep[0])

    def waste(place: int) -> int:
        micro = core.micro_blocks[place]
        counts = op.outputs.over(micro)
        return counts.elements * micro.elements

    return min(usable, key=waste)


def _candidates(op: NpuOp, core: Core, micro: Size) -> tuple[Grid, Grid, list[int]]:
    """Block sizes to try on each axis."""
    step = micro._replace(depth=DEPTH_STEP) if core.is_u85 else micro
    limits = op.outputs.within(core.block_limit)
    ends = [
        aligned(max(n, least), unit) for n, least, unit in zip(limits, step, micro, strict=True)
    ]
    heights, widths = (
        np.arange(unit, end + 1, unit, dtype=np.int64)
        for unit, end in zip(micro[:2], ends[:2], strict=True)
    )
    whole = op.outputs.depth
    depths: list[int] = []
    depth = max(micro.depth, min(ends[2], DEPTH_STEP))
    while True:
        depth = aligned(depth, DEPTH_STEP) if depth < whole else depth
        if depth > ends[2]:
            return heights, widths, depths or [ends[2]]
        depths.append(depth)
        depth += micro.depth


def _input_depth(op: NpuOp, core: Core, part_kernel: bool) -> int:
    """Channels of an input block of an operator that sums over channels."""
    depth, wide = op.inputs.depth, op.element_bytes == 2
    if core.is_u85:
        return 16 if part_kernel else 64
    if wide:
        return aligned(min(depth, 16), 4)
    return aligned(min(depth, 16 if part_kernel else 32), 8)


def _needed(size: Grid, axis: int, op: NpuOp) -> Grid:
    """Input rows or columns under so many output rows or columns."""
    reach = min((op.kernel[axis] - 1) * op.dilation[axis] + 1, KERNEL_PART)
    return -(-((size - 1) * op.stride[axis] + reach) // op.upscale)


def _input_unit(core: Core, place: int, micro: Size, depth_bytes: int) -> Size:
    match core.buffers:
        case SharedBuffer():
            return Size(micro.height, micro.width, 8)
        case SplitBuffers() as split:
            return split.input_unit(place, depth_bytes)


def _fits(
    core: Core,
    op: NpuOp,
    inputs: tuple[Grid, int, int],
    outputs: tuple[Grid, int],
    copies: int,
) -> Mask:
    """Where blocks of (input area, depth, depth unit) and (output area, depth) fit."""
    area, depth, unit = inputs
    input_bytes = area * aligned(min(depth, op.inputs.depth) * op.element_bytes, unit)
    match core.buffers:
        case SharedBuffer() as shared:
            input_bytes = area * aligned(depth * op.element_bytes, unit)
            granule = shared.input_granule_16_bit if op.element_bytes == 2 else shared.input_granule
            banks = _banks(input_bytes, granule)
            if op.kind == "element":
                return banks * 2 <= shared.usable_banks
            sums = outputs[0] * aligned(outputs[1], 8) * ACCUMULATOR_BYTES
            return banks + _banks(sums, shared.accumulator_granule) <= shared.usable_banks
        case SplitBuffers() as split:
            sums = outputs[0] * aligned(outputs[1], DEPTH_STEP) * ACCUMULATOR_BYTES
            room = split.input_bytes, split.accumulator_bytes
            return (input_bytes * copies <= room[0]) & (sums * copies <= room[1])


def _banks(byte_count: Grid, granule: int) -> Grid:
    """Banks of two copies, in granules."""
    return -(-(-(-byte_count // KILOBYTE) * 2) // granule) * granule


def _cheapest(op: NpuOp, core: Core, plane: _Plane, fit: Mask, depths: tuple[int, int]) -> _Choice:
    """The cheapest block of one (output, input) depth.

    A block that holds all inputs counts half. Among equals it is the first, unless a small one
    takes more of the input.
    """
    depth, each = depths
    if op.kind == "element":
        cost = op.outputs.elements / (plane.outputs * depth)
    elif op.kind == "product" and core.is_u85:
        cost = 1.0 / plane.outputs
    else:
        times = 1 if op.equal_depth else ratio_up(op.outputs.depth, depth)
        cost = (plane.map_reads * times + plane.weight_reads) / op.outputs.elements
    resident = op.inputs.elements < plane.inputs * each * 2
    cost = np.where(resident, cost / 2, cost).astype(np.float32)
    cost = np.where(fit, cost, np.inf)
    best = float(cost.min())
    equal = np.flatnonzero(cost == best)
    small = plane.cover.ravel()[equal]
    pick = int(equal[0]) if np.isinf(small).all() else int(equal[_last_minimum(small)])
    row, column = divmod(pick, cost.shape[1])
    return _Choice(
        best,
        float(plane.cover[row, column]),
        Size(int(plane.heights[row, 0]), int(plane.widths[0, column]), depth),
        Size(int(plane.high[row, 0]), int(plane.wide[0, column]), each),
    )


def _last_minimum(values: Reals) -> int:
    """Place of the last of the smallest."""
    return int(len(values) - 1 - np.argmin(values[::-1]))
