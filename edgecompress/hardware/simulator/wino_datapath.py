"""What the integer datapath of WinoCNN makes of a convolution: narrow codes, cut sums, saturation.

In the order of the published design (widths for tiles of 6, its latest revision):

1. Input codes of 8 bits, weight codes of 7.
2. B^T d B in integers, cut by 4 bits to 12; G g G^T with G times 24, cut by 4 bits to 13.
3. Products of 4 channels are summed (26 bits) and cut by 5 bits to 22.
4. A^T . A of that, cut by 6 bits to 24.
5. Added to the output buffer, 9 bits, which saturates: once per 4 input channels and sub-kernel, in
   that order.

Every cut drops bits, so that it rounds down; a value too wide for a register wraps around. The
register between the two sides of each transform holds all its values and is left out. Kernels of 1
bypass the transforms: codes times codes times 32, cut by 5.

The revision with tiles of 4 cuts nothing: transformed inputs of 10 bits, weights of 11, sums of 23
and 27, an output buffer of 18 bits.

What cannot be told from the published sources, and is taken so: with kernels of 1 and tiles of 6
the source adds sums of codes uncut to the 9-bit output buffer, which is full from 256 on, while the
gain of 3x3 kernels is 576 / 2^19; here they are cut by another 4 + 6 bits, which gives both
kernels the same gain but for 512 / 576 (``point_shift = 0`` is the source as it stands). The scale
factors of the layers are the host's; ours are in `choose_scales`. A grouped convolution runs one
group after the other, and bias and requantisation, which come after the output buffer, are left to
the caller.

Source: widths, cuts and order: ``wino_macro.h``, ``wino_transform.cpp``, ``wino_buffer.cpp`` and
``wino_cell.cpp`` of github.com/xliu0709/WinoCNN and, for the latest revision, of its copy
github.com/tarsioonofrio/WinoCNN. The latter's description names 24, 28 and 18 bits for steps 3 and
4; the widths above are what its macros come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import sqrt

import numpy as np
import numpy.typing as npt

from edgecompress.core.winograd import transforms
from edgecompress.hardware.simulator.layers import IntArray, IntegerConv, exact_outputs

FloatArray = npt.NDArray[np.float64]

VALUES_AT_ONCE = 1 << 18  # products in flight: 2 MiB, what a core's cache holds
SAMPLE_IMAGES = 8  # that scales are chosen on
KERNEL = 3  # side of the sub-kernels that the transforms are for


@dataclass(frozen=True, slots=True, kw_only=True)
class Datapath:
    """Widths and cuts.

    Attributes:
        omega: Side of a tile.
        input_bits, weight_bits: Of the codes.
        input_shift, weight_shift: Cut from the transformed values.
        transformed_input_bits, transformed_weight_bits: What is left.
        channels: Input channels summed before the next cut.
        product_bits: Of their sum; ``product_shift`` is cut from it.
        output_shift: Cut from the transformed sums, ``tile_bits`` wide then.
        accumulator_bits: Of the output buffer.
        point_gain, point_shift: Of kernels of 1: weights times the one, sums cut by the other.
    """

    omega: int
    input_bits: int = 8
    weight_bits: int = 7
    input_shift: int
    weight_shift: int
    transformed_input_bits: int
    transformed_weight_bits: int
    channels: int = 4
    product_bits: int
    product_shift: int
    output_shift: int
    tile_bits: int
    accumulator_bits: int
    point_gain: int
    point_shift: int

    def unit(self, kernel: int) -> float:
        """Products of codes that one step of the output buffer stands for, with that kernel."""
        if kernel == 1:
            return 2.0 ** (self.product_shift + self.point_shift) / self.point_gain
        cut = self.input_shift + self.weight_shift + self.product_shift + self.output_shift
        return 2.0**cut / transforms(self.omega, kernel).kernel_scale ** 2


PUBLISHED = {
    6: Datapath(
        omega=6,
        input_shift=4,
        weight_shift=4,
        transformed_input_bits=12,
        transformed_weight_bits=13,
        product_bits=26,
        product_shift=5,
        output_shift=6,
        tile_bits=24,
        accumulator_bits=9,
        point_gain=32,
        point_shift=10,
    ),
    4: Datapath(
        omega=4,
        input_shift=0,
        weight_shift=0,
        transformed_input_bits=10,
        transformed_weight_bits=11,
        product_bits=23,
        product_shift=0,
        output_shift=0,
        tile_bits=27,
        accumulator_bits=18,
        point_gain=4,
        point_shift=0,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """From the integers of a layer to the codes of the datapath, and back.

    Attributes:
        input, weight: What the layer's integers are multiplied by, and then rounded.
        unit: Exact sum of the layer that one step of the output buffer stands for.
    """

    input: float
    weight: float
    unit: float


def sub_kernel(layer: IntegerConv) -> int:
    """Side of the sub-kernels that a layer runs with: 1 where the transforms are no use, else 3."""
    return 1 if max(layer.weights.shape[2:]) == 1 or max(layer.dilation) > 1 else KERNEL


def choose_scales(layer: IntegerConv, datapath: Datapath) -> Scales:
    """Scales that fill the codes, and the output buffer as far as it goes.

    Integers that are too wide for a code are scaled down to its largest; narrower ones are
    multiplied by a whole number, which costs nothing. If the largest exact sum of the first images
    would then overflow the output buffer, both kinds of codes are scaled down alike.

    Source: the published host scales the largest weight and activation to the largest code; the
    rest is ours, as its scale of the results assumes that nothing overflows.
    """
    inputs = _filling(layer.inputs - layer.zero_point, datapath.input_bits)
    weights = _filling(layer.weights, datapath.weight_bits)
    step = datapath.unit(sub_kernel(layer))
    sample = replace(layer, inputs=layer.inputs[:SAMPLE_IMAGES])
    peak = float(np.abs(exact_outputs(sample)).max(initial=0)) * inputs * weights / step
    largest = 2 ** (datapath.accumulator_bits - 1) - 1
    if peak > largest:
        less = sqrt(largest / peak)
        inputs, weights = inputs * less, weights * less
    return Scales(input=inputs, weight=weights, unit=step / (inputs * weights))


def cut_offsets(layer: IntegerConv, datapath: Datapath, scales: Scales) -> FloatArray:
    """What rounding down costs each output channel in the mean, in steps of the output buffer.

    Each cut loses about half a step, always in the same direction and once per few channels: in
    deep layers this is the larger part of the squared error. A host can take it out of the bias;
    nothing published says that one does. Measured on the first images.

    Returns:
        (out,), to be subtracted from the outputs of `truncated_conv`.
    """
    sample = replace(layer, inputs=layer.inputs[:SAMPLE_IMAGES])
    lost = truncated_conv(sample, datapath, scales) - exact_outputs(sample) / scales.unit
    offsets: FloatArray = lost.mean(axis=(0, 2, 3))
    return offsets


def _filling(values: IntArray, bits: int) -> float:
    """The factor that takes the largest of the values to about the largest code."""
    largest = 2 ** (bits - 1) - 1
    peak = int(np.abs(values).max(initial=0))
    if peak == 0:
        return 1.0
    return largest / peak if peak > largest else float(largest // peak)


def truncated_conv(
    layer: IntegerConv, datapath: Datapath, scales: Scales | None = None, *, exact: bool = False
) -> IntArray:
    """The output buffer after a whole layer.

    Args:
        layer: Any batch; sums are of (input - zero point) x weight.
        datapath: Widths and cuts.
        scales: Of the codes; those of `choose_scales` if None. Give the same for all batches.
        exact: No codes, cuts or limits: the sums of the layer, through the same transforms.

    Returns:
        (n, out, oh, ow); times ``scales.unit``, about the sums of the layer.
    """
    side = sub_kernel(layer)
    maps, weights = layer.inputs - layer.zero_point, layer.weights
    if not exact:
        chosen = scales or choose_scales(layer, datapath)
        maps = _coded(maps, chosen.input, datapath.input_bits)
        weights = _coded(weights, chosen.weight, datapath.weight_bits)
    top, left, bottom, right = layer.pads
    padded = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(np.float64)
    outputs, inputs = weights.shape[0] // layer.group, weights.shape[1]
    groups = []
    for group in range(layer.group):
        part = padded[:, group * inputs : (group + 1) * inputs]
        kernels = weights[group * outputs : (group + 1) * outputs]
        groups.append(_dense(part, kernels, layer, datapath, side, exact=exact))
    joined: IntArray = np.concatenate(groups, axis=1)
    return joined


def _coded(values: IntArray, scale: float, bits: int) -> IntArray:
    """Codes of the values, symmetric."""
    largest = 2 ** (bits - 1) - 1
    codes: IntArray = np.clip(np.rint(values * scale), -largest, largest).astype(np.int64)
    return codes


def _dense(
    maps: FloatArray,
    kernels: IntArray,
    layer: IntegerConv,
    datapath: Datapath,
    side: int,
    *,
    exact: bool,
) -> IntArray:
    """One group: all tiles at stride 1, a part of them at a time, then what the stride keeps."""
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    kh, kw = kernels.shape[2:]
    height, width = maps.shape[2] - (kh - 1) * dy, maps.shape[3] - (kw - 1) * dx
    tile = datapath.omega + 1 - side if side > 1 else 1
    down, across = -(-height // tile), -(-width // tile)
    reach_y, reach_x = (-(-taps // side) * side for taps in (kh, kw))
    more_y = max(0, down * tile + (reach_y - 1) * dy - maps.shape[2])
    more_x = max(0, across * tile + (reach_x - 1) * dx - maps.shape[3])
    maps = np.pad(maps, ((0, 0), (0, 0), (0, more_y), (0, more_x)))
    passes = [
        (y * dy, x * dx, _spread(kernels[:, :, y : y + side, x : x + side], datapath, side, exact))
        for y in range(0, kh, side)
        for x in range(0, kw, side)
    ]
    at_once = max(1, VALUES_AT_ONCE // (datapath.omega**2 * len(kernels) * down * across))
    found = []
    for start in range(0, len(maps), at_once):
        part = maps[start : start + at_once]
        sums = np.zeros((tile**2, len(kernels), len(part) * down * across))
        for y, x, spread in passes:
            seen = part[:, :, y : y + down * tile + side - 1, x : x + across * tile + side - 1]
            domain = _tiles(seen, datapath, side, exact)
            _accumulate(sums, spread, domain, datapath, side, exact)
        square = sums.reshape(tile, tile, len(kernels), len(part), down, across)
        whole = square.transpose(3, 2, 4, 0, 5, 1).reshape(len(part), len(kernels), down * tile, -1)
        found.append(whole[:, :, :height:sy, :width:sx].astype(np.int64))
    sums_of_all = np.concatenate(found)
    return (
        sums_of_all // transforms(datapath.omega, side).kernel_scale ** 2 if exact else sums_of_all
    )


@lru_cache(maxsize=16)
def _squared(omega: int, side: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The transforms of kernels, tiles and results on flattened squares; none for kernels of 1."""
    if side == 1:
        gain = transforms(omega, 1).kernel_scale ** 2
        return np.array([[float(gain)]]), np.ones((1, 1)), np.ones((1, 1))
    t = transforms(omega, side)
    kernel, tile, result = (
        np.kron(matrix, matrix).astype(np.float64) for matrix in (t.kernel, t.input, t.output)
    )
    return kernel, tile, result


