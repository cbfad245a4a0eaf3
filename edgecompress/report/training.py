"""The page of a training run: what came out, layer by layer, memory, and how it got there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.core.training_report import (
    EpochRecord,
    MemoryRow,
    MemoryTable,
    TrainedLayer,
    TrainingReport,
)
from edgecompress.report import figures
from edgecompress.report.page import (
    Column,
    Fit,
    Lines,
    Page,
    Section,
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
    skips_section,
    warnings_section,
)
from edgecompress.report.training_plots import training_plots

_FLOAT_BITS = 32
_ROWS_SHOWN = 20
_LESS = "less: dense over trained, by measured sizes where there are some"
_LESS_IN_FEW_BITS = (
    "less: dense over in few bits; of the peak, known in float32 only, dense over trained; by "
    "measured sizes where there are some"
)


def training_page(report: TrainingReport) -> Page:
    """A training run for people."""
    return page(f"train: {report.network} → {file_name(report.output)}", _sections(report))


def _sections(report: TrainingReport) -> Iterator[Section]:
    yield _totals(report)
    yield gates_section(report.gates)
    yield warnings_section(report.warnings)
    yield _scores(report)
    yield _layers(report.layers)
    yield _factors(report)
    for memory in report.memory:
        if memory.batch == report.batch:
            yield _memory(memory)
    yield _batches(report)
    yield _stored(report)
    yield _history(report)
    yield from training_plots(report)
    yield skips_section(report.skips)
    yield _check(report)
    yield lines("Assumed", report.assumptions)
    yield lines("Good to know", report.notes)
    yield _provenance(report)


def _totals(report: TrainingReport) -> Table:
    columns = (
        Column(""),
        Column("dense", right=True),
        Column("trained", right=True),
        Column("", fit=Fit.WRAP),
    )
    dense_bits = report.parameters_dense * _FLOAT_BITS
    rows = [
        (
            "parameters",
            figures.count(report.parameters_dense),
            figures.count(report.parameters_end),
            fewer(report.parameters_dense, report.parameters_end),
        ),
        (
            "stored",
            figures.size(dense_bits / 8),
            figures.size(report.storage_bits / 8),
            figures.factor(dense_bits, report.storage_bits, "smaller", "larger"),
        ),
        ("written file", "", figures.size(report.output.size_bytes), _file_note(report)),
    ]
    if report.parameters_target is not None:
        goal = figures.count(report.parameters_target)
        rows.insert(1, ("target", "", goal, _reached(report, report.parameters_target)))
    epochs = len(report.history)
    early = f" of {report.epochs_asked}" if epochs < report.epochs_asked else ""
    where = report.device + (f" x {report.processes}" if report.processes > 1 else "")
    plural = "epoch" if epochs == 1 and not early else "epochs"
    trained = figures.duration(report.history[-1].elapsed_s) if report.history else ""
    earlier = ", earlier parts included," if report.resumed_at else ""
    took = f" in {trained}{earlier}" if trained else ""
    note = (
        f"{report.task}; {epochs}{early} {plural}{took} on {where}; weights of epoch "
        f"{report.best_epoch}; the whole command took {figures.duration(report.elapsed_s)}"
    )
    return table("Dense and trained", columns, rows, note)


def _reached(report: TrainingReport, target: int) -> str:
    if report.parameters_end > target:
        return "not reached"
    return "already at the start" if report.parameters_start <= target else "reached"


def _file_note(report: TrainingReport) -> str:
    """Why the file is larger than what is stored."""
    return "float32; quantize stores it in fewer bits" if report.stored else ""


def fewer(before: float, after: float) -> str:
    """``30.3x fewer``."""
    return figures.factor(before, after, "fewer", "more")


def _scores(report: TrainingReport) -> Table:
    columns = (
        Column("data"),
        Column("network"),
        Column("measure"),
        Column("value", right=True),
        Column("samples", right=True),
    )
    rows = (
        (
            one.data,
            one.network,
            one.metric,
            _score(one.metric, one.value),
            figures.count(one.samples),
        )
        for one in report.scores
    )
    sources = [f"trained on {report.data.source}"]
    sources += [f"tested on {report.test.source}"] if report.test else []
    return table("How good it is", columns, rows, "; ".join(sources))


def _score(metric: str, value: float | None) -> str:
    """Accuracies in per cent, all else as it is."""
    if value is None:
        return figures.UNKNOWN
    return figures.share(value) if "accuracy" in metric else f"{value:.4f}"


def _layers(layers: Sequence[TrainedLayer]) -> Table:
    columns = (
        Column("layer", fit=Fit.ELIDE),
        Column("format"),
        Column("modes", fit=Fit.WRAP),
        Column("ranks", fit=Fit.WRAP),
        Column("dense", right=True),
        Column("trained", right=True),
        Column("", right=True),
    )
    rows = (
        (
            layer.name,
            layer.format or "dense",
            layer.folding,
            _ranks(layer),
            figures.short_count(layer.parameters_dense),
            figures.short_count(layer.parameters_end),
            _times(layer.parameters_dense, layer.parameters_end),
        )
        for layer in layers
    )
    return table("Layers", columns, rows, "ranks: at the start → now; weights without biases")


def _ranks(layer: TrainedLayer) -> str:
    start, end = (
        "x".join(str(rank) for rank in ranks) for ranks in (layer.ranks_start, layer.ranks_end)
    )
    return end if start == end else f"{start} → {end}"


def _times(before: float, after: float) -> str:
    """``30.3x``: how many times less."""
    return f"{figures.short_times(before / after)}x" if before > 0 and after > 0 else ""


def _memory(memory: MemoryTable) -> Table:
    measured = any(row.ours_measured_bytes is not None for row in memory.rows)
    stored = any(row.stored_bytes is not None for row in memory.rows)
    columns = [Column(""), Column("dense", right=True)]
    columns += [Column("(measured)", right=True)] if measured else []
    columns += [Column("trained", right=True)]
    columns += [Column("(measured)", right=True)] if measured else []
    columns += [Column("in few bits", right=True)] if stored else []
    columns += [Column("less", right=True)]
    rows = []
    for row in memory.rows:
        cells = [row.name, figures.size(row.dense_bytes)]
        cells += [_size(row.dense_measured_bytes)] if measured else []
        cells += [figures.size(row.ours_bytes)]
        cells += [_size(row.ours_measured_bytes)] if measured else []
        cells += [_size(row.stored_bytes)] if stored else []
        cells += [_less(row)]
        rows.append(cells)
    source = "predicted from shapes" if memory.predicted else "measured: only a run can tell"
    notes = [source]
    notes += ["measured: bytes that the allocator gave out, in float32"] if measured else []
    notes.append(_LESS_IN_FEW_BITS if stored else _LESS)
    samples = "sample" if memory.batch == 1 else "samples"
    title = f"Memory of a training step of {memory.batch} {samples}"
    return table(title, columns, rows, "; ".join(notes))


def _batches(report: TrainingReport) -> Table:
    """Totals and peaks for all batch sizes; activations grow with the batch, the rest does not."""
    columns = [Column("batch", right=True)]
    for title in ("total dense", "trained", "less", "peak dense", "trained", "less"):
        columns.append(Column(title, right=True))
    rows = []
    for memory in report.memory:
        cells = [figures.count(memory.batch)]
        for row in memory.rows:
            if row.name in ("total", "peak"):
                ours = row.ours_bytes if row.stored_bytes is None else row.stored_bytes
                cells += [figures.size(row.dense_bytes), figures.size(ours), _less(row)]
        rows.append(cells)
    kinds = {row.name for memory in report.memory for row in memory.rows}
    note = "total: parameters, gradients, optimizer state and activations"
    if "outputs" in kinds:
        note = (
            "total: parameters, perturbed copies, optimizer state, outputs and the activations of "
            "one forward pass"
        )
    if report.stored:
        note += "; trained: in few bits, the peak in float32"
    note += f"; {_LESS}"
    return table("Memory of a training step over the batch", columns, rows, note)


def _less(row: MemoryRow) -> str:
    return "" if row.factor is None else f"{figures.short_times(row.factor)}x"


def _size(bytes_: float | None) -> str:
    return figures.UNKNOWN if bytes_ is None else figures.size(bytes_)


def _factors(report: TrainingReport) -> Table:
    columns = (Column("part", fit=Fit.WRAP), Column("less", right=True), Column("of", fit=Fit.WRAP))
    rows = ((one.part, f"{figures.short_times(one.factor)}x", one.of) for one in report.factors)
    return table("Which part saves what", columns, rows)


def _stored(report: TrainingReport) -> Table:
    columns = (
        Column("stored"),
        Column("numbers", right=True),
        Column("bits", right=True),
        Column("bytes", right=True),
        Column("", fit=Fit.WRAP),
    )
    rows = (
        (
            one.name,
            figures.count(one.numbers),
            f"{one.bits:.4g}",
            figures.count(one.size_bytes),
            one.note,
        )
        for one in report.stored
    )
    return table("Stored while it trains", columns, rows)


def _history(report: TrainingReport) -> Table:
    shown = _spread(report.history, report.best_epoch)
    judged = any(epoch.validation_loss is not None for epoch in report.history)
    scored = any(epoch.score is not None for epoch in report.history)
    columns = [Column("epoch", right=True), Column("loss", right=True)]
    columns += [Column("validation", right=True)] if judged else []
    columns += [Column(report.score_name, right=True)] if scored else []
    columns += [Column("parameters", right=True), Column("ranks")]
    columns.append(Column("time so far", right=True))
    rows = []
    for epoch in shown:
        cells = [str(epoch.epoch), f"{epoch.loss:.4g}"]
        cells += [_number(epoch.validation_loss)] if judged else []
        cells += [_score(report.score_name, epoch.score)] if scored else []
        cells += [figures.count(epoch.parameters), _range(epoch)]
        cells += [figures.duration(epoch.elapsed_s)]
        rows.append(cells)
    hidden = len(report.history) - len(shown)
    notes = ["ranks: least to largest"] if any(epoch.ranks for epoch in shown) else []
    notes += [f"{hidden:,} more epochs are in the JSON report"] if hidden else []
    notes.append("time so far: since training began")
    return table("Epochs", columns, rows, "; ".join(notes))


def _number(value: float | None) -> str:
    return figures.UNKNOWN if value is None else f"{value:.4g}"


def _range(epoch: EpochRecord) -> str:
    """``2 to 16``: the ranks of all layers."""
    every = [rank for ranks in epoch.ranks.values() for rank in ranks]
    if not every:
        return ""
    return str(every[0]) if min(every) == max(every) else f"{min(every)} to {max(every)}"


def _spread(history: Sequence[EpochRecord], best: int) -> list[EpochRecord]:
    """At most so many epochs: the first, the last, the best, and others evenly between."""
    if len(history) <= _ROWS_SHOWN:
        return list(history)
    step = (len(history) - 1) / (_ROWS_SHOWN - 1)
    places = {round(place * step) for place in range(_ROWS_SHOWN)}
    return [epoch for place, epoch in enumerate(history) if place in places or epoch.epoch == best]


def _check(report: TrainingReport) -> Lines:
    check = report.check
    network = "the trained network"
    if report.stored:
        network += ", its activations not rounded,"
    return lines(
        "Verification",
        (
            checker_line(check.checker),
            f"onnxruntime and {network} differ by {figures.error(check.relative_l2)}"
            f"{agreement_note(check.top1_agreement)} (n = {check.samples:,})",
            "optimised and unoptimised onnxruntime differ by "
            f"{figures.error(check.optimized_relative_l2)}",
        ),
        Tone.GOOD,
    )


def _provenance(report: TrainingReport) -> Lines:
    files = [f"data sha256 {report.data.sha256}"]
    files += [f"test data sha256 {report.test.sha256}"] if report.test else []
    files += [f"weights to begin with sha256 {report.start.sha256}"] if report.start else []
    files.append(f"output sha256 {report.output.sha256}")
    run = [f"seed {report.seed}"]
    run += [f"resumed after epoch {report.resumed_at}"] if report.resumed_at else []
    return made_from(files, report.settings, run, report.versions)
