"""The page of a simulation: layer by layer, simulated against predicted and against onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.simulation import SimulatedLayer, SimulationReport
from edgecompress.report import figures
from edgecompress.report.names import plain
from edgecompress.report.page import (
    Bar,
    Bars,
    Column,
    Fit,
    Lines,
    Page,
    Table,
    Tone,
    lines,
    page,
    table,
)
from edgecompress.report.shared import file_name, skips_section


def simulation_page(report: SimulationReport) -> Page:
    """A `SimulationReport` for people."""
    sections = (
        _verdict(report),
        _layers(report),
        _bars(report),
        skips_section(report.skips),
        lines("Notes", _notes(report)),
    )
    return page(f"simulate: {file_name(report.model)} on {report.target}", sections)


def _verdict(report: SimulationReport) -> Lines:
    count = len(report.layers)
    if report.agrees:
        limits = " (without the limits of its datapath)" if _truncates(report) else ""
        text = (
            f"{count} layers: every sum{limits} is onnxruntime's, every cycle count that of the"
            " cost model"
        )
        return lines("Result", (text,), Tone.GOOD)
    cycles = [layer.name for layer in report.layers if not layer.cycles_agree]
    outputs = [layer.name for layer in report.layers if not layer.outputs_agree]
    texts = [f"cycles differ from the cost model: {', '.join(cycles)}"] if cycles else []
    texts += [f"results differ from onnxruntime: {', '.join(outputs)}"] if outputs else []
    return lines("Result", texts, Tone.BAD)


def _truncates(report: SimulationReport) -> bool:
    return any(layer.snr_db is not None for layer in report.layers)


def _layers(report: SimulationReport) -> Table:
    truncates = any(layer.snr_db is not None for layer in report.layers)
    columns = (
        Column("layer", fit=Fit.ELIDE),
        Column("type", fit=Fit.ELIDE),
        Column("product", fit=Fit.ELIDE),
        Column("bits"),
        Column("simulated", right=True),
        Column("predicted", right=True),
        Column("cycles"),
        Column("results"),
        *((Column("SNR", right=True),) if truncates else ()),
    )
    rows = (_row(layer, truncates=truncates) for layer in report.layers)
    marked = any(layer.input_quantized_here for layer in report.layers)
    note = "* input quantized here, by its range" if marked else ""
    return table(f"Layers on {report.target} ({report.family})", columns, rows, note)


def _row(layer: SimulatedLayer, *, truncates: bool) -> tuple[str, ...]:
    groups = f"{layer.groups} x " if layer.groups > 1 else ""
    rows = f"{layer.rows}" if layer.rows == layer.all_rows else f"{layer.rows} of {layer.all_rows}"
    row = (
        layer.name + ("*" if layer.input_quantized_here else ""),
        layer.op_type,
        f"{groups}({rows}) x {layer.inner} x {layer.columns}",
        f"{layer.input_bits}x{layer.weight_bits}",
        figures.count(layer.cycles),
        _cycles(layer.predicted_cycles),
        "equal" if layer.cycles_agree else "DIFFER",
        "equal" if layer.outputs_agree else "DIFFER",
    )
    snr = "exact" if layer.snr_db is None else figures.decibels(layer.snr_db)
    return (*row, snr) if truncates else row


def _cycles(value: float) -> str:
    return figures.count(value) if value == int(value) else f"{value:,.2f}"


def _bars(report: SimulationReport) -> Bars:
    return Bars(
        "Cycles by layer",
        tuple(
            Bar(plain(layer.name), layer.cycles, figures.count(layer.cycles))
            for layer in report.layers
        ),
    )


def _notes(report: SimulationReport) -> Iterator[str]:
    yield f"inputs: {report.data_source}"
    if report.row_limit:
        yield (
            f"at most {report.row_limit:,} pixels or rows of each layer, of its first image, were "
            "simulated, and predicted for the same"
        )
    yield from report.notes
    yield f"target: {report.target_source}"
