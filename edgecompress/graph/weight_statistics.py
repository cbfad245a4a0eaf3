"""What coded weight streams and zero skipping want to know of weights: measured on their codes.

Large weights are measured on a sample, see `code_sample`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.core.winograd import OMEGAS, IntArray, transformed_kernels, zero_shares
from edgecompress.core.work import WeightStatistics, WeightValues
from edgecompress.graph.code_parts import sample_codes, weight_shape
from edgecompress.graph.code_reader import CodeReader, less_zero_point
from edgecompress.graph.code_sample import (
    EXACT_CODES,
    KERNELS,
    SAMPLED,
    digits,
    sampled_channels,
    sampled_rows,
    spread,
)
from edgecompress.graph.values import attribute_int, constant_array

ROUNDED = (
    "statistics of float weights: of their values rounded to 8 bits, a scale for each output"
    " channel of a convolution and one for each matrix"
)

RUN_BITS = 4
"""Width of a count of zeros. Source: EIE (arXiv 1602.01528), relative indices of 4 bits."""

_LARGEST = 127
"""Codes of a rounded float weight are -127 to 127. Source: TensorFlow Lite's 8-bit quantization
specification, which also has a scale per output channel for convolutions."""

_WIDEST = 8
"""Width of the codes of a rounded float weight."""

_ZERO_PLACES = {
    "ConvInteger": (3,),
    "MatMulInteger": (3, 2),
    "MatMulIntegerToFloat": (5, 4),
    "DynamicQuantizeMatMul": (3,),
    "QGemm": (5, 2),
    "QLinearConv": (5,),
    "QLinearMatMul": (5, 2),
}
"""Inputs with the zero point of the second operand, and of the first where that is the weight."""


Measured = tuple[WeightStatistics | None, str]


@dataclass
class WeightMeter:
    """Measures the weights of one graph.

    Attributes:
        wanted: What is to be measured; ``none`` measures nothing.
    """

    wanted: WeightValues
    _reader: CodeReader = field(default_factory=CodeReader)
    _measured: dict[tuple[ir.Value, ir.Value | None], Measured] = field(default_factory=dict)

    def measure(self, node: ir.Node, weight: ir.Value, bits: int) -> Measured:
        """Statistics of the weight that a node reads, and what was assumed for them.

        None where nothing was wanted, or the codes cannot be told.

        Args:
            node: For the form of its weight.
            weight: The value that holds it.
            bits: Width of a code.
        """
        if self.wanted == "none":
            return None, ""
        zero = _zero_point(node, weight)
        key = (weight, zero)
        if key not in self._measured:
            self._measured[key] = self._measure(node, weight, zero, bits)
        return self._measured[key]

    def _measure(
        self, node: ir.Node, weight: ir.Value, zero: ir.Value | None, bits: int
    ) -> Measured:
        if node.op_type == "MatMulNBits":
            return _unpacked(node, bits)
        shape = weight_shape(weight)
        point = None if zero is None else self._reader.read(zero)
        if shape is None or not math.prod(shape):
            return self._read(node, weight, zero, bits)
        if zero is not None and (point is None or (point.size > 1 and point.any())):
            return self._read(node, weight, zero, bits)
        part = sample_codes(weight, spread(shape))
        if part is None or part.dtype.kind == "f":
            return self._read(node, weight, zero, bits)
        codes, count = _kernels(less_zero_point(part, point), shape), math.prod(shape)
        winograd, bits = self.wanted == "winograd", min(bits, _WIDEST)
        found = statistics(codes, bits, winograd=winograd, count=count)
        return found, SAMPLED if count > EXACT_CODES else ""

    def _read(self, node: ir.Node, weight: ir.Value, zero: ir.Value | None, bits: int) -> Measured:
        """Of a weight that is read whole, even where only a part of it is then measured."""
        array = self._reader.read(weight)
        if array is None or not array.size:
            return None, ""
        winograd, bits = self.wanted == "winograd", min(bits, _WIDEST)
        notes: list[str] = []
        shape, count = array.shape, array.size
        large = count > EXACT_CODES
        if array.dtype.kind == "f":
            channels = node.op_type in ("Conv", "FusedConv")
            notes.append(ROUNDED)
            array = (
                _rounded_sample(array, channels=channels)
                if large
                else rounded(array, channels=channels)
            )
        else:
            if zero is not None:
                array = less_zero_point(array, self._reader.read(zero), axis=_channel_axis(node))
            array = spread(shape).of(array) if large else array
        if large:
            notes.append(SAMPLED)
            array = _kernels(array, shape)
        found = statistics(array, bits, winograd=winograd, count=count)
        return found, "; ".join(notes)


def statistics(
    codes: Array, bits: int, *, winograd: bool = False, count: int | None = None
) -> WeightStatistics:
    """Statistics of codes, 0 standing for zero.

    Args:
        codes: Integers in the order in which they are stored, at least one; (out, in, k, k) for
            the Winograd domain.
        bits: Width of a code.
        winograd: Measure the Winograd domain as well, for square kernels of 3 and 5.
        count: Codes of the whole weight where these are a sample of it; None: these are all.

    Of a sample, the entropy is corrected for the levels that are rare (Source: Miller 1955, the
    bias of (levels - 1) / (2 n ln 2) bits), and levels that were not seen are estimated (Source:
    Chao 1984, from the levels that were seen once and twice; the bias-corrected form).
    """
    occurrences = _histogram(codes)
    seen = occurrences[occurrences > 0]
    shares = seen / codes.size
    levels = len(shares)
    entropy = max(0.0, -float(np.sum(shares * np.log2(shares))))
    if count is not None and count > codes.size:
        entropy += (levels - 1) / (2 * codes.size * math.log(2))
        once, twice = (int(np.count_nonzero(seen == n)) for n in (1, 2))
        levels += once * (once - 1) // (2 * (twice + 1))
        levels = max(len(shares), min(levels, 2**bits))
        entropy = min(entropy, math.log2(levels))
    zeros = codes.size - int(np.count_nonzero(codes))
    # A kernel has many entries in the Winograd domain: half of the kernels of a sample will do.
    kernels = codes if count is None or count == codes.size else codes[::2]
    return WeightStatistics(
        count=count or codes.size,
        levels=levels,
        entropy_bits=entropy,
        zero_share=zeros / codes.size,
        zero_run_bits=_runs(codes, zeros) * (RUN_BITS + bits) / codes.size,
        winograd_zero_shares=_winograd(kernels, occurrences) if winograd else (),
    )


def rounded(weight: Array, *, channels: bool) -> Array:
    """Floats as int8 codes of -127 to 127, a scale along the first axis or one for all."""
    axes = tuple(range(1, weight.ndim)) if channels and weight.ndim > 1 else None
    weight = weight.astype(np.float32, copy=False)
    return _scaled(weight, _largest(weight, axes))


def _largest(weight: Array, axes: tuple[int, ...] | None) -> Array:
    """The largest magnitude over some axes, which stay with size 1; over all for None.

    Bits of numbers of one sign are in the order of their magnitudes, and integers compare faster.
    """
    if weight.dtype == np.float32 and weight.dtype.isnative:
        highest = weight.view(np.int32).max(axis=axes, keepdims=True)
        lowest = weight.view(np.uint32).max(axis=axes, keepdims=True)
        highest = np.maximum(highest, 0).view(np.float32)
        return cast(Array, np.maximum(highest, -lowest.view(np.float32)))
    highest = weight.max(axis=axes, keepdims=True)
    return cast(Array, np.maximum(highest, -weight.min(axis=axes, keepdims=True)))


def _scaled(weight: Array, largest: Array) -> Array:
    """Codes of floats whose largest ones are known."""
    largest = largest.astype(np.float32)
    factor = np.divide(_LARGEST, largest, out=np.zeros_like(largest), where=largest > 0)
    scaled = weight.astype(np.float32, copy=False) * factor
    return np.rint(scaled, out=scaled).astype(np.int8)


def _rounded_sample(weight: Array, *, channels: bool) -> Array:
    """Codes of a sample of floats, (blocks, codes), rounded with the scales that `rounded` has."""
    if channels and weight.ndim > 1:
        rows, parts = sampled_channels(weight)
        return _scaled(parts, _largest(rows, (1,)))
    return _scaled(spread(weight.shape).of(weight), _largest(weight.reshape(1, -1), None))


def _kernels(sample: Array, shape: tuple[int, ...]) -> Array:
    """A sample as (kernels, 1, k, k) where the weight has kernels for the Winograd domain."""
    if len(shape) == 4 and shape[2] == shape[3] and shape[2] in KERNELS:
        return sample.reshape(-1, 1, shape[2], shape[3])
    return sample


def _histogram(codes: Array) -> Array:
    """How often each code occurs; of bytes 256 counts, else order and zeros are of no matter."""
    flat = codes.reshape(-1)
    if flat.dtype.itemsize == 1 and flat.size <= EXACT_CODES:
        return cast(Array, np.bincount(np.ascontiguousarray(flat).view(np.uint8), minlength=256))
    if flat.dtype.itemsize == 1:
        return _byte_histogram(flat.view(np.uint8))
    if flat.dtype == np.int16:
        return cast(Array, np.bincount(flat - flat.min()))
    return cast(Array, np.unique(flat, return_counts=True)[1])


def _byte_histogram(flat: Array) -> Array:
    """Counts of 256 bytes; pairs are counted together, which halves the work."""
    even = flat[: flat.size & ~1]
    if not even.flags.c_contiguous:
        even = np.ascontiguousarray(even)
    pairs = np.bincount(even.view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    if flat.size & 1:
        counts[flat[-1]] += 1
    return cast(Array, counts)


def _runs(codes: Array, zeros: int) -> int:
    """Entries of a zero-run code: the non-zero codes, and a stuffing one for each 16 zeros before.

    Zeros at the end take none: the number of codes is known.
    """
    if not zeros:
        return codes.size
    places = np.flatnonzero(codes.reshape(-1) == 0)
    long = (1 << RUN_BITS) - 1
    if not (places[long:] - places[: max(0, zeros - long)] == long).any():
        return codes.size - zeros
    ends = np.flatnonzero(np.diff(places, append=codes.size + 1) > 1)
    lengths = np.diff(ends, prepend=-1)
    if places[-1] == codes.size - 1:
        lengths = lengths[:-1]
    return codes.size - zeros + int((lengths >> RUN_BITS).sum())


def _winograd(codes: Array, occurrences: Array) -> tuple[tuple[int, float], ...]:
    """(omega, share of zeros) for the tile sizes that hold the kernel."""
    if codes.ndim != 4 or codes.shape[2] != codes.shape[3]:
        return ()
    side = codes.shape[2]
    if side not in KERNELS:
        return ()
    omegas = [omega for omega in OMEGAS if side < omega]
    if codes.dtype != np.int8:
        return zero_shares(cast(IntArray, codes))
    levels = np.flatnonzero(occurrences)
    if 4 * levels.size ** (side * side) > codes.size:
        return zero_shares(cast(IntArray, codes))
    counts = _kinds(codes, levels)
    values = tuple(int(level) for level in levels.astype(np.uint8).view(np.int8))
    return tuple(
        (omega, float(_zeros_by_kind(values, side, omega) @ counts) / (counts.sum() * omega**2))
        for omega in omegas
    )


def _kinds(codes: Array, levels: Array) -> IntArray:
    """How often each kernel of these levels (as bytes) occurs: all kernels in order, the first tap
    the most significant digit."""
    place = np.zeros(256, np.int32)
    place[levels] = np.arange(len(levels))
    taps = codes.reshape(-1, codes.shape[2] * codes.shape[3])
    numbers = np.zeros(len(taps), np.int32)
    for tap in range(taps.shape[1]):
        numbers *= len(levels)
        numbers += place[taps[:, tap].view(np.uint8)]
    found = np.bincount(numbers, minlength=len(levels) ** taps.shape[1])
    return cast(IntArray, found.astype(np.int64))


@lru_cache(maxsize=16)
def _zeros_by_kind(levels: tuple[int, ...], side: int, omega: int) -> IntArray:
    """Zeros in the Winograd domain of every kernel of these levels, ordered as in `_kinds`."""
    powers = len(levels) ** np.arange(side * side)[::-1]
    digits = np.arange(len(levels) ** (side * side))[:, None] // powers % len(levels)
    kernels = np.array(levels, np.int64)[digits].reshape(-1, 1, side, side)
    transformed = transformed_kernels(kernels, omega).reshape(len(kernels), -1)
    return cast(IntArray, (omega**2 - np.count_nonzero(transformed, axis=1)).astype(np.int64))


def _zero_point(node: ir.Node, weight: ir.Value) -> ir.Value | None:
    """The zero point of the weight, where the operator takes it as an input."""
    places = _ZERO_PLACES.get(node.op_type)
    if places is None:
        return None
    first = len(places) > 1 and node.inputs[0] is weight
    place = places[1] if first else places[0]
    return node.inputs[place] if place < len(node.inputs) else None


def _channel_axis(node: ir.Node) -> int:
    """Axis of the output channels, along which a vector of zero points runs."""
    return 0 if "Conv" in node.op_type else -1


def _unpacked(node: ir.Node, bits: int) -> Measured:
    """Of MatMulNBits: (columns, blocks, bytes), the first code in the lowest bits.

    Source: the operator's description in onnxruntime; the zero point is 2^(bits - 1) where no
    input gives it.
    """
    packed = constant_array(node.inputs[1])
    width = attribute_int(node, "bits", 4)
    if packed is None or packed.ndim != 3 or not packed.size or width not in (2, 4, 8):
        return None, ""
    zero = node.inputs[3] if len(node.inputs) > 3 else None
    points = constant_array(zero)
    if points is None and zero is not None:
        return None, ""
    columns, blocks, length = packed.shape
    count = packed.size * 8 // width
    rows, each = packed.reshape(-1, length), length * 8 // width
    chosen = slice(None) if count <= EXACT_CODES else sampled_rows(len(rows), each)
    codes = digits(rows[chosen], width).astype(np.int16)
    if points is None:
        codes -= 1 << (width - 1)
    else:
        if points.dtype == np.uint8:
            points = digits(points.reshape(columns, -1), width)[:, :blocks]
        codes -= np.rint(points).astype(np.int16).reshape(-1, 1)[chosen]
    found = statistics(codes, bits, count=count)
    return found, SAMPLED if count > EXACT_CODES else ""
