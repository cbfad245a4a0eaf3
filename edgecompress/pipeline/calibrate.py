"""The free numbers of a target fitted to measured times of operators.

Two numbers are fitted: the share of the memory's peak that is reached, and a time that every
operator takes beside its work. The share is tried in steps of 0.01; for each the best overhead is
found by robust least squares of the relative errors, and the pair with the least loss is taken.

Source: Huber 1964 (loss), Holland and Welsch 1977 (iterated weights), Stone 1974 (leaving one out).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecompress.core.arrays import FloatArray, Shape
from edgecompress.core.errors import DataInvalid, InputOutputFailed
from edgecompress.core.exploration import CalibratedLayer, CalibrationReport
from edgecompress.core.work import ElementWork, Work
from edgecompress.graph.model import Model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import Target

FEWEST_LAYERS = 3
SHARES = tuple(percent / 100 for percent in range(1, 101))
HUBER = 1.345
"""Residuals above this many spreads count by their size, not its square: 95 % as good as least
squares where errors are normal. Source: Holland and Welsch 1977."""
NORMAL_MAD = 0.6745
"""Median absolute deviation over standard deviation of normal errors."""
ROUNDS = 30
EXACT = 1e-12
"""Relative errors below this are none."""
_NAMES = ("layer", "name", "operator")
_SECONDS = ("seconds", "latency_s", "s")

NO_MEMORY = "no operator's time depends on the memory: its efficiency is left as it is"
AT_END = "the fit wants all of the memory's peak, or the least there is: look at dram_bytes_per_s"
OFF = 0.1
HALF = 0.5
"""Assumed: an operator further off than the first, or a memory that gives less than the second of
its peak, is worth a look."""
ARRAY = (
    "compute-bound operators stay off by {error} in the median ({far} of {all} by more than "
    "{limit:.0f} % in one direction): the array's own numbers (clock, rows, columns) look wrong"
)
SQUEEZED = (
    "the fit wants only {share:.2g} of the memory's peak and an overhead, and operators stay off "
    "by up to {worst:.0f} %: the array's own numbers (clock, rows, columns) look wrong"
)
NOT_TIMED = "the model takes it to need no time on this target"
NOT_THERE = "no operator of this name"


@dataclass(frozen=True, slots=True)
class Fit:
    """The two numbers, and the loss."""

    share: float
    overhead_s: float
    loss: float


def read_times(content: bytes, where: str) -> dict[str, float]:
    """Median time by operator of a CSV file with a column of names and one of seconds.

    Raises:
        DataInvalid: No such columns, or a time that is not a positive number.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(f"not a CSV file in UTF-8: {error}", where=where) from error
    found = [name for name in reader.fieldnames or () if name]
    named = next((name for name in _NAMES if name in found), None)
    timed = next((name for name in _SECONDS if name in found), None)
    if named is None or timed is None:
        raise DataInvalid(
            f"columns are {', '.join(found) or 'missing'}",
            where=where,
            hint="a column 'layer' with node names and a column 'seconds' are needed",
        )
    times: dict[str, list[float]] = {}
    for line, row in enumerate(rows, start=2):
        times.setdefault(row[named] or "", []).append(_seconds(row[timed], f"{where}:{line}"))
    return {name: float(np.median(values)) for name, values in times.items()}


