"""A part of the integer codes of a constant weight, decoded without the rest.

A part is blocks of neighbours; decoders that keep the order of codes, or take several from a byte,
turn it into a part of what they read. Others are left to `code_reader`, which reads everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.graph.code_reader import less_zero_point
from edgecompress.graph.code_sample import Blocks, digits
from edgecompress.graph.values import (
    attribute_int,
    constant_array,
    constant_tensor,
    size_of,
    static_shape,
)

_LONGEST = 200
_KEEP_SHAPE = frozenset({"Cast", "CastLike", "DequantizeLinear", "Div", "Identity", "Mul"})
"""Operators whose first input has the shape of the codes."""

_WHOLE = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)
_WIDTHS = {
    ir.DataType.INT4: 4,
    ir.DataType.UINT4: 4,
    ir.DataType.INT2: 2,
    ir.DataType.UINT2: 2,
}

Step = Callable[[ir.Node, ir.Value, Blocks], Array | None]
"""Some codes that a node gives, from some that enter it; None if they are not in blocks there."""


def weight_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Shape of a weight, without reading it; None where that cannot be told."""
    for _ in range(_LONGEST):
        tensor = constant_tensor(value)
        if tensor is not None:
            return tuple(int(size) for size in tensor.shape.numpy())
        known = static_shape(value)
        if known is not None and None not in known:
            return tuple(size for size in known if size is not None)
        node = value.producer()
        entering = None if node is None or not node.inputs else node.inputs[0]
        if node is None or entering is None:
            return None
        if node.op_type == "Reshape":
            sizes = constant_array(node.inputs[1])
            fixed = sizes is not None and sizes.ndim == 1 and (sizes > 0).all()
            return tuple(int(size) for size in sizes) if sizes is not None and fixed else None
        if node.op_type not in _KEEP_SHAPE:
            return None
        value = entering
    return None


def sample_codes(value: ir.Value, blocks: Blocks) -> Array | None:
    """Some of the codes that `CodeReader.read` gives, (count, length); little else is decoded.

    None where that takes reading all of them, or the weight is stored as floats.
    """
    return _part(value, blocks) if _is_near(value) else None


def _is_near(value: ir.Value) -> bool:
    """Whether a decoder is short enough to go back through it step by step."""
    pending, seen = [value], 0
    while pending:
        node = pending.pop().producer()
        seen += 1
        if seen > _LONGEST:
            return False
        if node is not None:
            pending += [one for one in node.inputs if one is not None]
    return True


def _part(value: ir.Value, blocks: Blocks) -> Array | None:
    tensor = constant_tensor(value)
    if tensor is not None:
        return _packed_part(tensor, blocks)
    node = value.producer()
    step = None if node is None else _PARTS.get(node.op_type)
    return None if node is None or step is None else step(node, value, blocks)


def _packed_part(tensor: ir.TensorProtocol, blocks: Blocks) -> Array | None:
    """Blocks of a constant; of integers of less than a byte only these are unpacked."""
    width = _WIDTHS.get(tensor.dtype)
    if width is None:
        return blocks.of(tensor.numpy()) if tensor.dtype in _WHOLE else None
    inner = blocks.over(8 // width)
    if inner is None:
        return None
    codes = digits(inner.of(np.frombuffer(tensor.tobytes(), np.uint8)), width)
    codes = blocks.cut(codes, 8 // width)
    if tensor.dtype in (ir.DataType.INT4, ir.DataType.INT2):
        half = np.uint8(1 << (width - 1))
        return (codes ^ half).view(np.int8) - half.view(np.int8)
    return codes


def _same_part(node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    entering = node.inputs[0]
    return None if entering is None else _part(entering, blocks)


def _scaled_part(node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    """Codes times a scale of one value, or of one along some axes of the codes."""
    codes, scale = node.inputs[0], constant_tensor(node.inputs[1])
    if codes is None or scale is None or not scale.dtype.is_floating_point():
        return None
    shape = weight_shape(codes)
    return _part(codes, blocks) if shape and size_of(scale) <= math.prod(shape) else None


def _moved_part(node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    """A part of a vector."""
    entering = node.inputs[0]
    if entering is None or not _is_vector(entering):
        return None
    sizes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None:
        return None
    if node.op_type == "Split":
        start = int(sizes[: list(node.outputs).index(value)].sum())
    else:
        start = int(sizes[0])
        steps = constant_array(node.inputs[4]) if len(node.inputs) > 4 else None
        if start < 0 or (steps is not None and (steps != 1).any()):
            return None
    return _part(entering, replace(blocks, start=blocks.start + start))


def _is_vector(value: ir.Value) -> bool:
    shape, node = static_shape(value), value.producer()
    if shape is not None:
        return len(shape) == 1
    if node is None or node.inputs[0] is None:
        return False
    if node.op_type in ("BitwiseOr", "BitwiseXor"):
        return all(one is not None and _is_vector(one) for one in node.inputs)
    sizes = constant_array(node.inputs[1]) if node.op_type == "Reshape" else None
    return sizes is not None and sizes.size == 1


def _rows_part(node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    """Rows of a table."""
    table, indices = constant_array(node.inputs[0]), node.inputs[1]
    if table is None or indices is None or table.ndim != 2 or attribute_int(node, "axis", 0):
        return None
    inner = blocks.over(table.shape[1])
    rows = None if inner is None else _part(indices, inner)
    if rows is None:
        return None
    found = np.take(table, rows, axis=0, mode="wrap").reshape(len(rows), -1)
    return blocks.cut(found, table.shape[1])


def _joined_part(node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    found = [None if one is None else _part(one, blocks) for one in node.inputs]
    first, second = found[0], found[1]
    if first is None or second is None:
        return None
    both: Array = first | second if node.op_type == "BitwiseOr" else first ^ second
    return both


def _plain_zero_part(node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    """Codes with one zero point for all."""
    codes, given = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant_array(given)
    if codes is None or (given is not None and zero is None):
        return None
    if zero is not None and zero.any() and zero.size > 1:
        return None
    part = _part(codes, blocks)
    return None if part is None else less_zero_point(part, zero)


_PARTS: dict[str, Step] = {
    "BitwiseOr": _joined_part,
    "BitwiseXor": _joined_part,
    "Cast": _same_part,
    "CastLike": _same_part,
    "DequantizeLinear": _plain_zero_part,
    "Div": _scaled_part,
    "Flatten": _same_part,
    "Gather": _rows_part,
    "Identity": _same_part,
    "Mul": _scaled_part,
    "Reshape": _same_part,
    "Slice": _moved_part,
    "Split": _moved_part,
    "Squeeze": _same_part,
    "Unsqueeze": _same_part,
}
