"""The page of a latency estimate: total, then operator by operator and cause by cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgecompress.core.report import FactoredLayer, GateResult, LatencyReport
from edgecompress.core.work import Cost, EnergySplit
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
    yield _factored(report)
    yield _bars(report)
    yield lines(f"Assumed for {report.target}", report.assumptions)
    yield lines(f"Good to know about {report.target}", report.notes)


def _totals(report: LatencyReport) -> Table:
    rows = [
        ("latency", figures.duration(report.latency_s), _uncertainty(report)),
        ("throughput", figures.rate(report.throughput_per_s), "inferences"),
        ("cycles", figures.count(report.total_cycles), "at the target's clock"),
        ("MACs", figures.count(report.macs), f"{_gops(report)} GOPS"),
    ]
    if report.bound_s > 0:
        above = f"no mapping takes less; predicted is {report.latency_s / report.bound_s:.3g}x"
        rows.append(("bound", figures.duration(report.bound_s), above))
    if report.moved_bytes > 0:
        intensity = f"{report.macs / report.moved_bytes:.3g} MACs a byte"
        rows.append(("moved", figures.size(report.moved_bytes), intensity))
    if report.sensitivity:
        rows.append(("memory", "", _sensitivity(report)))
    if report.peak_activation_bytes > 0:
        peak = figures.size(report.peak_activation_bytes)
        rows.append(("activations", peak, _peak(report)))
    if report.energy is not None:
        rows.append(("energy", f"{report.energy.total_pj * 1e-9:.4g} mJ", _energy(report.energy)))
    if report.resources:
        rows.append(("resources", report.part or "", _resources(report.resources)))
    return table(
        f"Predicted on {report.target}",
        (Column(""), Column("", right=True), Column("", fit=Fit.WRAP)),
        rows,
        f"target: {report.target_source}",
    )


def _uncertainty(report: LatencyReport) -> str:
    """The range that the stated error of the model leaves, and where that error is from."""
    if report.model_error is None:
        return model_error(report)
    low, high = (report.latency_s * (1 + sign * report.model_error) for sign in (-1, 1))
    return f"{figures.duration(max(0.0, low))} to {figures.duration(high)}: {model_error(report)}"


def _sensitivity(report: LatencyReport) -> str:
    """Latency at other efficiencies of the memory, on one line."""
    found = ", ".join(figures.duration(one.latency_s) for one in report.sensitivity)
    factors = ", ".join(f"{one.factor:g}" for one in report.sensitivity)
    return f"{found} at {factors}x efficiency"


def _peak(report: LatencyReport) -> str:
    """Where activations take the most memory, and whether that is on chip."""
    where = f"alive at once at {report.peak_operator}"
    if not report.on_chip_bytes:
        return where
    fits = "fit" if report.peak_activation_bytes <= report.on_chip_bytes else "do NOT fit"
    return f"{where}; {fits} into {figures.size(report.on_chip_bytes)} on chip"


def _energy(energy: EnergySplit) -> str:
    parts = (
        (energy.mac_pj, "MACs"),
        (energy.on_chip_pj, "on chip"),
        (energy.dram_pj, "memory"),
        (energy.static_pj, "static"),
    )
    total = energy.total_pj or 1.0
    return ", ".join(f"{part / total * 100:.0f} % {name}" for part, name in parts if part > 0)


def _resources(resources: Mapping[str, int]) -> str:
    names = {"dsp": "DSP", "bram18": "BRAM18", "lut": "LUT"}
    return ", ".join(
        f"{figures.count(count)} {names.get(name, name)}"
        for name, count in resources.items()
        if count
    )


def _factored(report: LatencyReport) -> Table:
    """Decomposed layers beside the layers that they were."""
    columns = (
        Column("decomposed layer", fit=Fit.ELIDE),
        Column("parts", right=True),
        Column("dense", right=True),
        Column("by memory", right=True),
        Column("on chip", right=True),
        Column("taken"),
        Column("speed", right=True),
    )
    rows = (
        (
            layer.name,
            str(layer.operators),
            figures.duration(layer.dense_s),
            figures.duration(layer.memory_s),
            figures.duration(layer.fused_s),
            "on chip" if layer.fused else "by memory",
            _speed(layer),
        )
        for layer in report.factored
    )
    note = (
        "dense: the layer in one operator, at its factors' bits; on chip: what passes between"
        " factors stays there where it fits; speed: dense over what is taken"
    )
    return table(f"Decomposed layers on {report.target}", columns, rows, note)


def _speed(layer: FactoredLayer) -> str:
    taken = layer.fused_s if layer.fused else layer.memory_s
    if layer.dense_s is None or not taken:
        return figures.UNKNOWN
    return f"{layer.dense_s / taken:.2f}x"


def _gops(report: LatencyReport) -> str:
    return f"{2 * report.macs / report.latency_s / 1e9:.3g}" if report.latency_s > 0 else "0"


def _operators(report: LatencyReport, *, per_layer: bool) -> Table:
    pairs = list(zip(report.costs, report.op_types, strict=True))
    hidden = ""
    if not per_layer and len(pairs) > _SLOWEST_SHOWN:
        hidden = f", the {_SLOWEST_SHOWN} slowest of {len(pairs)}"
        pairs = sorted(pairs, key=lambda pair: -pair[0].total_cycles)[:_SLOWEST_SHOWN]
    energy = report.energy is not None
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
        *((Column("µJ", right=True),) if energy else ()),
    )
    known = set(report.notes)
    assumed = [bool(set(cost.assumed.split("; ")) - known - {""}) for cost, _ in pairs]
    rows = (
        (
            *_operator_row(cost, op_type, "*" if star else ""),
            *((_microjoules(cost),) if energy else ()),
        )
        for (cost, op_type), star in zip(pairs, assumed, strict=True)
    )
    note = "* costed by assumption" if any(assumed) else ""
    return table(f"Operators on {report.target}{hidden}", columns, rows, note)


def _operator_row(cost: Cost, op_type: str, star: str) -> tuple[str, ...]:
    return (
        cost.name + star,
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


def _microjoules(cost: Cost) -> str:
    return figures.UNKNOWN if cost.energy_pj is None else f"{cost.energy_pj * 1e-6:.3g}"


def _bars(report: LatencyReport) -> Bars:
    return Bars(
        f"Time by operator on {report.target}",
        tuple(
            Bar(plain(cost.name), cost.latency_s, figures.duration(cost.latency_s))
            for cost in report.costs
            if cost.total_cycles > 0
        ),
    )
