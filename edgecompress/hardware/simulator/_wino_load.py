"""The shape of a WinoCNN tile, and how a convolution is cut into its loops and laid in its buffers.

Source: WinoCNN (arXiv 2107.04244) and its published design for the order of the loops, the buffers
and for kernels that are made of sub-kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.core.errors import Unsupported
from edgecompress.core.winograd import IntArray
from edgecompress.hardware.simulator.layers import IntegerConv
from edgecompress.hardware.simulator.wino_element import KERNEL, Datapath

ADDRESS_BITS = 16
CELL_STAGES = 6  # weight read, weight transform, operands, products, sums, results


@dataclass(frozen=True, slots=True, kw_only=True)
class WinoTile:
    """The machine; see `wino_tile`.

    Attributes:
        datapath: Of a cell.
        rows, columns: Output channels and tiles of an image worked on together.
        images: Images worked on together.
        input_words: Depth of an input bank; there is a bank for each (row, column) of a window.
        kernel_words: Depth of the weight buffer of a row.
        load_words: Most weight words of one load, as the loops are ordered (fi x fo).
        output_words: Depth of a cell's output buffer.
    """

    datapath: Datapath
    rows: int
    columns: int
    images: int = 1
    input_words: int = 1024
    kernel_words: int = 1024
    load_words: int = 512
    output_words: int = 256

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.images) < 1:
            raise ValueError("rows, columns and images must be positive")
        if self.datapath.channels < 2:
            raise ValueError("the output buffer is read and written at two channels or more")
        for words in (self.input_words, self.kernel_words, self.output_words):
            if not 2 <= words <= 1 << ADDRESS_BITS:
                raise ValueError(f"a buffer of {words} words: addresses have {ADDRESS_BITS} bits")

    @property
    def bank_rows(self) -> int:
        """Banks down: a power of two that holds a window."""
        return _power_of_two(self.datapath.omega)

    @property
    def bank_columns(self) -> int:
        """Banks across: a power of two that holds the windows of all columns of an image."""
        return _power_of_two(self.datapath.omega * self.columns)

    @property
    def drain_cycles(self) -> int:
        """From the end of the loops until the last cell has added its results."""
        return CELL_STAGES + self.rows - 1 + self.columns * self.images - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """One convolution as the control runs it.

    Attributes:
        kernel: 3 or 1: side of the sub-kernels.
        passes_down, passes_across: Sub-kernels that make up the kernel.
        step_down, step_across: Distance of neighbouring sub-kernels in the input.
        lo, li, fi, tr, tc, fo: Loop bounds, outermost first: loads over the output and the input
            channels, channel passes, tile rows, tile columns, output passes.
        out_channels, out_height, out_width: What is stored of the results.
        stride_down, stride_across: Results are computed at stride 1 and only these are stored.
    """

    kernel: int
    passes_down: int
    passes_across: int
    step_down: int
    step_across: int
    lo: int
    li: int
    fi: int
    tr: int
    tc: int
    fo: int
    out_channels: int
    out_height: int
    out_width: int
    stride_down: int
    stride_across: int

    @property
    def passes(self) -> int:
        """Sub-kernels."""
        return self.passes_down * self.passes_across

    @property
    def steps(self) -> int:
        """Input tiles of Q channels that are held, one after the other."""
        return self.passes * self.lo * self.li * self.fi * self.tr * self.tc


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A convolution in the buffers of the machine.

    Attributes:
        loops: Its loops.
        inputs: (images, channels, rows, columns): signed codes, all that windows touch.
        kernels: (words, rows of the grid, Q, k, k), in the order in which they are read.
        correction: (out,) that is subtracted from the results, in units of input x weight.
    """

    loops: Loops
    inputs: IntArray
    kernels: IntArray
    correction: IntArray


def why_not(tile: WinoTile, layer: IntegerConv, kernel: int | None = None) -> str | None:
    """Why the machine cannot run a layer, or None."""
    if reason := _unfit(tile, layer):
        return reason
    if kernel is not None and kernel not in _modes(layer):
        return f"dilation {layer.dilation} with sub-kernels of {kernel}"
    modes = _modes(layer) if kernel is None else (kernel,)
    reasons = [_too_large(tile, layer, plan(tile, layer, mode)) for mode in modes]
    return None if None in reasons else reasons[0]


def _unfit(tile: WinoTile, layer: IntegerConv) -> str | None:
    """What the datapath cannot do, whatever the buffers hold."""
    d = tile.datapath
    if not layer.inputs.size:
        return "no input at all"
    if layer.group != 1:
        return f"grouped convolution (group={layer.group})"
    if layer.input_bits > d.input_bits or layer.weight_bits > d.kernel_bits:
        return f"{layer.input_bits} x {layer.weight_bits} bits on {d.input_bits} x {d.kernel_bits}"
    if max(layer.stride) > d.outputs(KERNEL):
        return f"stride {max(layer.stride)} of a tile of {d.outputs(KERNEL)} outputs"
    if d.truncation is None:
        largest = int(np.abs(layer.weights).sum(axis=(1, 2, 3)).max()) << (layer.input_bits - 1)
        if largest >= 1 << (d.output_bits - 1):
            return f"sums up to {largest} do not fit in {d.output_bits} bits"
    return None


