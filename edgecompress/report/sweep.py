"""The page of a sweep: latency over one number of the targets."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.exploration import SweepReport, Value
from edgecompress.report import figures
from edgecompress.report.names import plain
from edgecompress.report.page import Column, Fit, Page, Plot, Section, Series, lines, page, table
from edgecompress.report.shared import file_name

_RATIO_OF_LOG = 20
"""From this ratio of the largest to the smallest number an axis is logarithmic."""


def sweep_page(report: SweepReport) -> Page:
    """A sweep for people."""
    return page(f"sweep of {report.path}: {file_name(report.model)}", _sections(report))


def _sections(report: SweepReport) -> Iterator[Section]:
    columns = (
        Column(report.path, right=True),
        *(Column(plain(series.target), right=True, fit=Fit.WRAP) for series in report.series),
    )
    rows = (
        (
            _shown(value),
            *(figures.duration(series.latency_s[place]) for series in report.series),
        )
        for place, value in enumerate(report.values)
    )
    yield table("Predicted latency", columns, rows)
    yield table(
        "As in the target file",
        (Column("target"), Column(report.path, right=True), Column("latency", right=True)),
        (
            (series.target, _shown(series.base_value), figures.duration(series.base_latency_s))
            for series in report.series
        ),
    )
    yield _plot(report)
    yield lines(
        "Not taken",
        (
            f"{series.target} at {_shown(value)}: {reason}"
            for series in report.series
            for value, reason in zip(report.values, series.reasons, strict=True)
            if reason
        ),
    )


def _plot(report: SweepReport) -> Plot:
    """Latency over the number; words have no axis."""
    numbers = [float(value) for value in report.values if isinstance(value, (int, float))]
    whole = len(numbers) == len(report.values) > 1
    series = tuple(
        Series(
            plain(one.target),
            tuple(n for n, s in zip(numbers, one.latency_s, strict=True) if s is not None),
            tuple(s * 1e3 for s in one.latency_s if s is not None),
        )
        for one in report.series
        if whole
    )
    times = [value for one in series for value in one.y]
    return Plot(
        title=f"Latency over {plain(report.path)}",
        x_label=plain(report.path),
        y_label="latency, ms",
        series=series,
        log_x=_is_wide(numbers),
        log_y=_is_wide(times),
    )


def _is_wide(numbers: list[float]) -> bool:
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= _RATIO_OF_LOG * min(numbers)


def _shown(value: Value) -> str:
    if isinstance(value, (bool, str)):
        return str(value).lower()
    return figures.short_count(value) if value >= 1e6 else f"{value:.6g}"