def _seconds(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise DataInvalid(f"{text!r} is not a time in seconds above 0", where=where)
    return value


def calibrate(
    model: Model,
    target: Target,
    measurements: str,
    input_shapes: Mapping[str, Shape] | None = None,
) -> tuple[Target, CalibrationReport]:
    """The target with fitted numbers, and how good they are.

    Args:
        model: Loaded with ``normalize=False``; its node names are those of the measurements.
        target: What is calibrated.
        measurements: A CSV file.
        input_shapes: For inputs whose shape is open beyond the batch axis.

    Raises:
        DataInvalid: The file is wrong, or has too few operators that the model knows.
        InputOutputFailed: It cannot be read.
    """
    try:
        content = Path(measurements).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputOutputFailed(f"cannot be read: {reason}", where=measurements) from error
    times = read_times(content, measurements)
    works, unused = _measured_works(derive_work(model, input_shapes or {}), times, target)
    if len(works) < FEWEST_LAYERS:
        raise DataInvalid(
            f"{len(works)} of {len(times)} operators can be used; {FEWEST_LAYERS} are needed",
            where=measurements,
            hint=unused[0] if unused else "",
        )
    measured = np.array([times[work.name] for work in works])
    table, shares = _predictions(works, target)
    fit = fit_times(table, shares, measured)
    left_out = _left_out(table, shares, measured)
    calibrated = _calibrated(target, fit, len(shares) > 1)
    before, after = _seconds_on(works, target), _seconds_on(works, calibrated)
    report = CalibrationReport(
        model=model.file,
        measurements=measurements,
        target=target.name,
        dram_efficiency_share_before=target.dram_efficiency_share,
        dram_efficiency_share=calibrated.dram_efficiency_share,
        operator_overhead_s_before=target.operator_overhead_s,
        operator_overhead_s=calibrated.operator_overhead_s,
        median_error_before=_median_error(before, measured),
        median_error=_median_error(after, measured),
        left_out_error=float(np.mean(np.abs(left_out / measured - 1))),
        total_error_before=float(before.sum() / measured.sum() - 1),
        total_error=float(after.sum() / measured.sum() - 1),
        layers=tuple(
            CalibratedLayer(
                name=work.name,
                measured_s=float(measured[place]),
                before_s=float(before[place]),
                after_s=float(after[place]),
                left_out_s=float(left_out[place]),
            )
            for place, work in enumerate(works)
        ),
        unused=unused,
        notes=(*_notes(fit, shares), *_array_notes(works, (target, calibrated), after / measured)),
    )
    return _sourced(calibrated, report), report


def _measured_works(
    works: Iterable[Work], times: Mapping[str, float], target: Target
) -> tuple[list[Work], tuple[str, ...]]:
    """Operators that were measured and take time, and why the other rows are not used."""
    by_name = {work.name: work for work in works if work.name in times}
    timed = [work for work in by_name.values() if cost(work, target).total_cycles > 0]
    used = {work.name for work in timed}
    return timed, tuple(
        f"{name}: {NOT_TIMED if name in by_name else NOT_THERE}"
        for name in times
        if name not in used
    )


def _predictions(works: Sequence[Work], target: Target) -> tuple[FloatArray, tuple[float, ...]]:
    """Seconds without overhead, (shares, operators), and the shares; one row if all are alike."""
    rows = [
        _seconds_on(works, replace(target, operator_overhead_s=0.0, dram_efficiency_share=share))
        for share in SHARES
    ]
    table = np.array(rows)
    if np.allclose(table, table[-1], rtol=1e-9):
        return table[-1:], (target.dram_efficiency_share,)
    return table, SHARES


def _seconds_on(works: Sequence[Work], target: Target) -> FloatArray:
    return np.array([cost(work, target).latency_s for work in works])


def fit_times(table: FloatArray, shares: Sequence[float], measured: FloatArray) -> Fit:
    """The share and the overhead with the least loss; of equal ones the largest share.

    Args:
        table: Seconds without overhead, (shares, operators).
        shares: What the rows stand for, rising.
        measured: Seconds.
    """
    overheads = fit_overheads(table, measured)
    losses = np.abs((table + overheads[:, None]) / measured - 1).mean(axis=1)
    best = len(shares) - 1 - int(np.argmin(losses[::-1]))
    return Fit(shares[best], float(overheads[best]), float(losses[best]))


def fit_overheads(table: FloatArray, measured: FloatArray) -> FloatArray:
    """The time, at least 0, that is missing from every prediction of a row.

    Robust least squares of (seconds + overhead) / measured - 1 by iterated weights.

    Args:
        table: Seconds without overhead, (rows, operators).
        measured: Seconds, (operators,).

    Returns:
        (rows,).
    """
    slope = 1 / measured
    wanted = (measured - table) / measured
    overheads = np.median(measured - table, axis=1)
    for _ in range(ROUNDS):
        errors = np.abs(wanted - slope * overheads[:, None])
        limit = np.maximum(HUBER * np.median(errors, axis=1) / NORMAL_MAD, EXACT)
        weights = np.minimum(1.0, limit[:, None] / np.maximum(errors, EXACT))
        overheads = (weights * slope * wanted).sum(axis=1) / (weights * slope**2).sum(axis=1)
    return np.maximum(0.0, overheads)


def _left_out(table: FloatArray, shares: Sequence[float], measured: FloatArray) -> FloatArray:
    """Each operator as predicted by a fit to the others."""
    found = np.empty(len(measured))
    places = {share: row for row, share in enumerate(shares)}
    for place in range(len(measured)):
        others = np.arange(len(measured)) != place
        fit = fit_times(table[:, others], shares, measured[others])
        found[place] = table[places[fit.share], place] + fit.overhead_s
    return found


def _median_error(seconds: FloatArray, measured: FloatArray) -> float:
    return float(np.median(np.abs(seconds / measured - 1)))


def _calibrated(target: Target, fit: Fit, share_fitted: bool) -> Target:
    """The target with the fitted numbers, to nine digits of a second."""
    share = fit.share if share_fitted else target.dram_efficiency_share
    return replace(
        target,
        dram_efficiency_share=share,
        operator_overhead_s=float(f"{fit.overhead_s:.4g}"),
    )


def _notes(fit: Fit, shares: Sequence[float]) -> Iterator[str]:
    if len(shares) == 1:
        yield NO_MEMORY
    elif fit.share in (shares[0], shares[-1]):
        yield AT_END


def _array_notes(
    works: Sequence[Work], targets: tuple[Target, Target], ratios: FloatArray
) -> Iterator[str]:
    """What is left that neither of the two numbers can repair.

    Args:
        works: The operators.
        targets: Before and after the fit.
        ratios: Predicted over measured after the fit.
    """
    bound = ratios[_waits_for_the_array(works, targets)] - 1
    far = max((bound > OFF).sum(), (bound < -OFF).sum(), key=int)
    if far >= 2 and 2 * far >= len(bound):
        yield ARRAY.format(
            error=f"{np.median(bound) * 100:+.0f} %", far=int(far), all=len(bound), limit=OFF * 100
        )
        return
    worst, after = float(np.abs(ratios - 1).max()), targets[1]
    if after.dram_efficiency_share < HALF and after.operator_overhead_s and worst > OFF:
        yield SQUEEZED.format(share=after.dram_efficiency_share, worst=worst * 100)


def _waits_for_the_array(works: Sequence[Work], targets: Iterable[Target]) -> NDArray[np.bool_]:
    """Convolutions and products that a memory without limit would hardly make faster."""
    found = np.zeros(len(works), dtype=bool)
    for target in targets:
        bare = replace(target, operator_overhead_s=0.0)
        free = replace(bare, dram_bytes_per_s=bare.dram_bytes_per_s * 1e6)
        found |= _seconds_on(works, free) >= (1 - OFF) * _seconds_on(works, bare)
    found &= np.array([not isinstance(work.operator, ElementWork) for work in works], dtype=bool)
    return found


def _worst(report: CalibrationReport) -> float:
    return max(abs(one.after_s / one.measured_s - 1) for one in report.layers)


def _sourced(target: Target, report: CalibrationReport) -> Target:
    """Sources and the stated error as they are after the fit."""
    origin = (
        f"measured: fitted to {len(report.layers)} layers of {Path(report.measurements).name}, "
        f"median error {report.median_error * 100:.2g} %, worst {_worst(report) * 100:.2g} %"
    )
    sources = dict(target.sources)
    sources["operator_overhead_s"] = origin
    if NO_MEMORY not in report.notes:
        sources["dram_efficiency_share"] = origin
    error = max(report.left_out_error, 1e-4)
    sources["model_error"] = "measured: see model_error_source"
    return replace(
        target,
        model_error=float(f"{error:.3g}"),
        model_error_source=(
            f"mean error of {len(report.layers)} layers of {Path(report.measurements).name}, each "
            "predicted by a calibration to the others"
        ),
        sources=tuple(sorted(sources.items())),
    )
