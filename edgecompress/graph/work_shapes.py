"""Concrete shapes of all values: inferred, and measured by a run where inference gives up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import Unsupported
from edgecompress.graph.fragments import Fragment, Values, values_read
from edgecompress.graph.model import Model
from edgecompress.graph.shapes import infer_shapes
from edgecompress.graph.values import OpenShape, bodies, constant_array, shape_of, static_shape

_MOST_INPUT_BYTES = 1 << 30
_MOST_ROUNDS = 10_000


def concrete_shapes(model: Model, input_shapes: Mapping[str, Shape]) -> dict[str, OpenShape]:
    """Shapes by value name for one set of input shapes, those inside bodies included.

    What cannot be inferred is measured: the graph runs once on zeros, and every body of control
    flow runs once on what enters it then, whether its branch was taken or not.

    Args:
        model: Not changed.
        input_shapes: For inputs whose shape is open beyond the batch axis.

    Raises:
        Unsupported: An input has an open axis that nothing is known about.
        UsageError: A given shape fits no input.
    """
    resolved = _resolved_inputs(model, {**model.input_shapes, **input_shapes})
    if resolved == model.input_shapes:
        shapes = dict(model.shapes())
    else:
        shapes = infer_shapes(model.ir, resolved)
    nodes = list(model.ir.graph)
    if _missing(nodes, shapes) or any(_captured(node) for node in nodes):
        feed = _zeros(model, shapes)
        if feed is not None:
            _measure(model.ir, nodes, feed, shapes)
    return shapes


def is_batch_assumed(model: Model, input_shapes: Mapping[str, Shape]) -> bool:
    """Whether an input has an open batch axis that no given shape says anything about."""
    given = {**model.input_shapes, **input_shapes}
    inputs = [value for value in model.ir.graph.inputs if not value.is_initializer()]
    symbols = _given_symbols(inputs, given)
    firsts = [
        value.shape[0]
        for value in inputs
        if value.name not in given and value.shape is not None and len(value.shape)
    ]
    return any(isinstance(first, ir.SymbolicDim) and first.value not in symbols for first in firsts)


def _resolved_inputs(model: Model, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes for all inputs with an open axis: given, or a batch of one."""
    inputs = [value for value in model.ir.graph.inputs if not value.is_initializer()]
    symbols = _given_symbols(inputs, given)
    for value in inputs:
        first = value.shape[0] if value.shape is not None and len(value.shape) else None
        if value.name not in given and isinstance(first, ir.SymbolicDim) and first.value:
            symbols.setdefault(first.value, 1)
    resolved = dict(given)
    for value in inputs:
        if value.name is not None and value.name not in given:
            shape = _filled(value, symbols, model.file.path)
            if shape is not None:
                resolved[value.name] = shape
    return resolved


def _given_symbols(inputs: Iterable[ir.Value], given: Mapping[str, Shape]) -> dict[str, int]:
    """Sizes of named axes, from the inputs whose shape is given."""
    symbols: dict[str, int] = {}
    for value in inputs:
        sizes = given.get(value.name or "")
        if sizes is None or value.shape is None:
            continue
        for axis, size in zip(value.shape, sizes, strict=False):
            if isinstance(axis, ir.SymbolicDim) and axis.value is not None:
                symbols.setdefault(axis.value, size)
    return symbols


def _filled(value: ir.Value, symbols: Mapping[str, int], path: str) -> Shape | None:
    """Shape of an input with its open axes filled; None if none is open."""
    if not isinstance(value.type, ir.TensorType):
        return None
    if value.shape is None:
        raise _open_input(value, path)
    if None not in (static_shape(value) or ()):
        return None
    sizes = []
    for place, axis in enumerate(value.shape):
        known = axis if isinstance(axis, int) else symbols.get(axis.value or "")
        if known is None or known < 0:
            if place:
                raise _open_input(value, path)
            known = 1
        sizes.append(known)
    return tuple(sizes)


def _open_input(value: ir.Value, path: str) -> Unsupported:
    axes = "?" if value.shape is None else ", ".join(str(axis) for axis in value.shape)
    return Unsupported(
        f"input {value.name!r} has an open shape [{axes}]",
        where=path,
        hint=f"give it with --input-shape {value.name}=...",
    )


def _zeros(model: Model, shapes: Mapping[str, OpenShape]) -> Values | None:
    """Zeros for every input; None where that is not possible."""
    feed: Values = {}
    for spec in model.inputs():
        shape = shapes.get(spec.name, spec.shape)
        if spec.dtype == np.dtype(object) or None in shape:
            return None
        sizes = tuple(size for size in shape if size is not None)
        if math.prod(sizes) * spec.dtype.itemsize > _MOST_INPUT_BYTES:
            return None
        feed[spec.name] = np.zeros(sizes, spec.dtype)
    return feed


