"""Constant parts of a written graph: how many bits a weight has in the file, decoded or not.

A weight can be an initializer, a quantized one behind ``DequantizeLinear``, or packed bytes behind
a decoder of plain operators. The bits are followed through the operators by their structure, so
nothing is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.graph.values import (
    OpenShape,
    attribute_int,
    bodies,
    constant_array,
    constant_tensor,
    shape_of,
    size_of,
)

_RANDOM = frozenset({"RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"})
_KEEPS_CODES = frozenset(
    {
        "Cast",
        "CastLike",
        "DepthToSpace",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "SpaceToDepth",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_TAKES_PART = frozenset({"Slice", "GatherElements", "GatherND"})
_JOINS_PLANES = frozenset({"BitwiseOr", "BitwiseXor"})
_LARGEST_TABLE = 1 << 16


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A constant as it is in the file.

    Attributes:
        shape: Of the decoded tensor.
        weight_bits: Width of a code: 32 for float32, 2 for ternary.
        storage_bits: All of it as stored: packed bytes and scales; tables that many weights share
            are not counted, a shared pack by this weight's part.
    """

    shape: Shape
    weight_bits: int
    storage_bits: int


@dataclass(frozen=True, slots=True)
class _Bits:
    """Elements, stored bits and width of a code of a constant value."""

    elements: int
    storage: float
    width: int


@dataclass
class ConstantTracer:
    """Finds constants of one graph and follows their bits; remembers what it has seen.

    Attributes:
        shapes: Shapes of values, as far as known.
    """

    shapes: Mapping[str, OpenShape] = field(default_factory=dict)
    _constant: dict[ir.Value, bool] = field(default_factory=dict)
    _bits: dict[ir.Value, _Bits] = field(default_factory=dict)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether a value is the same for every input."""
        if value is None:
            return False
        if value in self._constant:
            return self._constant[value]
        for known in self._unknown_ancestors(value):
            node = known.producer()
            self._constant[known] = constant_tensor(known) is not None or (
                node is not None
                and node.op_type not in _RANDOM
                and not any(True for _ in bodies(node))
                and all(self._constant[v] for v in node.inputs if v is not None)
                and (bool(node.inputs) or node.op_type == "Constant")
            )
        return self._constant[value]

    def stored(self, value: ir.Value | None) -> StoredWeight | None:
        """How a constant is stored; None if it is not constant."""
        if value is None or not self.is_constant(value):
            return None
        order: list[ir.Value] = []
        stack = [value]
        while stack:
            current = stack.pop()
            node = current.producer()
            if current in self._bits:
                continue
            order.append(current)
            if node is not None and constant_tensor(current) is None:
                stack += [v for v in node.inputs if v is not None]
        for current in reversed(order):
            if current not in self._bits:
                self._bits[current] = self._trace(current)
        found = self._bits[value]
        shape = self._shape(value) or (found.elements,)
        return StoredWeight(shape, found.width, round(found.storage))

    def _unknown_ancestors(self, value: ir.Value) -> Iterator[ir.Value]:
        """Values that ``value`` is made from and that are not known yet, producers first."""
        stack = [(value, False)]
        while stack:
            current, entered = stack.pop()
            if current in self._constant:
                continue
            node = current.producer()
            if entered or node is None or constant_tensor(current) is not None:
                yield current
                continue
            stack.append((current, True))
            stack += [(v, False) for v in node.inputs if v is not None and v not in self._constant]

    def _shape(self, value: ir.Value) -> Shape | None:
        shape = shape_of(value, self.shapes)
        if shape is None and value.shape is not None:
            shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        if shape is None or any(size is None for size in shape):
            return _target_shape(value)
        return tuple(size for size in shape if size is not None)

    def _trace(self, value: ir.Value) -> _Bits:
        """Bits of a value whose inputs are traced already."""
        tensor = constant_tensor(value)
        if tensor is not None:
            count, width = size_of(tensor), _width(tensor.dtype)
            return _Bits(count, count * width, width)
        node = value.producer()
        if node is None:
            raise ValueError(f"value {value.name!r} is not constant")
        inputs = [self._bits[v] for v in node.inputs if v is not None]
        if not inputs:
            return _Bits(self._elements(value, 0), 0, 32)
        if node.op_type == "Gather":
            return self._gathered(node, value, inputs)
        return self._derived(node, value, inputs)

    def _derived(self, node: ir.Node, value: ir.Value, inputs: list[_Bits]) -> _Bits:
        """Bits of what an operator makes of constants."""
        data = inputs[0]
        elements = self._elements(value, data.elements)
        storage = data.storage
        width = data.width
        match node.op_type:
            case "Split":
                part = _split_part(node, value)
                elements = self._elements(value, round(data.elements * part))
                storage *= part
            case name if name in _TAKES_PART:
                storage *= min(1.0, elements / max(1, data.elements))
            case "DequantizeLinear":
                storage = sum(bits.storage for bits in inputs)
            case name if name in _JOINS_PLANES:
                storage = sum(bits.storage for bits in inputs)
                width = sum(bits.width for bits in inputs)
            case name if name not in _KEEPS_CODES:
                largest = max(inputs, key=lambda bits: bits.elements)
                elements = self._elements(value, largest.elements)
                storage = sum(bits.storage for bits in inputs)
                width = largest.width
        return _Bits(elements, storage, width)

    def _gathered(self, node: ir.Node, value: ir.Value, inputs: list[_Bits]) -> _Bits:
        """A look-up of codes in a small table, or a part of a large one."""
        data, indices = inputs[0], inputs[1]
        table = constant_array(node.inputs[0])
        if table is not None and table.size <= _LARGEST_TABLE:
            per_index = table.size // max(1, table.shape[0]) if table.ndim else 1
            elements = self._elements(value, indices.elements * per_index)
            if elements >= table.size or indices.storage >= data.storage:
                levels = max(2, len(np.unique(table)))
                return _Bits(elements, indices.storage, math.ceil(math.log2(levels)))
        elements = self._elements(value, indices.elements)
        return _Bits(
            elements, data.storage * min(1.0, elements / max(1, data.elements)), data.width
        )

    def _elements(self, value: ir.Value, otherwise: int) -> int:
        shape = self._shape(value)
        return otherwise if shape is None else math.prod(shape)


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is the same for every input of the graph."""
    return ConstantTracer().is_constant(value)


