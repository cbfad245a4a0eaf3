"""The page of a training step: phases, memory, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.core.report import GateResult
from edgecompress.core.training_step import PhaseCost, TrainingStepReport
from edgecompress.report import figures
from edgecompress.report.page import (
    Bar,
    Bars,
    Column,
    Fit,
    Page,
    Section,
    Table,
    lines,
    page,
    table,
)
from edgecompress.report.shared import file_name, gates_section


def training_step_page(reports: Sequence[TrainingStepReport], gates: Sequence[GateResult]) -> Page:
    """Training steps of one model, one report per target, for people."""
    sections: list[Section] = [gates_section(gates)]
    for report in reports:
        sections += _sections(report)
    return page(f"training step: {file_name(reports[0].model)}", sections)


def _sections(report: TrainingStepReport) -> Iterator[Section]:
    yield _phases(report)
    yield _memory(report)
    yield Bars(
        f"Time by phase on {report.target}",
        tuple(
            Bar(phase.phase, phase.latency_s, figures.duration(phase.latency_s))
            for phase in report.phases
        ),
    )
    yield lines(f"Assumed for {report.target}", report.assumptions)
    yield lines(f"Good to know about {report.target}", report.notes)


def _phases(report: TrainingStepReport) -> Table:
    columns = (
        Column("phase"),
        Column("MACs", right=True),
        Column("cycles", right=True),
        Column("time", right=True),
        Column("bytes", right=True),
        Column("energy", right=True),
    )
    rows = [_row(phase) for phase in report.phases]
    rows.append(
        (
            "step",
            figures.short_count(sum(phase.macs for phase in report.phases)),
            figures.short_count(sum(phase.cycles for phase in report.phases)),
            figures.duration(report.latency_s),
            figures.short_count(sum(phase.moved_bytes for phase in report.phases)),
            _energy(report.energy_pj),
        )
    )
    return table(
        f"A training step on {report.target}", columns, rows, f"target: {report.target_source}"
    )


def _row(phase: PhaseCost) -> tuple[str, ...]:
    return (
        phase.phase,
        figures.short_count(phase.macs),
        figures.short_count(phase.cycles),
        figures.duration(phase.latency_s),
        figures.short_count(phase.moved_bytes),
        _energy(phase.energy_pj),
    )


def _energy(energy_pj: float | None) -> str:
    return "not known" if energy_pj is None else f"{energy_pj * 1e-6:.4g} µJ"


def _memory(report: TrainingStepReport) -> Table:
    memory, options = report.memory, report.options
    masters = f" and {options.master_bits}-bit masters" if options.master_bits else ""
    rows = (
        ("parameters", memory.parameter_bytes, f"{report.parameters:,} weights{masters}"),
        ("gradients", memory.gradient_bytes, f"of the weights, {options.gradient_bits} bits"),
        ("optimiser", memory.optimizer_bytes, f"state of {options.optimizer}"),
        ("activations", memory.activation_bytes, "kept for the backward pass"),
        ("gradient flow", memory.gradient_flow_bytes, "largest pair of activation gradients"),
        ("total", memory.total_bytes, ""),
    )
    return table(
        f"Memory of a step on {report.target}",
        (Column(""), Column("bytes", right=True), Column("", fit=Fit.WRAP)),
        ((name, figures.count(size), note) for name, size, note in rows),
    )