def _missing(nodes: Iterable[ir.Node], shapes: Mapping[str, OpenShape]) -> list[str]:
    """Names of the outputs without a complete shape."""
    names = [value.name for node in nodes for value in node.outputs if value.name]
    return [name for name in names if name not in shapes or None in shapes[name]]


def _captured(node: ir.Node) -> list[str]:
    """Names of the values that the bodies of a node can read; empty without bodies."""
    if not any(True for _ in bodies(node)):
        return []
    return [value.name for value in values_read(node) if value.name]


def _measure(
    model: ir.Model, nodes: Sequence[ir.Node], values: Values, shapes: dict[str, OpenShape]
) -> None:
    """Run nodes on values, and fill ``shapes`` in place; what does not run stays open.

    A branch that zeros lead to may not fit the input; then only what comes before it is run.
    """
    found = _run(model, nodes, values, shapes)
    if found is None:
        found = _run(model, _before_bodies(nodes), values, shapes) or {}
    values = {**values, **found}
    for name, array in found.items():
        if isinstance(array, np.ndarray):
            # Nothing at all is what zeros lead to, not what the network is for: left open.
            shapes[name] = tuple(size or None for size in array.shape)
    for node in nodes:
        for body in bodies(node):
            _measure(model, list(body), {**values, **_entering(node, body, values, shapes)}, shapes)
            _note_results(node, body, shapes)


def _run(
    model: ir.Model, nodes: Sequence[ir.Node], values: Values, shapes: Mapping[str, OpenShape]
) -> Values | None:
    """Values without a known shape, and those that bodies read; None if the nodes do not run."""
    made = {value.name for node in nodes for value in node.outputs}
    captured = [name for node in nodes for name in _captured(node) if name in made]
    wanted = list(dict.fromkeys([*_missing(nodes, shapes), *captured]))
    if not wanted:
        return {}
    if any(_may_not_end(node) for node in nodes):
        return None
    try:
        found = Fragment(model, nodes, wanted, values).run(values)
    except Unsupported:
        return None
    return dict(zip(wanted, found, strict=True))


def _before_bodies(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """Nodes that do not depend on control flow."""
    after: set[ir.Value] = set()
    plain = []
    for node in nodes:
        if _captured(node) or any(value in after for value in node.inputs):
            after.update(node.outputs)
        else:
            plain.append(node)
    return plain


def _may_not_end(node: ir.Node) -> bool:
    """Whether a node has a loop that nothing bounds, or that runs for very long."""
    inner = any(_may_not_end(one) for body in bodies(node) for one in body)
    if node.op_type != "Loop":
        return inner
    limit = constant_array(node.inputs[0])
    return inner or limit is None or limit.size != 1 or int(limit.item()) > _MOST_ROUNDS


def _note_results(node: ir.Node, body: ir.Graph, shapes: dict[str, OpenShape]) -> None:
    """Take the shapes of what a body hands out, in place, where they are open."""
    pairs = list(zip(node.outputs, body.outputs, strict=False))
    if node.op_type == "Loop":
        carried = len(node.inputs) - 2
        pairs = list(zip(node.outputs[:carried], body.outputs[1:], strict=False))
    elif node.op_type != "If":
        return
    for outer, inner in pairs:
        known = shape_of(inner, shapes)
        if outer.name and known is not None and None in shapes.get(outer.name, (None,)):
            shapes[outer.name] = known


def _entering(
    node: ir.Node, body: ir.Graph, values: Values, shapes: dict[str, OpenShape]
) -> dict[str, Any]:
    """What the inputs of a body are in its first round; their shapes are noted in place."""
    outside = [_value(value, values) for value in node.inputs]
    if node.op_type == "If":
        return {}
    if node.op_type == "Loop":
        outside = [np.array(0, np.int64), np.array(True), *outside[2:]]
    elif node.op_type == "Scan":
        states = len(outside) - node.attributes["num_scan_inputs"].as_int()
        sliced = [array[0] if np.ndim(array) and len(array) else None for array in outside[states:]]
        outside = [*outside[:states], *sliced]
    found = {
        value.name: array
        for value, array in zip(body.inputs, outside, strict=False)
        if value.name and array is not None
    }
    shapes |= {name: np.shape(array) for name, array in found.items()}
    return found


def _value(value: ir.Value | None, values: Values) -> Any:
    """The array of a value that is at hand or constant, else None."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    return values.get(value.name or "")
