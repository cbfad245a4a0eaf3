"""What every generated test bench promises who runs it by hand, and designs without warnings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from installed import need

from benchmarks.rtl import winograd
from edgecompress.hardware.rtl import (
    systolic_os,
    systolic_ws,
    ternary_engine,
    winocnn_tile,
    winograd_pe,
)
from edgecompress.hardware.rtl._product import ArrayShape, random_product
from edgecompress.hardware.rtl.bench import Bench, find_program, run_bench, run_program
from edgecompress.hardware.simulator.layers import IntegerConv
from edgecompress.hardware.simulator.ternary_engine import TernaryArray
from edgecompress.hardware.simulator.wino_element import simulate_element
from edgecompress.hardware.simulator.wino_tile import load, run_loaded


def _shape(rows: int, columns: int, *, dsp: bool = False) -> ArrayShape:
    return ArrayShape(
        rows=rows, columns=columns, activation_bits=8, weight_bits=4, sum_bits=24, dsp=dsp
    )


def _weights_stay() -> Bench:
    shape = _shape(2, 3)
    layer = random_product(shape, np.random.default_rng(0), (5, 7, 5))
    return systolic_ws.bench(shape, layer)


def _sums_stay() -> Bench:
    shape = _shape(2, 3)
    layer = random_product(shape, np.random.default_rng(0), (5, 7, 5))
    return systolic_os.bench(shape, layer)


def _one_element() -> Bench:
    shape = _shape(1, 1, dsp=True)
    layer = random_product(shape, np.random.default_rng(0), (1, 1, 1))
    return systolic_os.bench(shape, layer)


def _engine() -> Bench:
    array = TernaryArray(
        output_lanes=2, input_lanes=2, window=3, weight_load_cycles=4, accumulators=64
    )
    shape = ternary_engine.EngineShape(array=array, activation_bits=8, sum_bits=20)
    return ternary_engine.bench(shape, ternary_engine.random_conv(shape, np.random.default_rng(0)))


def _element() -> Bench:
    datapath, tiles, kernels = winograd.element_case(0)
    return winograd_pe.bench(datapath, tiles, kernels, simulate_element(datapath, tiles, kernels))


def _tile() -> Bench:
    tile, layer = winograd.tile_case(0)
    loaded = load(tile, layer)
    return winocnn_tile.tile_bench(tile, loaded, run_loaded(tile, loaded)[0])


MAKERS = {
    "systolic_ws": _weights_stay,
    "systolic_os": _sums_stay,
    "one element": _one_element,
    "ternary_engine": _engine,
    "winograd_pe": _element,
    "winocnn_tile": _tile,
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def changed(bench: Bench, file: str, old: str, new: str) -> Bench:
    """The test bench with another text in one of its files."""
    text = bench.sources[file]
    assert old in text
    return replace(bench, sources={**bench.sources, file: text.replace(old, new)})


@ALL
def test_a_cycle_more_or_less_fails(make: Callable[[], Bench]) -> None:
    """The test bench holds the cycles of the closed form; here it holds another number."""
    need("iverilog", "vvp")
    bench = make()
    right = run_bench(bench)
    assert right.passed
    file = f"{bench.top}.v"
    found = re.search(r"EXPECTED_CYCLES = (\d+)", bench.sources[file])
    assert found
    assert int(found[1]) == right.cycles
    for wrong in (int(found[1]) - 1, int(found[1]) + 1):
        other = f"EXPECTED_CYCLES = {wrong}"
        verdict = run_bench(changed(bench, file, f"EXPECTED_CYCLES = {found[1]}", other))
        assert not verdict.passed
        assert verdict.cycles == right.cycles
        assert verdict.failures == (f"FAIL cycles={right.cycles}, expected {wrong}",)


SILENT = {
    "systolic_ws": ("done <= 1'b1", "done <= 1'b0", "FAIL product 0 has no end"),
    "systolic_os": ("done <= 1'b1", "done <= 1'b0", "FAIL product 0 has no end"),
    "ternary_engine": ("done <= 1'b1", "done <= 1'b0", "FAIL no end"),
    "winograd_pe": ("out_valid <= !reset", "out_valid <= 1'b0", "FAIL only 0 of"),
    "winocnn_tile": ("<= store_now && !reset", "<= 1'b0", "FAIL only 0 of"),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_design_that_never_ends_is_stopped_by_its_test_bench(name: str) -> None:
    need("iverilog", "vvp")
    old, new, message = SILENT[name]
    verdict = run_bench(changed(MAKERS[name](), f"{name}.v", old, new), time_limit_s=60)
    assert not verdict.passed
    assert verdict.failures[-1].startswith(message)


HELD = ("if (reset) held <= {BITS{1'b0}};\n                    else held", "held")
UNRESET = {
    "systolic_ws": (HELD, ("first_result <= 1'b0;", ""), ("act_valid <= 1'b0;", "")),
    "systolic_os": (HELD, ("last_out <= last_in && !reset", "last_out <= last_in")),
    "ternary_engine": (
        ("held_wanted <= 2'b00;", ""),
        ("held_position <= 2'b00;", ""),
        ("            result_valid <= 1'b0;", ""),
    ),
    "winograd_pe": (("reset ? 4'b0 : {valid", "{valid"),),
    "winocnn_tile": (("if (reset) state <= IDLE;\n        else case", "case"),),
}


@pytest.mark.parametrize(
    ("name", "old", "new"), [(name, *pair) for name, pairs in UNRESET.items() for pair in pairs]
)
def test_a_missing_reset_fails(name: str, old: str, new: str) -> None:
    """A run that is reset in the middle leaves nothing behind."""
    need("iverilog", "vvp")
    assert not run_bench(changed(MAKERS[name](), f"{name}.v", old, new)).passed


WAIT = "                @(negedge clock);\n            ended ="


@pytest.mark.parametrize("module", [systolic_os, systolic_ws])
@pytest.mark.parametrize("size", [(2, 3), (1, 1), (4, 1)])
def test_a_start_is_taken_with_done_and_ignored_before(
    module: ModuleType, size: tuple[int, int]
) -> None:
    """Three products: each start comes in the cycle of done, and again while the array runs."""
    need("iverilog", "vvp")
    generator = np.random.default_rng(1)
    layer = IntegerConv(
        inputs=generator.integers(0, 256, (1, 6, 5, 5)),
        weights=generator.integers(-8, 8, (9, 2, 3, 3)),
        group=3,
        zero_point=7,
        input_signed=False,
        weight_bits=4,
    )
    bench = module.bench(_shape(*size), layer)
    file = f"{bench.top}.v"
    head, runs = bench.sources[file].split("ended = 1'b1;", 1)
    at_once = runs.replace("@(negedge clock) start = 1'b1;", "start = 1'b1;", 1)
    assert at_once != runs
    prompt = replace(bench, sources={**bench.sources, file: f"{head}ended = 1'b1;{at_once}"})
    assert run_bench(prompt).passed
    again = WAIT.replace("clock);\n", "clock) start = clocks % 3 == 1 && clocks < 9;\n")
    verdict = run_bench(changed(prompt, file, WAIT, again))
    assert verdict.cycles is not None  # every output is right; the count begins anew with start


@ALL
def test_by_hand_the_process_code_tells(make: Callable[[], Bench], tmp_path: Path) -> None:
    """The command of the documentation, without this package."""
    need("iverilog", "vvp")
    bench = make()
    for name, text in bench.files.items():
        (tmp_path / name).write_text(text)
    command = ["iverilog", "-g2005", "-s", bench.top, "-o", "bench.vvp", *bench.sources]
    run_program(command, tmp_path)
    assert run_program(["vvp", "bench.vvp"], tmp_path).startswith("PASS cycles=")
    words = (tmp_path / "expected.hex").read_text().splitlines()
    words[0] = f"{int(words[0], 16) ^ 1:0{len(words[0])}x}"
    (tmp_path / "expected.hex").write_text("\n".join(words) + "\n")
    done = subprocess.run(
        ["vvp", "bench.vvp"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL ")
    assert "PASS" not in done.stdout


@ALL
def test_icarus_has_nothing_to_say(make: Callable[[], Bench], tmp_path: Path) -> None:
    need("iverilog")
    bench = make()
    for name, text in bench.sources.items():
        (tmp_path / name).write_text(text)
    command = ["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-s", bench.top, "-o", "bench.vvp"]
    done = subprocess.run(
        [*command, *bench.sources], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@ALL
def test_verilator_has_nothing_to_say(make: Callable[[], Bench], tmp_path: Path) -> None:
    """Every warning is an error, but for those that the text waives with a reason.

    Designs have no delays, so only the test bench has a time scale.
    """
    need("verilator")
    bench = make()
    for name, text in bench.sources.items():
        (tmp_path / name).write_text(text)
    design, test_bench = bench.sources
    lint = [find_program("verilator"), "--lint-only", "-Wall"]
    run_program([*lint, design], tmp_path)
    lint += ["-Wno-TIMESCALEMOD", "--timing", "--top-module", bench.top]
    run_program([*lint, design, test_bench], tmp_path)


def test_a_failure_in_verilator_is_a_failure(full: bool) -> None:
    if not full:
        pytest.skip("compiles for seconds; runs with --full")
    need("verilator")
    bench = _one_element()
    wrong = changed(bench, f"{bench.top}.v", "EXPECTED_CYCLES = 1;", "EXPECTED_CYCLES = 2;")
    verdict = run_bench(wrong, simulator="verilator")
    assert verdict.failures == ("FAIL cycles=1, expected 2",)
