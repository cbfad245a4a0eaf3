"""Look-up tables and DSP blocks of generated designs, by Yosys and by the closed form.

python -m benchmarks.rtl.synthesis                # what is not in the results yet
python -m benchmarks.rtl.synthesis systolic_ws    # of one family

The coefficients of the closed form are fitted on the arrays called ``fit``: up to 4 x 4, and where
sums stay columns of up to 32 rows. Those called ``check`` are larger: no coefficient comes from
them, but they were seen while the features of the form were chosen. Those called ``held out`` were
not. ``first_form_error`` is that of an earlier form, before the array was measured. A design is
measured anew when its Verilog changes. Two copies of Yosys run at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgecompress.hardware.array_resources import systolic_resources, ternary_resources
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.rtl import systolic_os, systolic_ws, ternary_engine
from edgecompress.hardware.rtl._product import ArrayShape
from edgecompress.hardware.rtl.synthesis import synthesize, yosys_version
from edgecompress.hardware.rtl.verilog import Design
from edgecompress.hardware.simulator.ternary_blocks import TernaryArray

RESULTS = Path(__file__).parent / "results" / "synthesis.json"
WEIGHT_BITS = (2, 3, 4, 6, 8)
ENDS = (2, 8)
JOBS = 2
ORDER = ("fit", "check", "held out")
FIT_SIZES = ((1, 1), (2, 2), (2, 4), (4, 2), (4, 4))
TALL = ((8, 1), (16, 1), (24, 1), (32, 1))
# (size, width of the weights) in look-up tables, and sizes with DSP blocks.
LARGER = (
    ((12, 12), 3),
    ((12, 12), 8),
    ((16, 4), 2),
    ((16, 4), 4),
    ((16, 4), 6),
    ((24, 8), 2),
    ((24, 8), 4),
    ((24, 8), 8),
)
LARGER_DSP = ((12, 12), (24, 8))
HELD_OUT = (((20, 6), 2), ((20, 6), 6), ((28, 4), 3), ((28, 4), 8), ((4, 16), 4))
HELD_OUT_DSP = ((20, 6), (28, 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class SystolicCase:
    """A systolic array to measure."""

    family: str
    use: str
    rows: int
    columns: int
    activation_bits: int
    weight_bits: int
    sum_bits: int
    dsp: bool

    @property
    def _shape(self) -> ArrayShape:
        return ArrayShape(
            rows=self.rows,
            columns=self.columns,
            activation_bits=self.activation_bits,
            weight_bits=self.weight_bits,
            sum_bits=self.sum_bits,
            dsp=self.dsp,
        )

    def design(self) -> Design:
        """Its Verilog."""
        module = {"systolic_os": systolic_os, "systolic_ws": systolic_ws}[self.family]
        return module.design(self._shape)

    def predicted(self) -> Resources:
        """By the closed form."""
        return systolic_resources(self._shape.counts, sums_stay=self.family == "systolic_os")


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryCase:
    """A ternary engine to measure."""

    family: str
    use: str
    output_lanes: int
    input_lanes: int
    window: int
    weight_load_cycles: int
    activation_bits: int
    sum_bits: int

    @property
    def _shape(self) -> ternary_engine.EngineShape:
        array = TernaryArray(
            output_lanes=self.output_lanes,
            input_lanes=self.input_lanes,
            window=self.window,
            weight_load_cycles=self.weight_load_cycles,
            accumulators=1,
        )
        return ternary_engine.EngineShape(
            array=array, activation_bits=self.activation_bits, sum_bits=self.sum_bits
        )

    def design(self) -> Design:
        """Its Verilog."""
        return ternary_engine.design(self._shape)

    def predicted(self) -> Resources:
        """By the closed form."""
        return ternary_resources(self._shape.counts)


Case = SystolicCase | TernaryCase


def systolic_cases(family: str) -> Iterator[Case]:
    """Arrays of a family: every width, with look-up tables and with DSP blocks."""

    def case(use: str, size: tuple[int, int], bits: tuple[int, int, int], dsp: bool) -> Case:
        return SystolicCase(
            family=family,
            use=use,
            rows=size[0],
            columns=size[1],
            activation_bits=bits[0],
            weight_bits=bits[1],
            sum_bits=bits[2],
            dsp=dsp,
        )

    for width in WEIGHT_BITS:
        sizes = FIT_SIZES if width in ENDS else FIT_SIZES[::2]
        yield from (case("fit", size, (8, width, 24), False) for size in sizes)
        yield case("check", (8, 8), (8, width, 24), False)
    for width in ENDS:
        yield case("fit", (4, 4), (8, width, 32), False)
        yield case("fit", (4, 4), (4, width, 20), False)
        yield case("check", (8, 4), (8, width, 24), False)
        yield case("check", (8, 8), (8, width, 24), True)
    yield case("check", (16, 8), (8, 2, 20), False)
    yield from (case("fit", size, (8, 8, 24), True) for size in FIT_SIZES)
    yield case("fit", (4, 4), (8, 2, 24), True)
    yield case("fit", (4, 4), (8, 8, 32), True)
    yield case("check", (16, 16), (8, 8, 32), True)
    yield from (case("check", size, (8, width, 24), False) for size, width in LARGER)
    yield from (case("check", size, (8, 8, 24), True) for size in LARGER_DSP)
    yield from (case("held out", size, (8, width, 24), False) for size, width in HELD_OUT)
    yield from (case("held out", size, (8, 8, 24), True) for size in HELD_OUT_DSP)
    if family == "systolic_os":
        yield from (case("fit", size, (8, 8, 24), True) for size in TALL)
        for width in ENDS:
            yield from (case("fit", size, (8, width, 24), False) for size in TALL[1:])


def ternary_cases() -> Iterator[Case]:
    """Engines of several lanes and windows."""
    fit = ((1, 1, 1), (2, 2, 1), (4, 4, 1), (1, 1, 3), (2, 2, 3), (4, 2, 3), (2, 4, 3), (4, 4, 3))
    check = ((8, 2, 3), (4, 2, 5), (8, 8, 1), (8, 4, 3))

    def case(use: str, size: tuple[int, int, int], bits: int, sums: int) -> Case:
        return TernaryCase(
            family="ternary_engine",
            use=use,
            output_lanes=size[0],
            input_lanes=size[1],
            window=size[2],
            weight_load_cycles=9,
            activation_bits=bits,
            sum_bits=sums,
        )

    yield from (case("fit", size, 8, 24) for size in fit)
    yield from (case("fit", size, 4, 16) for size in ((2, 2, 3), (4, 4, 3), (1, 1, 3)))
    yield case("fit", (4, 4, 1), 8, 32)
    yield from (case("check", size, 8, 24) for size in check)
    yield case("held out", (8, 8, 3), 8, 24)


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    "ternary_engine": ternary_cases,
    "systolic_ws": lambda: systolic_cases("systolic_ws"),
    "systolic_os": lambda: systolic_cases("systolic_os"),
}


def main(families: tuple[str, ...]) -> None:
    """Measure what is missing and predict everything anew."""
    stored = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else []
    of_now = {_key(case) for cases in FAMILIES.values() for case in cases()}
    known = {key: row for row in stored if (key := _key(case_of(row))) in of_now}
    asked = [case for family in families for case in FAMILIES[family]()]
    missing = [
        case
        for case in sorted(asked, key=lambda case: ORDER.index(case.use))
        if known.get(_key(case), {}).get("verilog") != verilog_digest(case.design())
    ]
    with ThreadPoolExecutor(JOBS) as pool:
        for done in as_completed([pool.submit(_measured, case) for case in missing]):
            row = done.result()
            known[_key(case_of(row))] = row
            sys.stderr.write(f"{json.dumps(row)}\n")
            _write(known)
    _write(known)


def _measured(case: Case) -> dict[str, Any]:
    begin = time.perf_counter()
    design = case.design()
    found = synthesize(design)
    return asdict(case) | {
        "verilog": verilog_digest(design),
        "lut": found.lut,
        "dsp_blocks": found.dsp,
        "flip_flops": found.flip_flops,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def verilog_digest(design: Design) -> str:
    """Of a design's text without comments and spacing: 16 hexadecimal digits of its SHA-256."""
    words = re.sub(r"//[^\n]*|/\*.*?\*/", "", design.text, flags=re.DOTALL).split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def case_of(row: dict[str, Any]) -> Case:
    """The case that a row of the results is of."""
    kind = TernaryCase if row["family"] == "ternary_engine" else SystolicCase
    return kind(**{field.name: row[field.name] for field in fields(kind)})


def _write(known: dict[str, dict[str, Any]]) -> None:
    order = {_key(case): n for n, case in enumerate(c for f in FAMILIES.values() for c in f())}
    rows = []
    for row in sorted(known.values(), key=lambda row: order[_key(case_of(row))]):
        predicted = case_of(row).predicted()
        error = round(predicted.lut / row["lut"] - 1, 4)
        rows.append(
            row
            | {"predicted_lut": predicted.lut, "predicted_dsp": predicted.dsp, "lut_error": error}
        )
    document = {
        "tool": yosys_version(),
        "command": "synth_xilinx -family xc7 -flatten",
        "results": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def _key(case: Case) -> str:
    return json.dumps([value for name, value in asdict(case).items() if name != "use"])


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or tuple(FAMILIES))
