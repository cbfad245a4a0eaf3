"""What the Ethos-U processors are made of, as far as their compiler tells.

Source: ethos-u-vela 5.2.0 (Arm; Apache 2.0), the tables of its architecture descriptions of
Ethos-U55, U65 and U85. The numbers are facts about the hardware; the code is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

KILOBYTE = 1024


class Size(NamedTuple):
    """Extent of a feature map or of a part of it."""

    height: int
    width: int
    depth: int

    @property
    def elements(self) -> int:
        """Elements."""
        return self.height * self.width * self.depth

    def within(self, other: Size) -> Size:
        """The smaller extent of both, axis by axis."""
        height, width, depth = other
        return Size(
            self.height if self.height < height else height,
            self.width if self.width < width else width,
            self.depth if self.depth < depth else depth,
        )

    def over(self, unit: Size) -> Size:
        """How many of ``unit`` are needed, axis by axis."""
        return Size(
            -(-self.height // unit.height),
            -(-self.width // unit.width),
            -(-self.depth // unit.depth),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBuffer:
    """U55 and U65: one memory of banks for inputs, accumulators and tables.

    Attributes:
        banks: Of 1 KiB.
        input_granule, input_granule_16_bit, accumulator_granule: Banks are given out in these.
    """

    banks: int
    input_granule: int
    input_granule_16_bit: int
    accumulator_granule: int

    @property
    def usable_banks(self) -> int:
        """Without the two of the output, and the two at the end of all but the smallest."""
        return self.banks - 2 - (2 if self.banks > 16 else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitBuffers:
    """U85: a memory for inputs and one for accumulators.

    Attributes:
        input_bytes, accumulator_bytes: Their sizes.
        input_units: Per micro-block, what inputs are given out in when a block is at most 16, at
            most 32 or more bytes deep; depth in bricks of 16 bytes.
    """

    input_bytes: int
    accumulator_bytes: int
    input_units: tuple[tuple[Size, Size, Size], ...]

    def input_unit(self, micro_block: int, depth_bytes: int) -> Size:
        """Allocation unit of inputs, depth in bytes."""
        row = 2 if depth_bytes > 32 else 1 if depth_bytes > 16 else 0
        unit = self.input_units[micro_block][row]
        return unit._replace(depth=16 * unit.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One configuration.

    Attributes:
        macs: Multiply-accumulates a cycle and core.
        cores: Cores that share the output channels (U65-512); weight decoders on U85.
        micro_blocks: Outputs that are computed together; the compiler takes the one that wastes
            least, the first of equals.
        deep_micro_blocks: Those of ``micro_blocks``, by place, that depthwise convolutions and
            pooling can use.
        block_limit: Largest output block.
        output_cycles: Cycles an output element: as is, sum, product, maximum, table look-up.
        buffers: On-chip memories of the blocks.
        channel_words: U85: outstanding 16-byte words of the reads of copies, streams, weights and
            inputs, which limit their rate.
    """

    macs: int
    cores: int
    micro_blocks: tuple[Size, ...]
    deep_micro_blocks: tuple[int, ...]
    block_limit: Size
    output_cycles: tuple[float, float, float, float, float]
    buffers: SharedBuffer | SplitBuffers
    channel_words: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def is_u85(self) -> bool:
        """Whether sums are chained, inputs and accumulators are apart, channels have limits."""
        return isinstance(self.buffers, SplitBuffers)

    @property
    def peak_macs(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.macs if self.is_u85 else self.macs * self.cores


_U55_LIMIT = Size(32, 64, 128)
_U85_LIMIT = Size(128, 128, 1024)
_LARGE = SharedBuffer(banks=48, input_granule=8, input_granule_16_bit=8, accumulator_granule=16)


def _u55(
    macs: int,
    cores: int,
    micro_block: Size,
    output_cycles: tuple[float, float, float, float, float],
    buffers: SharedBuffer,
) -> Core:
    return Core(
        macs=macs,
        cores=cores,
        micro_blocks=(micro_block,),
        deep_micro_blocks=(0,),
        block_limit=_U55_LIMIT,
        output_cycles=output_cycles,
        buffers=buffers,
    )


def _small(banks: int, granule: int, accumulator: int) -> SharedBuffer:
    return SharedBuffer(
        banks=banks,
        input_granule=granule,
        input_granule_16_bit=granule,
        accumulator_granule=accumulator,
    )


_WIDE = (Size(2, 2, 1), Size(1, 2, 2), Size(1, 1, 4))
_FLAT = (Size(1, 4, 1), Size(1, 2, 2), Size(1, 1, 4))
_NARROW = (Size(1, 2, 1), Size(1, 1, 2), Size(1, 1, 2))
_WIDE_1024 = (Size(2, 4, 1), Size(2, 2, 2), Size(1, 2, 4))
_FLAT_1024 = (Size(2, 4, 1), Size(1, 4, 2), Size(1, 2, 4))
_WIDE_2048 = (Size(4, 4, 1), Size(2, 4, 2), Size(2, 2, 4))
_FLAT_2048 = (Size(4, 4, 1), Size(2, 4, 2), Size(1, 4, 4))


class _Micro(NamedTuple):
    """A micro-block with its allocation units, and whether it is for single channels."""

    block: Size
    units: tuple[Size, Size, Size]
    deep: bool = False


def _u85(
    macs: int,
    decoders: int,
    per_element: float,
    memories_kib: tuple[int, int],
    channel_words: tuple[int, int, int, int],
    *micros: _Micro,
) -> Core:
    return Core(
        macs=macs,
        cores=decoders,
        micro_blocks=tuple(micro.block for micro in micros),
        deep_micro_blocks=tuple(place for place, micro in enumerate(micros) if micro.deep),
        block_limit=_U85_LIMIT,
        output_cycles=(per_element,) * 5,
        buffers=SplitBuffers(
            input_bytes=memories_kib[0] * KILOBYTE,
            accumulator_bytes=memories_kib[1] * KILOBYTE,
            input_units=tuple(micro.units for micro in micros),
        ),
        channel_words=channel_words,
    )


# By name of the product and multiply-accumulates a cycle. Source: see the module.
CORES: dict[tuple[str, int], Core] = {
    ("u55", 32): _u55(32, 1, Size(1, 1, 4), (2.0, 6.0, 3.0, 1.0, 2.0), _small(16, 2, 4)),
    ("u55", 64): _u55(64, 1, Size(1, 1, 8), (1.0, 3.0, 1.5, 0.5, 1.0), _small(16, 2, 4)),
    ("u55", 128): _u55(128, 1, Size(1, 2, 8), (0.5, 1.5, 0.75, 0.25, 1.0), _small(24, 4, 8)),
    ("u55", 256): _u55(256, 1, Size(2, 2, 8), (0.25, 0.75, 0.375, 0.125, 1.0), _LARGE),
    ("u65", 256): _u55(256, 1, Size(2, 2, 8), (0.25, 0.75, 0.375, 0.125, 1.0), _LARGE),
    ("u65", 512): _u55(256, 2, Size(2, 2, 8), (0.125, 0.375, 0.1875, 0.0625, 0.5), _LARGE),
    ("u85", 128): _u85(
        *(128, 1, 0.5, (8, 8), (64, 64, 128, 104)),
        _Micro(Size(1, 2, 8), _NARROW),
        _Micro(Size(1, 1, 16), _NARROW, deep=True),
    ),
    ("u85", 256): _u85(
        *(256, 1, 0.25, (16, 16), (104, 104, 128, 128)),
        _Micro(Size(1, 4, 8), _FLAT),
        _Micro(Size(2, 2, 8), _WIDE),
        _Micro(Size(1, 2, 16), _WIDE, deep=True),
    ),
    ("u85", 512): _u85(
        *(512, 2, 0.125, (16, 32), (128, 128, 256, 128)),
        _Micro(Size(2, 2, 16), _WIDE, deep=True),
        _Micro(Size(1, 4, 16), _FLAT, deep=True),
    ),
    ("u85", 1024): _u85(
        *(1024, 4, 0.0625, (16, 64), (256, 256, 416, 256)),
        _Micro(Size(2, 2, 32), _WIDE_1024),
        _Micro(Size(1, 4, 32), _FLAT_1024),
        _Micro(Size(2, 4, 16), _WIDE_1024, deep=True),
    ),
    ("u85", 2048): _u85(
        *(2048, 4, 0.03125, (32, 128), (256, 256, 512, 256)),
        _Micro(Size(2, 2, 64), _WIDE_2048),
        _Micro(Size(1, 4, 64), _FLAT_2048),
        _Micro(Size(4, 4, 16), _WIDE_2048, deep=True),
    ),
}
