"""Resources of generated Verilog by Yosys, an open synthesis program."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecompress.hardware.rtl.bench import find_program, run_program
from edgecompress.hardware.rtl.verilog import Design

DSP_CELL = re.compile(r"^DSP48")
LUT_CELL = re.compile(r"^(LUT[1-6]|SRL16E|SRLC32E)$")
FLIP_FLOP_CELL = re.compile(r"^FD[CPRS]E(_1)?$")
MEMORY_LUTS = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4, "RAM128X1D": 4}
"""Distributed memory -> look-up tables. Source: AMD UG974 and UG953, library guides."""
BRAM_CELL = re.compile(r"^RAMB(18|36)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesized:
    """What a design takes, as Yosys counts it.

    Attributes:
        lut: Look-up tables, those used as shift registers or memory included; inverters, which
            placement takes into the tables beside them, not.
        dsp: DSP48 blocks.
        flip_flops: One-bit registers.
        bram18: Block memories of 18 Kib; one of 36 counts twice.
        tool: Program and version.
    """

    lut: int
    dsp: int
    flip_flops: int
    bram18: int
    tool: str


def synthesize(design: Design, *, time_limit_s: float = 600.0) -> Synthesized:
    """Map a design onto its FPGA family with ``synth_xilinx``, flattened.

    Args:
        design: With ``dsp`` false the multipliers go to look-up tables.
        time_limit_s: After which Yosys is stopped.

    Raises:
        ConfigurationInvalid: Yosys is not installed.
        ResourceLimit: It ran longer than ``time_limit_s``.
    """
    program = find_program("yosys")
    dsp = "" if design.dsp else " -nodsp"
    script = (
        f"read_verilog {design.top}.v; "
        f"synth_xilinx -family {design.fpga} -flatten{dsp} -top {design.top}; "
        "tee -q -o stat.json stat -json"
    )
    with tempfile.TemporaryDirectory(prefix="edgecompress-rtl-") as name:
        folder = Path(name)
        (folder / f"{design.top}.v").write_text(design.text, encoding="ascii")
        run_program([program, "-q", "-p", script], folder, time_limit_s)
        counts = read_counts((folder / "stat.json").read_text(encoding="utf-8"))
    return count_cells(counts, yosys_version())


def read_counts(text: str) -> dict[str, int]:
    """Cells by type of the whole design, from ``stat -json``.

    Raises:
        RuntimeError: The text has no such table.
    """
    start = text.find("{")
    try:
        return dict(json.loads(text[start:])["design"]["num_cells_by_type"])
    except (json.JSONDecodeError, KeyError) as error:
        raise RuntimeError(f"no cell counts in what Yosys wrote: {text[:500]!r}") from error


def count_cells(cells: Mapping[str, int], tool: str) -> Synthesized:
    """Resources from cells by type."""
    return Synthesized(
        lut=sum(n for cell, n in cells.items() if LUT_CELL.match(cell))
        + sum(n * MEMORY_LUTS.get(cell, 0) for cell, n in cells.items()),
        dsp=sum(n for cell, n in cells.items() if DSP_CELL.match(cell)),
        flip_flops=sum(n for cell, n in cells.items() if FLIP_FLOP_CELL.match(cell)),
        bram18=sum(
            n * (2 if match[1] == "36" else 1)
            for cell, n in cells.items()
            if (match := BRAM_CELL.match(cell))
        ),
        tool=tool,
    )


def yosys_version() -> str:
    """Program and version, such as ``Yosys 0.23``."""
    said = run_program([find_program("yosys"), "-V"], Path.cwd())
    return " ".join(said.split()[:2])
