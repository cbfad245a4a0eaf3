"""What a WinoCNN tile is loaded with: descriptor, input codes, weights."""

from __future__ import annotations

import numpy as np

from edgecompress.core.winograd import IntArray
from edgecompress.hardware.rtl.bench import hex_words, packed_words
from edgecompress.hardware.simulator.wino_tile import Loaded, WinoTile

DESCRIPTOR = {
    "passes_down": "sub-kernels of the kernel",
    "passes_across": "",
    "step_down": "input rows and columns between them",
    "step_across": "",
    "lo": "weight loads over the output channels",
    "deep": "channel passes, li x fi",
    "tr": "tile rows",
    "tc": "tile columns",
    "fo": "output passes",
    "channel_words": "words of a channel in an input bank",
    "set_words": "words of a set of rows in an input bank",
    "row_words": "words of a row of tiles in an output buffer, tc x fo",
    "plane_words": "words of all tiles, tr x tc x fo",
    "out_channels": "what is stored",
    "out_height": "",
    "out_width": "",
    "stride_down": "every how many results",
    "stride_across": "",
}
"""Word of the descriptor -> what it is; every one has 16 bits, the first is the lowest."""

BUFFER_WORDS = ("set_words",)
"""Words that go to the input buffer, not to the control."""


def descriptor_words(tile: WinoTile, loaded: Loaded) -> dict[str, int]:
    """The words of the descriptor of a convolution."""
    loops = loaded.loops
    row_sets, column_sets = bank_sets(tile, loaded)
    return {
        "passes_down": loops.passes_down,
        "passes_across": loops.passes_across,
        "step_down": loops.step_down,
        "step_across": loops.step_across,
        "lo": loops.lo,
        "deep": loops.li * loops.fi,
        "tr": loops.tr,
        "tc": loops.tc,
        "fo": loops.fo,
        "channel_words": row_sets * column_sets,
        "set_words": column_sets,
        "row_words": loops.tc * loops.fo,
        "plane_words": loops.tr * loops.tc * loops.fo,
        "out_channels": loops.out_channels,
        "out_height": loops.out_height,
        "out_width": loops.out_width,
        "stride_down": loops.stride_down,
        "stride_across": loops.stride_across,
    }


def bank_sets(tile: WinoTile, loaded: Loaded) -> tuple[int, int]:
    """Sets of rows and of columns in the input banks."""
    rows, columns = loaded.inputs.shape[2:]
    return -(-rows // tile.bank_rows), -(-columns // tile.bank_columns)


def memories(tile: WinoTile, loaded: Loaded, expected: IntArray) -> dict[str, str]:
    """The files that the test bench loads; ``expected`` are the raw results of the array."""
    d = tile.datapath
    words = descriptor_words(tile, loaded)
    kernels = loaded.kernels.reshape(-1, d.channels, *loaded.kernels.shape[3:])
    spread = np.zeros((len(kernels), d.channels, 3, 3), dtype=np.int64)
    spread[:, :, : kernels.shape[2], : kernels.shape[3]] = kernels
    number = sum(words[name] << (16 * place) for place, name in enumerate(DESCRIPTOR))
    return {
        "pixels.hex": hex_words(_pixels(tile, loaded), 40 + d.input_bits),
        "kernels.hex": packed_words(spread.reshape(len(kernels), -1), d.kernel_bits),
        "descriptor.hex": hex_words([number], 16 * len(DESCRIPTOR)),
        "expected.hex": hex_words(expected.ravel(), d.output_bits),
    }


def _pixels(tile: WinoTile, loaded: Loaded) -> list[int]:
    """Every input code with its image, bank and address."""
    row_sets, column_sets = bank_sets(tile, loaded)
    modulus = 1 << tile.datapath.input_bits
    pixels = []
    for (image, channel, row, column), code in np.ndenumerate(loaded.inputs):
        row_set, down = divmod(row, tile.bank_rows)
        column_set, across = divmod(column, tile.bank_columns)
        address = (channel * row_sets + row_set) * column_sets + column_set
        bank = down * tile.bank_columns + across
        pixels.append(address | image << 16 | bank << 24 | int(code) % modulus << 40)
    return pixels
