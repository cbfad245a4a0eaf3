"""The integer codes of a constant weight, read through the decoder that the graph has for it.

Only what moves or joins codes is followed (casts, shapes, parts, look-ups, planes); a scale is
left out, a zero point is taken off, so that a code of 0 stands for zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.graph.code_sample import Blocks
from edgecompress.graph.values import (
    attribute_int,
    attribute_ints,
    constant_array,
    constant_tensor,
    static_shape,
)

Step = Callable[[ir.Node, ir.Value, Sequence[Array | None]], Array | None]
"""What a node makes of its inputs; None if that cannot be said."""


@dataclass
class CodeReader:
    """Reads weights of one graph; remembers what several of them are cut from."""

    _found: dict[ir.Value, Array | None] = field(default_factory=dict)

    def read(self, value: ir.Value) -> Array | None:
        """Codes as integers, or the floats of a weight that is stored as such.

        None where the value is made by operators whose codes cannot be followed.
        """
        stack = [value]
        while stack:
            current = stack[-1]
            if current in self._found:
                stack.pop()
                continue
            node = current.producer()
            tensor = constant_tensor(current)
            if tensor is not None or node is None:
                self._found[current] = None if tensor is None else _plain(tensor)
                continue
            missing = [v for v in node.inputs if v is not None and v not in self._found]
            if missing:
                stack += missing
                continue
            inputs = [None if v is None else self._found[v] for v in node.inputs]
            step = _STEPS.get(node.op_type)
            self._found[current] = None if step is None else step(node, current, inputs)
        return self._found[value]

    def shape(self, value: ir.Value) -> tuple[int, ...] | None:
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

    def sample(self, value: ir.Value, blocks: Blocks) -> Array | None:
        """Some of the codes that `read` gives, (count, length), decoding little more than those.

        None where that takes reading all of them, or the weight is stored as floats.
        """
        tensor = constant_tensor(value)
        if tensor is not None:
            return _packed_part(tensor, blocks)
        node = value.producer()
        part = None if node is None else _PARTS.get(node.op_type)
        return None if node is None or part is None else part(self.sample, node, value, blocks)


_LONGEST = 1000
_KEEP_SHAPE = frozenset({"Cast", "CastLike", "DequantizeLinear", "Div", "Identity", "Mul"})
"""Operators whose first input has the shape of the codes."""

Sampler = Callable[[ir.Value, Blocks], Array | None]
Part = Callable[[Sampler, ir.Node, ir.Value, Blocks], Array | None]
"""Some codes that a node gives, from some that enter it; None if they are not in blocks there."""


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


def _same_part(sampler: Sampler, node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    entering = node.inputs[0]
    return None if entering is None else sampler(entering, blocks)


def _scaled_part(sampler: Sampler, node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    """Codes times a scale of one value, or of one along some axes of the codes."""
    codes, scale = node.inputs[0], constant_tensor(node.inputs[1])
    if codes is None or scale is None or not scale.dtype.is_floating_point():
        return None
    return sampler(codes, blocks)


def _moved_part(sampler: Sampler, node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
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
    return sampler(entering, replace(blocks, start=blocks.start + start))


def _is_vector(value: ir.Value) -> bool:
    shape, node = static_shape(value), value.producer()
    if shape is not None:
        return len(shape) == 1
    if node is None or node.op_type != "Reshape":
        return False
    sizes = constant_array(node.inputs[1])
    return sizes is not None and sizes.size == 1


def _rows_part(sampler: Sampler, node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    """Rows of a table."""
    table, indices = constant_array(node.inputs[0]), node.inputs[1]
    if table is None or indices is None or table.ndim != 2 or attribute_int(node, "axis", 0):
        return None
    inner = blocks.over(table.shape[1])
    rows = None if inner is None else sampler(indices, inner)
    if rows is None:
        return None
    found = np.take(table, rows, axis=0, mode="wrap").reshape(len(rows), -1)
    return blocks.cut(found, table.shape[1])


def _joined_part(sampler: Sampler, node: ir.Node, value: ir.Value, blocks: Blocks) -> Array | None:
    if any(one is None for one in node.inputs):
        return None
    return _join(node, value, [sampler(one, blocks) for one in node.inputs if one is not None])


def _plain_zero_part(
    sampler: Sampler, node: ir.Node, value: ir.Value, blocks: Blocks
) -> Array | None:
    """Codes with one zero point for all."""
    codes, given = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant_array(given)
    if codes is None or (given is not None and zero is None):
        return None
    if zero is not None and zero.any() and zero.size > 1:
        return None
    part = sampler(codes, blocks)
    return None if part is None else less_zero_point(part, zero)


_PARTS: dict[str, Part] = {
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


def digits(packed: Array, bits: int) -> Array:
    """Codes of ``bits`` each along the last axis of bytes, the first in the lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: Array = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)