def _spread(kernels: IntArray, datapath: Datapath, side: int, exact: bool) -> FloatArray:
    """Kernels as the multipliers take them: (omega x omega or 1, out, in)."""
    outputs, inputs, rows, columns = kernels.shape
    whole = np.zeros((outputs, inputs, side, side))
    whole[:, :, :rows, :columns] = kernels
    flat = whole.reshape(outputs, inputs, side * side)
    if side == 1 and not exact:
        flat = flat * datapath.point_gain
    else:
        flat = flat @ _squared(datapath.omega, side)[0].T
        flat = flat if exact else np.floor(flat / 2.0**datapath.weight_shift)
    if not exact:
        flat = _wrapped(flat, datapath.transformed_weight_bits)
    return np.ascontiguousarray(flat.transpose(2, 0, 1))


def _tiles(maps: FloatArray, datapath: Datapath, side: int, exact: bool) -> FloatArray:
    """Tiles as the multipliers take them: (omega x omega or 1, in, tiles)."""
    inputs = maps.shape[1]
    if side == 1:
        return maps.transpose(1, 0, 2, 3).reshape(1, inputs, -1)
    omega = datapath.omega
    windows = np.lib.stride_tricks.sliding_window_view(maps, (omega, omega), axis=(2, 3))
    tiles = windows[:, :, :: omega + 1 - side, :: omega + 1 - side]
    flat = tiles.transpose(4, 5, 1, 0, 2, 3).reshape(omega**2, -1)
    domain = _squared(omega, side)[1] @ flat
    if not exact:
        domain = _wrapped(
            np.floor(domain / 2.0**datapath.input_shift), datapath.transformed_input_bits
        )
    return domain.reshape(omega**2, inputs, -1)


