"""Shapes of the inputs and values of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import UsageError
from edgecompress.graph.index_bounds import index_bound
from edgecompress.graph.values import OpenShape, static_shape

_LARGE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input or output of a graph.

    Attributes:
        name: In the graph.
        dtype: NumPy type; ``object`` for strings and for what is not a tensor.
        shape: None for an open axis; empty also when the rank is open.
        below: Whole numbers from 0 to below this fit the tables that they index; None: no such.
    """

    name: str
    dtype: np.dtype[Any]
    shape: OpenShape
    below: int | None = None


def specs(values: Iterable[ir.Value]) -> tuple[InputSpec, ...]:
    """Specifications of graph inputs or outputs."""
    return tuple(_spec(value) for value in values)


def _spec(value: ir.Value) -> InputSpec:
    dtype = _dtype(value)
    below = index_bound(value) if dtype.kind in "iu" else None
    return InputSpec(value.name or "", dtype, static_shape(value) or (), below)


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        return np.dtype(object)
    if value.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return np.dtype(object)
    return value.dtype.numpy()


def infer_shapes(model: ir.Model, input_shapes: Mapping[str, Shape]) -> dict[str, OpenShape]:
    """Shapes of the values of the top-level graph, as far as they can be inferred.

    Args:
        model: Not changed.
        input_shapes: Shapes to take for inputs whose shape is open.

    Raises:
        UsageError: A given shape is for no input, or does not fit it.
    """
    check_input_shapes(model, input_shapes)
    known = {
        value.name or "": shape
        for value in _top_values(model.graph)
        if (shape := static_shape(value)) is not None
    }
    proto = _light_proto(model, input_shapes)
    inferred = inferred_proto(proto)
    if inferred is None:
        return known | dict(input_shapes)
    for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"):
            known[info.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
                for dim in info.type.tensor_type.shape.dim
            )
    return known


def inferred_proto(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with shapes by onnx's shape inference; None if it gives up on it.

    Values of shape arithmetic are followed too, but not where there is a ``ConstantOfShape``:
    the inference would hold all of its elements, however many they are.
    """
    follow = not any(node.op_type == "ConstantOfShape" for node in proto.graph.node)
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=follow)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return None


def check_input_shapes(model: ir.Model, input_shapes: Mapping[str, Shape]) -> None:
    """Refuse shapes that are for no input or do not fit it.

    Raises:
        UsageError: With the input's own shape.
    """
    inputs = {value.name or "": value for value in model.graph.inputs}
    for name, shape in input_shapes.items():
        if name not in inputs:
            names = ", ".join(repr(one) for one in inputs)
            raise UsageError(f"there is no input {name!r} to give a shape", hint=f"inputs: {names}")
        own = static_shape(inputs[name])
        fits = own is None or (
            len(own) == len(shape) and all(o in (None, s) for o, s in zip(own, shape, strict=True))
        )
        if not fits or any(size < 1 for size in shape):
            raise UsageError(f"shape {shape} does not fit input {name!r} of shape {own}")


def _top_values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _light_proto(model: ir.Model, input_shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """The graph with large constants as inputs, so that nothing large is copied."""
    twin = model.clone()
    for value in list(twin.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _LARGE_BYTES:
            value.type, value.shape = ir.TensorType(tensor.dtype), tensor.shape  # type: ignore[assignment]
            value.const_value = None
            del twin.graph.initializers[value.name or ""]
            if not value.is_graph_input():
                twin.graph.inputs.append(value)
    for value in twin.graph.inputs:
        if value.name in input_shapes:
            value.shape = ir.Shape(input_shapes[value.name or ""])
    for node in twin.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    return ir.to_proto(twin)
