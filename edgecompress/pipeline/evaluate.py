"""Accuracy, fidelity and running time of models in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecompress.core.arrays import Array
from edgecompress.core.errors import UsageError
from edgecompress.core.options import Gates
from edgecompress.core.report import EvaluationReport, Fidelity
from edgecompress.core.samples import Feed, Samples
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.pipeline.data import rows_of
from edgecompress.pipeline.gates import check_gates
from edgecompress.pipeline.scores import Differences, Hits
from edgecompress.pipeline.timing import interleaved_medians

if TYPE_CHECKING:
    from edgecompress.graph.model import Model

Outputs = Sequence[Any]


def evaluate(
    model: Model, reference: Model | None, samples: Samples, *, gates: Gates | None = None
) -> EvaluationReport:
    """Measure a model, alone or beside a reference, as stock onnxruntime runs their files.

    Args:
        model: As read from its file; the file is what runs.
        reference: What it is compared with; None for the model alone.
        samples: Fitted to the model's inputs.
        gates: Limits on size, drop and accuracy.

    Raises:
        UsageError: The models have different inputs, or a limit is on something not measured.
        DataInvalid: The labels do not fit the model's first output.
        Unsupported: onnxruntime cannot run a model, or the outputs cannot be compared.
        VerificationFailed: The model gives NaN where the reference does not.
    """
    if reference is not None:
        _check_inputs(model, reference)
    file = Path(model.file.path)
    if reference is None:
        accuracy, close = _accuracy_of(file, samples), None
        times = _times([file], samples.feeds[0])
    else:
        close = compare_files(Path(reference.file.path), file, samples)
        accuracy = close.accuracy
        times = _times([file, Path(reference.file.path)], samples.feeds[0])
    return EvaluationReport(
        model=model.file,
        reference=None if reference is None else reference.file,
        samples=samples.count,
        data_source=samples.source,
        accuracy=accuracy,
        reference_accuracy=None if close is None else close.reference_accuracy,
        fidelity=close,
        latency_ratio=None if reference is None else times[0] / times[1],
        latency_s=times[0],
        reference_latency_s=None if reference is None else times[1],
        gates=check_gates(
            gates or Gates(),
            size_bytes=model.file.size_bytes,
            fidelity=close,
            accuracy=accuracy,
        ),
        warnings=samples.warnings,
    )


def compare_files(reference: Path, model: Path, samples: Samples) -> Fidelity:
    """How close the file of a model is to that of its reference, and the accuracy of both.

    Raises:
        DataInvalid: The labels do not fit the first output.
        Unsupported: onnxruntime cannot run a model, or the outputs cannot be compared.
        VerificationFailed: The model gives NaN where the reference does not.
    """
    sessions = [open_session(path, optimize=True) for path in (reference, model)]
    pairs = (
        (run_feeds(sessions[0], [feed])[0], run_feeds(sessions[1], [feed])[0])
        for feed in samples.feeds
    )
    return _fidelity(pairs, samples)


def fidelity(
    reference_outputs: Sequence[Outputs], outputs: Sequence[Outputs], samples: Samples
) -> Fidelity:
    """How close outputs are to those of a reference.

    Args:
        reference_outputs, outputs: One list of outputs for each feed.
        samples: What the feeds were.

    Raises:
        DataInvalid: The labels do not fit the first output.
        Unsupported: The outputs cannot be compared.
        VerificationFailed: NaN where the reference is not.
    """
    return _fidelity(zip(reference_outputs, outputs, strict=True), samples)


def _fidelity(pairs: Any, samples: Samples) -> Fidelity:
    differences, before, after = Differences(), Hits(), Hits()
    for (expected, found), labels in zip(pairs, _labels(samples), strict=True):
        differences.add(expected, found)
        if labels is not None:
            before.add(expected, labels)
            after.add(found, labels)
    labelled = samples.labels is not None
    return Fidelity(
        samples=samples.count,
        relative_l2=differences.relative_l2,
        sqnr_db=differences.sqnr_db,
        top1_agreement=differences.top1_agreement,
        accuracy=after.accuracy if labelled else None,
        reference_accuracy=before.accuracy if labelled else None,
        source=samples.source,
    )


def _accuracy_of(path: Path, samples: Samples) -> float | None:
    """Accuracy of one model on labels; None without labels."""
    if samples.labels is None:
        return None
    session, hits = open_session(path, optimize=True), Hits()
    for feed, labels in zip(samples.feeds, _labels(samples), strict=True):
        if labels is not None:
            hits.add(run_feeds(session, [feed])[0], labels)
    return hits.accuracy


def _labels(samples: Samples) -> Iterator[Array | None]:
    """Labels of each feed."""
    start = 0
    for feed in samples.feeds:
        end = start + rows_of(feed)
        yield None if samples.labels is None else samples.labels[start:end]
        start = end


def _times(paths: Sequence[Path], feed: Feed) -> tuple[float, ...]:
    """Median seconds for one feed, one thread, in turns."""
    sessions = [open_session(path, optimize=True, threads=1) for path in paths]
    return interleaved_medians(
        [lambda session=session: run_feeds(session, [feed]) for session in sessions]  # type: ignore[misc]
    )


def _check_inputs(model: Model, reference: Model) -> None:
    found, wanted = (
        [(item.name, item.dtype) for item in one.inputs()] for one in (model, reference)
    )
    if found != wanted:
        raise UsageError(
            "the two models take different inputs: "
            f"{', '.join(f'{name} {dtype}' for name, dtype in found)} and "
            f"{', '.join(f'{name} {dtype}' for name, dtype in wanted)}",
            where=reference.file.path,
        )