def _accumulate(
    sums: FloatArray,
    spread: FloatArray,
    domain: FloatArray,
    datapath: Datapath,
    side: int,
    exact: bool,
) -> None:
    """Add one sub-kernel to the output buffer ``sums``, a few channels at a time, in place."""
    back = _squared(datapath.omega, side)[2]
    largest = 2.0 ** (datapath.accumulator_bits - 1)
    shift = datapath.point_shift if side == 1 else datapath.output_shift
    for first, last in _few(spread.shape[2], datapath.channels):
        products = spread[:, :, first:last] @ domain[:, first:last]
        if not exact:
            _wrapped(products, datapath.product_bits)
            products *= 2.0**-datapath.product_shift
            np.floor(products, out=products)
        values = (back @ products.reshape(len(products), -1)).reshape(sums.shape)
        if not exact:
            values *= 2.0**-shift
            np.floor(values, out=values)
            values = _wrapped(values, datapath.tile_bits)
        sums += values
        if not exact:
            np.clip(sums, -largest, largest - 1, out=sums)


def _few(channels: int, together: int) -> Iterator[tuple[int, int]]:
    """First and last channel of each sum."""
    for first in range(0, channels, together):
        yield first, min(channels, first + together)


def _wrapped(values: FloatArray, bits: int) -> FloatArray:
    """Whole numbers as a register of so many bits holds them, in place."""
    half = 2.0 ** (bits - 1)
    if values.size and (values.max() >= half or values.min() < -half):
        values += half
        np.mod(values, 2 * half, out=values)
        values -= half
    return values
