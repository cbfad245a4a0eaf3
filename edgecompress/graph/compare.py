"""Does a changed graph still compute what the original does? Asked of onnxruntime, unoptimised."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.arrays import Array, Shape
from edgecompress.core.errors import Unsupported
from edgecompress.graph.limits import memory_limit
from edgecompress.graph.session import open_session, run_limited, same_outputs
from edgecompress.graph.shapes import InputSpec, specs
from edgecompress.graph.values import static_shape

TOLERANCE = 1e-4
"""Relative L2 on float32 outputs; folding and lifting only round differently."""

TOLERANCE_HALF = 2e-2
"""The same where half precision is involved."""

TIME_LIMIT_S = 20.0
LARGEST_INPUT_ELEMENTS = 1 << 24
_RANDOM = frozenset(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
_TOO_LARGE = "a run takes too much memory"
_OPEN_SIZES = (64, 8, 512, 256, 1)
"""Sizes to try for open axes other than the first; 64 is a multiple of the usual strides."""


class Original:
    """Outputs of the original graph on made-up inputs.

    Attributes:
        reason: Why the original could not be run, or empty.
    """

    def __init__(self, proto: onnx.ModelProto, input_shapes: Mapping[str, Shape]) -> None:
        self.reason = ""
        self._feed: dict[str, Any] = {}
        self._outputs: list[Array] = []
        self._tolerance = TOLERANCE_HALF if _uses_half(proto) else TOLERANCE
        try:
            with memory_limit():
                self._run(proto, input_shapes)
        except Unsupported as error:
            self.reason = error.message
        except MemoryError:
            self.reason = _TOO_LARGE

    def _run(self, proto: onnx.ModelProto, input_shapes: Mapping[str, Shape]) -> None:
        explosive = _explosive_constant(proto.graph)
        if explosive:
            raise Unsupported(f"node {explosive!r} makes a very large tensor")
        graph = ir.from_proto(proto).graph
        if any(node.op_type in _RANDOM for node in graph.all_nodes()):
            raise Unsupported("its outputs are random")
        values = [value for value in graph.inputs if not value.is_initializer()]
        for value in values:
            if not isinstance(value.type, ir.TensorType) or static_shape(value) is None:
                raise Unsupported(f"input {value.name!r} has no fixed type and number of axes")
            if 0 in (static_shape(value) or ()):
                # onnxruntime ends the process on a recurrent cell with an empty batch.
                raise Unsupported(f"input {value.name!r} is empty")
        session = open_session(proto, optimize=False)
        problem = Unsupported("no inputs were tried")
        start = time.monotonic()
        for feed in _feeds(specs(values), _symbols(values), input_shapes):
            try:
                self._outputs = run_limited(session, feed, TIME_LIMIT_S)
            except Unsupported as error:
                problem = error
                if time.monotonic() - start > TIME_LIMIT_S:
                    break
                continue
            self._feed = feed
            again = run_limited(session, feed, TIME_LIMIT_S)
            if same_outputs(self._outputs, again, relative=self._tolerance):
                raise Unsupported("its outputs are random")
            return
        raise problem

    def difference(self, candidate: onnx.ModelProto) -> str:
        """Empty if the candidate gives the same outputs (or nothing could be compared)."""
        if self.reason:
            return ""
        try:
            session = open_session(candidate, optimize=False)
            with memory_limit():
                outputs = run_limited(session, self._feed, TIME_LIMIT_S)
        except Unsupported as error:
            return error.message
        except MemoryError:
            return _TOO_LARGE
        return same_outputs(self._outputs, outputs, relative=self._tolerance)


def _uses_half(proto: onnx.ModelProto) -> bool:
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    graph = proto.graph
    return any(t.data_type in half for t in graph.initializer) or any(
        info.type.tensor_type.elem_type in half for info in (*graph.input, *graph.output)
    )


def _symbols(values: list[ir.Value]) -> dict[str, tuple[str, ...]]:
    """Input name -> a key for every open axis; axes with the same symbol share a key."""
    found: dict[str, tuple[str, ...]] = {}
    for value in values:
        keys = []
        for axis, size in enumerate(value.shape or ()):
            symbol = getattr(size, "value", None)
            keys.append(str(symbol) if symbol else f"{value.name}[{axis}]")
        found[value.name or ""] = tuple(keys)
    return found


def _feeds(
    inputs: tuple[InputSpec, ...],
    symbols: Mapping[str, tuple[str, ...]],
    input_shapes: Mapping[str, Shape],
) -> Iterator[dict[str, Any]]:
    """Seeded inputs for one size of the open axes after another.

    First with all open axes but the first at that size, then with those of the first input only.
    """
    seen: set[tuple[Shape, ...]] = set()
    for everywhere, size in product((True, False), _OPEN_SIZES):
        chosen: dict[str, int] = {}
        for place, spec in enumerate(inputs):
            given = input_shapes.get(spec.name)
            for axis, key in enumerate(symbols[spec.name]):
                small = axis == 0 or not (everywhere or place == 0)
                chosen.setdefault(key, given[axis] if given else 1 if small else size)
        shapes = tuple(_chosen_shape(spec, symbols[spec.name], chosen) for spec in inputs)
        if shapes in seen or sum(math.prod(s) for s in shapes) > LARGEST_INPUT_ELEMENTS:
            continue
        seen.add(shapes)
        rng = np.random.default_rng(0)
        yield {
            spec.name: made_up(spec, shape, rng) for spec, shape in zip(inputs, shapes, strict=True)
        }


def _chosen_shape(spec: InputSpec, keys: tuple[str, ...], chosen: Mapping[str, int]) -> Shape:
    return tuple(
        chosen[key] if known is None else known for key, known in zip(keys, spec.shape, strict=True)
    )


def made_up(spec: InputSpec, shape: Shape, rng: np.random.Generator) -> Array:
    """Random values for an input: standard normal floats, integers 0 and 1 (0 alone where they
    index one row), one-letter strings."""
    dtype = spec.dtype
    if dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    if dtype.kind in "fcV":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    end = 2 if spec.below is None else max(1, min(2, spec.below))
    return np.asarray(rng.integers(0, end, shape)).astype(dtype)


def _explosive_constant(graph: onnx.GraphProto) -> str:
    """A ``ConstantOfShape`` or the like of more elements than we would ever run, or empty."""
    constants = {t.name: t for t in graph.initializer}
    listed: dict[str, list[int]] = {}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Constant" and node.attribute:
            listed[node.output[0]] = list(node.attribute[0].ints)
    for node in graph.node:
        at = {"ConstantOfShape": 0, "Expand": 1}.get(node.op_type)
        if at is None or len(node.input) <= at:
            continue
        name = node.input[at]
        sizes = listed.get(name, [])
        if name in constants and constants[name].data_type == onnx.TensorProto.INT64:
            sizes = onnx.numpy_helper.to_array(constants[name]).reshape(-1).tolist()
        if math.prod(sizes) > LARGEST_INPUT_ELEMENTS:
            return str(node.name or node.op_type)
    return ""
