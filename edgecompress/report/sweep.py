"""The page of a sweep: latency over one number of the targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from re import fullmatch

from edgecompress.core.exploration import SweepReport, Value
from edgecompress.report import figures
from edgecompress.report.names import plain
from edgecompress.report.page import Column, Fit, Page, Plot, Section, Series, lines, page, table
from edgecompress.report.shared import file_name

_UNITS = (
    ("dram_bytes_per_s", "_bytes_per_s", "GB/s", 1e-9),
    ("clock_hz", "_hz", "MHz", 1e-6),
    (r"element_operations_per_s", "_operations_per_s", "Gop/s", 1e-9),
    (r"operator_overhead_s", "_s", "us", 1e6),
    (r"(parameters\.)?\w+_bytes", "_bytes", "KiB", 1 / 1024),
)
"""By path: what of it the unit stands for, the unit, and the factor."""
_RATIO_OF_LOG = 20
"""From this ratio of the largest to the smallest number an axis is logarithmic."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How a number of a target file is shown.

    Attributes:
        label: Its path, with the unit that it is shown in where that is another than the file's.
        factor: From the number in the file to that shown.
    """

    label: str
    factor: float = 1.0


def unit_of(path: str) -> Unit:
    """The unit that a number of a target file is read best in."""
    for pattern, suffix, unit, factor in _UNITS:
        if fullmatch(pattern, path):
            return Unit(f"{path.removesuffix(suffix)}, {unit}", factor)
    return Unit(path)


def shown(path: str, value: Value) -> str:
    """A number in its unit, to six digits."""
    if isinstance(value, (bool, str)):
        return str(value).lower()
    number = value * unit_of(path).factor
    return figures.short_count(number) if number >= 1e6 else f"{number:.6g}"


def sweep_page(report: SweepReport) -> Page:
    """A sweep for people."""
    return page(f"sweep of {report.path}: {file_name(report.model)}", _sections(report))


def _sections(report: SweepReport) -> Iterator[Section]:
    columns = (
        Column(unit_of(report.path).label, right=True),
        *(Column(plain(series.target), right=True, fit=Fit.WRAP) for series in report.series),
    )
    rows = (
        (
            shown(report.path, value),
            *(figures.duration(series.latency_s[place]) for series in report.series),
        )
        for place, value in enumerate(report.values)
    )
    yield table("Predicted latency", columns, rows)
    name = unit_of(report.path).label
    yield table(
        "As in the target file",
        (Column("target"), Column(name, right=True), Column("latency", right=True)),
        (
            (
                series.target,
                shown(report.path, series.base_value),
                figures.duration(series.base_latency_s),
            )
            for series in report.series
        ),
    )
    yield _plot(report)
    yield lines(
        "Not taken",
        (
            f"{series.target} at {shown(report.path, value)}: {reason}"
            for series in report.series
            for value, reason in zip(report.values, series.reasons, strict=True)
            if reason
        ),
    )


def _plot(report: SweepReport) -> Plot:
    """Latency over the number; words have no axis."""
    unit = unit_of(report.path)
    numbers = [v * unit.factor for v in report.values if isinstance(v, (int, float))]
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
        x_label=plain(unit.label),
        y_label="latency, ms",
        series=series,
        log_x=_is_wide(numbers),
        log_y=_is_wide(times),
    )


def _is_wide(numbers: list[float]) -> bool:
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= _RATIO_OF_LOG * min(numbers)
