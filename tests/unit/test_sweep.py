"""Sweeps over one number of a target, and the plots of reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostile_names import HOSTILE_NAMES
from test_report_json import validate

from edgecompress.core.errors import UsageError
from edgecompress.core.exploration import SweepReport
from edgecompress.graph.model import Model, load_model
from edgecompress.hardware.target import TARGET_FOLDER, load_target, parse_target
from edgecompress.pipeline.estimate import Reading, estimate_latency
from edgecompress.pipeline.sweep import sweep
from edgecompress.report.forms import render
from edgecompress.report.html import render_html
from edgecompress.report.page import Plot, Series, page
from edgecompress.report.plots import draw_svg
from edgecompress.report.sweep import unit_of


@pytest.fixture
def model(sample_models: Path) -> Model:
    return load_model(sample_models / "digits_cnn.onnx", normalize=False)


def swept(model: Model, asked: str, *names: str) -> SweepReport:
    return sweep(model, [load_target(name) for name in names], asked, Reading())


def test_points_are_those_of_target_files(model: Model) -> None:
    """Truth: the same number written into the target's file."""
    report = swept(model, "array_rows=8:40:3", "systolic-ws-32")
    assert report.path == "parameters.array_rows"
    assert report.values == (8, 24, 40)
    series = report.series[0]
    text = (TARGET_FOLDER / "systolic-ws-32.toml").read_text()
    for value, latency_s in zip(report.values, series.latency_s, strict=True):
        changed = text.replace("array_rows = 32", f"array_rows = {value}")
        target = parse_target(changed.encode(), where="x")
        assert latency_s == estimate_latency(model, target).latency_s
    assert series.base_value == 32
    assert series.base_latency_s == estimate_latency(model, load_target(series.target)).latency_s


def test_more_bandwidth_is_never_slower(model: Model) -> None:
    names = ("systolic-ws-32", "systolic-os-32", "roofline-generic")
    report = swept(model, "dram.bandwidth=0.5:40:12log", *names)
    assert report.values[0] == 0.5e9
    assert report.values[-1] == pytest.approx(40e9)
    for series in report.series:
        times = [value for value in series.latency_s if value is not None]
        assert times == sorted(times, reverse=True)
        assert times[0] > 2 * times[-1]
        energies = [value for value in series.energy_pj if value is not None]
        assert len(energies) == 12
        assert all(value > 0 for value in energies)


def test_values_that_a_target_does_not_take_say_why(model: Model) -> None:
    report = swept(model, "array_rows=0:2", "systolic-ws-32")
    series = report.series[0]
    assert series.latency_s[0] is None
    assert "parameters.array_rows: should be greater than 0" in series.reasons[0]
    assert series.latency_s[1] is not None
    assert series.reasons[1:] == ("", "")
    assert "array_rows: should be greater than 0" in render(report, "text")


def test_what_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="roofline-generic has no number 'array_rows'"):
        swept(model, "array_rows=1:4", "systolic-ws-32", "roofline-generic")


@pytest.mark.parametrize(
    ("asked", "axis", "cell"),
    [
        ("dram.bandwidth=2,12.8", "dram, GB/s", "12.8"),
        ("clock=100,250", "clock, MHz", "250"),
        ("weight_buffer_bytes=65536,98304", "parameters.weight_buffer, KiB", "96"),
        ("array_rows=8,16", "parameters.array_rows", "16"),
    ],
)
def test_numbers_are_shown_in_units_that_can_be_read(
    asked: str, axis: str, cell: str, model: Model
) -> None:
    report = swept(model, asked, "systolic-ws-32")
    text = render(report, "text")
    assert axis in text
    assert any(line.split()[:1] == [cell] for line in text.splitlines())
    assert [unit_of(report.path).label] == [axis]


@pytest.mark.parametrize("asked", ["clock=100:900:4", "weight_stream.encoding=fixed,packed"])
def test_reports(asked: str, model: Model) -> None:
    report = swept(model, asked, "systolic-ws-32", "systolic-os-32")
    document = validate(render(report, "json"), "sweep-report")
    assert document["values"] == list(report.values)
    assert "systolic-os-32" in render(report, "text")
    html = render(report, "html")
    drawn = 0 if "encoding" in asked else 1
    assert html.count("<svg ") == drawn


PLOT = Plot(
    "Time",
    "x",
    "y",
    (Series("a", (1.0, 10.0, 100.0), (3.0, 2.0, 1.0)), Series("", (2.0,), (2.0,), False, False)),
    log_x=True,
    log_y=True,
)


def test_plots_are_the_same_bytes_and_need_no_policy() -> None:
    svg = draw_svg(PLOT)
    assert svg == draw_svg(PLOT)
    assert svg.startswith("<svg ")
    assert not re.search(r"style|script|<!--|<metadata|<image|<foreignObject|\d{4}-\d\d-\d\d", svg)
    assert set(re.findall(r'href="(.)', svg)) == {"#"}
    assert "#1f77b4" in svg


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_in_plots_are_text(name: str) -> None:
    plot = Plot(name, name, name, (Series(name, (1.0, 2.0), (1.0, 2.0)),))
    text = render_html(page("t", [plot]))
    body = text.split("</style>")[1]
    assert "<script" not in body
    assert "onerror=" not in re.sub(r"&[a-z#0-9]+;.*?&[a-z#0-9]+;", "", body)


def test_a_plot_without_points_is_left_out() -> None:
    assert page("t", [Plot("t", "x", "y", (Series("a", (), ()),))]).sections == ()
