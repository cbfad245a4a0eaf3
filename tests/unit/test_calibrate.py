"""Calibration to measured times, and the check of target files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report_json import validate

from edgecompress.core.errors import ConfigurationInvalid, DataInvalid, InputOutputFailed
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import (
    TARGET_FOLDER,
    Target,
    list_targets,
    load_target,
    parse_target,
)
from edgecompress.hardware.target_text import Variants, target_text
from edgecompress.pipeline.calibrate import NO_MEMORY, calibrate, fit_overheads, read_times
from edgecompress.pipeline.check_target import (
    KINDS,
    check_target,
    check_targets,
    source_kind,
    source_kinds,
)
from edgecompress.pipeline.estimate import estimate_latency
from edgecompress.report.forms import render

Times = Callable[..., Path]


@pytest.fixture
def model(sample_models: Path) -> Model:
    return load_model(sample_models / "digits_cnn.onnx", normalize=False)


@pytest.fixture
def times(model: Model, tmp_path: Path) -> Times:
    """Writes the times of a target as if they had been measured, with some noise."""

    def write(target: Target, noise: float = 0.0, more: str = "") -> Path:
        rng = np.random.default_rng(0)
        path = tmp_path / "times.csv"
        rows = []
        for work in derive_work(model, {}):
            seconds = cost(work, target).latency_s
            if seconds:
                rows.append(f"{work.name},{seconds * (1 + noise * rng.standard_normal())!r}")
        path.write_text("layer,seconds\n" + "\n".join(rows) + "\n" + more)
        return path

    return write


@pytest.mark.parametrize("name", ["systolic-ws-32", "winocnn-zcu102-w6", "roofline-generic"])
def test_what_made_the_times_is_found(name: str, model: Model, times: Times) -> None:
    """Truth: the numbers that the times were made with."""
    base = load_target(name)
    true = replace(base, dram_efficiency_share=0.43, operator_overhead_s=2e-6)
    found, report = calibrate(model, base, str(times(true)))
    assert found.dram_efficiency_share == report.dram_efficiency_share == 0.43
    assert found.operator_overhead_s == pytest.approx(2e-6, rel=1e-3)
    assert report.median_error < 1e-4 < report.median_error_before
    assert report.left_out_error < 1e-3
    assert abs(report.total_error) < 1e-3
    assert report.notes == ()


def test_noise_and_an_outlier(model: Model, times: Times) -> None:
    base = load_target("roofline-generic")
    true = replace(base, dram_efficiency_share=0.5, operator_overhead_s=3e-6)
    path = times(true, 0.02)
    lines = path.read_text().splitlines()
    name, seconds = lines[2].split(",")
    lines[2] = f"{name},{float(seconds) * 4}"
    path.write_text("\n".join(lines))
    found, report = calibrate(model, base, str(path))
    assert found.dram_efficiency_share == pytest.approx(0.5, abs=0.08)
    assert found.operator_overhead_s == pytest.approx(3e-6, rel=0.15)
    assert report.median_error < 0.04
    assert report.left_out_error > report.median_error
    assert found.model_error == pytest.approx(report.left_out_error, rel=1e-2)


def test_the_calibrated_target_says_so(model: Model, times: Times, tmp_path: Path) -> None:
    base = load_target("roofline-generic")
    true = replace(base, dram_efficiency_share=0.43, operator_overhead_s=2e-6)
    found, report = calibrate(model, base, str(times(true, 0.01)))
    sources = dict(found.sources)
    assert sources["dram_efficiency_share"].startswith(
        f"measured: fitted to {len(report.layers)} layers of times.csv, median error "
    )
    worst = max(abs(one.after_s / one.measured_s - 1) for one in report.layers)
    assert sources["dram_efficiency_share"].endswith(f" %, worst {worst * 100:.2g} %")
    assert sources["operator_overhead_s"] == sources["dram_efficiency_share"]
    assert sources["clock_hz"] == dict(base.sources)["clock_hz"]
    text = target_text(found, "calibrated")
    assert parse_target(text.encode(), where="x") == found
    assert "each predicted by a calibration to the others" in found.model_error_source
    assert estimate_latency(model, found).model_error == found.model_error
    validate(render(report, "json"), "calibration-report")
    page = render(report, "text")
    assert "left out" in page
    assert f"{report.dram_efficiency_share:.3g}" in page
    assert "error of the sum" in page


def test_repeats_unknown_names_and_untimed_operators(model: Model, times: Times) -> None:
    base = load_target("systolic-ws-32")
    free = next(w.name for w in derive_work(model, {}) if not cost(w, base).total_cycles)
    path = times(base, 0.0, f"nowhere,1e-6\n{free},1e-6\n")
    first = path.read_text().splitlines()[1]
    path.write_text(path.read_text() + f"{first}\n{first.split(',')[0]},5\n")
    _, report = calibrate(model, base, str(path))
    assert report.unused == (
        "nowhere: no operator of this name",
        f"{free}: the model takes it to need no time on this target",
    )
    assert report.layers[0].measured_s == float(first.split(",")[1])
    assert report.median_error == pytest.approx(0.0, abs=1e-9)
    assert report.dram_efficiency_share == base.dram_efficiency_share


def test_without_the_memory_its_share_stays(model: Model, times: Times) -> None:
    base = replace(load_target("systolic-ws-32"), dram_bytes_per_s=1e15)
    found, report = calibrate(model, base, str(times(replace(base, operator_overhead_s=1e-6))))
    if NO_MEMORY in report.notes:
        assert found.dram_efficiency_share == base.dram_efficiency_share
        assert dict(found.sources)["dram_efficiency_share"].startswith("assumed")
    assert found.operator_overhead_s == pytest.approx(1e-6, rel=1e-3)


def test_wrong_numbers_of_the_array_are_named(model: Model, times: Times) -> None:
    """Truth: the times of a device with half the columns, which no memory and overhead repair."""
    base = load_target("systolic-ws-32")
    narrow = Variants(base).build({"parameters.array_columns": 16})
    _, report = calibrate(model, base, str(times(narrow)))
    assert any(
        note.startswith("compute-bound operators stay off by -")
        and note.endswith("the array's own numbers (clock, rows, columns) look wrong")
        for note in report.notes
    )
    slow = replace(base, clock_hz=base.clock_hz / 2, operator_overhead_s=2e-6)
    _, report = calibrate(model, base, str(times(slow, 0.02)))
    assert report.dram_efficiency_share < 0.5
    assert any(note.startswith("the fit wants only") for note in report.notes)
    assert "look wrong" in " ".join(render(report, "text").split())


def test_the_overhead_is_at_least_nothing() -> None:
    """Truth: by hand; all predictions but one are 1 s too low, one row is too high."""
    table = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]])
    measured = np.array([2.0, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(fit_overheads(table, measured), [1.0, 0.0], atol=1e-9)


def test_overhead_is_added_to_operators_that_take_time(model: Model) -> None:
    """Truth: the number of such operators times the overhead."""
    base = load_target("systolic-ws-32")
    before = estimate_latency(model, base)
    after = estimate_latency(model, replace(base, operator_overhead_s=1e-5))
    timed = sum(one.total_cycles > 0 for one in before.costs)
    assert after.latency_s - before.latency_s == pytest.approx(timed * 1e-5)
    assert [one.total_cycles > 0 for one in before.costs] == [
        one.total_cycles > 0 for one in after.costs
    ]
    for a, b in zip(before.costs, after.costs, strict=True):
        if a.total_cycles:
            assert b.fill_cycles - a.fill_cycles == pytest.approx(1e-5 * base.clock_hz)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "columns are missing"),
        ("a,b\n1,2\n", "columns are a, b"),
        ("layer,seconds\nx,zero\n", "t.csv:2: 'zero' is not a time"),
        ("layer,seconds\nx,1\ny,-1\n", "t.csv:3: '-1' is not a time"),
        ("layer,latency_s\nx,inf\n", "'inf' is not a time"),
        ("layer,seconds\nx\n", "None is not a time"),
    ],
)
def test_measurements_that_are_refused(content: str, said: str) -> None:
    with pytest.raises(DataInvalid, match=r"t\.csv") as caught:
        read_times(content.encode(), "t.csv")
    assert said in str(caught.value)


def test_too_few_measurements(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("layer,seconds\na,1\nb,1\nc,1\n")
    with pytest.raises(DataInvalid, match=r"0 of 3 operators can be used; 3 are needed"):
        calibrate(model, load_target("systolic-ws-32"), str(path))
    with pytest.raises(InputOutputFailed, match="cannot be read"):
        calibrate(model, load_target("systolic-ws-32"), str(tmp_path / "none.csv"))
    with pytest.raises(DataInvalid, match="not a CSV file in UTF-8"):
        read_times(b"layer,seconds\n\xff,1\n", "t.csv")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("assumed: usual", "assumed"),
        ("Assumed", "assumed"),
        ("published design: 8 bits", "published"),
        ("measured: fitted to 9 layers", "measured"),
        ("fitted on arrays up to 4x4", "measured"),
        ("arithmetic on the data sheet", "arithmetic"),
        ("data sheet", "published"),
        ("explored: best", "explored"),
        ("220 MHz requested in the scripts", "stated"),
        ("assumedly", "stated"),
    ],
)
def test_what_a_source_says(source: str, kind: str) -> None:
    assert source_kind(source) == kind
    assert kind in KINDS


@pytest.mark.parametrize("name", list_targets())
def test_shipped_targets_are_valid(name: str) -> None:
    check = check_target(name)
    assert check.problems == ()
    assert all("does not fit" in text for text in check.warnings)
    target = load_target(name)
    assert sum(check.sources.values()) == len(target.sources)
    assert check.sources == source_kinds(target)


def checked(tmp_path: Path, *changes: tuple[str, str], name: str = "systolic-ws-32") -> Path:
    path = tmp_path / "mine.toml"
    text = (TARGET_FOLDER / f"{name}.toml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("clock_hz = 500e6", "clock_hz = 500.0", "clock_hz = 500: is the clock in hertz?"),
        ("clock_hz = 500e6", "clock_hz = 50e9", "is the clock in hertz?"),
        ("dram_bytes_per_s = 12.8e9", "dram_bytes_per_s = 12.8", "is it in bytes a second?"),
        (
            "dram_efficiency_share = 0.9",
            "dram_efficiency_share = 0.05",
            "memories give more of their peak",
        ),
        ("array_rows = 32", "array_rows = 32768", "is it one side of the array?"),
        ("activation_bits = 8", "activation_bits = 64", "is it in bits?"),
    ],
)
def test_what_looks_off(before: str, after: str, said: str, tmp_path: Path) -> None:
    wide = ("accumulator_bits = 32", "accumulator_bits = 96")
    check = check_target(str(checked(tmp_path, wide, (before, after))))
    assert check.problems == ()
    assert any(said in text for text in check.warnings)


def test_every_problem_of_a_file(tmp_path: Path) -> None:
    path = checked(
        tmp_path, ("clock_hz = 500e6", "clock_hz = 0.0"), ("array_rows = 32", "rows = 3")
    )
    check = check_target(str(path))
    assert check.family == ""
    assert len(check.problems) > 3
    assert any("clock_hz: should be greater than 0" in text for text in check.problems)
    path.write_text("= 3")
    assert "not a TOML file" in check_target(str(path)).problems[0]
    with pytest.raises(ConfigurationInvalid, match="no target 'nothing'"):
        check_target("nothing")


def test_the_part(tmp_path: Path) -> None:
    name = "winocnn-zcu102-w6"
    text = (TARGET_FOLDER / f"{name}.toml").read_text()
    named = ('part = "xczu9eg"', 'part = "{}"') if "part = " in text else None
    if named is None:
        pytest.skip("the target names no part")
    path = checked(tmp_path, (named[0], named[1].format("xc7z020")), name=name)
    check = check_target(str(path))
    assert check.problems == ()
    assert any("does not fit xc7z020: 2,344 of 220 DSP" in text for text in check.warnings)
    assert check.available == {"dsp": 220, "bram18": 280, "lut": 53_200}
    path = checked(tmp_path, (named[0], named[1].format("xcvu9p")), name=name)
    assert "no part 'xcvu9p'" in check_target(str(path)).problems[0]


def test_the_report_of_checks(tmp_path: Path) -> None:
    path = checked(tmp_path, ("clock_hz = 500e6", "clock_hz = 0.0"))
    report = check_targets([str(path), "winocnn-zcu102-w6"])
    validate(render(report, "json"), "target-check-report")
    page = render(report, "text")
    assert "invalid" in page
    assert "clock_hz: should be greater than 0" in page
