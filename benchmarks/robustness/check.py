"""What a command makes of one model of the corpora, and whether that is right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.robustness.corpora import RUNTIME_ERRORS, Case, Outputs, run
from edgecompress.core.errors import EdgeCompressError
from edgecompress.core.options import DecomposeOptions, EnergyRank, QuantizeOptions
from edgecompress.graph.model import load_model
from edgecompress.hardware.target import load_target
from edgecompress.pipeline.compress import run_compress
from edgecompress.pipeline.estimate import estimate_latency
from edgecompress.pipeline.request import CompressRequest

COMMANDS = ("decompose", "quantize", "compress", "estimate-latency")
TARGET = "systolic-ws-32"
DOCUMENTED_REFUSALS = (4, 5, 10, 11)
"""Exit codes that a model alone can cause: invalid, unsupported or nothing to do, limit, unsafe."""
BOUNDS = {"decompose": 1e-4, "quantize": 0.05, "compress": 0.05}
"""Relative L2 error of an output: full rank in float32, and 8-bit weights (`compress`: both).
Where a network is so sensitive that plain rounding does worse, 8-bit weights may be as far off as
plain rounding is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to one model under one command.

    Attributes:
        code: Exit code; 0 for a verified file.
        message: Of a refusal; empty after success.
        error: Largest relative L2 error of an output; None where nothing could be compared.
        problem: What is wrong with this outcome, or empty.
    """

    code: int
    message: str = ""
    error: float | None = None
    problem: str = ""


def request(command: str, model: Path, output: Path) -> CompressRequest:
    """Full-rank decomposition, 8-bit weights, or both; data-free."""
    decompose = DecomposeOptions(ranks=EnergyRank(1.0), rank_multiple=1, minimum_gain=-1e9)
    quantize = QuantizeOptions(bits="8", minimum_saving_bytes=-(1 << 40))
    return CompressRequest(
        command=command,
        model=model,
        output=output,
        decompose=decompose if command in ("decompose", "compress") else None,
        quantize=quantize if command in ("quantize", "compress") else None,
    )


def check(case: Case, command: str, folder: Path) -> Outcome:
    """Run a command on a case; anything that is not an `EdgeCompressError` comes through."""
    if command == "estimate-latency":
        return estimate(case)
    output = folder / f"{case.path.stem}.{command}.onnx"
    try:
        run_compress(request(command, case.path, output))
    except EdgeCompressError as refusal:
        problem = _refusal_problem(refusal, output)
        return Outcome(code=refusal.exit_code, message=str(refusal), problem=problem)
    try:
        onnx.checker.check_model(str(output), full_check=True)
    except onnx.checker.ValidationError as invalid:
        return Outcome(code=0, problem=f"the written file is not valid: {invalid}")
    if case.feed is None or case.outputs is None:
        return Outcome(code=0)
    try:
        outputs = run(output, case.feed)
    except RUNTIME_ERRORS as failure:
        return Outcome(code=0, problem=f"the written file does not run: {failure}")
    error = largest_error(outputs, case.outputs, exact=command == "decompose")
    bound = BOUNDS[command]
    if command != "decompose" and error > bound:
        bound = max(bound, _rounding_error(case))
    problem = f"an output is off by {error:.2g}, bound {bound:.2g}" if error > bound else ""
    return Outcome(code=0, error=error, problem=problem)


def estimate(case: Case) -> Outcome:
    """Price a case on one target: a finite time, and every operator priced or flagged."""
    try:
        report = estimate_latency(load_model(case.path, normalize=False), load_target(TARGET), {})
    except EdgeCompressError as refusal:
        odd = refusal.exit_code not in DOCUMENTED_REFUSALS
        problem = f"refused with {refusal.exit_code}: {refusal}" if odd else ""
        return Outcome(code=refusal.exit_code, message=str(refusal), problem=problem)
    finite = np.isfinite(report.latency_s) and report.latency_s >= 0
    return Outcome(code=0, problem="" if finite else f"a latency of {report.latency_s} s")


def _rounding_error(case: Case) -> float:
    """Error of the plainest 8-bit weights: nearest of 255 levels, one scale for each tensor."""
    model = onnx.load(case.path)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim >= 2 and values.dtype.kind == "f" and values.any():
            step = np.abs(values).max() / 127
            rounded = (np.round(values / step) * step).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    outputs = run(model.SerializeToString(), case.feed or {})
    return largest_error(outputs, case.outputs or [], exact=False)


def largest_error(actual: Outputs, expected: Outputs, *, exact: bool) -> float:
    """Largest relative L2 error of an output; infinite where shapes or types differ.

    Outputs that are not floats (classes, indices, masks) have to be equal where ``exact``, and
    are left out otherwise: a rounded weight may turn one over.
    """
    if len(actual) != len(expected):
        return float("inf")
    return max((_error(a, b, exact) for a, b in zip(actual, expected, strict=True)), default=0.0)


def _error(a: Any, b: Any, exact: bool) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        same = isinstance(a, (list, tuple)) and isinstance(b, (list, tuple))
        return largest_error(list(a), list(b), exact=exact) if same else float("inf")
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.dtype != y.dtype:
        return float("inf")
    if x.dtype.kind in "fV":
        return _float_error(x.astype(np.float64), y.astype(np.float64), exact)
    return float("inf") if exact and not np.array_equal(x, y) else 0.0


def _float_error(x: Any, y: Any, exact: bool) -> float:
    """Over the entries that are finite in ``y``; the others have to be equal where ``exact``."""
    finite = np.isfinite(y)
    if exact and not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return float("inf")
    distance, size = np.linalg.norm(x[finite] - y[finite]), np.linalg.norm(y[finite])
    if np.isnan(distance):
        return float("inf")
    return float(distance / size) if size else float(distance)


def _refusal_problem(refusal: EdgeCompressError, output: Path) -> str:
    if output.exists():
        return f"refused with {refusal.exit_code}, but there is a file"
    if refusal.exit_code not in DOCUMENTED_REFUSALS:
        return f"refused with {refusal.exit_code}: {refusal}"
    return "" if str(refusal).strip() else "refused without a word"
