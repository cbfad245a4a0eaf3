"""Giving out a report: to files, to stdout, and as an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.cli.streams import describe_stdout, write_report
from edgecompress.core.errors import GateNotMet, InputOutputFailed, UsageError

if TYPE_CHECKING:
    from edgecompress.report.forms import Report


def check_report_files(
    reports: Sequence[str], *, others: Iterable[str | None], models: Iterable[str | None] = ()
) -> None:
    """Find out before the work whether the reports can be written after it.

    Args:
        reports: To be written.
        others: Files of this run.
        models: ONNX models among them, whose data may lie in further files.

    Raises:
        UsageError: A suffix that is no form of report, or a file named twice.
        InputOutputFailed: A folder that is missing or cannot be written, or an input.
    """
    from edgecompress.report.forms import form_of

    if len({os.path.abspath(path) for path in reports}) < len(reports):
        raise UsageError("the same file is given twice", where="--report")
    others = tuple(others)
    for path in reports:
        form_of(path)
        check_writable(path, others=others, models=models)


def check_writable(
    path: str, *, others: Iterable[str | None], models: Iterable[str | None] = ()
) -> None:
    """Refuse a path that cannot be written, or that is another file of the run.

    Args:
        path: To be written.
        others, models: As for `check_report_files`.

    Raises:
        InputOutputFailed: With the reason.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputOutputFailed("no such folder", where=str(folder))
    if Path(path).is_dir():
        raise InputOutputFailed("is a folder", where=path)
    if not os.access(folder, os.W_OK):
        raise InputOutputFailed("the folder cannot be written", where=str(folder))
    from edgecompress.pipeline.outputs import external_data

    models = tuple(models)
    for other in (*others, *models, *map(str, external_data(models, written=(path,)))):
        if other and _same_file(path, other):
            raise InputOutputFailed("would overwrite another file of this run", where=path)


def publish(report: Report, reports: Sequence[str], output_format: str) -> None:
    """Write the report to its files, then to stdout, then judge the gates.

    Raises:
        InputOutputFailed: A file or stdout cannot be written.
        GateNotMet: A limit does not hold; everything has been written.
    """
    from edgecompress.report.files import write_text
    from edgecompress.report.forms import form_of, gates_of, in_full, render
    from edgecompress.report.shared import gate_value

    for path in reports:
        write_text(Path(path), render(in_full(report), form_of(path)))
    write_report(render(report, output_format, describe_stdout()))
    missed = [gate for gate in gates_of(report) if not gate.met]
    if missed:
        found = (
            f"{gate.name} is {gate_value(gate.value, gate.unit)}, "
            f"the limit is {gate_value(gate.limit, gate.unit)}"
            for gate in missed
        )
        raise GateNotMet(f"gate not met: {'; '.join(found)}")


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return os.path.abspath(path) == os.path.abspath(other)
