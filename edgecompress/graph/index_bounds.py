"""How large the integers of an input may be where they index tables of fixed size."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.values import (
    ONNX_DOMAINS,
    OpenShape,
    attribute_int,
    constant_array,
    constant_tensor,
    static_shape,
)

_FIRST = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose outputs are elements of their first input.

Source: ONNX operator specification.
"""

_ANY = frozenset({"Concat", "Max", "Min"})
"""Operators whose outputs are elements of any of their inputs. Source: as above."""

_TRUTH = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"}
)
"""Operators that give truth values. Source: as above."""


def index_bound(value: ir.Value) -> int | None:
    """What whole numbers from 0 have to stay below; None where nothing known bounds them.

    Followed through what moves elements, through division by a constant (also rounded down), to
    the tables (constants, or values of known shape) that ``Gather`` picks from. A remainder ends
    the way: any number is allowed before it. A choice that replaces numbers from some constant on
    bounds them too: what replaces them need not be in the table.

    Source: ONNX operator specification, Gather: an index out of range is an error.
    """
    bounds: list[int] = []
    ways = [(value, 1)]
    seen: set[tuple[int, int]] = set()
    while ways:
        here, divisor = ways.pop()
        if (id(here), divisor) in seen:
            continue
        seen.add((id(here), divisor))
        for node, place in here.uses():
            if node.domain not in ONNX_DOMAINS:
                continue
            if node.op_type == "Gather" and place == 1:
                rows = _rows(node)
                bounds += [] if rows is None else [rows * divisor]
            elif node.op_type == "Div" and place == 0:
                ways += [(node.outputs[0], divisor * by) for by in _positive(node.inputs[1])]
            elif node.op_type == "Where" and place > 0:
                bounds += [limit * divisor for limit in _kept_below(node, place)]
                ways += [(node.outputs[0], divisor)]
            elif _moves(node, place):
                ways += [(output, divisor) for output in node.outputs]
    return min(bounds, default=None)


def _moves(node: ir.Node, place: int) -> bool:
    """Whether outputs are elements of this input, or those less a truth value, which is how
    exporters round a division down."""
    if node.op_type == "Sub" and place == 0:
        cast = None if node.inputs[1] is None else node.inputs[1].producer()
        source = cast.inputs[0] if cast is not None and cast.op_type == "Cast" else None
        test = None if source is None else source.producer()
        return test is not None and test.op_type in _TRUTH
    return (node.op_type in _FIRST and place == 0) or node.op_type in _ANY


def _kept_below(node: ir.Node, place: int) -> list[int]:
    """The constant below which a ``Where`` keeps its elements, or nothing."""
    test = None if node.inputs[0] is None else node.inputs[0].producer()
    if test is None or len(test.inputs) != 2 or test.inputs[0] is not node.inputs[place]:
        return []
    kept = "Less" if place == 1 else "GreaterOrEqual"
    return _positive(test.inputs[1]) if test.op_type == kept else []


def _rows(node: ir.Node) -> int | None:
    """Size of the axis that a ``Gather`` picks from."""
    table = node.inputs[0]
    tensor = constant_tensor(table)
    shape: OpenShape | None
    if tensor is not None:
        shape = tuple(int(size) for size in tensor.shape.numpy())
    else:
        shape = None if table is None else static_shape(table)
    if shape is None:
        return None
    axis = attribute_int(node, "axis", 0)
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _positive(value: ir.Value | None) -> list[int]:
    """The one whole number above 0 that a constant is, or nothing."""
    array = constant_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "iu" or array.item() < 1:
        return []
    return [int(array.item())]
