"""Folds what is constant: ``Constant`` nodes, shape arithmetic, and moves and casts of weights.

A node is folded by running it alone in onnxruntime, so that it gives what it would have given.
Never folded: anything random, anything that decodes integers to floats (a packed or quantized
weight would unfold), and anything that would make the file larger.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.core.errors import Unsupported
from edgecompress.graph.emit import new_initializer
from edgecompress.graph.session import open_session, run_limited
from edgecompress.graph.shapes import infer_shapes
from edgecompress.graph.values import (
    ONNX_DOMAINS,
    OpenShape,
    all_value_names,
    bodies,
    constant_array,
)

SMALL_BYTES = 1024
"""A folded constant up to this size may be added to what is there."""

SMALL_INTEGER_BYTES = 1 << 16
"""Likewise for integers: results of shape arithmetic."""

_SECONDS = 5.0
_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast")
_PICKS = ("Concat", "Slice", "Gather", "Split", "Size", "Pad", "Where")
_MAKES = ("ConstantOfShape", "Expand", "Tile", "Range")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow")
_ROUNDS = ("Floor", "Ceil", "Sign", "Clip", "Min", "Max")
_COMPARES = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Not")
_REDUCES = ("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
_FOLDABLE = frozenset((*_MOVES, *_PICKS, *_MAKES, *_ARITHMETIC, *_ROUNDS, *_COMPARES, *_REDUCES))
_CONSTANT_KINDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def lift_constants(graph: ir.Graph) -> int:
    """Turn ``Constant`` nodes of the top-level graph into initializers, in place."""
    count = 0
    for node in list(graph):
        if node.op_type != "Constant" or node.domain not in ONNX_DOMAINS:
            continue
        array = _constant_value(node)
        if array is not None and not node.outputs[0].is_graph_output():
            _become_constant(graph, node, [array])
            count += 1
    return count


def _constant_value(node: ir.Node) -> Array | ir.TensorProtocol | None:
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value" and attribute.type == ir.AttributeType.TENSOR:
            return attribute.as_tensor()
        if name in _CONSTANT_KINDS:
            return np.asarray(attribute.value, _CONSTANT_KINDS[name])
    return None


def fold_constants(model: ir.Model) -> int:
    """Fold nodes of the top-level graph whose inputs are all constant, in place."""
    graph = model.graph
    asked = any(node.op_type == "Shape" for node in graph)
    shapes = infer_shapes(model, {}) if asked else {}
    sliced = _only_sliced(graph)
    count = 0
    for node in list(graph):
        values = _folded(model, node, shapes, sliced)
        if values is not None:
            _become_constant(graph, node, values)
            count += 1
    return count


def _only_sliced(graph: ir.Graph) -> dict[str, int]:
    """Constants that only ``Slice`` reads, with the number of readers: each gets that part.

    Recurrent cells come out of PyTorch like this: the gates are cut apart and put in ONNX's order.
    """
    found: dict[str, int] = {}
    for name, value in graph.initializers.items():
        uses = value.uses()
        alone = len(uses) > 1 and not value.is_graph_output()
        if alone and all(use.node.op_type == "Slice" and use.idx == 0 for use in uses):
            found[name] = len(uses)
    return found


def _folded(
    model: ir.Model, node: ir.Node, shapes: Mapping[str, OpenShape], sliced: Mapping[str, int]
) -> list[Array] | None:
    """Outputs of a node that may be folded, else None."""
    if node.domain not in ONNX_DOMAINS or any(v.is_graph_output() for v in node.outputs):
        return None
    if node.op_type == "Shape":
        return _static_shape(node, shapes)
    if node.op_type not in _FOLDABLE or any(True for _ in bodies(node)):
        return None
    inputs = _constant_inputs(node)
    if not inputs or _unfolds(node, inputs):
        return None
    if _output_elements(node, inputs) * 8 > _allowance(node, inputs, sliced, integers=True):
        return None
    outputs = _evaluate(model, node, inputs)
    floats = any(a is not None and a.dtype.kind == "f" for a in outputs)
    total = sum(a.nbytes for a in outputs if a is not None)
    most = _allowance(node, inputs, sliced, integers=not floats)
    return outputs if outputs and total <= most else None


def _constant_inputs(node: ir.Node) -> dict[str, Array]:
    """All inputs of a node by name; empty if one is not a constant of numbers."""
    inputs: dict[str, Array] = {}
    for value in node.inputs:
        if value is None:
            continue
        array = constant_array(value)
        if array is None or array.dtype.kind not in "biuf" or not value.is_initializer():
            return {}
        inputs[value.name or ""] = array
    return inputs


def _static_shape(node: ir.Node, shapes: Mapping[str, OpenShape]) -> list[Array] | None:
    value = node.inputs[0]
    shape = None if value is None else shapes.get(value.name or "")
    if not shape or any(size is None for size in shape) or node.attributes:
        return None
    return [np.array(shape, np.int64)]


def _unfolds(node: ir.Node, inputs: Mapping[str, Array]) -> bool:
    """Whether it would turn stored integers into floats."""
    if node.op_type not in ("Cast", "Gather", "Mul", "Sub", "Add"):
        return False
    arrays = list(inputs.values())
    integers = any(a.dtype.kind in "iu" and a.size > 16 for a in arrays)
    return integers and (node.op_type == "Cast" or any(a.dtype.kind == "f" for a in arrays))


def _allowance(
    node: ir.Node, inputs: Mapping[str, Array], sliced: Mapping[str, int], *, integers: bool
) -> int:
    """Bytes that the outputs may take: a small amount, or what dies with the node."""
    dying = sum(
        inputs[value.name or ""].nbytes // sliced.get(value.name or "", 1)
        for value in node.inputs
        if value is not None
        and not value.is_graph_output()
        and (len(value.uses()) == 1 or value.name in sliced)
    )
    # A cast from half to single precision doubles the bytes of a weight that is then compressed.
    factor = 2 if node.op_type == "Cast" else 1
    return max(SMALL_INTEGER_BYTES if integers else SMALL_BYTES, factor * dying)


def _output_elements(node: ir.Node, inputs: Mapping[str, Array]) -> int:
    """An upper bound of the elements of the outputs, for operators that can explode."""
    if node.op_type not in (*_MAKES, "Pad"):
        return 0
    arrays = [inputs[v.name or ""] for v in node.inputs if v is not None]
    numbers = [[int(x) for x in np.nan_to_num(a.reshape(-1)[:64])] for a in arrays]
    match node.op_type, numbers:
        case "ConstantOfShape", [list(dims)]:
            return math.prod(max(d, 0) for d in dims)
        case "Expand" | "Tile", [_, list(dims)]:
            return arrays[0].size * math.prod(max(abs(d), 1) for d in dims)
        case "Range", [[start], [limit], [delta]]:
            return abs(limit - start) // max(abs(delta), 1) + 1
        case "Pad", [_, list(pads), *_]:
            grown = sum(abs(p) for p in pads)
            return math.prod(d + grown for d in arrays[0].shape)
        case _:
            return sys.maxsize


def _evaluate(model: ir.Model, node: ir.Node, inputs: Mapping[str, Array]) -> list[Any]:
    """Outputs of a node alone; empty if it does not run."""
    proto = ir.serde.serialize_node(node)
    graph = onnx.GraphProto(name="fold", node=[proto])
    for name, array in inputs.items():
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    names = [value.name or "" for value in node.outputs]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name)
    opset = onnx.OperatorSetIdProto(domain="", version=model.opset_imports.get("", 21))
    alone = onnx.ModelProto(ir_version=model.ir_version, graph=graph, opset_import=[opset])
    try:
        values = run_limited(open_session(alone, optimize=False), {}, _SECONDS)
    except Unsupported:
        return []
    found = iter(values)
    return [next(found) if name else None for name in names]


def _become_constant(graph: ir.Graph, node: ir.Node, values: list[Any]) -> None:
    """Put constants in place of a node; readers and names stay."""
    for value, content in zip(node.outputs, values, strict=True):
        if content is None:
            continue
        name = value.name or ""
        value.name = None
        constant = new_initializer(graph, name, content)
        value.replace_all_uses_with(constant)
    graph.remove(node, safe=True)


def drop_unused(graph: ir.Graph) -> int:
    """Remove nodes and initializers of the top-level graph that nothing reads, in place."""
    count = 0
    for node in reversed(list(graph)):
        if not any(v.is_graph_output() or v.uses() for v in node.outputs):
            graph.remove(node, safe=True)
            count += 1
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
            count += 1
    return count


def unused_name(graph: ir.Graph, wanted: str) -> str:
    """A value name that is not taken."""
    taken, name, count = all_value_names(graph), wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name
