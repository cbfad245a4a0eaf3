"""Time and energy of one operator on many WinoCNN arrays at once, for explorations.

The same numbers as `winocnn.WinoCnn.price`, worked out for all arrays side by side. It covers the
schedule of the published host software with weights in their fixed slots; the others are priced
one by one.

Source: `_winograd`, `_winograd_split` and `winocnn`, of which this is the form over arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import FloatArray
from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, Work
from edgecompress.hardware.batch_energy import EnergyRates
from edgecompress.hardware.models._winograd import (
    ACTIVATION_BITS,
    LINE_CHANNELS,
    MARGIN,
    Parameters,
    channel_passes,
    port_share,
)
from edgecompress.hardware.target import Target

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def can_batch(target: Target) -> bool:
    """Whether arrays of this kind are covered."""
    p = target.parameters
    return (
        isinstance(p, Parameters)
        and not p.bound_rows_by_output
        and not p.skips_zero_weights
        and target.weight_stream.encoding == "fixed"
    )


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Numbers of all arrays, one entry each; see `Parameters`."""

    omega: Ints
    rows: Ints
    columns: Ints
    depth: Ints
    images: Ints
    bank_words: Ints
    bank_columns: Ints
    weight_words: Ints
    output_words: Ints
    weight_ports: Ints
    input_ports: Ints
    output_ports: Ints
    port_bytes: Ints
    fill: Ints
    slot_bits: Ints
    widest_kernel: Ints
    share: FloatArray
    transformed_input_bits: Ints
    transformed_weight_bits: Ints
    accumulator_bits: Ints


@dataclass(frozen=True, slots=True)
class _Shapes:
    """A convolution as each array sees it; see `_winograd.Shape`."""

    in_height: Ints
    in_width: Ints
    in_channels: Ints
    out_height: Ints
    out_width: Ints
    out_channels: Ints
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]


