"""Limits for pipelines: reading them, and holding a result against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from edgecompress.core.errors import UsageError
from edgecompress.core.options import Gates
from edgecompress.core.quantities import read_share, read_size, read_time
from edgecompress.core.report import CompressionReport, Fidelity, GateResult, LatencyReport
from edgecompress.core.training_step import TrainingStepReport

T = TypeVar("T")


def parse_size(text: str, *, option: str = "--max-size") -> int:
    """Bytes from ``250KiB`` or ``100kB``.

    Raises:
        UsageError: Not a size, or without a unit.
    """
    return _as_usage(read_size, text, option)


def parse_latency(text: str, *, option: str = "--max-latency") -> float:
    """Seconds from ``5ms``.

    Raises:
        UsageError: Not a time, or without a unit.
    """
    return _as_usage(read_time, text, option)


def parse_share(text: str, *, option: str) -> float:
    """A share from ``0.5%`` or ``0.005``.

    Raises:
        UsageError: Not a share from 0 to 1.
    """
    return _as_usage(read_share, text, option)


def check_gates(
    gates: Gates,
    *,
    size_bytes: int | None = None,
    latency_s: float | None = None,
    fidelity: Fidelity | None = None,
    accuracy: float | None = None,
) -> tuple[GateResult, ...]:
    """Hold every limit that is set against what was found.

    Args:
        gates: The limits.
        size_bytes: Of the written model.
        latency_s: Predicted, on the target.
        fidelity: Against the reference; gives the accuracy and the drop.
        accuracy: On labels, where there is no reference.

    Raises:
        UsageError: A limit is set on something that was not measured.
    """
    if accuracy is None and fidelity is not None:
        accuracy = fidelity.accuracy
    size = None if size_bytes is None else float(size_bytes)
    compared = "data and a reference: --data" if fidelity is None else "a model that gives scores"
    rows = (
        ("max-size", gates.max_size_bytes, size, "bytes", "a written model"),
        ("max-latency", gates.max_latency_s, latency_s, "s", "a device: --target"),
        ("max-drop", gates.max_drop, drop(fidelity), "share", compared),
        ("min-accuracy", gates.min_accuracy, accuracy, "share", "data with labels: --data"),
    )
    results: list[GateResult] = []
    for name, limit, value, unit, needed in rows:
        if limit is None:
            continue
        if value is None:
            raise UsageError(f"--{name} is set, but nothing to check it on", hint=f"needs {needed}")
        met = value >= limit if name == "min-accuracy" else value <= limit
        results.append(
            GateResult(name=name, limit=float(limit), value=value, unit=unit, met=bool(met))
        )
    return tuple(results)


def check_compression(gates: Gates, report: CompressionReport) -> tuple[GateResult, ...]:
    """Hold every limit that is set against a finished run; of several targets the slowest counts.

    Raises:
        UsageError: A limit is set on something that was not measured.
    """
    return check_gates(
        gates,
        size_bytes=report.output.size_bytes if report.output else None,
        latency_s=max((latency.latency_s for latency in report.latency_after), default=None),
        fidelity=report.verification.fidelity if report.verification else None,
    )


def strict_gate(reports: Iterable[LatencyReport | TrainingStepReport]) -> GateResult:
    """That nothing was assumed for any target."""
    found = {text for report in reports for text in report.assumptions}
    return GateResult(
        name="strict", limit=0.0, value=float(len(found)), unit="assumptions", met=not found
    )


def drop(fidelity: Fidelity | None) -> float | None:
    """Accuracy lost, or share of top-1 places that changed without labels; None if unknown."""
    if fidelity is None:
        return None
    if fidelity.accuracy is not None and fidelity.reference_accuracy is not None:
        return fidelity.reference_accuracy - fidelity.accuracy
    if fidelity.top1_agreement is not None:
        return 1.0 - fidelity.top1_agreement
    return None


def _as_usage(read: Callable[[str], T], text: str, option: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(str(error), where=option) from None