def _too_large(tile: WinoTile, layer: IntegerConv, loops: Loops) -> str | None:
    """Which buffer does not hold the layer."""
    rows, columns = _extent(tile, loops)
    sets = -(-rows // tile.bank_rows) * -(-columns // tile.bank_columns)
    needs = (
        ("input", loops.li * loops.fi * tile.datapath.channels * sets, tile.input_words),
        ("weight", loops.passes * loops.lo * loops.li * loops.fi * loops.fo, tile.kernel_words),
        ("output", loops.lo * loops.tr * loops.tc * loops.fo, tile.output_words),
    )
    for name, needed, held in needs:
        if needed > held:
            return f"{name} buffer: {needed} words, it holds {held}"
    return None


def _modes(layer: IntegerConv) -> tuple[int, ...]:
    """Sub-kernels that can make up the kernel: taps further apart are single ones."""
    return (KERNEL, 1) if max(layer.dilation) == 1 else (1,)


def plan(tile: WinoTile, layer: IntegerConv, kernel: int) -> Loops:
    """The loops of a convolution whose sub-kernels have a side of ``kernel`` (3 or 1)."""
    outputs, channels, *size = layer.weights.shape
    height, width = layer.inputs.shape[2:]
    top, left, bottom, right = layer.pads
    pixels = (height + top + bottom, width + left + right)
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    out_height = (pixels[0] - (size[0] - 1) * dy - 1) // sy + 1
    out_width = (pixels[1] - (size[1] - 1) * dx - 1) // sx + 1
    side = tile.datapath.outputs(kernel)
    inputs_passes = -(-channels // tile.datapath.channels)
    output_passes = -(-outputs // tile.rows)
    fi, fo = _load_shape(inputs_passes, output_passes, tile.load_words)
    return Loops(
        kernel=kernel,
        passes_down=-(-size[0] // kernel),
        passes_across=-(-size[1] // kernel),
        step_down=kernel * dy,
        step_across=kernel * dx,
        lo=output_passes // fo,
        li=inputs_passes // fi,
        fi=fi,
        tr=-(-out_height * sy // side),
        tc=-(-out_width * sx // (side * tile.columns)),
        fo=fo,
        out_channels=outputs,
        out_height=out_height,
        out_width=out_width,
        stride_down=sy,
        stride_across=sx,
    )


def _load_shape(inputs: int, outputs: int, words: int) -> tuple[int, int]:
    """(fi, fo) of one weight load: as many words as fit, of equals with the larger fo."""
    best = (1, 1)
    for fi in range(1, inputs + 1):
        for fo in range(1, outputs + 1):
            whole = inputs % fi == 0 and outputs % fo == 0 and fi * fo <= words
            if whole and (fi * fo, fo) > (best[0] * best[1], best[1]):
                best = (fi, fo)
    return best


def _extent(tile: WinoTile, loops: Loops) -> tuple[int, int]:
    """Input rows and columns that windows touch."""
    side, omega = tile.datapath.outputs(loops.kernel), tile.datapath.omega
    down = (loops.passes_down - 1) * loops.step_down + (loops.tr - 1) * side + omega
    tiles = loops.tc * tile.columns
    return down, (loops.passes_across - 1) * loops.step_across + (tiles - 1) * side + omega


def load(tile: WinoTile, layer: IntegerConv, kernel: int | None = None) -> Loaded:
    """Bring a layer of at most ``images`` images into the buffers.

    Raises:
        Unsupported: The machine cannot run it.
    """
    if reason := why_not(tile, layer, kernel):
        raise Unsupported(f"the WinoCNN tile cannot run the layer: {reason}")
    if layer.inputs.shape[0] > tile.images:
        raise Unsupported(f"{layer.inputs.shape[0]} images; the WinoCNN tile takes {tile.images}")
    modes = _modes(layer) if kernel is None else (kernel,)
    plans = [plan(tile, layer, mode) for mode in modes]
    fitting = [loops for loops in plans if _too_large(tile, layer, loops) is None]
    loops = min(
        fitting, key=lambda one: (one.steps * max(one.fo, tile.datapath.channels), one.kernel)
    )
    offset = 0 if layer.input_signed else 1 << (layer.input_bits - 1)
    zero = layer.zero_point - offset
    rows, columns = _extent(tile, loops)
    deep = loops.li * loops.fi * tile.datapath.channels
    inputs = np.full((tile.images, deep, rows, columns), zero, dtype=np.int64)
    count, channels, height, width = layer.inputs.shape
    top, left = layer.pads[:2]
    here = layer.inputs[:, :, : rows - top, : columns - left] - offset
    height, width = here.shape[2:]
    inputs[:count, :channels, top : top + height, left : left + width] = here
    return Loaded(
        loops=loops,
        inputs=inputs,
        kernels=_kernel_words(tile, layer.weights, loops),
        correction=zero * layer.weights.sum(axis=(1, 2, 3)),
    )


def _kernel_words(tile: WinoTile, weights: IntArray, loops: Loops) -> IntArray:
    """Weights in the order in which they are read: passes, lo, li x fi, fo."""
    outputs, channels, height, width = weights.shape
    q, k = tile.datapath.channels, loops.kernel
    deep, wide = loops.li * loops.fi, loops.lo * loops.fo
    padded = np.zeros(
        (wide * tile.rows, deep * q, loops.passes_down * k, loops.passes_across * k), np.int64
    )
    padded[:outputs, :channels, :height, :width] = weights
    split = padded.reshape(
        loops.lo, loops.fo, tile.rows, deep, q, loops.passes_down, k, loops.passes_across, k
    )
    return split.transpose(5, 7, 0, 3, 1, 2, 4, 6, 8).reshape(-1, tile.rows, q, k, k)


def _power_of_two(number: int) -> int:
    """The smallest one that is not less."""
    return 1 << (number - 1).bit_length()
