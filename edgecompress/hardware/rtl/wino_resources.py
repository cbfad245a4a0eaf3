"""Look-up tables and DSP blocks of a generated Winograd element, by closed form.

A DSP block for each multiplier. An addition takes a look-up table for each bit, and so does a
choice between two words: the bits are counted from the transforms and the widths, and what Yosys
makes of them is fitted, one number for exact hardware and one for truncation with saturation.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.winograd import transforms
from edgecompress.hardware.resources import Resources, bram18_blocks
from edgecompress.hardware.rtl._wino_datapath import division_shifts, held_bits, result_bits
from edgecompress.hardware.rtl._wino_linear import Network, network
from edgecompress.hardware.simulator.wino_element import KERNEL, Datapath
from edgecompress.hardware.simulator.wino_tile import WinoTile


@dataclass(frozen=True, slots=True, kw_only=True)
class AdderBits:
    """Bits of the additions and of the choices of a processing element.

    Attributes:
        exact: Transforms, sums, accumulators, and the division of exact results.
        truncating: Accumulators that cut and saturate.
    """

    exact: int
    truncating: int


def adder_bits(datapath: Datapath) -> AdderBits:
    """Counted from the transforms and the widths."""
    exact = datapath.channels * (_input_bits(datapath) + _kernel_bits(datapath))
    exact += _sum_bits(datapath)
    if datapath.truncation is not None:
        return AdderBits(exact=exact, truncating=_saturation_bits(datapath))
    held = datapath.omega**2 * held_bits(datapath)
    return AdderBits(exact=exact + held + _division_bits(datapath), truncating=0)


def _input_bits(d: Datapath) -> int:
    """One tile: down, across, and the choice between the modes."""
    net = network(transforms(d.omega, KERNEL).input)
    return _both_sides(net, d.omega, d.input_bits, d.value_full_bits) + d.omega**2 * d.value_bits


def _kernel_bits(d: Datapath) -> int:
    """One kernel: down, across, and the choice between the modes."""
    net = network(transforms(d.omega, KERNEL).kernel)
    return _both_sides(net, KERNEL, d.kernel_bits, d.factor_full_bits) + (
        d.omega**2 * d.factor_bits
    )


def _sum_bits(d: Datapath) -> int:
    """Sums over the channels, down, across, and the choice between the modes.

    Exact sums are modulo a power of two, and as wide at most.
    """
    net, most = network(transforms(d.omega, KERNEL).output), result_bits(d)
    tile, side = d.omega**2, d.outputs(KERNEL)
    added = _both_sides(net, d.omega, d.sum_bits - d.cuts.sum_shift, most)
    chosen = side**2 * most + (tile - side**2) * d.sum_bits
    return (d.channels - 1) * tile * d.sum_bits + added + chosen


def _both_sides(net: Network, columns: int, width: int, most: int) -> int:
    """Additions of a transform down every column, and then across every row of the results."""
    across = sum(net.adder_bits(wide, most) for wide in net.widths(width, most))
    return columns * net.adder_bits(width, most) + across


def _saturation_bits(d: Datapath) -> int:
    """The choice of bits by mode, what is held plus that, and the limits."""
    kept = result_bits(d) - min(d.cuts.output_shift, d.cuts.bypass_output_shift)
    return d.omega**2 * (2 * kept + held_bits(d))


def _division_bits(d: Datapath) -> int:
    """Of the results that are divided, and the choice for all of a tile."""
    steps = len(division_shifts(d.scale, d.output_bits))
    return (d.outputs(KERNEL) ** 2 * steps + d.omega**2) * d.output_bits


# Look-up tables per bit. Source: fitted on the elements called ``fit`` in
# benchmarks/rtl/results/winograd.json, Yosys 0.23, synth_xilinx -family xcup.
EXACT_LUT = 0.948
TRUNCATING_LUT = 0.699


def element_resources(datapath: Datapath) -> Resources:
    """What `rtl.winograd_pe` takes."""
    bits = adder_bits(datapath)
    lut = EXACT_LUT * bits.exact + TRUNCATING_LUT * bits.truncating
    return Resources(dsp=datapath.omega**2 * datapath.channels, bram18=0, lut=round(lut))


# Look-up tables of a tile besides its arithmetic: control and input banks, and a cell's share of
# control. Source: fitted on tiles of omega 4 with one and two cells, as above.
CONTROL_LUT = 732
CELL_LUT = 219


def tile_resources(tile: WinoTile) -> Resources:
    """What `rtl.winocnn_tile` takes, buffers included.

    Transforms of inputs are shared by a column, those of kernels by a row; one result is divided at
    a time, after it is chosen among those of a cell. A DSP block an image makes addresses, and one
    numbers the results of a tile where omega is no power of two.
    """
    d, wide = tile.datapath, tile.columns * tile.images
    cells, slots = tile.rows * wide, d.omega**2
    exact = d.truncation is None
    bits = wide * _input_bits(d) + tile.rows * d.channels * _kernel_bits(d) + cells * _sum_bits(d)
    lut = CONTROL_LUT + cells * (CELL_LUT + (slots + 1) * held_bits(d) / 2)
    if exact:
        steps = len(division_shifts(d.scale, d.output_bits))
        bits += cells * slots * held_bits(d) + (steps + 1) * d.output_bits
    else:
        lut += TRUNCATING_LUT * cells * _saturation_bits(d)
    banks = tile.bank_rows * tile.bank_columns * tile.images
    kernel_word = KERNEL**2 * d.channels * d.kernel_bits
    return Resources(
        dsp=slots * d.channels * cells + tile.images + int(d.omega == 6),
        bram18=banks * bram18_blocks(tile.input_words, d.input_bits)
        + tile.rows * bram18_blocks(tile.kernel_words, kernel_word)
        + cells * bram18_blocks(tile.output_words, slots * held_bits(d)),
        lut=round(EXACT_LUT * bits + lut),
    )
