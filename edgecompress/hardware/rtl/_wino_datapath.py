"""The Verilog that a Winograd element and a WinoCNN tile share, and the widths of its stages.

Source: as `edgecompress.hardware.simulator.wino_element`; own code.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgecompress.core.winograd import transforms
from edgecompress.hardware.rtl._wino_linear import function_text
from edgecompress.hardware.rtl.verilog import ONE_FILE, module_text
from edgecompress.hardware.simulator.wino_element import KERNEL, Datapath

Settings = tuple[tuple[str, int], ...]

MEANINGS = {
    "OMEGA": "side of a tile",
    "CHANNELS": "input channels a clock",
    "EXACT": "results are exact, or truncated and saturated",
    "INPUT_BITS": "of an input code",
    "KERNEL_BITS": "of a weight",
    "OUTPUT_BITS": "of a result",
    "VALUE_FULL_BITS": "of a transformed input",
    "VALUE_DROPPED": "low bits that are dropped of it",
    "FACTOR_FULL_BITS": "of a transformed weight",
    "FACTOR_DROPPED": "low bits that are dropped of it",
    "SUM_BITS": "of a sum over the channels",
    "SUM_DROPPED": "low bits that are dropped of it, 3x3 mode",
    "RESULT_BITS": "of a transformed sum",
    "HELD_BITS": "of an accumulator",
    "RESULT_DROPPED": "low bits dropped before it, 3x3 mode",
    "BYPASS_RESULT_DROPPED": "the same in the 1x1 mode",
    "BYPASS_RESULT_RAISED": "zero bits added before it, 1x1 mode",
}


def datapath_settings(datapath: Datapath) -> Settings:
    """The Verilog parameters of a datapath."""
    cuts = datapath.cuts
    return (
        ("OMEGA", datapath.omega),
        ("CHANNELS", datapath.channels),
        ("EXACT", int(datapath.truncation is None)),
        ("INPUT_BITS", datapath.input_bits),
        ("KERNEL_BITS", datapath.kernel_bits),
        ("OUTPUT_BITS", datapath.output_bits),
        ("VALUE_FULL_BITS", datapath.value_full_bits),
        ("VALUE_DROPPED", cuts.input_shift),
        ("FACTOR_FULL_BITS", datapath.factor_full_bits),
        ("FACTOR_DROPPED", cuts.kernel_shift),
        ("SUM_BITS", datapath.sum_bits),
        ("SUM_DROPPED", cuts.sum_shift),
        ("RESULT_BITS", result_bits(datapath)),
        ("HELD_BITS", held_bits(datapath)),
        ("RESULT_DROPPED", cuts.output_shift),
        ("BYPASS_RESULT_DROPPED", max(0, cuts.bypass_output_shift)),
        ("BYPASS_RESULT_RAISED", max(0, -cuts.bypass_output_shift)),
    )


def result_bits(datapath: Datapath) -> int:
    """Width of the results of the output transform.

    Exact results are kept modulo a power of two only, as wide as the scaled sums that leave; with
    truncation every result fits.
    """
    if datapath.truncation is None:
        return held_bits(datapath)
    rows = abs(transforms(datapath.omega, KERNEL).output).sum(axis=1)
    kept = datapath.sum_bits - datapath.cuts.sum_shift
    return max(datapath.sum_bits, kept + int(rows.max() ** 2 - 1).bit_length())


def held_bits(datapath: Datapath) -> int:
    """Width of an accumulator: exact sums carry the power of two of the kernel scale; its odd part
    divides modulo a power of two."""
    if datapath.truncation is not None:
        return datapath.output_bits
    return datapath.output_bits + _even_bits(datapath.scale)


def datapath_text(datapath: Datapath) -> str:
    """The modules from the transforms to the accumulators."""
    matrices = transforms(datapath.omega, KERNEL)
    division, steps, quotient = _division(datapath)
    return "\n".join(
        (
            ONE_FILE,
            module_text(
                "wino_transforms",
                INPUT_FUNCTION=function_text(matrices.input),
                KERNEL_FUNCTION=function_text(matrices.kernel),
                OUTPUT_FUNCTION=function_text(matrices.output),
            ),
            module_text(
                "wino_accumulate", DIVISION=division, DIVISION_STEPS=steps, QUOTIENT=quotient
            ),
        )
    )


def division_shifts(scale: int, bits: int) -> tuple[int, ...]:
    """Shifts of the steps that divide a multiple of ``scale`` by its odd part, modulo 2**bits.

    A multiple of an odd number r is divided by it modulo 2**n with the inverse of r, here
    1 / (1 + p) = (1 - p) (1 + p**2) (1 + p**4) ... with a power of two p: the first step subtracts
    the shifted word, the others add it.

    Raises:
        ValueError: The odd part is neither 1 nor 1 + a power of two.
    """
    odd = scale >> _even_bits(scale)
    if odd == 1:
        return ()
    shift = (odd - 1).bit_length() - 1
    if odd != 1 + (1 << shift):
        raise ValueError(f"no exact division by {scale}")
    shifts = []
    while shift < bits:
        shifts.append(shift)
        shift *= 2
    return tuple(shifts)


def _division(datapath: Datapath) -> tuple[str, str, str]:
    """What the last module does, its steps, and the name of their result."""
    if datapath.truncation is not None:
        return "as it is", "", "part0"
    shifts = division_shifts(datapath.scale, datapath.output_bits)
    lines = [
        f"    wire [OUTPUT_BITS-1:0] part{place + 1} = "
        f"part{place} {'+' if place else '-'} (part{place} << {shift});"
        for place, shift in enumerate(shifts)
    ]
    return f"divided by {datapath.scale}, exactly", "\n".join(lines), f"part{len(shifts)}"


def _even_bits(number: int) -> int:
    """How often two divides a number."""
    return (number & -number).bit_length() - 1


def parameter_text(settings: Settings, meanings: Mapping[str, str]) -> str:
    """A parameter list with a comment each."""
    lines = []
    for place, (name, value) in enumerate(settings):
        text = f"{name} = {value}{',' if place < len(settings) - 1 else ''}"
        lines.append(f"    parameter {text:30s} // {meanings[name]}")
    return "\n".join(lines)


def facts(datapath: Datapath) -> tuple[str, ...]:
    """Lines for the head of a file."""
    return (
        f"Winograd tiles of {datapath.omega} x {datapath.omega} shared by 3x3 and 1x1 kernels, "
        f"{datapath.channels} input channels a clock, "
        f"{'exact' if datapath.truncation is None else 'truncated and saturated'} results.",
        "Kernel sharing: WinoCNN (arXiv 2107.04244).",
    )
