"""The page of a generated design: its files, its run against the model, its resources."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.rtl import RtlReport, RtlResources
from edgecompress.report import figures
from edgecompress.report.page import Column, Fit, Lines, Page, Table, Tone, lines, page, table
from edgecompress.report.shared import file_name


def rtl_page(report: RtlReport) -> Page:
    """An `RtlReport` for people."""
    sections = (
        _verdict(report),
        table("Design", (Column(""), Column("", fit=Fit.WRAP)), _facts(report)),
        _resources(report.synthesis),
        _files(report),
        lines("Notes", _notes(report)),
    )
    return page(f"rtl: {report.family} of {report.target}", sections)


def _verdict(report: RtlReport) -> Lines:
    run = report.run
    if run is None:
        return lines("Result", ("written, not run",))
    if not run.passed:
        return lines("Result", ("the test bench failed", *run.failures), Tone.BAD)
    cycles = figures.count(run.cycles or 0)
    if run.cycles_agree:
        text = f"every output is the exact sum; {cycles} cycles, as the cost model says"
        return lines("Result", (text,), Tone.GOOD)
    predicted = figures.count(report.predicted_cycles)
    text = f"every output is the exact sum; {cycles} cycles, the cost model says {predicted}"
    return lines("Result", (text,), Tone.BAD)


def _facts(report: RtlReport) -> Iterator[tuple[str, str]]:
    if report.model:
        yield "model", file_name(report.model)
    if report.layer:
        yield "layer", report.layer
    yield "operands", report.operands
    yield "from", report.data_source
    yield "predicted cycles", figures.count(report.predicted_cycles)
    if report.run:
        counted = report.run.cycles
        yield "counted cycles", figures.count(counted) if counted is not None else "none"
        yield "simulator", report.run.simulator
    yield "parameters", ", ".join(f"{name} {value}" for name, value in report.settings.items())


def _resources(found: RtlResources | None) -> Table:
    columns = (
        Column("resource"),
        Column("counted", right=True),
        Column("predicted", right=True),
        Column("difference", right=True),
    )
    if found is None:
        return table("Resources", columns, ())
    pairs = (
        ("look-up tables", found.lut, found.predicted_lut),
        ("DSP blocks", found.dsp, found.predicted_dsp),
        ("flip-flops", found.flip_flops, None),
        ("block memories of 18 Kib", found.bram18, None),
    )
    rows = (
        (
            name,
            figures.count(counted),
            "" if predicted is None else figures.count(predicted),
            "" if predicted is None or not counted else f"{predicted / counted - 1:+.1%}",
        )
        for name, counted, predicted in pairs
    )
    return table("Resources", columns, rows, f"counted by {found.tool}")


def _files(report: RtlReport) -> Table:
    columns = (Column("file", fit=Fit.ELIDE), Column("size", right=True))
    rows = ((fact.path, figures.size(fact.size_bytes)) for fact in report.files)
    return table("Files", columns, rows)


def _notes(report: RtlReport) -> Iterator[str]:
    yield from report.notes
    yield f"target: {report.target_source}"
