"""The forms of a report by name and by file suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, assert_never

from edgecompress.core.errors import UsageError
from edgecompress.core.exploration import (
    CalibrationReport,
    ExplorationReport,
    SweepReport,
    TargetCheckReport,
)
from edgecompress.core.report import (
    CompressionReport,
    EvaluationReport,
    GateResult,
    InspectionReport,
    LatencyReport,
)
from edgecompress.core.rtl import RtlReport
from edgecompress.core.simulation import SimulationReport
from edgecompress.core.training_report import TrainingReport
from edgecompress.core.training_step import TrainingStepReport
from edgecompress.report.page import Page
from edgecompress.report.terminal import Terminal

FORMS = {".txt": "text", ".json": "json", ".md": "markdown", ".html": "html"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What ``estimate-latency`` found: one report per target, and the limits that were set."""

    reports: tuple[LatencyReport, ...]
    gates: tuple[GateResult, ...] = ()
    per_layer: bool = True


@dataclass(frozen=True, slots=True)
class TrainingSteps:
    """What ``estimate-latency --training-step`` found: one report per target."""

    reports: tuple[TrainingStepReport, ...]
    gates: tuple[GateResult, ...] = ()


ArrayReport = TrainingSteps | SimulationReport | RtlReport
DeviceReport = ExplorationReport | SweepReport | TargetCheckReport | CalibrationReport
NetworkReport = EvaluationReport | InspectionReport | TrainingReport
Report = DeviceReport | CompressionReport | Estimate | NetworkReport | ArrayReport


def form_of(path: str) -> str:
    """The form that a file's suffix asks for.

    Raises:
        UsageError: No form has this suffix.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in FORMS:
        raise UsageError(
            f"{suffix or 'no suffix'} is not a form of report",
            where=path,
            hint=f"one of {', '.join(FORMS)}",
        )
    return FORMS[suffix]


def render(report: Report, form: str, terminal: Terminal | None = None) -> str:
    """A report as text.

    Args:
        report: Any report.
        form: ``text``, ``json``, ``markdown`` or ``html``.
        terminal: Where text goes; 80 columns without colours by default.

    Raises:
        UsageError: No form has this name.
    """
    match form:
        case "text":
            from edgecompress.report.text import render_text

            return render_text(page_of(report), terminal or Terminal())
        case "json":
            from edgecompress.report.json import render_json

            return render_json(document_of(report))
        case "markdown":
            from edgecompress.report.markdown import render_markdown

            return render_markdown(page_of(report))
        case "html":
            from edgecompress.report.html import render_html

            return render_html(page_of(report))
        case _:
            raise UsageError(f"unknown form of report {form!r}")


def gates_of(report: Report) -> Sequence[GateResult]:
    """All limits that were set."""
    return (
        ()
        if isinstance(report, (InspectionReport, DeviceReport, SimulationReport, RtlReport))
        else report.gates
    )


def in_full(report: Report) -> Report:
    """The report with nothing left out for want of space."""
    return replace(report, per_layer=True) if isinstance(report, Estimate) else report


def page_of(report: Report) -> Page:
    """A report for people."""
    from edgecompress.report import compression, latency

    match report:
        case CompressionReport():
            return compression.compression_page(report)
        case Estimate(reports, gates, per_layer):
            return latency.latency_page(reports, gates, per_layer=per_layer)
        case EvaluationReport() | InspectionReport() | TrainingReport():
            return _network_page(report)
        case TrainingSteps() | SimulationReport() | RtlReport():
            return _array_page(report)
        case ExplorationReport() | SweepReport() | TargetCheckReport() | CalibrationReport():
            from edgecompress.report import device

            return device.device_page(report)
        case _:
            assert_never(report)


def _network_page(report: NetworkReport) -> Page:
    """What a network is, or how good it is, for people."""
    from edgecompress.report import evaluation, inspection, training

    match report:
        case EvaluationReport():
            return evaluation.evaluation_page(report)
        case InspectionReport():
            return inspection.inspection_page(report)
        case TrainingReport():
            return training.training_page(report)
        case _:
            assert_never(report)


def _array_page(report: ArrayReport) -> Page:
    """What ran on a modelled array, for people."""
    from edgecompress.report import rtl, simulation, training_step

    match report:
        case SimulationReport():
            return simulation.simulation_page(report)
        case RtlReport():
            return rtl.rtl_page(report)
        case TrainingSteps(reports, gates):
            return training_step.training_step_page(reports, gates)
        case _:
            assert_never(report)


def document_of(report: Report) -> dict[str, Any]:
    """A report for machines."""
    from edgecompress.report import json

    match report:
        case CompressionReport():
            return json.compression_document(report)
        case Estimate(reports, gates):
            return json.latency_document(reports, gates)
        case EvaluationReport() | InspectionReport() | TrainingReport():
            return _network_document(report)
        case TrainingSteps() | SimulationReport() | RtlReport():
            return _array_document(report)
        case ExplorationReport() | SweepReport() | TargetCheckReport() | CalibrationReport():
            return json.device_document(report)
        case _:
            assert_never(report)


def _network_document(report: NetworkReport) -> dict[str, Any]:
    """What a network is, or how good it is, for machines."""
    from edgecompress.report import json

    match report:
        case EvaluationReport():
            return json.evaluation_document(report)
        case InspectionReport():
            return json.inspection_document(report)
        case TrainingReport():
            return json.training_document(report)
        case _:
            assert_never(report)


def _array_document(report: ArrayReport) -> dict[str, Any]:
    """What ran on a modelled array, for machines."""
    from edgecompress.report import json

    match report:
        case SimulationReport():
            return json.simulation_document(report)
        case RtlReport():
            return json.rtl_document(report)
        case TrainingSteps(reports, gates):
            return json.training_step_document(reports, gates)
        case _:
            assert_never(report)
