"""Programmable-logic blocks of a WinoCNN array.

Multiplier blocks: one a multiplier, and a fitted number for addresses.

Block memories, by the memories that the published source declares: input banks (eight rows of
``input_bank_columns``, a word holds a pixel of all images), two output buffers (omega x omega banks
for each element of the array), transformed weights (four in a word), and ports. For the published
configuration (tiles of 6, 4 x 2 array, 2304 multipliers) the formula gives 512 + 576 + 432 and 64
for ports = 1584; a third party's C synthesis of it reports 1082 (BRAM_18K). The difference of 502
is not explained: outputs, weights and ports alone are 1072, so that the report may leave the input
banks out, which are the array of the top function. What is given is the formula times a fitted
share, 1082 / 1584: by the bare formula two of the three published configurations would not fit the
parts that they ran on.

Look-up tables: no formula, a fitted number per multiplier. The report gives 319738, an estimate of
the high-level synthesis that is more than the 274080 of the part that the authors ran the design
on; so the fit is on the part, 274080 / 2304 = 118, the most that the design can take.

Source: declarations in github.com/xliu0709/WinoCNN; C synthesis report in
github.com/tarsioonofrio/WinoCNN, docs/configuration_exploration.md: DSP 2344, BRAM 1082, LUT
319738; hence 2344 - 2304 = 40 further multiplier blocks.
"""

from __future__ import annotations

import math

from edgecompress.hardware.models._winograd import ACTIVATION_BITS, Parameters
from edgecompress.hardware.resources import Resources, bram18_blocks

BANK_ROWS = 8
WEIGHTS_TOGETHER = 4  # transformed weights in a word of the weight buffer
BLOCKS_PER_PORT = 8  # of a 128-bit AXI master; assumed, about what its two buffers take


def resources(p: Parameters, weight_bits: int) -> Resources:
    """Blocks of the whole design, weights being ``weight_bits`` wide before the transform."""
    memories = math.ceil(p.bram18_share_of_formula * declared_bram18(p, weight_bits))
    return Resources(dsp=p.dsp_blocks, bram18=memories, lut=_luts(p))


def _luts(p: Parameters) -> int:
    """Look-up tables, in proportion to the multipliers."""
    return p.lut_per_multiplier * p.multipliers


def declared_bram18(p: Parameters, weight_bits: int) -> int:
    """Block memories of 18 Kib that the declared memories take, before the fitted share."""
    pixel = p.batch_images * ACTIVATION_BITS
    inputs = BANK_ROWS * p.input_bank_columns * bram18_blocks(p.input_bank_words, pixel)
    elements = p.omega_pixels**2 * p.array_rows * p.array_columns
    sums = p.batch_images * p.accumulator_bits
    outputs = 2 * elements * bram18_blocks(p.output_buffer_words, sums)
    transformed = p.omega_pixels**2 * p.channels_per_element
    words, rest = divmod(transformed, WEIGHTS_TOGETHER)
    width = max(weight_bits, p.transformed_weight_bits)
    weights = words * bram18_blocks(p.weight_buffer_words, WEIGHTS_TOGETHER * width)
    weights += bram18_blocks(p.weight_buffer_words, rest * width) if rest else 0
    ports = p.weight_ports + p.input_ports + p.output_ports
    return inputs + outputs + p.array_rows * weights + BLOCKS_PER_PORT * ports
