"""WinoCNN: a systolic array of Winograd tiles that kernels of several sizes share.

One call computes a dense convolution at stride 1 on ``batch_images`` images; other convolutions
are brought to calls here, in the fastest of the modes that the array has: its own kernel sizes,
of which larger kernels are summed up.

Fewer weight bits bring no faster arithmetic on this family, whatever the encoding: the transform
of a kernel widens its weights (by 10 bits for 3x3 kernels in tiles of 6), and every multiplier does
one product of transformed values a cycle. In the published design they save no bandwidth either,
as weights travel in slots of 7 bits; a coded weight stream saves bandwidth. `WinoCnn.notes` says
so.

Zeros among the transformed weights can be left out by an array that has ``skips_zero_weights``
(the idea of Winols, TACO 2024); their share has to be measured on the weights, else nothing is
saved.

The energy of multiplications is that of the multipliers, not of the operator, and counted in
products of two bits, as transformed values are wider than the operator's: in a cycle that sweeps a
tile all multipliers are taken to switch, whether a layer fills them or not; what waits does not.

Source: WinoCNN (arXiv 2107.04244) and the published design; see `_winograd`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from edgecompress.core.winograd import transforms
from edgecompress.core.work import (
    ConvWork,
    Cost,
    ElementWork,
    MatMulWork,
    WeightValues,
    Work,
)
from edgecompress.hardware.families import Batch
from edgecompress.hardware.models._winograd import (
    ACTIVATION_BITS,
    LINE_CHANNELS,
    Parameters,
    Shape,
    WeightRate,
    port_share,
)
from edgecompress.hardware.models._winograd_batch import ArrayBatch, can_batch
from edgecompress.hardware.models._winograd_machine import call_cycles
from edgecompress.hardware.models._winograd_published import Cycles
from edgecompress.hardware.models._winograd_resources import resources
from edgecompress.hardware.models._winograd_split import split
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import HostElements, Timeline, as_cost, ratio_up
from edgecompress.hardware.weight_stream import weight_traffic

GROUPED = "grouped convolution: the array has no groups, so channels are padded per call"
DILATED = "dilated convolution: tap by tap in the 1x1 mode"
UPSAMPLED = "transposed convolution: at stride 1 on the upsampled input"
PRODUCT = "matrix product: run as a 1x1 convolution"
ACTIVATIONS = "product of two activations: one is loaded like weights"
UNEVEN = "different strides down and across: the array has one, subsampled separately here"
UNSKIPPED = "zeros of the transformed weights are not measured for this kernel: none is skipped"


@dataclass(frozen=True, slots=True)
class Calls:
    """Equal convolutions that make up one operator."""

    count: int
    shape: Shape
    modes: tuple[int, ...]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Priced:
    """An operator in one mode, and whether the buffers hold it."""

    cycles: Cycles
    mode: int
    held: bool
    assumed: tuple[str, ...]


class WinoCnn(HostElements):
    """The cost model; see the module."""

    parameters = Parameters

    def price(self, work: Work, target: Target) -> Cost:
        """Time of one operator on the best of the mappings and modes that the array has."""
        p = _parameters(target)
        rate, assumed = _weight_rate(work, target, p)
        best = min(
            _priced(work, target, p, rate),
            key=lambda priced: (not priced.held, priced.cycles.total),
        )
        cycles = best.cycles
        timeline = Timeline(
            compute=cycles.compute,
            load=cycles.load,
            store=cycles.store,
            decode=cycles.decode,
            fill=cycles.fill,
            total=cycles.total,
            macs_per_cycle=p.multipliers,
            weight_bytes=cycles.weight_words * p.port_bytes_per_cycle,
            activation_bytes=cycles.activation_words * p.port_bytes_per_cycle,
            buffer_bytes=_buffer_bytes(best, p),
            multiplications=_binary_products(best, p),
        )
        if p.skips_zero_weights and best.mode not in dict(rate.zero_shares):
            assumed = (*assumed, UNSKIPPED)
        return as_cost(work, target, timeline, *best.assumed, *assumed)

    def bound_cycles(self, work: Work, target: Target) -> float:
        """Multiplications that Winograd cannot save, or the results over all ports."""
        p = _parameters(target)
        match work.operator:
            case ConvWork() as conv:
                pixels = conv.batch * conv.out_height * conv.out_width
                macs, values = conv.macs, conv.out_channels * pixels
            case MatMulWork() as product:
                macs, values = product.macs, product.count * product.rows * product.columns
            case ElementWork():
                return 0.0
        rate, _ = _weight_rate(work, target, p)
        omega = p.omega_pixels
        fewest = min(
            (omega / ((omega + 1 - side) * side)) ** 2 * (1 - zeros * p.skipped_share)
            for side, zeros in (dict.fromkeys(p.kernels, 0.0) | dict(rate.zero_shares)).items()
        )
        ports = (p.input_ports + p.output_ports) * p.port_bytes_per_cycle
        return max(macs * min(1.0, fewest) / p.multipliers, values / ports)

    def images_per_pass(self, target: Target) -> int:
        """Images that the array works on together."""
        return _parameters(target).batch_images

    def resources(self, target: Target) -> Resources | None:
        """Blocks of the whole design; see `_winograd_resources`."""
        return resources(_parameters(target), target.weight_stream.weight_bits)

    def batch(self, targets: Sequence[Target]) -> Batch | None:
        """Arrays of the published schedule side by side, for explorations."""
        kernels = {_parameters(target).kernels for target in targets}
        if len(kernels) > 1 or not all(map(can_batch, targets)):
            return None
        return ArrayBatch(targets)

    def chain_bytes(self, target: Target) -> int:
        """Results always go to memory in the published design."""
        return 0

    def weight_values(self, target: Target) -> WeightValues:
        """Zeros of the Winograd domain, where the array leaves them out."""
        return "winograd" if _parameters(target).skips_zero_weights else "none"

    def notes(self, work: Work, target: Target) -> tuple[str, ...]:
        """What a reader should know about an operator that changes no figure.

        That low-bit weights bring no faster arithmetic, and that transformed weights are cut to
        what the multiplier takes.
        """
        operator = work.operator
        if not isinstance(operator, ConvWork):
            return ()
        p = _parameters(target)
        side = max(mode for mode in p.kernels if mode == 1 or mode <= max(operator.kernel))
        bits = min(operator.weight_bits, target.weight_stream.weight_bits)
        width = transformed_weight_bits(bits, p.omega_pixels, side)
        found = []
        if operator.weight_bits < target.weight_stream.weight_bits:
            found.append(
                f"{bits}-bit weights take no fewer cycles: in the Winograd domain they are"
                f" {width} bits wide, and a multiplier does one product a cycle"
            )
        if width > p.transformed_weight_bits:
            found.append(
                f"transformed weights of {width} bits are cut to the {p.transformed_weight_bits}"
                " bits of the multipliers: results are not exact"
            )
        return tuple(found)


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
    modes = (1,) if max(conv.dilation) > 1 else tuple(reversed(p.kernels))
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
            0 if conv.transposed else conv.pads[0],
            conv.dilation[0],
            conv.dilation[1],
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


def _priced(work: Work, target: Target, p: Parameters, rate: WeightRate) -> Iterator[Priced]:
    """The operator in every mapping and mode."""
    share = port_share(target, p)
    for calls in _mappings(work, p):
        for mode in calls.modes:
            cut = split(calls.shape, mode, p)
            cycles = call_cycles(cut.shape, mode, p, share, rate).times(calls.count * cut.count)
            yield Priced(cycles, mode, cut.held, (*calls.assumed, *cut.assumed))


def _binary_products(priced: Priced, p: Parameters) -> int:
    """Products of two bits that the multipliers do."""
    bits = p.transformed_input_bits * p.transformed_weight_bits
    return p.multipliers * priced.cycles.swept * bits


def _buffer_bytes(priced: Priced, p: Parameters) -> float:
    """Read from and written to the buffers.

    What is moved over the ports is written or read once. Of the array: the weights of all its rows
    in every cycle of a sweep, one input channel of a tile in every cycle that feeds, and the
    results of a tile, which are added to what the output buffer has.
    """
    cycles, tile = priced.cycles, p.omega_pixels + 1 - priced.mode
    maps = p.array_columns * p.batch_images
    weights = p.array_rows * p.channels_per_element * p.omega_pixels**2 * p.transformed_weight_bits
    sums = 2 * p.array_rows * maps * tile**2 * p.accumulator_bits
    inputs = maps * p.omega_pixels**2 * ACTIVATION_BITS
    bits = cycles.swept * (weights + sums) + cycles.fed * inputs
    words = cycles.weight_words + cycles.activation_words
    return bits / 8 + words * p.port_bytes_per_cycle


def _weight_rate(work: Work, target: Target, p: Parameters) -> tuple[WeightRate, tuple[str, ...]]:
    """How the weights of an operator come in, and what that assumes."""
    stream = target.weight_stream
    zeros = _zero_shares(work, p) if p.skips_zero_weights else ()
    if stream.encoding == "fixed":
        return WeightRate(slot_bits=stream.weight_bits, zero_shares=zeros), ()
    traffic = weight_traffic(work, target)
    rate = WeightRate(
        slot_bits=stream.weight_bits,
        coded_bits=8 * traffic.byte_count / traffic.elements,
        decoder_weights_per_cycle=stream.decoder_weights_per_cycle,
        zero_shares=zeros,
    )
    return rate, (traffic.assumed,)


def _zero_shares(work: Work, p: Parameters) -> tuple[tuple[int, float], ...]:
    """(kernel side, measured share of zeros) of the modes that take the weights as they are."""
    if work.weights is None:
        return ()
    found = [(1, work.weights.zero_share)]
    kernel = work.operator.kernel if isinstance(work.operator, ConvWork) else (1, 1)
    share = dict(work.weights.winograd_zero_shares).get(p.omega_pixels)
    if share is not None and kernel[0] > 1 and kernel[0] in p.kernels:
        found.append((kernel[0], share))
    return tuple(found)


def transformed_weight_bits(weight_bits: int, omega: int, kernel: int) -> int:
    """Width that holds every transformed kernel exactly; kernels of 1 are not transformed.

    The largest row of G adds its bits twice. Source: arithmetic on `core.winograd`; the published
    design counts 7 + 2 x 5 bits for 3x3 kernels in tiles of 6.
    """
    if kernel == 1:
        return weight_bits
    growth = int(np.abs(transforms(omega, kernel).kernel).sum(axis=1).max())
    return weight_bits + ceil(2 * log2(growth))
