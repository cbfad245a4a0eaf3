"""Finds the layers of a graph: which node holds which weight, in which layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.stages import MatMul, WeightStage
from edgecompress.graph import operators
from edgecompress.graph.layout import Layout, Order
from edgecompress.graph.values import (
    ONNX_DOMAINS,
    OpenShape,
    bodies,
    constant_array,
    constant_tensor,
    nested_nodes,
    printable,
    shape_of,
    size_of,
)

SMALLEST_SKIP = 16
ALREADY_QUANTIZED = "already quantized"
INSIDE_A_BODY = "inside a control-flow body (left intact)"

_WEIGHT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_FLOAT_TYPES = (*_WEIGHT_TYPES, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
_INTEGER_OPERATORS = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulNBits",
        "QGemm",
        "QAttention",
        "GatherBlockQuantized",
    }
)
_WEIGHT_OPERATORS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a layer sits in the graph, by names.

    Attributes:
        node: The node with the weight.
        weight, weight_index: The weight's value and which input of the node it is.
        activation, activation_index: Likewise for what enters the layer.
        layout: Of the weight.
        add: The ``Add`` that holds the bias of a matrix product, or empty.
        bias: The value of the bias, or empty.
        bias_factor: The bias is the value times this (``beta`` of Gemm).
        output: Value that leaves the layer.
        left: The product is ``W x``, so activations have their last two axes swapped.
    """

    node: str
    weight: str
    weight_index: int
    activation: str
    activation_index: int = 0
    layout: Layout = field(default_factory=Layout)
    add: str = ""
    bias: str = ""
    bias_factor: float = 1.0
    output: str
    left: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a model.

    Attributes:
        layers: In topological order.
        skips: Weights that are not in a layer, with reasons.
    """

    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]


class LayerFinder:
    """One search through a graph whose nodes have unique names.

    Attributes:
        layers, skips: As in `Findings`.
        places: By layer name.
    """

    def __init__(self, graph: ir.Graph, shapes: Mapping[str, OpenShape]) -> None:
        self._graph = graph
        self._shapes = shapes
        self._covered: set[str] = set()
        self.layers: list[Layer] = []
        self.skips: list[Skip] = []
        self.places: dict[str, Place] = {}
        for node in graph:
            self._visit(node)
        self._leftovers()

    def _visit(self, node: ir.Node) -> None:
        for inner in nested_nodes(node):
            self._skip_body_node(node, inner)
        if node.op_type in _INTEGER_OPERATORS:
            self._skip(node, ALREADY_QUANTIZED, _constant_elements(node))
        elif node.op_type in _WEIGHT_OPERATORS and node.domain in ONNX_DOMAINS:
            for index in operators.weight_inputs(node):
                self._visit_weight(node, index)

    def _visit_weight(self, node: ir.Node, index: int) -> None:
        value = node.inputs[index] if index < len(node.inputs) else None
        tensor = constant_tensor(value)
        if value is None or tensor is None:
            count, sources = quantized_elements(value)
            if count:
                self._covered |= sources
                self._skip(node, ALREADY_QUANTIZED, self._elements(value) or count)
            return
        name = value.name or ""
        if name in self._covered or tensor.dtype not in _FLOAT_TYPES:
            return
        count = size_of(tensor)
        reason = self._why_not(node, value, tensor)
        if reason:
            if count > SMALLEST_SKIP or node.op_type != "Gather":
                self._covered.add(name)
                self._skip(node, reason, count)
            return
        found = operators.read(node, index, self._shapes)
        if isinstance(found, str):
            if found:
                self._covered.add(name)
                self._skip(node, found, count)
            return
        self._add(node, value, found)

    def _why_not(self, node: ir.Node, value: ir.Value, tensor: ir.TensorProtocol) -> str:
        if tensor.dtype not in _WEIGHT_TYPES:
            return f"weights are {tensor.dtype.name.lower()}, not float32 or float16"
        if not size_of(tensor):
            return "empty weight"
        if value.is_graph_output():
            return "the weight is an output of the graph"
        return ""

    def _elements(self, value: ir.Value | None) -> int:
        """Elements of a value whose shape is known, else 0."""
        shape = shape_of(value, self._shapes)
        known = [size for size in shape or () if size is not None]
        return math.prod(known) if shape and len(known) == len(shape) else 0

    def _add(self, node: ir.Node, value: ir.Value, found: operators.Reading) -> None:
        self._covered.add(value.name or "")
        stage = found.stage
        bias, add = found.bias, None
        if isinstance(stage, MatMul) and not found.left:
            add = bias_add(node, stage.weight.shape[0], self._shapes) if not bias else None
        output = (add or node).outputs[0]
        if add is not None:
            bias = next(v for v in add.inputs if v is not None and v is not node.outputs[0])
        if bias is not None:
            self._covered.add(bias.name or "")
        name = printable(node.name or "") + found.suffix
        shared = len(value.uses()) > 1 or len(found.weight_users) > 1
        self.layers.append(
            Layer(
                name=name,
                stage=stage,
                bias=_bias_vector(bias, found.bias_factor, stage),
                input_shape=_with_columns(
                    operators.canonical_shape(
                        shape_of(found.activation, self._shapes) or (), left=found.left
                    ),
                    stage,
                ),
                output_shape=operators.canonical_shape(
                    shape_of(output, self._shapes) or (), left=found.left
                ),
                macs=operators.macs(node, found, self._shapes),
                shared=shared,
                frozen=found.frozen,
            )
        )
        self.places[name] = Place(
            node=node.name or "",
            weight=value.name or "",
            weight_index=found.weight_index,
            activation=found.activation.name or "",
            activation_index=found.activation_index,
            layout=found.layout,
            add="" if add is None else add.name or "",
            bias="" if bias is None else bias.name or "",
            bias_factor=found.bias_factor,
            output=output.name or "",
            left=found.left,
        )

    def _skip(self, node: ir.Node, reason: str, parameters: int) -> None:
        self._covered.update(v.name or "" for v in node.inputs if v is not None)
        self.skips.append(Skip(printable(node.name or node.op_type), reason, parameters))

    def _skip_body_node(self, outer: ir.Node, inner: ir.Node) -> None:
        if inner.op_type not in _WEIGHT_OPERATORS | _INTEGER_OPERATORS:
            return
        count = _constant_elements(inner)
        if count > SMALLEST_SKIP:
            name = printable(inner.name or inner.outputs[0].name or inner.op_type)
            self.skips.append(Skip(f"{printable(outer.name or '')}/{name}", INSIDE_A_BODY, count))

    def _leftovers(self) -> None:
        """Float weights that no layer holds: one skip for each node that reads them."""
        counts: dict[str, tuple[ir.Node, int]] = {}
        for name, value in self._graph.initializers.items():
            tensor = value.const_value
            if name in self._covered or tensor is None or tensor.dtype not in _FLOAT_TYPES:
                continue
            uses = value.uses()
            if not uses or size_of(tensor) <= SMALLEST_SKIP:
                continue
            node = next(iter(uses)).node
            key = printable(node.name or node.op_type)
            counts[key] = (node, counts.get(key, (node, 0))[1] + size_of(tensor))
        for key, (node, count) in counts.items():
            self.skips.append(Skip(key, self._leftover_reason(node), count))

    def _leftover_reason(self, node: ir.Node) -> str:
        if node.graph is not self._graph:
            return INSIDE_A_BODY
        if "quantize" in node.op_type.lower() or node.op_type in _INTEGER_OPERATORS:
            return ALREADY_QUANTIZED
        if node.op_type in ("LSTM", "GRU", "RNN"):
            return "biases of a recurrent cell"
        return f"constant of {node.op_type}, not a layer"


def may_have_layers(graph: ir.Graph) -> bool:
    """Whether there is any operator that can hold a weight."""
    return any(node.op_type in _WEIGHT_OPERATORS for node in graph)


def bias_add(node: ir.Node, outputs: int, shapes: Mapping[str, OpenShape]) -> ir.Node | None:
    """The ``Add`` of a constant vector that is the only reader of a matrix product, or None."""
    value = node.outputs[0]
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1:
        return None
    add = uses[0].node
    if add.op_type != "Add" or add.domain not in ONNX_DOMAINS or add.graph is not node.graph:
        return None
    other = add.inputs[1 - uses[0].idx]
    array = constant_array(other)
    if array is None or other is value or (other is not None and not other.is_initializer()):
        return None
    rank = len(shapes.get(value.name or "", ())) or 2
    if array.ndim > rank or array.size != (array.shape[-1] if array.ndim else 1):
        return None
    return add if array.size in (1, outputs) else None


def quantized_elements(value: ir.Value | None) -> tuple[int, set[str]]:
    """Integers that a computed weight is made from, and the names of all constants behind it.

    0 if it is not made from constants alone.
    """
    sources: dict[str, ir.TensorProtocol] = {}
    seen: set[int] = set()
    pending = [value]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        tensor = constant_tensor(one)
        if tensor is not None:
            sources[one.name or ""] = tensor
            continue
        node = one.producer()
        if node is None or any(True for _ in bodies(node)):
            return 0, set()
        pending.extend(node.inputs)
    plain = (*_FLOAT_TYPES, ir.DataType.INT64)
    count = sum(size_of(tensor) for tensor in sources.values() if tensor.dtype not in plain)
    return (count if count > SMALLEST_SKIP else 0), set(sources)


def _constant_elements(node: ir.Node) -> int:
    tensors = [constant_tensor(value) for value in node.inputs]
    return sum(size_of(t) for t in tensors if t is not None and t.dtype != ir.DataType.INT64)


def _bias_vector(value: ir.Value | None, factor: float, stage: WeightStage) -> FloatArray | None:
    array: Array | None = constant_array(value)
    if array is None:
        return None
    outputs = stage.weight.shape[0]
    flat = np.broadcast_to(array.reshape(-1), (outputs,))
    return np.ascontiguousarray(flat if factor == 1.0 else flat * factor).astype(array.dtype)


def _with_columns(shape: OpenShape, stage: WeightStage) -> OpenShape:
    """The shape of what enters a matrix product; its weight knows an open last axis."""
    if isinstance(stage, MatMul) and shape and shape[-1] is None:
        return (*shape[:-1], stage.weight.shape[1])
    return shape


__all__ = ["ALREADY_QUANTIZED", "INSIDE_A_BODY", "Findings", "LayerFinder", "Order", "Place"]
