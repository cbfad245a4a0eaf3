"""The page of a compression report: before and after, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.core.healing import Healing
from edgecompress.core.layers import Skip
from edgecompress.core.report import CompressionReport, Fidelity, LayerResult, Verification
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
from edgecompress.report.shared import (
    agreement_note,
    checker_line,
    file_name,
    gates_section,
    made_from,
    model_error,
    skips_section,
    warnings_section,
)

_FLOAT_BYTES = 4


def compression_page(report: CompressionReport) -> Page:
    """A `CompressionReport` for people."""
    output = file_name(report.output) if report.output else "(nothing written)"
    return page(
        f"{report.command}: {file_name(report.input)} → {output}",
        (
            _totals(report),
            gates_section(report.gates),
            warnings_section(report.warnings),
            _layers(report.layers),
            _bars(report.layers),
            skips_section(_all_skips(report)),
            _healing(report.healing),
            _verification(report.verification),
            _assumptions(report),
            _provenance(report),
        ),
    )


def _totals(report: CompressionReport) -> Table:
    columns = (
        Column(""),
        Column("before", right=True),
        Column("after", right=True),
        Column("change", fit=Fit.WRAP),
    )
    note = ""
    if report.verification and report.verification.fidelity:
        note = _data_note(report.verification.fidelity)
    return table("Before and after", columns, _total_rows(report), note)


def _total_rows(report: CompressionReport) -> Iterator[tuple[str, str, str, str]]:
    before, after = report.input.size_bytes, report.output.size_bytes if report.output else None
    yield (
        "file size",
        figures.size(before),
        figures.UNKNOWN if after is None else figures.size(after),
        "" if after is None else figures.factor(before, after, "smaller", "larger"),
    )
    yield _count_row("parameters", report.parameters_before, report.parameters_after)
    yield _count_row("MACs", report.macs_before, report.macs_after)
    if report.verification and report.verification.fidelity:
        yield from fidelity_rows(report.verification.fidelity)
    for index, latency in enumerate(report.latency_after or report.latency_before):
        now = latency.latency_s if report.latency_after else None
        then = report.latency_before[index].latency_s if report.latency_before else None
        faster = (
            "" if now is None or then is None else figures.factor(then, now, "faster", "slower")
        )
        error = "" if latency.model_error is None else f" (±{latency.model_error * 100:.3g} %)"
        yield (
            f"predicted, {latency.target}",
            figures.duration(then),
            figures.duration(now),
            faster + error,
        )


def fidelity_rows(fidelity: Fidelity) -> Iterator[tuple[str, str, str, str]]:
    """Accuracy or agreement, then the error of the outputs."""
    number = f"n = {fidelity.samples:,}"
    if fidelity.accuracy is not None:
        reference = fidelity.reference_accuracy
        change = "" if reference is None else f"{figures.points(fidelity.accuracy - reference)}, "
        yield (
            "accuracy",
            figures.share(reference),
            figures.share(fidelity.accuracy),
            change + number,
        )
    if fidelity.top1_agreement is not None:
        yield "top-1 agreement", "", figures.share(fidelity.top1_agreement), number
    yield (
        "output error",
        "",
        figures.error(fidelity.relative_l2),
        f"SQNR {figures.decibels(fidelity.sqnr_db)}, {number}",
    )


def _count_row(name: str, before: int | None, after: int | None) -> tuple[str, str, str, str]:
    return name, figures.count(before), figures.count(after), figures.change(before, after)


def _data_note(fidelity: Fidelity) -> str:
    return f"measured on {fidelity.source}" if fidelity.source else ""


def _layers(layers: tuple[LayerResult, ...]) -> Table:
    columns = (
        Column("layer", fit=Fit.ELIDE),
        Column("what was done", fit=Fit.ELIDE),
        Column("params", right=True),
        Column("after", right=True),
        Column("MACs", right=True),
        Column("stored", right=True),
        Column("error", right=True),
    )
    rows = (
        (
            layer.name,
            what_was_done(layer),
            figures.short_count(layer.parameters_before),
            figures.short_count(layer.parameters_after),
            figures.change(layer.macs_before, layer.macs_after).replace("no change", "same"),
            figures.size(layer.storage_bits_after / 8),
            figures.error(layer.relative_error),
        )
        for layer in layers
    )
    return table("Layers", columns, rows, "error: of the layer's output; of its weights if no data")


def what_was_done(layer: LayerResult) -> str:
    """``tucker2 8x8, 3 bit``."""
    parts = []
    if layer.format:
        ranks = "x".join(str(rank) for rank in layer.ranks)
        parts.append(f"{layer.format} {ranks}".strip())
    if layer.grid:
        widths = layer.grid.replace("+", "")
        parts.append(f"{layer.grid} bit" if widths.isdigit() else layer.grid)
    if layer.method == "exact":
        parts.append("as it was")
    return ", ".join(parts) or layer.action


def _bars(layers: tuple[LayerResult, ...]) -> Bars:
    return Bars(
        "Stored weights by layer (grey: as float32 before)",
        tuple(
            Bar(
                plain(layer.name),
                layer.storage_bits_after / 8,
                figures.size(layer.storage_bits_after / 8),
                float(layer.parameters_before * _FLOAT_BYTES),
            )
            for layer in layers
        ),
    )


def _all_skips(report: CompressionReport) -> Iterator[Skip]:
    """Skips, and layers with a reason to be other than asked; each reason of a layer once."""
    yield from report.skips
    told: dict[str, list[str]] = {}
    for skip in report.skips:
        told.setdefault(skip.layer, []).append(skip.reason)
    for layer in report.layers:
        reason = layer.reason
        for known in told.get(layer.name, ()):
            reason = f"; {reason}; ".replace(f"; {known}; ", "; ").strip("; ")
        if reason:
            yield Skip(layer.name, reason, layer.parameters_before)


def _healing(healing: Healing | None) -> Lines:
    """What came of training the decomposed graph."""
    if healing is None:
        return lines("Healing", ())
    measure = {"kl": "divergence of the scores"}.get(healing.measure, "relative L2 error")
    agreement = ""
    if healing.agreement_before is not None and healing.agreement_after is not None:
        agreement = (
            f", same largest score on {figures.share(healing.agreement_before)} -> "
            f"{figures.share(healing.agreement_after)}"
        )
    kept = (
        f"the weights after pass {healing.best} were kept"
        if healing.best
        else "the weights from before training were kept"
    )
    return lines(
        "Healing",
        (
            f"{measure} from the float model on {healing.held_back:,} samples held back: "
            f"{healing.before:.3g} -> {healing.after:.3g}{agreement}",
            f"{healing.epochs} passes over {healing.samples:,} samples without labels, "
            f"{healing.steps:,} steps, {figures.duration(healing.seconds)}; {kept}",
        ),
        Tone.GOOD,
    )


def _verification(verification: Verification | None) -> Lines:
    if verification is None:
        return lines("Verification", ())
    agreement = agreement_note(verification.optimized_top1_agreement)
    return lines(
        "Verification",
        (
            checker_line(verification.checker),
            "optimised and unoptimised onnxruntime differ by "
            f"{figures.error(verification.optimized_relative_l2)}{agreement} "
            f"(n = {verification.samples:,})",
        ),
        Tone.GOOD,
    )


def _assumptions(report: CompressionReport) -> Lines:
    latencies = report.latency_after or report.latency_before
    texts = [f"{one.target}: {one.target_source}; {model_error(one)}" for one in latencies]
    shared: dict[str, list[str]] = {}
    for latency in latencies:
        for assumption in latency.assumptions:
            shared.setdefault(assumption, []).append(latency.target)
    for assumption, targets in shared.items():
        everywhere = len(targets) == len(latencies)
        texts.append(assumption if everywhere else f"{assumption} ({', '.join(targets)})")
    return lines("Predicted latency rests on", texts)


def _provenance(report: CompressionReport) -> Lines:
    files = [f"input sha256 {report.input.sha256}"]
    files += [f"output sha256 {report.output.sha256}"] if report.output else []
    return made_from(files, report.settings, (f"seed {report.seed}",), report.versions)