def stored_weight(
    value: ir.Value | None, shapes: Mapping[str, OpenShape] | None = None
) -> StoredWeight | None:
    """How a weight is stored in the file; None if it is not constant.

    Args:
        value: Input of an operator.
        shapes: Shapes of values where they are known; makes parts of tables exact.
    """
    return ConstantTracer(shapes or {}).stored(value)


def _width(dtype: ir.DataType) -> int:
    """Bits of an element."""
    return 8 if dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED) else int(dtype.bitwidth)


def _split_part(node: ir.Node, value: ir.Value) -> float:
    """Share of a split tensor that one of its outputs is."""
    place = list(node.outputs).index(value)
    sizes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None:
        attribute = node.attributes.get("split")
        if attribute is None:
            return 1 / max(1, attribute_int(node, "num_outputs", len(node.outputs)))
        sizes = np.array(list(attribute.as_ints()))
    total = int(sizes.sum())
    return float(sizes[place]) / total if total else 0.0


def _target_shape(value: ir.Value) -> Shape | None:
    """Shape that a Reshape asks for, if it is plain."""
    node = value.producer()
    if node is None or node.op_type != "Reshape" or len(node.inputs) < 2:
        return None
    wanted = constant_array(node.inputs[1])
    if wanted is None or (wanted < 1).any():
        return None
    return tuple(int(size) for size in wanted)
