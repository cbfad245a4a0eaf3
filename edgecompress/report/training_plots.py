"""Plots of a training run: losses, parameters, ranks and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.core.training_report import EpochRecord, MemoryTable, TrainingReport
from edgecompress.report.names import plain
from edgecompress.report.page import Plot, Series

_LAYERS_NAMED = 6
"""Of the layers in the plot of ranks; as many as there are colours that are told apart."""


def training_plots(report: TrainingReport) -> Iterator[Plot]:
    """All plots; those without points are left out by the page."""
    history = report.history
    epochs = tuple(float(one.epoch) for one in history)
    yield Plot(
        title="Loss",
        x_label="epoch",
        whole_x=True,
        y_label="loss",
        series=(
            Series("training", epochs, tuple(one.loss for one in history)),
            *_validation(history),
        ),
    )
    yield Plot(
        title="Parameters while it trained",
        x_label="epoch",
        whole_x=True,
        y_label="parameters of the network",
        series=(
            Series("trained", epochs, tuple(float(one.parameters) for one in history)),
            *_target(report, epochs),
        ),
    )
    yield Plot(
        title="Ranks while it trained",
        x_label="epoch",
        whole_x=True,
        y_label="sum of the ranks of a layer",
        series=tuple(_ranks(report, epochs)),
    )
    yield _memory(report.memory)


def _validation(history: Sequence[EpochRecord]) -> Iterator[Series]:
    judged = [(float(one.epoch), one.validation_loss) for one in history]
    known = [(epoch, loss) for epoch, loss in judged if loss is not None]
    if known:
        yield Series(
            "validation", tuple(epoch for epoch, _ in known), tuple(loss for _, loss in known)
        )


def _target(report: TrainingReport, epochs: tuple[float, ...]) -> Iterator[Series]:
    if report.parameters_target is not None and epochs:
        goal = float(report.parameters_target)
        yield Series("target", epochs, tuple(goal for _ in epochs))


def _ranks(report: TrainingReport, epochs: tuple[float, ...]) -> Iterator[Series]:
    """The largest layers by name and in front, the others pale behind them."""
    factored = [layer for layer in report.layers if layer.format]
    by_size = sorted(factored, key=lambda layer: -layer.parameters_dense)
    named = {layer.name for layer in by_size[:_LAYERS_NAMED]}
    for layer in factored:
        sums = [sum(one.ranks.get(layer.name, ())) for one in report.history]
        strong = layer.name in named
        label = plain(layer.name) if strong else ""
        if any(sums):
            yield Series(label, epochs, tuple(map(float, sums)), strong=strong)


def _memory(tables: Sequence[MemoryTable]) -> Plot:
    """Totals over the batch, where there are several batches."""
    shown: list[Series] = []
    ordered = sorted(tables, key=lambda one: one.batch)
    totals = [(float(one.batch), row) for one in ordered for row in one.rows if row.name == "peak"]
    if len(totals) > 1:
        batches = tuple(batch for batch, _ in totals)
        shown = [
            Series("dense", batches, tuple(row.dense_bytes / 1e6 for _, row in totals)),
            Series("trained", batches, tuple(row.ours_bytes / 1e6 for _, row in totals)),
        ]
        stored = [row.stored_bytes for _, row in totals if row.stored_bytes is not None]
        if len(stored) == len(totals):
            shown.append(Series("in few bits", batches, tuple(size / 1e6 for size in stored)))
    return Plot(
        title="Peak memory of a training step over the batch",
        x_label="samples of a step",
        y_label="MB",
        series=tuple(shown),
        log_x=True,
        log_y=True,
    )
