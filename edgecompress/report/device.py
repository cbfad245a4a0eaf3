"""The pages of reports about devices: explorations, sweeps, checks and calibrations."""

from __future__ import annotations

from edgecompress.core.exploration import (
    CalibrationReport,
    ExplorationReport,
    SweepReport,
    TargetCheckReport,
)
from edgecompress.report.explore import exploration_page
from edgecompress.report.page import Page
from edgecompress.report.sweep import sweep_page
from edgecompress.report.target_files import calibration_page, check_page


def device_page(
    report: ExplorationReport | SweepReport | TargetCheckReport | CalibrationReport,
) -> Page:
    """A report about a device for people."""
    match report:
        case ExplorationReport():
            return exploration_page(report)
        case SweepReport():
            return sweep_page(report)
        case TargetCheckReport():
            return check_page(report)
        case CalibrationReport():
            return calibration_page(report)
