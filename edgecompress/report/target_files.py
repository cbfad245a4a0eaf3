"""The pages of `targets check` and `targets calibrate`."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.exploration import CalibrationReport, TargetCheck, TargetCheckReport
from edgecompress.report import figures
from edgecompress.report.page import Column, Fit, Page, Section, Tone, lines, page, table
from edgecompress.report.shared import file_name


def check_page(report: TargetCheckReport) -> Page:
    """Checked target files for people."""
    return page("targets check", _check_sections(report))


def _check_sections(report: TargetCheckReport) -> Iterator[Section]:
    columns = (
        Column("target", fit=Fit.WRAP),
        Column("family"),
        Column(""),
        Column("sources of its numbers", fit=Fit.WRAP),
        Column("takes of its part", fit=Fit.WRAP),
    )
    rows = (
        (one.file, one.family, _verdict(one), _sources(one), _resources(one))
        for one in report.targets
    )
    yield table("Checked", columns, rows)
    for one in report.targets:
        yield lines(f"Wrong in {one.file}", one.problems, Tone.BAD)
        yield lines(f"Odd in {one.file}", one.warnings, Tone.WARNING)


def _verdict(check: TargetCheck) -> str:
    if check.problems:
        return "invalid"
    return "valid, odd" if check.warnings else "valid"


def _sources(check: TargetCheck) -> str:
    total = sum(check.sources.values())
    return ", ".join(
        f"{kind} {figures.share(count / total, 0)}" for kind, count in check.sources.items()
    )


def _resources(check: TargetCheck) -> str:
    if not check.used:
        return check.part
    parts = (
        f"{figures.share(check.used[name] / check.available[name], 0)} {name.upper()}"
        for name in check.used
    )
    return f"{check.part}: {', '.join(parts)}"


def calibration_page(report: CalibrationReport) -> Page:
    """A calibration for people."""
    title = f"targets calibrate: {report.target} by {file_name(report.model)}"
    return page(title, _calibration_sections(report))


def _calibration_sections(report: CalibrationReport) -> Iterator[Section]:
    titles = (Column(""), Column("before", right=True), Column("after", right=True))
    yield table(
        "Fitted",
        titles,
        (
            (
                "share of the memory's peak",
                f"{report.dram_efficiency_share_before:.3g}",
                f"{report.dram_efficiency_share:.3g}",
            ),
            (
                "overhead of an operator",
                figures.duration(report.operator_overhead_s_before or None),
                figures.duration(report.operator_overhead_s or None),
            ),
            (
                "median error of an operator",
                figures.error(report.median_error_before),
                figures.error(report.median_error),
            ),
            (
                "error of the sum",
                _signed(report.total_error_before),
                _signed(report.total_error),
            ),
            ("mean error, each left out in turn", "", figures.error(report.left_out_error)),
        ),
    )
    columns = (
        Column("operator", fit=Fit.ELIDE),
        Column("measured", right=True),
        Column("before", right=True),
        Column("after", right=True),
        Column("left out", right=True),
    )
    yield table(
        "Operators",
        columns,
        (
            (
                one.name,
                figures.duration(one.measured_s),
                _error(one.before_s, one.measured_s),
                _error(one.after_s, one.measured_s),
                _error(one.left_out_s, one.measured_s),
            )
            for one in report.layers
        ),
        "errors: predicted over measured",
    )
    yield lines("About the fit", report.notes, Tone.WARNING)
    yield lines("Not used", report.unused)


def _error(predicted_s: float, measured_s: float) -> str:
    return _signed(predicted_s / measured_s - 1)


def _signed(error: float) -> str:
    return f"{error * 100:+.1f} %"
