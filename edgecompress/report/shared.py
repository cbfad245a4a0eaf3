"""Sections that several reports have: gates, what is left as it is, a latency table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from edgecompress.core.layers import Skip
from edgecompress.core.report import FileFact, GateResult, LatencyReport
from edgecompress.report import figures
from edgecompress.report.page import Column, Fit, Lines, Table, Tone, lines, table

_NAMES_SHOWN = 3


def file_name(fact: FileFact) -> str:
    """The last part of a path."""
    return PurePath(fact.path).name


def gates_section(gates: Sequence[GateResult]) -> Table:
    """Every limit that was set, with what was found."""
    columns = (Column("gate"), Column("limit", right=True), Column("found", right=True), Column(""))
    return table(
        "Gates",
        columns,
        (
            (
                gate.name,
                gate_value(gate.limit, gate.unit),
                gate_value(gate.value, gate.unit),
                "met" if gate.met else "NOT MET",
            )
            for gate in gates
        ),
    )


def gate_value(value: float, unit: str) -> str:
    """A limit or a finding in its unit; six digits, so that the two are told apart."""
    match unit:
        case "bytes":
            return f"{value:,.0f} bytes"
        case "s":
            scale, unit = (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
            return f"{value * scale:.6g} {unit}"
        case "share":
            return f"{value * 100:.4g} %"
        case _:
            return f"{value:.6g} {unit}"


def skips_section(skips: Iterable[Skip]) -> Table:
    """What was not done to which layers, grouped by reason."""
    groups: dict[str, list[Skip]] = {}
    for skip in skips:
        groups.setdefault(skip.reason, []).append(skip)
    columns = (
        Column("reason", fit=Fit.WRAP),
        Column("layers", right=True),
        Column("weights", right=True),
        Column("which", fit=Fit.WRAP),
    )
    return table(
        "Not done, and why",
        columns,
        (
            (
                reason,
                str(len(group)),
                figures.count(sum(skip.parameters for skip in group)),
                _some_names([skip.layer for skip in group]),
            )
            for reason, group in groups.items()
        ),
    )


def warnings_section(warnings: Iterable[str]) -> Lines:
    """What the user should know before trusting the figures."""
    return lines("Warnings", warnings, Tone.WARNING)


def agreement_note(agreement: float | None) -> str:
    """Goes on after a difference of outputs; empty where outputs have no largest one."""
    if agreement is None:
        return ""
    return f", same largest output on {figures.share(agreement)}"


def checker_line(passed: bool) -> str:
    """Whether a written file is valid."""
    return "onnx.checker passed" if passed else "onnx.checker did not run"


def made_from(
    files: Iterable[str], settings: dict[str, str], run: Iterable[str], versions: dict[str, str]
) -> Lines:
    """What it takes to get the same bytes again: hashes, what was asked for, seed, versions."""
    texts = list(files)
    if settings:
        texts.append(f"settings: {_pairs(settings)}")
    texts += run
    if versions:
        texts.append(f"versions: {_pairs(versions)}")
    return lines("Made from", texts)


def model_error(report: LatencyReport) -> str:
    """The target's stated error in words."""
    if report.model_error is None:
        return "error of the cost model not known"
    source = f" ({report.model_error_source})" if report.model_error_source else ""
    return f"error of the cost model ±{report.model_error * 100:.3g} %{source}"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _some_names(names: Sequence[str]) -> str:
    shown = [name or "(no name)" for name in names[:_NAMES_SHOWN]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