def _plain(tensor: ir.TensorProtocol) -> Array | None:
    """The values of a constant; integers of less than a byte as bytes."""
    if tensor.dtype == ir.DataType.STRING:
        return None
    array = tensor.numpy()
    if tensor.dtype in (ir.DataType.INT4, ir.DataType.INT2):
        return array.astype(np.int8)
    if tensor.dtype in (ir.DataType.UINT4, ir.DataType.UINT2):
        return array.astype(np.uint8)
    if tensor.dtype.is_floating_point() and array.dtype.kind != "f":
        return array.astype(np.float32)
    return array


def less_zero_point(codes: Array, zero: Array | None, axis: int = 0, block: int = 0) -> Array:
    """Codes with the code of zero at 0; zero points: one, one along ``axis``, or one a block."""
    if zero is None or not zero.any():
        return codes
    if zero.ndim == 1 and zero.size > 1 and codes.ndim > 1:
        zero = zero.reshape([-1 if i == axis % codes.ndim else 1 for i in range(codes.ndim)])
    elif block and zero.ndim == codes.ndim:
        zero = np.repeat(zero, block, axis=axis)
        zero = np.take(zero, range(codes.shape[axis]), axis=axis)
    return codes.astype(np.int16) - zero.astype(np.int16)


def _same(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    return inputs[0]


def _reshape(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    data, shape = inputs[0], inputs[1]
    if data is None or shape is None:
        return None
    sizes = [data.shape[i] if size == 0 else int(size) for i, size in enumerate(shape)]
    return data.reshape(sizes)


def _flat(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    """Squeeze, Unsqueeze, Flatten: to the shape that the graph says, else as it is."""
    data = inputs[0]
    if data is None:
        return None
    sizes = () if value.shape is None else value.shape
    known = [size for size in sizes if isinstance(size, int)]
    if value.shape is None or len(known) != len(value.shape):
        return None if data.ndim > 2 else data
    return data.reshape(known)


def _transpose(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    data = inputs[0]
    if data is None:
        return None
    axes = attribute_ints(node, "perm", tuple(reversed(range(data.ndim))))
    return data.transpose(axes)


def _split(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    data = inputs[0]
    if data is None:
        return None
    axis, place = attribute_int(node, "axis", 0), list(node.outputs).index(value)
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = [int(size) for size in inputs[1]]
    else:
        chunk = -(-data.shape[axis] // len(node.outputs))
        sizes = list(attribute_ints(node, "split", (chunk,) * len(node.outputs)))
    start = sum(sizes[:place])
    cut = [slice(None)] * data.ndim
    cut[axis] = slice(start, start + sizes[place])
    return data[tuple(cut)]


def _slice(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    if any(array is None for array in inputs[:3]) or len(inputs) < 3:
        return None
    data, starts, ends = (np.asarray(array) for array in inputs[:3])
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = inputs[4] if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    cut = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step != 1:
            return None
        cut[int(axis)] = slice(int(start), int(end))
    return data[tuple(cut)]


def _gather(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    data, indices = inputs[0], inputs[1]
    if data is None or indices is None:
        return None
    return np.take(data, indices, axis=attribute_int(node, "axis", 0), mode="wrap")


def _join(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    first, second = inputs[0], inputs[1]
    if first is None or second is None or "f" in (first.dtype.kind, second.dtype.kind):
        return None
    both: Array = first | second if node.op_type == "BitwiseOr" else first ^ second
    return both


def _scaled(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    """Codes times a scale are those codes; floats times floats are floats."""
    first, second = inputs[0], inputs[1]
    if first is None or second is None:
        return None
    kinds = (first.dtype.kind, second.dtype.kind)
    if kinds == ("f", "f"):
        product: Array = first * second if node.op_type == "Mul" else first / second
        return product
    codes, scale = (second, first) if kinds[0] == "f" else (first, second)
    return codes if scale.dtype.kind == "f" and codes.size >= scale.size else None


def _less(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    codes, zero = inputs[0], inputs[1]
    if codes is None or zero is None or codes.dtype.kind == "f":
        return None
    difference: Array = codes.astype(np.int32) - np.rint(zero).astype(np.int32)
    return difference


def _dequantize(node: ir.Node, value: ir.Value, inputs: Sequence[Array | None]) -> Array | None:
    codes = inputs[0]
    zero = inputs[2] if len(inputs) > 2 else None
    if codes is None or codes.dtype.kind == "f":
        return None
    axis, block = attribute_int(node, "axis", 1), attribute_int(node, "block_size", 0)
    return less_zero_point(codes, zero, axis, block)


_STEPS: dict[str, Step] = {
    "BitwiseOr": _join,
    "BitwiseXor": _join,
    "Cast": _same,
    "CastLike": _same,
    "DequantizeLinear": _dequantize,
    "Div": _scaled,
    "Flatten": _flat,
    "Gather": _gather,
    "Identity": _same,
    "Mul": _scaled,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _flat,
    "Sub": _less,
    "Transpose": _transpose,
    "Unsqueeze": _flat,
}
