"""The page of an evaluation: one model on data, or two side by side."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.report import EvaluationReport, TargetAccuracy
from edgecompress.report import figures
from edgecompress.report.page import Column, Fit, Page, Section, lines, page, table
from edgecompress.report.shared import file_name, gates_section, skips_section, warnings_section


def evaluation_page(report: EvaluationReport) -> Page:
    """An `EvaluationReport` for people."""
    note = f"measured on {report.data_source}"
    if report.reference is None:
        columns: tuple[Column, ...] = (Column(""), Column("", right=True), Column("", fit=Fit.WRAP))
        measured = table("Result", columns, _single_rows(report), note)
        title = f"evaluate: {file_name(report.model)}"
    else:
        columns = (
            Column(""),
            Column("reference", right=True),
            Column("model", right=True),
            Column("change", fit=Fit.WRAP),
        )
        measured = table("Result", columns, _pair_rows(report), note)
        title = f"evaluate: {file_name(report.model)} against {file_name(report.reference)}"
    on_target = () if report.on_target is None else _on_target(report.on_target)
    sections = (
        measured,
        *on_target,
        gates_section(report.gates),
        warnings_section(report.warnings),
    )
    return page(title, sections)


def _single_rows(report: EvaluationReport) -> Iterator[tuple[str, str, str]]:
    yield "file size", figures.size(report.model.size_bytes), ""
    yield "samples", figures.count(report.samples), ""
    if report.accuracy is not None:
        yield "accuracy", figures.share(report.accuracy), f"n = {report.samples:,}"
    if report.latency_s is not None:
        yield "measured time", figures.duration(report.latency_s), "one batch, one thread"


def _pair_rows(report: EvaluationReport) -> Iterator[tuple[str, str, str, str]]:
    number = f"n = {report.samples:,}"
    if report.reference:
        before, after = report.reference.size_bytes, report.model.size_bytes
        yield (
            "file size",
            figures.size(before),
            figures.size(after),
            figures.factor(before, after, "smaller", "larger"),
        )
    if report.accuracy is not None:
        reference = report.reference_accuracy
        change = "" if reference is None else f"{figures.points(report.accuracy - reference)}, "
        yield "accuracy", figures.share(reference), figures.share(report.accuracy), change + number
    if report.fidelity:
        agreement = report.fidelity.top1_agreement
        if agreement is not None:
            yield "top-1 agreement", "", figures.share(agreement), number
        yield (
            "output error",
            "",
            figures.error(report.fidelity.relative_l2),
            f"SQNR {figures.decibels(report.fidelity.sqnr_db)}, {number}",
        )
    if report.latency_ratio is not None:
        yield (
            "measured time",
            figures.duration(report.reference_latency_s),
            figures.duration(report.latency_s),
            f"{report.latency_ratio:.2f} of the reference, one batch, one thread",
        )


def _on_target(found: TargetAccuracy) -> Iterator[Section]:
    """The model as an accelerator computes it, beside onnxruntime."""
    columns = (
        Column(""),
        Column("onnxruntime", right=True),
        Column("accelerator", right=True),
        Column("", fit=Fit.WRAP),
    )
    sums = "with its truncating datapath" if found.truncates else "with exact sums"
    note = f"{len(found.layers)} convolutions {sums}, the rest in onnxruntime"
    yield table(f"Computed by {found.target}", columns, _target_rows(found), note)
    yield lines(f"Assumed for {found.target}", (found.assumed,) if found.assumed else ())
    yield skips_section(found.skips)


def _target_rows(found: TargetAccuracy) -> Iterator[tuple[str, str, str, str]]:
    close = found.fidelity
    number = f"n = {close.samples:,}"
    if close.accuracy is not None and close.reference_accuracy is not None:
        change = figures.points(close.accuracy - close.reference_accuracy)
        yield (
            "accuracy",
            figures.share(close.reference_accuracy),
            figures.share(close.accuracy),
            f"{change}, {number}",
        )
    if close.top1_agreement is not None:
        yield "top-1 agreement", "", figures.share(close.top1_agreement), number
    for output in found.outputs:
        yield f"SNR of {output.name}", "", figures.decibels(output.snr_db), number
    if found.corrected is None:
        return
    means = "the mean of what rounding costs taken out of the biases"
    if found.corrected.accuracy is not None:
        yield "accuracy, corrected", "", figures.share(found.corrected.accuracy), means
    if found.corrected.top1_agreement is not None:
        yield "agreement, corrected", "", figures.share(found.corrected.top1_agreement), means
