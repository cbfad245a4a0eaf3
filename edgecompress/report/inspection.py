"""The page of an inspection: what is in a model."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.report import InspectionReport, LayerFact
from edgecompress.report import figures
from edgecompress.report.page import Column, Fit, Page, Table, lines, page, table
from edgecompress.report.shared import file_name, skips_section


def inspection_page(report: InspectionReport) -> Page:
    """An `InspectionReport` for people."""
    operators = ", ".join(f"{number} {kind}" for kind, number in report.nodes.items())
    return page(
        f"inspect: {file_name(report.model)}",
        (
            table("Model", (Column(""), Column("", fit=Fit.WRAP)), _facts(report)),
            lines("Operators", (operators,) if operators else ()),
            _layers(report.layers),
            lines("Notes", _notes(report.layers)),
            skips_section(report.skips),
        ),
    )


def _facts(report: InspectionReport) -> Iterator[tuple[str, str]]:
    yield "file size", figures.size(report.model.size_bytes)
    yield "sha256", report.model.sha256
    yield "opset, IR", f"{report.opset}, {report.ir_version}"
    if report.producer:
        yield "producer", report.producer
    for name, kind in report.inputs.items():
        yield "input", f"{name}: {kind}"
    for name, kind in report.outputs.items():
        yield "output", f"{name}: {kind}"
    yield "layers", figures.count(len(report.layers))
    yield "parameters", figures.count(report.parameters)
    yield "MACs", figures.count(report.macs) if report.macs is not None else "a shape is open"


def _layers(layers: tuple[LayerFact, ...]) -> Table:
    columns = (
        Column("layer", fit=Fit.ELIDE),
        Column("kind"),
        Column("weight", right=True),
        Column("output", right=True),
        Column("MACs", right=True),
        Column("bits", right=True),
        Column("stored", right=True),
    )
    rows = (
        (
            layer.name,
            layer.kind,
            figures.shape(layer.weight_shape),
            figures.shape(layer.output_shape),
            figures.short_count(layer.macs),
            str(layer.weight_bits),
            figures.size(layer.storage_bits / 8),
        )
        for layer in layers
    )
    return table("Layers", columns, rows)


def _notes(layers: tuple[LayerFact, ...]) -> Iterator[str]:
    return (f"{layer.name}: {layer.note}" for layer in layers if layer.note)