class ArrayBatch:
    """WinoCNN arrays side by side.

    Args:
        targets: All with `can_batch`, and with the same kernels.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        found = [one.parameters for one in targets if isinstance(one.parameters, Parameters)]
        if len(found) < len(targets) or len({p.kernels for p in found}) > 1:
            raise TypeError("not all are WinoCNN targets of the same kernels")
        self.kernels = found[0].kernels

        def column(name: str) -> Ints:
            return np.array([getattr(p, name) for p in found], dtype=np.int64)

        self._size = len(found)
        self._clock = np.array([one.clock_hz for one in targets])
        self._overhead = np.array([one.operator_overhead_s for one in targets])
        self._a = _Arrays(
            omega=column("omega_pixels"),
            rows=column("array_rows"),
            columns=column("array_columns"),
            depth=column("channels_per_element"),
            images=column("batch_images"),
            bank_words=column("input_bank_words"),
            bank_columns=column("input_bank_columns"),
            weight_words=column("weight_buffer_words"),
            output_words=column("output_buffer_words"),
            weight_ports=column("weight_ports"),
            input_ports=column("input_ports"),
            output_ports=column("output_ports"),
            port_bytes=column("port_bytes_per_cycle"),
            fill=column("fill_cycles"),
            slot_bits=np.array([one.weight_stream.weight_bits for one in targets]),
            widest_kernel=np.array([p.kernels[-1] for p in found]),
            share=np.array([port_share(one, p) for one, p in zip(targets, found, strict=True)]),
            transformed_input_bits=column("transformed_input_bits"),
            transformed_weight_bits=column("transformed_weight_bits"),
            accumulator_bits=column("accumulator_bits"),
        )
        self._rates = EnergyRates(targets)
        self._macs_pj = np.full(self._size, np.nan)

    def figures(self, work: Work) -> tuple[FloatArray, FloatArray]:
        """Time and energy of a convolution or a product on every array."""
        if isinstance(work.operator, ElementWork) or not work.operator.macs:
            return np.zeros(self._size), self._rates.nothing()
        self._macs_pj = self._rates.multiplication_pj(work)
        best, dynamic = np.full((2, self._size), np.inf)
        held = np.zeros(self._size, dtype=bool)
        for count, shapes, modes in self._mappings(work):
            for mode in modes:
                total, picojoules, fits = self._split_cycles(shapes, mode, count)
                better = (fits & ~held) | ((fits == held) & (total < best))
                best, held = np.where(better, total, best), np.where(better, fits, held)
                dynamic = np.where(better, picojoules, dynamic)
        overhead = self._overhead * self._clock
        seconds = np.asarray((best + overhead) / self._clock)
        return seconds, np.asarray(dynamic + self._rates.static_w * 1e12 * seconds)

    def _mappings(self, work: Work) -> Iterator[tuple[Ints, _Shapes, tuple[int, ...]]]:
        match work.operator:
            case ConvWork() as conv:
                yield from self._convolutions(conv)
            case MatMulWork() as product:
                yield from self._products(product)
            case ElementWork():
                raise TypeError("element-wise work does not run on the array")

    def _convolutions(self, conv: ConvWork) -> Iterator[tuple[Ints, _Shapes, tuple[int, ...]]]:
        stride = (1, 1) if conv.transposed else conv.stride
        grow = conv.stride if conv.transposed else (1, 1)
        inputs, outputs = conv.in_channels // conv.group, conv.out_channels // conv.group
        modes = (1,) if max(conv.dilation) > 1 else tuple(reversed(self.kernels))
        for groups in sorted({1, conv.group, min(conv.group, -(-LINE_CHANNELS // inputs))}):
            shapes = _Shapes(
                in_height=self._all(conv.in_height * grow[0]),
                in_width=self._all(conv.in_width * grow[1]),
                in_channels=self._all(inputs * groups),
                out_height=self._all(conv.out_height),
                out_width=self._all(conv.out_width),
                out_channels=self._all(outputs * groups),
                kernel=conv.kernel,
                stride=stride,
                dilation=conv.dilation,
            )
            calls = -(-conv.group // groups) * _up(self._all(conv.batch), self._a.images)
            yield calls, shapes, modes

    def _products(self, product: MatMulWork) -> Iterator[tuple[Ints, _Shapes, tuple[int, ...]]]:
        pixels = _up(self._all(product.rows), self._a.images)
        tile = self._a.omega * self._a.columns
        for tiles in (1, 2, 4, 8):
            width = np.minimum(pixels, tile * tiles)
            height = _up(pixels, width)
            shapes = _Shapes(
                in_height=height,
                in_width=width,
                in_channels=self._all(product.inner),
                out_height=height,
                out_width=width,
                out_channels=self._all(product.columns),
                kernel=(1, 1),
                stride=(1, 1),
                dilation=(1, 1),
            )
            yield self._all(product.count), shapes, (1,)

    def _all(self, value: int) -> Ints:
        return np.full(self._size, value, dtype=np.int64)

    def _split_cycles(
        self, shapes: _Shapes, mode: int, count: Ints
    ) -> tuple[FloatArray, FloatArray, Bools]:
        """Cycles and picojoules of so many convolutions cut into calls that the buffers hold."""
        tile = self._a.omega + 1 - mode
        part, strips = self._strips(shapes, tile)
        part, sets = self._channel_parts(part)
        part, repeats = self._output_parts(part, tile)
        outputs = _up(_aligned(part.out_channels), self._a.rows)
        fits = self._fits(part.in_width, part.in_channels)
        fits &= self._tile_columns(part, tile) * outputs <= self._a.output_words
        cycles, picojoules = self._call_cycles(part, mode, tile)
        calls = count * (strips * sets * repeats)
        return cycles * calls, picojoules * calls, fits

    def _capacity(self, width: Ints, channels: Ints) -> Ints:
        words = _up(width, self._a.bank_columns) * _aligned(channels)
        held = np.where(words <= self._a.bank_words // 2, 16, 0)
        return np.where(words <= self._a.bank_words // 4, 32, held)

    def _fits(self, width: Ints, channels: Ints) -> Bools:
        fits: Bools = self._capacity(width, channels) > 0
        return fits

    def _tile_columns(self, shapes: _Shapes, tile: Ints) -> Ints:
        return _up(shapes.out_width * shapes.stride[1], tile * self._a.columns)

    def _strips(self, shapes: _Shapes, tile: Ints) -> tuple[_Shapes, Ints]:
        """The fewest strips that fit, else the fewest of which the results fit, else one."""
        narrowest = np.maximum(1, tile * self._a.columns // shapes.stride[1])
        most = _up(shapes.out_width, narrowest)
        span = (shapes.kernel[1] - 1) * shapes.dilation[1] + 1
        least = _up(self._all(LINE_CHANNELS), self._a.rows)
        width, inner = shapes.out_width.copy(), shapes.in_width.copy()
        decided, noted = np.zeros((2, self._size), dtype=bool)
        for strips in range(1, int(most.max()) + 1):
            open_ = ~decided & (strips <= most)
            if not open_.any():
                break
            out = _up(shapes.out_width, self._all(strips))
            under = np.minimum(shapes.in_width, out * shapes.stride[1] + span - 1)
            entering = shapes.in_width if strips == 1 else under
            columns = _up(out * shapes.stride[1], tile * self._a.columns)
            row_fits = open_ & (columns * least <= self._a.output_words)
            whole = row_fits & self._fits(entering, shapes.in_channels)
            taken = whole | (row_fits & ~noted)
            width, inner = np.where(taken, out, width), np.where(taken, entering, inner)
            decided, noted = decided | whole, noted | row_fits
        part = replace(shapes, in_width=inner, out_width=width)
        return part, _up(shapes.out_width, width)

    def _channel_parts(self, shapes: _Shapes) -> tuple[_Shapes, Ints]:
        """The fewest sets of input channels that fit, else sets of one memory line."""
        channels = shapes.in_channels
        decided = self._fits(shapes.in_width, channels)
        most = _up(channels, self._all(LINE_CHANNELS))
        found = np.where(decided, channels, np.minimum(channels, LINE_CHANNELS))
        for parts in range(2, int(most.max()) + 1):
            if decided.all():
                break
            each = _up(channels, self._all(parts))
            taken = ~decided & (parts <= most) & self._fits(shapes.in_width, each)
            found, decided = np.where(taken, each, found), decided | taken
        return replace(shapes, in_channels=found), _up(channels, found)

    def _output_parts(self, shapes: _Shapes, tile: Ints) -> tuple[_Shapes, Ints]:
        """Sets of output channels of which the output buffer holds one row of tiles."""
        a, channels = self._a, shapes.out_channels
        passes = np.maximum(1, a.output_words // self._tile_columns(shapes, tile))
        whole = _up(_aligned(channels), a.rows) <= passes
        unit = np.maximum(LINE_CHANNELS, a.rows)
        most = np.maximum(unit, passes * a.rows // unit * unit)
        each = _up(_up(channels, _up(channels, most)), unit) * unit
        each = np.where(whole, channels, each)
        return replace(shapes, out_channels=each), np.where(whole, 1, _up(channels, each))

    def _call_cycles(self, shapes: _Shapes, mode: int, tile: Ints) -> tuple[FloatArray, FloatArray]:
        """Cycles of one call as `published_cycles` has them, and its picojoules of events."""
        a = self._a
        in_passes = _up(_aligned(shapes.in_channels), a.depth)
        out_passes = _up(_aligned(shapes.out_channels), a.rows)
        columns = self._tile_columns(shapes, tile)
        fi, fo = _channel_passes(in_passes, out_passes, a.weight_words // 2)
        loads = (in_passes // fi) * (out_passes // fo)
        step = self._row_step(shapes, mode, tile, columns, out_passes)
        tiles = step // tile * columns
        burst = self._burst_words(mode) * fi * fo
        feed = loads * np.maximum(burst, fi * fo * tiles)
        swept = loads * fi * tiles * np.maximum(fo, a.depth)
        passes = -(-shapes.kernel[0] // mode) * -(-shapes.kernel[1] // mode)
        busy = passes * np.maximum(swept, feed)
        weights = passes * loads * burst
        row_bits = _aligned(shapes.in_channels) * _aligned(shapes.in_width)
        row_words = _up(row_bits * a.images * ACTIVATION_BITS, 8 * a.port_bytes)
        loaded = 2 * _up(step, 2 * a.input_ports) * row_words
        pixels = _aligned(shapes.out_width) * _aligned(shapes.out_channels)
        out_words = _up(pixels * a.images * ACTIVATION_BITS, 8 * a.port_bytes)
        stored = _up(step, a.output_ports) * out_words
        first_rows = np.minimum(step + mode - 1, shapes.in_height)
        first = 2 * _up(first_rows, 2 * a.input_ports) * row_words
        ends = (first + burst + stored) / a.share
        port = (np.maximum(loaded, stored) + weights) / a.share
        longest = np.maximum(busy + passes * a.fill, port)
        covered = np.minimum(step, step // tile * tile)
        steps = _up(shapes.out_height * shapes.stride[0], covered)
        weight_words = a.weight_ports * (steps * weights + burst)
        words = a.input_ports * (first + steps * loaded) + a.output_ports * (steps + 1) * stored
        fed = steps * passes * loads * fi * tiles * a.depth
        spent = self._picojoules(tile, steps * passes * swept, fed, weight_words + words)
        return np.asarray(ends + steps * longest), spent

    def _picojoules(self, tile: Ints, swept: Ints, fed: Ints, words: Ints) -> FloatArray:
        """Of a call but for what is always drawn; see `winocnn._buffer_bytes`."""
        a, rates = self._a, self._rates
        maps, cells = a.columns * a.images, a.omega**2
        weights = a.rows * a.depth * cells * a.transformed_weight_bits
        sums = 2 * a.rows * maps * tile**2 * a.accumulator_bits
        bits = swept * (weights + sums) + fed * maps * cells * ACTIVATION_BITS
        moved = words * a.port_bytes
        products = a.transformed_input_bits * a.transformed_weight_bits
        multiplied = swept * cells * a.depth * a.rows * maps * products
        spent = multiplied * self._macs_pj + (bits / 8 + moved) * rates.on_chip_pj_per_byte
        return np.asarray(spent + moved * rates.dram_pj_per_byte)

    def _row_step(
        self, shapes: _Shapes, mode: int, tile: Ints, columns: Ints, out_passes: Ints
    ) -> Ints:
        a = self._a
        bursts = MARGIN[0] * _up(a.omega**2 * a.depth, a.port_bytes) * _up(a.rows, a.weight_ports)
        expected = tile * _up(bursts, MARGIN[1] * columns)
        capacity = self._capacity(shapes.in_width, shapes.in_channels)
        by_output = a.output_words // (out_passes * columns) * tile
        limit = np.minimum((capacity + 1 - mode) // 2 // tile * tile, by_output)
        whole = _up(shapes.out_height * shapes.stride[0], a.omega) * a.omega
        step = np.where(shapes.in_height <= capacity, whole, np.maximum(tile, limit))
        return np.where(expected <= limit, expected, step)

    def _burst_words(self, mode: int) -> Ints:
        """Words of a weight port for the array's weights of one pass."""
        a = self._a
        slot = np.maximum(mode, np.minimum(3, a.widest_kernel))
        kernel_bits = slot**2 * a.slot_bits
        together = 8 * a.port_bytes // kernel_bits
        shared = _up(a.depth, np.maximum(1, together))
        alone = a.depth * _up(kernel_bits, 8 * a.port_bytes)
        return _up(a.rows, a.weight_ports) * np.where(together > 0, shared, alone)


def _up(amount: Ints, unit: Ints) -> Ints:
    return -(-amount // unit)


def _aligned(amount: Ints) -> Ints:
    return -(-amount // LINE_CHANNELS) * LINE_CHANNELS


def _channel_passes(inputs: Ints, outputs: Ints, capacity: Ints) -> tuple[Ints, Ints]:
    """`channel_passes` for every array, each different case once."""
    cases, place = np.unique(np.stack([inputs, outputs, capacity]), axis=1, return_inverse=True)
    pairs = np.array([channel_passes(int(i), int(o), int(c)) for i, o, c in cases.T])
    found = pairs[place.reshape(-1)]
    return found[:, 0], found[:, 1]
