"""Two corpora of models that nobody made for this tool, each with inputs to run it on.

``odd``: the files of ``models/odd_dev.tar.gz`` in the data folder, from the test suites of other
ONNX tools. ``node``: the single-operator models of the ONNX backend suite, with every float input
but the first bound as an initializer, so that there is something to compress.
"""

from __future__ import annotations

import os
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

NEWEST_OPSET = 26
"""The newest opset that onnxruntime 1.31 loads."""
NEWEST_IR = 13
OPEN_SIZES = (1, 2, 8, 3, 16, 224)
"""What is tried for open axes, in this order."""
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
AGREE_RELATIVE, AGREE_ABSOLUTE = 1e-3, 1e-5
RANDOM_OPERATORS = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}

Feed = dict[str, Any]
Outputs = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model file and what it gives.

    Attributes:
        name: ``odd/...`` or ``node/...``.
        path: The file.
        feed: Inputs that onnxruntime accepts, or None where none was found.
        outputs: What the file gives on them, unoptimised; None where ``feed`` is None or where
            the file draws random numbers.
    """

    name: str
    path: Path
    feed: Feed | None
    outputs: Outputs | None


def run(source: Path | bytes, feed: Mapping[str, Any]) -> Outputs:
    """Outputs by onnxruntime, graph optimizations off, one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model = source if isinstance(source, bytes) else str(source)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feed)))


def try_run(source: Path | bytes, feed: Mapping[str, Any]) -> Outputs | None:
    """Like `run`; None where onnxruntime refuses the model or the inputs."""
    try:
        return run(source, feed)
    except RUNTIME_ERRORS:
        return None


_STATE = ort.capi.onnxruntime_pybind11_state
RUNTIME_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    *(
        value
        for value in vars(_STATE).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)


def agree(a: Any, b: Any) -> bool:
    """Whether two outputs (tensors, sequences of them, or None) are equal but for rounding."""
    if a is None or b is None:
        return a is b
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        both = isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b)
        return both and all(agree(x, y) for x, y in zip(a, b, strict=True))
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        return False
    if first.dtype.kind not in "biufV" or second.dtype.kind not in "biufV":
        return bool((first.astype(str) == second.astype(str)).all())
    x, y = (v.astype(np.float64) for v in (first, second))
    return bool(np.allclose(x, y, rtol=AGREE_RELATIVE, atol=AGREE_ABSOLUTE, equal_nan=True))


def is_random(graph: onnx.GraphProto) -> bool:
    """Whether the graph, or a body in it, draws random numbers."""
    return any(
        node.op_type in RANDOM_OPERATORS
        or any(is_random(a.g) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
        for node in graph.node
    )


def node_names() -> list[str]:
    """Names of all node models, sorted."""
    return sorted(_node_tests())


def node_cases(names: list[str], folder: Path) -> Iterator[Case]:
    """Those node models on which onnxruntime and the reference agree, written to a folder.

    Models of an opset that onnxruntime does not load yet are labelled with the newest that it
    does, where they mean the same there (the two implementations agree on them).
    """
    tests = _node_tests()
    for name in names:
        test = tests[name]
        model = onnx.ModelProto()
        model.CopyFrom(test.model)
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = min(entry.version, NEWEST_OPSET)
        model.ir_version = min(model.ir_version, NEWEST_IR)
        feed = dict(zip((i.name for i in model.graph.input), test.data_sets[0][0], strict=False))
        outputs = try_run(model.SerializeToString(), feed)
        if outputs is None or not _reference_agrees(model, feed, outputs):
            continue
        _bind_inputs(model, feed)
        outputs = try_run(model.SerializeToString(), feed)
        if outputs is None:
            continue
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        random = is_random(model.graph)
        yield Case(name=f"node/{name}", path=path, feed=feed, outputs=None if random else outputs)


def unpack_odd(data: Path, folder: Path) -> list[str]:
    """Unpack the odd files into a folder; their names, sorted."""
    with tarfile.open(data / "models" / "odd_dev.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return sorted(path.name for path in folder.rglob("*.onnx"))


def odd_cases(names: list[str], folder: Path) -> Iterator[Case]:
    """Those odd files, with inputs and outputs where onnxruntime runs them."""
    for name in names:
        path = folder / name
        feed, outputs = _find_feed(path)
        yield Case(name=f"odd/{name}", path=path, feed=feed, outputs=outputs)


def _node_tests() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_node_model_tests

        return {test.name.removeprefix("test_"): test for test in load_node_model_tests()}


def _reference_agrees(model: onnx.ModelProto, feed: Feed, outputs: Outputs) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return agree(outputs, list(ReferenceEvaluator(model).run(None, feed)))
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return False


def _bind_inputs(model: onnx.ModelProto, feed: Feed) -> None:
    """Turn all float inputs but the first input into initializers, in place."""
    for value in list(model.graph.input)[1:]:
        array = feed.get(value.name)
        if value.type.tensor_type.elem_type in FLOATS and isinstance(array, np.ndarray):
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
            model.graph.input.remove(value)
            del feed[value.name]


def _find_feed(path: Path) -> tuple[Feed | None, Outputs | None]:
    """Inputs that onnxruntime accepts for a file, and its outputs; None where there are none."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError):
        return None, None
    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for size in OPEN_SIZES:
        feed = {value.name: _draw(value, size, str(path.name)) for value in inputs}
        if any(array is None for array in feed.values()):
            return None, None
        outputs = try_run(path, feed)
        if outputs is not None:
            return feed, None if is_random(model.graph) else outputs
    return None, None


def _draw(value: onnx.ValueInfoProto, size: int, seed: str) -> NDArray[Any] | None:
    """A tensor for an input: normal floats, integers 0 and 1; None where it is no tensor."""
    if value.type.WhichOneof("value") != "tensor_type":
        return None
    tensor = value.type.tensor_type
    shape = [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else size
        for d in tensor.shape.dim
    ]
    dtype = tensor_dtype_to_np_dtype(tensor.elem_type)
    rng = np.random.default_rng(zlib.crc32(f"{seed}/{value.name}".encode()))
    if dtype == np.dtype(object):
        return np.full(shape, "text", dtype=object)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def environment_data() -> Path:
    """The data folder that ``EDGECOMPRESS_DATA`` names.

    Raises:
        SystemExit: It is not set.
    """
    value = os.environ.get("EDGECOMPRESS_DATA")
    if not value:
        raise SystemExit("EDGECOMPRESS_DATA is not set: see benchmarks/README.md")
    return Path(value)
