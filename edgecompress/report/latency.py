"""The page of a latency estimate: total, then operator by operator and cause by cause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.core.report import GateResult, LatencyReport
from edgecompress.core.work import Cost
from edgecompress.report import figures
from edgecompress.report.names import plain
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
from edgecompress.report.shared import file_name, gates_section, model_error

_SLOWEST_SHOWN = 10


def latency_page(
    reports: Sequence[LatencyReport], gates: Sequence[GateResult], *, per_layer: bool
) -> Page:
    """Latency reports of one model for people.

    Args:
        reports: One per target; at least one.
        gates: Limits that were set.
        per_layer: All operators in graph order, else the slowest.
    """
    sections: list[Section] = [gates_section(gates)]
    for report in reports:
        sections += _sections(report, per_layer=per_layer)
    return page(f"estimate-latency: {file_name(reports[0].model)}", sections)


def _sections(report: LatencyReport, *, per_layer: bool) -> Iterator[Section]:
    yield _totals(report)
    yield _operators(report, per_layer=per_layer)
    yield _bars(report)
    yield lines(f"Assumed for {report.target}", report.assumptions)


def _totals(report: LatencyReport) -> Table:
    rows = [
        ("latency", figures.duration(report.latency_s), model_error(report)),
        ("throughput", figures.rate(report.throughput_per_s), "inferences"),
        ("cycles", figures.count(report.total_cycles), "at the target's clock"),
        ("MACs", figures.count(report.macs), f"{_gops(report)} GOPS"),
    ]
    if report.energy_pj is not None:
        rows.append(("energy", f"{report.energy_pj * 1e-9:.4g} mJ", "per inference"))
    return table(
        f"Predicted on {report.target}",
        (Column(""), Column("", right=True), Column("", fit=Fit.WRAP)),
        rows,
        f"target: {report.target_source}",
    )


def _gops(report: LatencyReport) -> str:
    return f"{2 * report.macs / report.latency_s / 1e9:.3g}" if report.latency_s > 0 else "0"


def _operators(report: LatencyReport, *, per_layer: bool) -> Table:
    pairs = list(zip(report.costs, report.op_types, strict=True))
    hidden = ""
    if not per_layer and len(pairs) > _SLOWEST_SHOWN:
        hidden = f", the {_SLOWEST_SHOWN} slowest of {len(pairs)}"
        pairs = sorted(pairs, key=lambda pair: -pair[0].total_cycles)[:_SLOWEST_SHOWN]
    columns = (
        Column("operator", fit=Fit.ELIDE),
        Column("type", fit=Fit.ELIDE),
        Column("cycles", right=True),
        Column("comp.", right=True),
        Column("load", right=True),
        Column("store", right=True),
        Column("fill", right=True),
        Column("bound"),
        Column("util", right=True),
        Column("bytes", right=True),
    )
    rows = (_operator_row(cost, op_type) for cost, op_type in pairs)
    note = "* costed by assumption" if any(cost.assumed for cost, _ in pairs) else ""
    return table(f"Operators on {report.target}{hidden}", columns, rows, note)


def _operator_row(cost: Cost, op_type: str) -> tuple[str, ...]:
    return (
        cost.name + ("*" if cost.assumed else ""),
        op_type,
        figures.short_count(cost.total_cycles),
        figures.short_count(cost.compute_cycles),
        figures.short_count(cost.load_cycles),
        figures.short_count(cost.store_cycles),
        figures.short_count(cost.fill_cycles),
        cost.bottleneck,
        f"{cost.utilisation * 100:.0f}%",
        figures.short_count(cost.weight_bytes + cost.activation_bytes),
    )


def _bars(report: LatencyReport) -> Bars:
    return Bars(
        f"Time by operator on {report.target}",
        tuple(
            Bar(plain(cost.name), cost.latency_s, figures.duration(cost.latency_s))
            for cost in report.costs
            if cost.total_cycles > 0
        ),
    )
