"""WinoCNN, executed: rows through the line buffer, weights through their buffer, tiles through the
array, with the integers of a layer.

Three processes run side by side in every row step and meet at its end: the input rows that the
next step lacks come in, this step is computed, the results of the last step leave. Weight loads
are double-buffered: one comes in while the one before is swept over the tiles of the step; on a
port that carries both, weights go before rows. What is moved or swept is counted as it happens; a
transfer need not end with a cycle, as the memory has its own clock, but the layer does.

Source: the processes and loops of the published design (github.com/xliu0709/WinoCNN). Its host
software plans row steps that overflow the output buffer on some layers; here nothing overflows.
Values are exact: transforms in integers (`core.winograd`), accumulators without a limit. Zero
points are subtracted as rows come in, so that padding is zero; `wino_datapath` has the widths of
the published datapath.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np

from edgecompress.core.errors import Unsupported
from edgecompress.hardware.simulator._wino_call import Call, window
from edgecompress.hardware.simulator._wino_schedule import (
    LINE,
    Geometry,
    WinoArray,
    cut,
    schedule,
    up,
)
from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    Simulated,
)

__all__ = ["WinoArray", "simulate"]


def simulate(array: WinoArray, layer: IntegerLayer) -> Simulated:
    """One layer in the fastest of the modes of the array.

    Groups run one call each, all in one dense call, or as many together as fill the eight channels
    of a memory line, whichever is fastest. A product runs as a convolution with kernels of 1, its
    rows laid out as maps of a few widths.

    Raises:
        Unsupported: The buffers do not hold the layer however it is cut.
    """
    found, refused = [], Unsupported("no mode")
    for conv, together, side in _mappings(array, layer):
        try:
            found.append(_grouped(array, conv, together, side))
        except Unsupported as error:
            refused = error
    if not found:
        raise refused
    best = min(found, key=lambda simulated: simulated.cycles)
    if isinstance(layer, IntegerProduct):
        rows = best.outputs.transpose(0, 2, 3, 1).reshape(array.images, -1, best.outputs.shape[1])
        each = up(len(layer.inputs), array.images)
        return replace(best, outputs=np.concatenate(rows[:, :each])[: len(layer.inputs)])
    return best


def _mappings(array: WinoArray, layer: IntegerLayer) -> Iterator[tuple[IntegerConv, int, int]]:
    """(convolution, groups together, side of the sub-kernels) of every way to run a layer."""
    if isinstance(layer, IntegerProduct):
        for conv in _laid_out(array, layer):
            yield conv, 1, 1
        return
    few = min(layer.group, up(LINE, layer.weights.shape[1]))
    for together in sorted({1, few, layer.group}):
        for side in (1,) if max(layer.dilation) > 1 else array.kernels:
            yield layer, together, side


def _laid_out(array: WinoArray, product: IntegerProduct) -> Iterator[IntegerConv]:
    """A product as convolutions of maps of a few widths, the rows shared out over the images."""
    rows, inner = product.inputs.shape
    each = up(rows, array.images)
    across = array.omega * array.columns
    for width in sorted({min(each, across * tiles) for tiles in (1, 2, 4, 8)}):
        height = up(each, width)
        maps = np.full((array.images, height * width, inner), product.zero_point, np.int64)
        for image in range(array.images):
            part = product.inputs[image * each : (image + 1) * each]
            maps[image, : len(part)] = part
        yield IntegerConv(
            inputs=maps.transpose(0, 2, 1).reshape(array.images, inner, height, width),
            weights=product.weights.T.reshape(-1, inner, 1, 1),
            zero_point=product.zero_point,
            input_bits=product.input_bits,
            weight_bits=product.weight_bits,
            input_signed=product.input_signed,
        )


def _grouped(array: WinoArray, layer: IntegerConv, together: int, side: int) -> Simulated:
    """All groups, so many in a call, in one mode."""
    outputs, inputs = layer.weights.shape[0] // layer.group, layer.weights.shape[1]
    shape = _geometry(layer, inputs * together, outputs * together)
    images = layer.inputs.shape[0]
    sums = np.zeros((images, layer.weights.shape[0], shape.out_height, shape.out_width), np.int64)
    cycles, multiplications = Fraction(0), 0
    for group in range(0, layer.group, together):
        taken = min(together, layer.group - group)
        weights = np.zeros((outputs * together, inputs * together, *shape.kernel), np.int64)
        for one in range(taken):
            first = (group + one) * outputs
            weights[one * outputs : (one + 1) * outputs, one * inputs : (one + 1) * inputs] = (
                layer.weights[first : first + outputs]
            )
        maps = layer.inputs[:, group * inputs : (group + taken) * inputs] - layer.zero_point
        maps = window(maps, 1, 0, inputs * together)
        for start in range(0, images, array.images):
            part = maps[start : start + array.images]
            found = _convolve(array, part, weights, shape, layer.pads[1], side)
            places = slice(group * outputs, (group + taken) * outputs)
            results, clock, multiplied = found
            sums[start : start + len(part), places] = results[:, : taken * outputs]
            cycles += clock
            multiplications += multiplied
    return Simulated(outputs=sums, cycles=ceil(cycles), multiplications=multiplications)


def _geometry(layer: IntegerConv, channels: int, outputs: int) -> Geometry:
    """The dense convolution of one call of groups."""
    height, width = layer.inputs.shape[2:]
    top, left, bottom, right = layer.pads
    kh, kw = layer.weights.shape[2:]
    high = height + top + bottom - (kh - 1) * layer.dilation[0] - 1
    wide = width + left + right - (kw - 1) * layer.dilation[1] - 1
    return Geometry(
        channels=channels,
        outputs=outputs,
        height=height,
        width=width,
        out_height=high // layer.stride[0] + 1,
        out_width=wide // layer.stride[1] + 1,
        kernel=(kh, kw),
        stride=layer.stride,
        dilation=layer.dilation,
        pad_top=top,
    )


def _convolve(
    array: WinoArray,
    maps: IntArray,
    weights: IntArray,
    whole: Geometry,
    pad_left: int,
    side: int,
) -> tuple[IntArray, Fraction, int]:
    """A dense convolution of a few images, cut into calls whose results are put together.

    Args:
        array: The array.
        maps: (images, channels, h, w), zero point subtracted.
        weights: (out, in, kh, kw).
        whole: Its sizes.
        pad_left: Columns of padding on the left.
        side: Of the sub-kernels.

    Returns:
        (images, out, out height, out width), cycles, multiplications.
    """
    plan = cut(array, whole, side)
    part = plan.part
    bounds = schedule(array, part, side)
    sums = np.zeros((len(maps), whole.outputs, whole.out_height, whole.out_width), np.int64)
    cycles, multiplications = Fraction(0), 0
    for row in plan.kernel_rows:
        rows = maps
        if part.pad_top != whole.pad_top or part.height != whole.height:  # padding written out
            rows = window(maps, 2, row * whole.dilation[0] - whole.pad_top, part.height)
        for column in plan.columns:
            begin = column * whole.stride[1] - pad_left
            under = part.out_width * whole.stride[1] + whole.span[1] - 1
            real = max(0, begin), min(whole.width, max(0, begin) + part.width)
            strip = rows[:, :, :, real[0] : min(real[1], begin + under)]
            for channel in plan.channels:
                for output in plan.outputs:
                    kernels = weights[
                        output : output + part.outputs,
                        channel : channel + part.channels,
                        row : row + part.kernel[0],
                    ]
                    block = strip[:, channel : channel + part.channels]
                    call = Call(array, part, bounds, block, kernels, real[0] - begin)
                    found = call.run()
                    place = sums[:, output : output + part.outputs, :, column:]
                    place = place[..., : part.out_width]
                    place += found[:, : place.shape[1], :, : place.shape[3]]
                    cycles += call.clock
                    multiplications += call.multiplications
    return sums, cycles, multiplications
