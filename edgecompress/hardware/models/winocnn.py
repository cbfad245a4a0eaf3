"""WinoCNN: a systolic array of Winograd tiles that 3x3 and 1x1 kernels share.

One call computes a dense convolution at stride 1 on ``batch_images`` images; other convolutions
are brought to calls here. Weights travel in a fixed layout of 7 bits, whatever their width in the
file: fewer bits save no bandwidth and no time on this family.

Source: WinoCNN (arXiv 2107.04244) and the published design; see `_winograd`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, Work
from edgecompress.hardware.models._winograd import (
    LINE_CHANNELS,
    Cycles,
    Parameters,
    Shape,
    call_cycles,
    describe,
    row_capacity,
)
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import HostElements, Timeline, aligned, as_cost, ratio_up

GROUPED = "grouped convolution: the array has no groups, so channels are padded per call"
DILATED = "dilated convolution: tap by tap in the 1x1 mode"
UPSAMPLED = "transposed convolution: at stride 1 on the upsampled input"
PRODUCT = "matrix product: run as a 1x1 convolution"
ACTIVATIONS = "product of two activations: one is loaded like weights"
STRIPS = "feature map wider than the input buffer: split in strips"
PARTIAL = "more input channels than the input buffer holds: partial sums are added outside"
UNEVEN = "different strides down and across: the array has one, subsampled separately here"


@dataclass(frozen=True, slots=True)
class Calls:
    """Equal calls that make up one operator."""

    count: int
    shape: Shape
    modes: tuple[int, ...]
    assumed: tuple[str, ...] = ()


class WinoCnn(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator on the best of the mappings that the array has."""
        p = _parameters(target)
        best, calls = min(
            (
                (_cycles(calls, p, target.dram_efficiency_share), calls)
                for calls in _mappings(work, p)
            ),
            key=lambda pair: pair[0].total,
        )
        timeline = Timeline(
            compute=best.compute,
            load=best.load,
            store=best.store,
            fill=best.fill,
            total=best.total,
            macs_per_cycle=p.multipliers,
            weight_bytes=best.weight_words * p.port_bytes_per_cycle,
            activation_bytes=best.activation_words * p.port_bytes_per_cycle,
        )
        return as_cost(work, target, timeline, *calls.assumed, *_split_assumptions(calls.shape, p))

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Multiplications that Winograd cannot save, or the tensors over all ports."""
        p = _parameters(target)
        match work.operator:
            case ConvWork() as conv:
                pixels = conv.batch * conv.out_height * conv.out_width
                macs, values = conv.macs, conv.out_channels * pixels
            case MatMulWork() as product:
                macs, values = product.macs, product.count * product.rows * product.columns
            case ElementWork():
                return 0.0
        saving = (p.omega_pixels - 2) ** 2 * 9 / p.omega_pixels**2
        ports = (p.input_ports + p.output_ports) * p.port_bytes_per_cycle
        return max(macs / (p.multipliers * max(1.0, saving)), values / ports)

    def images_per_pass(self, target: Target) -> int:
        """Images that the array works on together."""
        return _parameters(target).batch_images

    def resources(self, target: Target) -> Resources | None:
        """Not modelled yet."""
        return None

    def chain_bytes(self, target: Target) -> int:
        """Results always go to memory in the published design."""
        return 0


FAMILY = WinoCnn()


def _parameters(target: Target) -> Parameters:
    """The family's numbers of a target."""
    if not isinstance(target.parameters, Parameters):
        raise TypeError(f"{target.name} is not a winocnn target")
    return target.parameters


def _mappings(work: Work, p: Parameters) -> Iterator[Calls]:
    """The ways to run an operator."""
    match work.operator:
        case ConvWork() as conv:
            yield from _conv_mappings(conv, p)
        case MatMulWork() as product:
            yield from _product_mappings(product, p)
        case ElementWork():
            raise TypeError("element-wise work does not run on the array")


def _conv_mappings(conv: ConvWork, p: Parameters) -> Iterator[Calls]:
    """One call per pair of images and per set of groups."""
    assumed = []
    if conv.group > 1:
        assumed.append(GROUPED)
    if conv.transposed:
        assumed.append(UPSAMPLED)
    if max(conv.dilation) > 1:
        assumed.append(DILATED)
    stride = (1, 1) if conv.transposed else conv.stride
    if conv.out_height > 1 and stride[0] != stride[1]:
        assumed.append(UNEVEN)
    grow = conv.stride if conv.transposed else (1, 1)
    inputs, outputs = conv.in_channels // conv.group, conv.out_channels // conv.group
    modes = (1,) if max(conv.dilation) > 1 else (3, 1)
    together = {1, conv.group, min(conv.group, ratio_up(LINE_CHANNELS, inputs))}
    for groups in sorted(together):
        shape = Shape(
            conv.in_height * grow[0],
            conv.in_width * grow[1],
            inputs * groups,
            conv.out_height,
            conv.out_width,
            outputs * groups,
            conv.kernel[0],
            conv.kernel[1],
            stride[0],
            stride[1],
        )
        count = ratio_up(conv.group, groups) * ratio_up(conv.batch, p.batch_images)
        yield Calls(count, shape, modes, tuple(assumed))


