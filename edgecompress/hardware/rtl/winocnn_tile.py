"""Verilog of a WinoCNN tile: grid of Winograd cells, buffers, and control of a convolution.

The design equals `simulator.wino_tile`, clock by clock. It has the array and the buffers of its
target; what is loaded stays for one convolution, and results leave when it is done, so that the
loops take the cycles of the closed form and transfers are not hidden behind them.

Source: WinoCNN (arXiv 2107.04244) and its published design for the structure; own code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.core.errors import Unsupported
from edgecompress.core.winograd import IntArray
from edgecompress.hardware.models._winograd import Parameters
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.rtl._wino_datapath import (
    MEANINGS,
    Settings,
    datapath_settings,
    datapath_text,
    facts,
    parameter_text,
)
from edgecompress.hardware.rtl._wino_load import BUFFER_WORDS, DESCRIPTOR, memories
from edgecompress.hardware.rtl.bench import Bench
from edgecompress.hardware.rtl.verilog import RESET, Design, header, impossible, module_text
from edgecompress.hardware.rtl.wino_resources import tile_resources
from edgecompress.hardware.simulator.layers import (
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    exact_outputs,
)
from edgecompress.hardware.simulator.wino_element import Datapath
from edgecompress.hardware.simulator.wino_tile import (
    Loaded,
    Loops,
    WinoTile,
    as_conv,
    load,
    why_not,
)
from edgecompress.hardware.target import Target

TOP = "winocnn_tile"

CODE_BITS = 8  # of weights: those of quantized models; the published design cuts them to 7
OUTPUT_BITS = 32

ABOUT = (
    "The grid of cells with its input, weight and output buffers, and the control of the loops. "
    "The buffers hold one whole convolution: they are not double, so that loading and results are "
    "not hidden behind the loops, and there is no bus or memory port.",
    "Load the buffers, a word a cycle; set descriptor and bypass (1x1 kernels), which stay until "
    "the last result; raise start for a cycle. start is taken while busy is low, else ignored; "
    "every count is at least 1. Results leave one a cycle in the order of memory, and cannot be "
    "stalled.",
)

TILE_MEANINGS = {
    **MEANINGS,
    "ROWS": "output channels together",
    "COLUMNS": "tiles of an image together",
    "IMAGES": "images together",
    "DOWN_LOG": "log2 of input banks down",
    "ACROSS_LOG": "log2 of input banks across",
    "INPUT_WORDS": "depth of an input bank",
    "KERNEL_WORDS": "depth of the weight buffer of a row",
    "OUTPUT_WORDS": "depth of the output buffer of a cell",
}


def tile_settings(tile: WinoTile) -> Settings:
    """The Verilog parameters of a tile."""
    return (
        *datapath_settings(tile.datapath),
        ("ROWS", tile.rows),
        ("COLUMNS", tile.columns),
        ("IMAGES", tile.images),
        ("DOWN_LOG", tile.bank_rows.bit_length() - 1),
        ("ACROSS_LOG", tile.bank_columns.bit_length() - 1),
        ("INPUT_WORDS", tile.input_words),
        ("KERNEL_WORDS", tile.kernel_words),
        ("OUTPUT_WORDS", tile.output_words),
    )


def tile_design(tile: WinoTile) -> Design:
    """A tile."""
    settings = tile_settings(tile)
    ports = "\n".join(
        f"    input  wire [15:0] {name + ',':16s}{f' // {what}' if what else ''}".rstrip()
        for name, what in DESCRIPTOR.items()
        if name not in BUFFER_WORDS
    )
    wires = "\n".join(
        f"    wire [15:0] {name:14s} = descriptor[{16 * place + 15}:{16 * place}];"
        for place, name in enumerate(DESCRIPTOR)
    )
    parts = (
        header("A WinoCNN tile.", (*facts(tile.datapath), *ABOUT, RESET)),
        datapath_text(tile.datapath),
        module_text("wino_control", DESCRIPTOR_PORTS=ports),
        module_text("wino_input_buffer"),
        module_text("wino_grid"),
        module_text(
            TOP,
            PARAMETERS=parameter_text(settings, TILE_MEANINGS),
            DESCRIPTOR_TOP=16 * len(DESCRIPTOR) - 1,
            DESCRIPTOR_WIRES=wires,
            DESCRIPTOR_CONNECTIONS="\n".join(
                f"        .{name}({name})," for name in DESCRIPTOR if name not in BUFFER_WORDS
            ),
        ),
    )
    return Design(
        top=TOP,
        text="\n".join(parts),
        dsp=True,
        settings=settings,
        fpga="xcup",
        left_out="ports and the overlap of loads with the loops are not part of the design",
    )


def tile_bench(tile: WinoTile, loaded: Loaded, expected: IntArray) -> Bench:
    """A tile with a test bench.

    Args:
        tile: The machine.
        loaded: A convolution in its buffers.
        expected: (images, out, oh, ow), raw results of the array.
    """
    d, loops = tile.datapath, loaded.loops
    text = module_text(
        f"{TOP}_bench",
        PIXELS=loaded.inputs.size,
        KERNELS=len(loaded.kernels),
        RESULTS=expected.size,
        EXPECTED_CYCLES=tile_cycles(tile, loops),
        VERDICT=module_text("bench_verdict"),
        ROWS=tile.rows,
        BANK_BITS=(tile.bank_rows * tile.bank_columns).bit_length() - 1,
        INPUT_BITS=d.input_bits,
        OUTPUT_BITS=d.output_bits,
        KERNEL_WORD=9 * d.channels * d.kernel_bits,
        DESCRIPTOR_BITS=16 * len(DESCRIPTOR),
        BYPASS=int(loops.kernel == 1),
        RESET_CLOCKS=tile.drain_cycles,
    )
    return Bench(
        top=f"{TOP}_bench",
        sources={f"{TOP}.v": tile_design(tile).text, f"{TOP}_bench.v": text},
        memories=memories(tile, loaded, expected),
    )


def tile_cycles(tile: WinoTile, loops: Loops) -> int:
    """Cycles of one run, by formula: loops, fill and drain of the pipeline, results one a cycle.

    A step takes as long as its output passes, or as its channels to be shifted in.
    """
    wide = tile.columns * tile.images
    cells = loops.steps * max(loops.fo, tile.datapath.channels)
    fill = tile.datapath.channels + tile.rows + wide + 4
    results = tile.images * loops.out_channels * loops.out_height * loops.out_width
    return cells + fill + results + 2


def tile_of(target: Target) -> WinoTile:
    """The tile of a target, with exact results.

    Raises:
        Unsupported: The target is no array that is generated.
        ConfigurationInvalid: Its sizes are none that a tile is generated with.
    """
    p = target.parameters
    if not isinstance(p, Parameters):
        raise TypeError(f"{target.name} is not a winocnn target")
    if p.omega_pixels not in (4, 6) or p.kernels != (1, 3) or p.skips_zero_weights:
        raise Unsupported(
            f"no Verilog for {target.name}: tiles of 4 or 6 pixels with kernels of 1 and 3 only",
            hint="arrays that skip zero weights are not generated either",
        )
    try:
        return WinoTile(
            datapath=Datapath(
                omega=p.omega_pixels,
                channels=p.channels_per_element,
                input_bits=CODE_BITS,
                kernel_bits=CODE_BITS,
                output_bits=OUTPUT_BITS,
            ),
            rows=p.array_rows,
            columns=p.array_columns,
            images=p.batch_images,
            input_words=p.input_bank_words,
            kernel_words=p.weight_buffer_words,
            load_words=p.weight_buffer_words // 2,
            output_words=p.output_buffer_words,
        )
    except ValueError as error:
        raise impossible(
            target, str(error), "channels_per_element and the words of the buffers"
        ) from error


def conv_of(tile: WinoTile, layer: IntegerLayer) -> IntegerConv:
    """The layer as the tile runs it."""
    return as_conv(tile, layer) if isinstance(layer, IntegerProduct) else layer


def exact_bench(tile: WinoTile, layer: IntegerLayer) -> Bench:
    """A test bench whose expected results come from no simulator: for exact datapaths.

    Raises:
        Unsupported: The tile cannot run the layer.
    """
    conv = conv_of(tile, layer)
    loaded = load(tile, conv)
    loops = loaded.loops
    shape = (tile.images, loops.out_channels, loops.out_height, loops.out_width)
    raw = np.zeros(shape, dtype=np.int64)
    raw[: conv.inputs.shape[0]] = exact_outputs(conv)
    return tile_bench(tile, loaded, raw + loaded.correction[:, None, None])


@dataclass(frozen=True, slots=True)
class WinoCnnTile:
    """The generator of the family ``winocnn``."""

    def design(self, target: Target) -> Design:
        """The target's array with its buffers and its control."""
        return tile_design(tile_of(target))

    def why_not(self, target: Target, layer: IntegerLayer) -> str | None:
        """Why the tile cannot run a layer, or None."""
        tile = tile_of(target)
        conv = conv_of(tile, layer)
        if conv.inputs.shape[0] > tile.images:
            return f"{conv.inputs.shape[0]} images; the tile takes {tile.images} at once"
        return why_not(tile, conv)

    def bench(self, target: Target, layer: IntegerLayer) -> Bench:
        """The tile with a test bench that runs ``layer``."""
        return exact_bench(tile_of(target), layer)

    def random_layer(self, target: Target, generator: np.random.Generator) -> IntegerLayer:
        """A convolution that leaves a part of the last tiles and channel passes empty."""
        tile = tile_of(target)
        kernel = int(generator.choice([1, 3]))
        side = tile.datapath.outputs(kernel)
        channels, outputs = tile.datapath.channels + 1, tile.rows + 1
        height, width = side + 1, side * tile.columns + 1
        codes = 1 << CODE_BITS
        return IntegerConv(
            inputs=generator.integers(0, codes, (1, channels, height, width)),
            weights=generator.integers(
                -codes // 2, codes // 2, (outputs, channels, kernel, kernel)
            ),
            zero_point=int(generator.integers(0, codes)),
            pads=(kernel // 2,) * 4,
            input_signed=False,
        )

    def predicted_cycles(self, target: Target, layer: IntegerLayer) -> int:
        """What the closed form says about ``layer``."""
        tile = tile_of(target)
        return tile_cycles(tile, load(tile, conv_of(tile, layer)).loops)

    def predicted_resources(self, target: Target) -> Resources | None:
        """Blocks of the generated tile, its buffers included."""
        return tile_resources(tile_of(target))


RTL = WinoCnnTile()
