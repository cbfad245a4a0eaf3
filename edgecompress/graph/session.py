"""Running graphs in onnxruntime on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from edgecompress.core.arrays import Array
from edgecompress.core.errors import ResourceLimit, Unsupported
from edgecompress.core.samples import Feed

ORT_ERRORS: tuple[type[Exception], ...] = (
    state.EPFail,
    state.EngineError,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotFound,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
    TypeError,
)
"""What onnxruntime raises when it cannot load or run a graph; there is no common base class."""

SMALLEST_NORM = 1e-6
"""Outputs below this norm count as zero when outputs are compared."""

_NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed:")
_SILENT = 4
_BLOCK = 1 << 20

ort.set_default_logger_severity(_SILENT)
ort.disable_telemetry_events()


def open_session(
    model: onnx.ModelProto | bytes | str | Path, *, optimize: bool, threads: int = 1
) -> ort.InferenceSession:
    """A session on the CPU.

    Args:
        model: A graph in memory, or the path of a file.
        optimize: Whether onnxruntime may rewrite the graph; off for comparisons.
        threads: Threads inside an operator.

    Raises:
        Unsupported: onnxruntime cannot load the graph.
        ResourceLimit: The graph in memory is above the 2 GB limit of protobuf.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if optimize
        else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    source: Any = model
    if isinstance(model, onnx.ModelProto):
        source = proto_bytes(model)
    elif isinstance(model, Path):
        source = str(model)
    try:
        # Without its fall-back, which prints to stdout and tries the same once more.
        return ort.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except ORT_ERRORS as error:
        raise Unsupported(f"onnxruntime cannot load the graph: {short(error)}") from error


def run_feeds(session: ort.InferenceSession, feeds: Iterable[Feed]) -> list[list[Array]]:
    """Outputs of every feed, in the order of the graph's outputs.

    Raises:
        Unsupported: onnxruntime cannot run the graph on these inputs.
    """
    try:
        return [session.run(None, dict(feed)) for feed in feeds]
    except ORT_ERRORS as error:
        raise Unsupported(f"onnxruntime cannot run the graph: {short(error)}") from error


def run_limited(session: ort.InferenceSession, feed: Feed, seconds: float) -> list[Array]:
    """Outputs of one feed, given up after a time (endless loops).

    Raises:
        Unsupported: onnxruntime cannot run the graph on these inputs, or not in this time.
    """
    options = ort.RunOptions()
    options.log_severity_level = _SILENT

    def stop() -> None:
        options.terminate = True

    timer = Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        outputs: list[Array] = session.run(None, dict(feed), options)
    except ORT_ERRORS as error:
        raise Unsupported(f"onnxruntime cannot run the graph: {short(error)}") from error
    finally:
        timer.cancel()
    return outputs


def proto_bytes(proto: onnx.ModelProto) -> bytes:
    """The serialised graph; the same graph gives the same bytes.

    Raises:
        ResourceLimit: Above the 2 GB limit of protobuf.
    """
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except ValueError as error:
        raise ResourceLimit("the graph is above the 2 GB limit of protobuf") from error


def short(error: BaseException) -> str:
    """First line of a message of another package, printable, at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = "".join(c if c.isprintable() else " " for c in lines[0])
    text = _NOISE.sub("", text).split("/onnxruntime_src/")[0]
    return text.replace("Non-zero status code returned while running", "in").strip(" :")[:300]


def same_outputs(reference: list[Array], found: list[Array], *, relative: float) -> str:
    """Empty if two lists of outputs agree, else what differs.

    Floats agree when ``|a - b| <= relative |a|`` in the L2 norm with infinities and NaNs at the
    same places; everything else agrees when equal.
    """
    if len(reference) != len(found):
        return f"{len(found)} outputs instead of {len(reference)}"
    for place, (a, b) in enumerate(zip(reference, found, strict=True)):
        problem = _difference(a, b, relative)
        if problem:
            return f"output {place} differs: {problem}"
    return ""


def _difference(a: Any, b: Any, relative: float) -> str:
    if isinstance(a, list) and isinstance(b, list):
        return same_outputs(a, b, relative=relative)
    if isinstance(a, dict) or a is None or b is None:
        return "" if repr(a) == repr(b) else "values"
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{b.dtype}{b.shape} instead of {a.dtype}{a.shape}"
    if a.dtype.kind not in "fc":
        return "" if np.array_equal(a, b) else "values"
    return _float_difference(a, b, relative)


def _float_difference(a: Array, b: Array, relative: float) -> str:
    """In blocks, so that large outputs do not take several times their memory."""
    error = size = 0.0
    a, b = a.reshape(-1), b.reshape(-1)
    for start in range(0, a.size, _BLOCK):
        left, right = a[start : start + _BLOCK], b[start : start + _BLOCK]
        finite = np.isfinite(left)
        same_others = np.array_equal(left[~finite], right[~finite], equal_nan=True)
        if not same_others or not np.isfinite(right[finite]).all():
            return "NaNs or infinities"
        kind = np.complex128 if a.dtype.kind == "c" else np.float64
        left, right = left[finite].astype(kind), right[finite].astype(kind)
        error += float(np.sum(np.abs(left - right) ** 2))
        size += float(np.sum(np.abs(left) ** 2))
    ratio = float(np.sqrt(error)) / max(float(np.sqrt(size)), SMALLEST_NORM)
    return "" if ratio <= relative else f"relative error {ratio:.1e}"
