"""What is known about the values of a graph while its operators are counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.work import AssumedBits, OperatorWork, TensorUse
from edgecompress.graph.constants import ConstantTracer, StoredWeight
from edgecompress.graph.values import OpenShape, attribute_int, shape_of

SHAPE_UNKNOWN = "a shape is not known before it runs: open axes were counted as 1"
BOUNDS = frozenset({"Relu", "Clip", "LeakyRelu"})
_DEFAULT_BITS = 32
_NARROWEST_FLOAT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the operators that a node stands for.

    Attributes:
        name: Put behind the node's name; empty if it is all of the node.
        operator: The counts.
        reads, writes: Activations.
        weight: The value that holds the weight; None if there is none.
        assumed: What was assumed; empty when exact.
    """

    name: str = ""
    operator: OperatorWork
    reads: tuple[TensorUse, ...]
    writes: tuple[TensorUse, ...]
    weight: ir.Value | None = None
    assumed: str = ""


@dataclass
class Scene:
    """Shapes, widths and constants of one graph.

    Attributes:
        shapes: By value name, None for an axis that stays open.
        tracer: Of the same graph.
        assumed: Widths of what is float in the graph; None: as it is.
        names: Names of values that are not their own: those inside bodies.
        widths: Bits of an element by value, from `learn`.
        written: Results of products, and of what is fused to them, with one reader.
        shape_values: Values that depend on shapes only.
    """

    shapes: Mapping[str, OpenShape]
    tracer: ConstantTracer
    assumed: AssumedBits | None = None
    names: dict[ir.Value, str] = field(default_factory=dict)
    widths: dict[ir.Value, int] = field(default_factory=dict)
    written: set[ir.Value] = field(default_factory=set)
    shape_values: set[ir.Value] = field(default_factory=set)
    _kept: dict[ir.Value, tuple[int, int]] = field(default_factory=dict)

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
        return 0 if value is None else self._found(value)[0]

    def width(self, value: ir.Value | None) -> int:
        """Bits of an element where it is kept between operators.

        A value between a quantize/dequantize pair is kept quantized, also where a bound such as
        Relu stands before the pair.
        """
        return _DEFAULT_BITS if value is None else self._found(value)[1]

    def _found(self, value: ir.Value) -> tuple[int, int]:
        """Elements and width of a value whose node has been learned; looked up once."""
        if value not in self._kept:
            self._kept[value] = (math.prod(self.shape(value)), self._kept_width(value))
        return self._kept[value]

    def _kept_width(self, value: ir.Value) -> int:
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
        return 0 if value is None else math.prod(self._found(value))

    def learn(self, node: ir.Node) -> None:
        """Note the widths of a node's outputs; nodes come in topological order."""
        first = next((self._type_bits(v) for v in node.inputs if v is not None), _DEFAULT_BITS)
        for place, value in enumerate(node.outputs):
            bits = _declared_bits(value) or _made_bits(node, place) or first
            self.widths[value] = self._as_assumed(bits, floats=_is_float(node, value))

    def _type_bits(self, value: ir.Value | None) -> int:
        if value is None:
            return _DEFAULT_BITS
        if value in self.widths:
            return self.widths[value]
        declared = _declared_bits(value) or _DEFAULT_BITS
        floats = value.dtype is None or value.dtype.is_floating_point()
        return self._as_assumed(declared, floats=floats)

    def _as_assumed(self, bits: int, *, floats: bool) -> int:
        return bits if self.assumed is None or not floats else min(bits, self.assumed.activations)

    def use(self, value: ir.Value) -> TensorUse:
        """An activation as its readers and writers see it."""
        name = self.names.get(value) or value.name or ""
        return TensorUse(name=name, bits=self.bits(value), width_bits=self.width(value))

    def uses(self, values: Iterable[ir.Value | None]) -> tuple[TensorUse, ...]:
        """Activations among some values, each once."""
        kept = (v for v in values if v is not None and v.name and not self.tracer.is_constant(v))
        return tuple(self.use(value) for value in dict.fromkeys(kept))

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
        stored = (self.stored(value) for value in dict.fromkeys(node.inputs))
        return sum(weight.storage_bits for weight in stored if weight is not None)

    def stored(self, value: ir.Value | None) -> StoredWeight | None:
        """How a constant is stored; None if it is not constant.

        With assumed widths a float weight takes those; vectors such as biases stay.
        """
        found = self.tracer.stored(value)
        if found is None or self.assumed is None or found.weight_bits < _NARROWEST_FLOAT:
            return found
        if len(found.shape) < 2:
            return found
        bits = min(found.weight_bits, self.assumed.weights)
        return replace(found, weight_bits=bits, storage_bits=bits * math.prod(found.shape))

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


def _is_float(node: ir.Node, value: ir.Value) -> bool:
    """Whether an output holds floats; where the file does not say, what its operator makes."""
    if value.dtype is not None and value.dtype != ir.DataType.UNDEFINED:
        return bool(value.dtype.is_floating_point())
    if node.op_type == "Cast":
        return bool(ir.DataType(attribute_int(node, "to", 1)).is_floating_point())
    return node.op_type not in _INTEGER_RESULTS


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


_INTEGER_RESULTS = (frozenset(_FIXED_BITS) - {"DequantizeLinear"}) | {"QuantizeLinear"}


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
