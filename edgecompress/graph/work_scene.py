"""What is known about the values of a graph while its operators are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.graph.constants import ConstantTracer, StoredWeight
from edgecompress.graph.values import OpenShape, attribute_int, shape_of

SHAPE_UNKNOWN = "a shape is not known before it runs: open axes were counted as 1"
BOUNDS = frozenset({"Relu", "Clip", "LeakyRelu"})
_DEFAULT_BITS = 32


@dataclass
class Scene:
    """Shapes, widths and constants of one graph.

    Attributes:
        shapes: By value name, None for an axis that stays open.
        tracer: Of the same graph.
        widths: Bits of an element by value, from `learn`.
        written: Results of products, and of what is fused to them, with one reader.
        shape_values: Values that depend on shapes only.
    """

    shapes: Mapping[str, OpenShape]
    tracer: ConstantTracer
    widths: dict[ir.Value, int] = field(default_factory=dict)
    written: set[ir.Value] = field(default_factory=set)
    shape_values: set[ir.Value] = field(default_factory=set)

    def shape(self, value: ir.Value | None) -> Shape:
        """Shape, open axes as 1; a value of unknown rank is a scalar."""
        known = shape_of(value, self.shapes)
        return tuple(1 if size is None else size for size in known or ())

    def is_open(self, value: ir.Value | None) -> bool:
        """Whether the shape of a value is not fully known."""
        known = shape_of(value, self.shapes)
        return value is not None and (known is None or None in known)

    def elements(self, value: ir.Value | None) -> int:
        """Number of elements, open axes as 1."""
        return 0 if value is None else math.prod(self.shape(value))

    def width(self, value: ir.Value | None) -> int:
        """Bits of an element where it is kept between operators.

        A value between a quantize/dequantize pair is kept quantized, also where a bound such as
        Relu stands before the pair.
        """
        if value is None:
            return _DEFAULT_BITS
        node = value.producer()
        if node is not None and node.op_type == "DequantizeLinear":
            return self._type_bits(node.inputs[0])
        readers = _readers(value)
        if node is not None and len(readers) == 1 and readers[0].op_type in BOUNDS:
            readers = _readers(readers[0].outputs[0])
        if node is not None and readers and all(r.op_type == "QuantizeLinear" for r in readers):
            return min(_quantized_bits(reader) for reader in readers)
        return self._type_bits(value)

    def bits(self, value: ir.Value | None) -> int:
        """Bits of a whole value."""
        return self.elements(value) * self.width(value)

    def learn(self, node: ir.Node) -> None:
        """Note the widths of a node's outputs; nodes come in topological order."""
        first = next((self._type_bits(v) for v in node.inputs if v is not None), _DEFAULT_BITS)
        for place, value in enumerate(node.outputs):
            self.widths[value] = _declared_bits(value) or _made_bits(node, place) or first

    def _type_bits(self, value: ir.Value | None) -> int:
        if value is None:
            return _DEFAULT_BITS
        return self.widths.get(value) or _declared_bits(value) or _DEFAULT_BITS

    def activations(self, node: ir.Node) -> list[ir.Value]:
        """Inputs that are not constant."""
        return [v for v in node.inputs if v is not None and not self.tracer.is_constant(v)]

    def read_bits(self, node: ir.Node) -> int:
        """Bits of all activations that a node reads."""
        return sum(self.bits(value) for value in dict.fromkeys(self.activations(node)))

    def written_bits(self, node: ir.Node) -> int:
        """Bits of everything that a node writes."""
        return sum(self.bits(value) for value in node.outputs if value.name)

    def constant_bits(self, node: ir.Node) -> int:
        """Stored bits of all constants that a node reads."""
        stored = (self.tracer.stored(value) for value in dict.fromkeys(node.inputs))
        return sum(weight.storage_bits for weight in stored if weight is not None)

    def stored(self, value: ir.Value | None) -> StoredWeight | None:
        """How a constant is stored; None if it is not constant."""
        return self.tracer.stored(value)

    def open_shapes(self, node: ir.Node) -> str:
        """`SHAPE_UNKNOWN` if a shape of the node is not fully known, else empty."""
        values = [*self.activations(node), *(v for v in node.outputs if v.name)]
        return SHAPE_UNKNOWN if any(self.is_open(value) for value in values) else ""


def _readers(value: ir.Value) -> list[ir.Node]:
    """Nodes that read a value; none if it is also an output of the graph."""
    return [] if value.is_graph_output() else [use.node for use in value.uses()]


def _declared_bits(value: ir.Value | None) -> int | None:
    """Bits of an element as the file says."""
    dtype = None if value is None else value.dtype
    if dtype is None or dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    return int(dtype.bitwidth)


def _quantized_bits(node: ir.Node) -> int:
    """Bits that a QuantizeLinear writes: those of its zero point, else 8."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    asked = attribute_int(node, "output_dtype", 0)
    return _declared_bits(zero) or (int(ir.DataType(asked).bitwidth) if asked else 8)


_FIXED_BITS = {
    "And": 8,
    "ArgMax": 64,
    "ArgMin": 64,
    "ConvInteger": 32,
    "DequantizeLinear": 32,
    "Equal": 8,
    "Greater": 8,
    "GreaterOrEqual": 8,
    "Less": 8,
    "LessOrEqual": 8,
    "MatMulInteger": 32,
    "NonZero": 64,
    "Not": 8,
    "Or": 8,
    "QGemm": 8,
    "QLinearAdd": 8,
    "QLinearConv": 8,
    "QLinearMatMul": 8,
    "Shape": 64,
    "Size": 64,
}


def _made_bits(node: ir.Node, place: int) -> int | None:
    """Bits of an output whose type follows from the operator; None if it is that of its input."""
    match node.op_type:
        case "QuantizeLinear":
            return _quantized_bits(node)
        case "DynamicQuantizeLinear":
            return 32 if place == 1 else 8
        case "Cast":
            return int(ir.DataType(attribute_int(node, "to", 1)).bitwidth)
        case name:
            return _FIXED_BITS.get(name)