def _product_mappings(product: MatMulWork, p: Parameters) -> Iterator[Calls]:
    """Rows laid out as pixels, in a few widths; both images take half of the rows each."""
    pixels = ratio_up(product.rows, p.batch_images)
    assumed = (PRODUCT,) if product.constant else (PRODUCT, ACTIVATIONS)
    tile = p.omega_pixels * p.array_columns
    for width in sorted({min(pixels, tile * tiles) for tiles in (1, 2, 4, 8)}):
        height = ratio_up(pixels, width)
        shape = Shape(height, width, product.inner, height, width, product.columns, 1, 1, 1, 1)
        yield Calls(product.count, shape, (1,), assumed)


def _cycles(calls: Calls, p: Parameters, share: float) -> Cycles:
    """Cycles of all calls in the faster mode."""
    modes = (_split_cycles(calls.shape, mode, p, share) for mode in calls.modes)
    best = min(modes, key=lambda c: c.total)
    return _times(best, calls.count)


def _split_assumptions(shape: Shape, p: Parameters) -> Iterator[str]:
    """What a split of the feature map or of the input channels assumes."""
    part, strips = _strips(shape, p)
    if strips > 1:
        yield STRIPS
    if _channel_parts(part, p)[1] > 1:
        yield PARTIAL


@lru_cache(maxsize=4096)
def _split_cycles(shape: Shape, kernel_rows: int, p: Parameters, share: float) -> Cycles:
    """Cycles of a convolution that is split until each call fits in the buffers."""
    part, count = _strips(shape, p)
    part, more = _channel_parts(part, p)
    count *= more
    part, repeats = _output_parts(part, kernel_rows, p)
    return _times(call_cycles(part, kernel_rows, p, share), count * repeats)


def _strips(shape: Shape, p: Parameters) -> tuple[Shape, int]:
    """Vertical strips narrow enough for the input buffer."""
    if row_capacity(shape.in_width, shape.in_channels, p):
        return shape, 1
    channels = aligned(shape.in_channels, LINE_CHANNELS)
    columns = max(1, p.input_bank_words // 2 // channels) * p.input_bank_columns
    halo = shape.kernel_width - 1
    strips = ratio_up(shape.in_width, max(1, columns - halo))
    if strips == 1:
        return shape, 1
    width = min(shape.in_width, columns)
    return replace(shape, in_width=width, out_width=ratio_up(shape.out_width, strips)), strips


def _channel_parts(shape: Shape, p: Parameters) -> tuple[Shape, int]:
    """Sets of input channels that the input buffer holds."""
    if row_capacity(shape.in_width, shape.in_channels, p):
        return shape, 1
    most = p.input_bank_words // 2 // ratio_up(shape.in_width, p.input_bank_columns)
    most = max(LINE_CHANNELS, most // LINE_CHANNELS * LINE_CHANNELS)
    parts = ratio_up(shape.in_channels, most)
    return replace(shape, in_channels=ratio_up(shape.in_channels, parts)), parts


def _output_parts(shape: Shape, kernel_rows: int, p: Parameters) -> tuple[Shape, int]:
    """Sets of output channels of which the output buffer holds one row of tiles.

    The host software repeats the call in the same case.
    """
    d = describe(shape, kernel_rows, p)
    passes = max(1, p.output_buffer_words // d.tile_columns)
    if d.fo * d.lo <= passes:
        return shape, 1
    unit = max(LINE_CHANNELS, p.array_rows)
    most = max(unit, passes * p.array_rows // unit * unit)
    repeats = ratio_up(shape.out_channels, most)
    return replace(shape, out_channels=aligned(ratio_up(shape.out_channels, repeats), unit)), (
        repeats
    )


def _times(cycles: Cycles, count: int) -> Cycles:
    """The same calls one after the other."""
    if count == 1:
        return cycles
    return Cycles(
        compute=cycles.compute * count,
        load=cycles.load * count,
        store=cycles.store * count,
        fill=cycles.fill * count,
        total=cycles.total * count,
        weight_words=cycles.weight_words * count,
        activation_words=cycles.activation_words * count,
    )
