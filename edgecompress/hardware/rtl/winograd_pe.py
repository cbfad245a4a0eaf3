"""Verilog of one Winograd processing element with kernel sharing, and its test bench.

The design equals `simulator.wino_element`, which makes the expected results.

Source: kernel sharing: WinoCNN (arXiv 2107.04244); the pipeline is our own.
"""

from __future__ import annotations

import numpy as np

from edgecompress.core.winograd import IntArray
from edgecompress.hardware.rtl._wino_datapath import (
    MEANINGS,
    datapath_settings,
    datapath_text,
    facts,
    parameter_text,
)
from edgecompress.hardware.rtl.bench import Bench, packed_words
from edgecompress.hardware.rtl.verilog import RESET, Design, header, module_text
from edgecompress.hardware.simulator.wino_element import KERNEL, Datapath, ElementRun

TOP = "winograd_pe"

ABOUT = (
    "One element without buffers or control: a tile and a kernel of CHANNELS channels each cycle "
    "with in_valid, in_first and in_last at the channel passes of a result. Nothing can be stalled."
)


def design(datapath: Datapath) -> Design:
    """A processing element."""
    settings = datapath_settings(datapath)
    parts = (
        header("A Winograd processing element.", (*facts(datapath), ABOUT, RESET)),
        datapath_text(datapath),
        module_text(TOP, PARAMETERS=parameter_text(settings, MEANINGS)),
    )
    return Design(
        top=TOP,
        text="\n".join(parts),
        dsp=True,
        settings=settings,
        fpga="xcup",
        left_out="the buffers around the element are not part of the design",
    )


def bench(datapath: Datapath, tiles: IntArray, kernels: IntArray, expected: ElementRun) -> Bench:
    """The element with a test bench.

    Args:
        datapath: The element.
        tiles: (groups, passes, channels, omega, omega).
        kernels: (groups, passes, channels, k, k), k 3 or 1.
        expected: What its outputs are compared with.
    """
    groups, passes = tiles.shape[:2]
    kernel, rows = kernels.shape[-1], groups * passes
    spread = np.zeros((*kernels.shape[:3], KERNEL, KERNEL), dtype=np.int64)
    spread[..., :kernel, :kernel] = kernels
    text = module_text(
        f"{TOP}_bench",
        EXPECTED_CYCLES=expected.cycles,
        VERDICT=module_text("bench_verdict"),
        GROUPS=groups,
        PASSES=passes,
        SIDE=datapath.outputs(kernel),
        BYPASS=int(kernel == 1),
        OMEGA=datapath.omega,
        OUTPUT_BITS=datapath.output_bits,
        TILE_WORD=datapath.channels * datapath.omega**2 * datapath.input_bits,
        KERNEL_WORD=datapath.channels * KERNEL**2 * datapath.kernel_bits,
    )
    return Bench(
        top=f"{TOP}_bench",
        sources={f"{TOP}.v": design(datapath).text, f"{TOP}_bench.v": text},
        memories={
            "tiles.hex": packed_words(tiles.reshape(rows, -1), datapath.input_bits),
            "kernels.hex": packed_words(spread.reshape(rows, -1), datapath.kernel_bits),
            "expected.hex": packed_words(
                expected.outputs.reshape(groups, -1), datapath.output_bits
            ),
        },
    )
