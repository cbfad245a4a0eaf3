"""The integer codes of a constant weight, read through the decoder that the graph has for it.

Only what moves or joins codes is followed (casts, shapes, parts, look-ups, planes); a scale is
left out, a zero point is taken off, so that a code of 0 stands for zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.graph.values import attribute_int, attribute_ints, constant_tensor

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
