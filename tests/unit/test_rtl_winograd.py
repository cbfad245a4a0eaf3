"""Generated Winograd hardware: Verilog against the simulators, transforms, resources."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import need

from benchmarks.rtl import winograd as bench
from edgecompress.core.errors import Unsupported
from edgecompress.core.winograd import transforms
from edgecompress.hardware.rtl import winograd_pe
from edgecompress.hardware.rtl._wino_datapath import division_shifts
from edgecompress.hardware.rtl._wino_linear import network
from edgecompress.hardware.rtl.bench import find_program, run_bench, run_program
from edgecompress.hardware.rtl.synthesis import synthesize
from edgecompress.hardware.rtl.verilog import Design
from edgecompress.hardware.rtl.wino_resources import element_resources
from edgecompress.hardware.rtl.winocnn_tile import RTL, exact_bench, tile_design, tile_of
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerProduct
from edgecompress.hardware.simulator.wino_element import (
    Datapath,
    published_datapath,
    simulate_element,
)
from edgecompress.hardware.simulator.wino_tile import WinoTile, simulate
from edgecompress.hardware.target import Target, load_target

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "rtl" / "results" / "winograd.json"
SLICE = 6


@pytest.mark.parametrize("omega", [4, 6])
@pytest.mark.parametrize("name", ["input", "kernel", "output"])
def test_additions_and_shifts_are_the_transform(omega: int, name: str) -> None:
    """Truth: the matrix. Verilog's ``<<<`` on the left of a sum is Python's ``<<``."""
    matrix = getattr(transforms(omega, 3), name)
    vector = np.random.default_rng(0).integers(-1000, 1000, matrix.shape[1])
    values = {f"x{place}": int(value) for place, value in enumerate(vector)}
    for wire in network(matrix).wires:
        assert "*" not in wire.text
        values[wire.name] = eval(wire.text.replace("<<<", "<<"), {}, values)
    assert [values[f"y{row}"] for row in range(len(matrix))] == list(matrix @ vector)


@pytest.mark.parametrize("bits", [7, 16, 32])
def test_shifts_divide_exactly(bits: int) -> None:
    """Truth: whole division."""
    for quotient in (-(1 << (bits - 1)), -5, 0, 1, (1 << (bits - 1)) - 1):
        word = 576 * quotient >> 6
        for place, shift in enumerate(division_shifts(576, bits)):
            word = word + (word << shift) if place else word - (word << shift)
        assert (word - quotient) % (1 << bits) == 0
    assert division_shifts(4, bits) == ()
    with pytest.raises(ValueError, match="no exact division by 7"):
        division_shifts(7, bits)


def test_elements_equal_their_simulator(full: bool) -> None:
    need("iverilog", "vvp")
    found = [bench.element_agreement(seed) for seed in range(bench.ELEMENTS if full else SLICE)]
    assert [row for row in found if not row["agreed"]] == []


def test_tiles_equal_their_simulator(full: bool) -> None:
    need("iverilog", "vvp")
    seeds = range(bench.TILES) if full else (0, 1, 2, 5, 6, 11)
    found = [bench.tile_agreement(seed) for seed in seeds]
    assert [row for row in found if not row["agreed"]] == []


def test_bench_of_an_element_finds_wrong_results() -> None:
    need("iverilog", "vvp")
    datapath, tiles, kernels = bench.element_case(0)
    run = simulate_element(datapath, tiles, kernels)
    wrong = dataclasses.replace(run, outputs=run.outputs + (np.arange(run.outputs.size) == 3)
                                .reshape(run.outputs.shape))  # fmt: skip
    found = run_bench(winograd_pe.bench(datapath, tiles, kernels, wrong))
    assert not found.passed
    assert len(found.failures) == 1


def small_target(name: str = "winocnn-zcu102-w4", **changes: int) -> Target:
    """A shipped target with a small array."""
    target = load_target(name)
    small = {"array_rows": 2, "array_columns": 1, "channels_per_element": 2, "batch_images": 1}
    return dataclasses.replace(
        target, parameters=target.parameters.model_copy(update=small | changes)
    )


def test_generator_of_a_target_runs_its_random_layer() -> None:
    """Truth: `exact_outputs`, which the test bench compares with; no simulator is asked."""
    need("iverilog", "vvp")
    target = small_target()
    layer = RTL.random_layer(target, np.random.default_rng(1))
    assert RTL.why_not(target, layer) is None
    found = run_bench(RTL.bench(target, layer))
    assert found.passed
    assert found.cycles == RTL.predicted_cycles(target, layer)
    assert found.cycles == simulate(tile_of(target), layer).cycles


def test_generator_runs_a_product() -> None:
    need("iverilog", "vvp")
    generator = np.random.default_rng(2)
    layer = IntegerProduct(
        inputs=generator.integers(-128, 128, (5, 3)), weights=generator.integers(-128, 128, (3, 3))
    )
    target = small_target()
    assert RTL.why_not(target, layer) is None
    found = run_bench(RTL.bench(target, layer))
    assert (found.passed, found.cycles) == (True, RTL.predicted_cycles(target, layer))


def test_bench_of_a_tile_finds_wrong_results() -> None:
    need("iverilog", "vvp")
    target = small_target()
    tile = tile_of(target)
    layer = RTL.random_layer(target, np.random.default_rng(1))
    made = exact_bench(tile, layer)
    lines = made.memories["expected.hex"].split("\n")
    lines[1] = f"{int(lines[1], 16) ^ 1:08x}"
    wrong = dataclasses.replace(made, memories={**made.memories, "expected.hex": "\n".join(lines)})
    found = run_bench(wrong)
    assert not found.passed
    assert found.failures[0].startswith("FAIL result 1:")


def test_more_images_than_the_tile_takes_are_refused() -> None:
    layer = IntegerConv(inputs=np.ones((2, 1, 4, 4), int), weights=np.ones((1, 1, 3, 3), int))
    assert RTL.why_not(small_target(), layer) == "2 images; the tile takes 1 at once"


@pytest.mark.parametrize("change", [{"omega_pixels": 8}, {"skips_zero_weights": True}])
def test_other_arrays_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(Unsupported, match="tiles of 4 or 6 pixels with kernels of 1 and 3 only"):
        RTL.design(small_target(**change))


@pytest.mark.parametrize("name", ["winocnn-zcu102-w6", "winocnn-zcu102-w4", "winocnn-ultra96-w4"])
def test_whole_targets_are_generated(name: str) -> None:
    """Parameters of the top module against those of the target."""
    target = load_target(name)
    p: Any = target.parameters
    made = RTL.design(target)
    settings = dict(made.settings)
    assert (
        settings["OMEGA"] ** 2
        * settings["CHANNELS"]
        * settings["ROWS"]
        * settings["COLUMNS"]
        * settings["IMAGES"]
        == p.multipliers
    )
    assert f"parameter ROWS = {p.array_rows}," in made.text
    assert "@" not in re.sub(r"@\(", "", made.text)


@pytest.mark.parametrize(("omega", "exact"), [(4, True), (4, False), (6, False), (6, True)])
def test_verilator_has_nothing_to_say(omega: int, exact: bool, full: bool, tmp_path: Path) -> None:
    need("verilator")
    if omega == 6 and not full:
        pytest.skip("takes seconds; other widths of the same text")
    datapath = Datapath(omega=omega, channels=2) if exact else published_datapath(omega, 2)
    tile = WinoTile(datapath=datapath, rows=2, columns=2, images=2)
    for made in (winograd_pe.design(datapath), tile_design(tile)):
        lint(made, tmp_path)


def lint(made: Design, folder: Path) -> None:
    """Every warning is an error, but for those that the text waives with a reason."""
    (folder / f"{made.top}.v").write_text(made.text)
    run_program([find_program("verilator"), "--lint-only", "-Wall", f"{made.top}.v"], folder)


def test_multipliers_go_to_dsp_blocks(full: bool) -> None:
    """Truth: Yosys, for the smallest element; others are in the committed results."""
    need("yosys")
    if not full:
        pytest.skip("takes half a minute")
    datapath = Datapath(omega=4, channels=1)
    found = synthesize(winograd_pe.design(datapath))
    assert found.dsp == 16
    assert element_resources(datapath).lut == pytest.approx(found.lut, rel=0.1)


def test_committed_results_agree() -> None:
    document = json.loads(RESULTS.read_text())
    for name in ("elements", "tiles"):
        rows = document[name]
        assert len(rows) == 48
        assert all(row["agreed"] and row["cycles"] == row["rtl_cycles"] for row in rows)
    shapes = {(row["omega"], row["sub_kernel"], row["exact"]) for row in document["tiles"]}
    assert len(shapes) == 8


def test_committed_resources_are_within_ten_percent() -> None:
    rows = json.loads(RESULTS.read_text())["synthesis"]
    assert [(row["use"]) for row in rows] == [use for use, _ in bench.elements()]
    for (use, datapath), row in zip(bench.elements(), rows, strict=True):
        assert row | bench.element_row(use, datapath) == row
        assert row["dsp"] == datapath.omega**2 * datapath.channels
        assert row["predicted_lut"] == pytest.approx(row["lut"], rel=0.1)


def test_committed_resources_of_tiles_are_within_ten_percent() -> None:
    rows = json.loads(RESULTS.read_text())["tile_synthesis"]
    for (use, tile), row in zip(bench.tiles(), rows, strict=True):
        assert row | bench.tile_row(use, tile) == row
        assert (row["predicted_dsp"], row["predicted_bram18"]) == (row["dsp"], row["bram18"])
        assert row["predicted_lut"] == pytest.approx(row["lut"], rel=0.1)
