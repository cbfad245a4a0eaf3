"""What is in a model: inputs, operators, and every layer with its shapes, bits and bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import Unsupported
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.report import InspectionReport, LayerFact
from edgecompress.core.work import ElementWork
from edgecompress.graph.constants import ConstantTracer, StoredWeight
from edgecompress.graph.layers import INSIDE_A_BODY
from edgecompress.graph.values import attribute_int, constant_tensor, nested_nodes, size_of
from edgecompress.graph.work import derive_work

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgecompress.graph.model import InputSpec, Model

KINDS = {
    "Conv": ("Conv", (1,)),
    "ConvTranspose": ("Conv", (1,)),
    "ConvInteger": ("Conv", (1,)),
    "QLinearConv": ("Conv", (3,)),
    "Gemm": ("MatMul", (1, 0)),
    "MatMul": ("MatMul", (1, 0)),
    "MatMulInteger": ("MatMul", (1, 0)),
    "QLinearMatMul": ("MatMul", (3, 0)),
    "Gather": ("Embedding", (0,)),
    "LSTM": ("Recurrent", (1, 2)),
    "GRU": ("Recurrent", (1, 2)),
    "RNN": ("Recurrent", (1, 2)),
}
"""Operator -> kind of layer, and the inputs that can be its weight."""

SMALLEST_TABLE = 16


def inspect(model: Model) -> InspectionReport:
    """List what is in a model, as its file has it: packed and quantized weights at their width.

    Args:
        model: Read without normalisation.
    """
    finder = _Finder(model)
    layers = tuple(finder.facts())
    listed = {fact.name for fact in layers}
    macs = [fact.macs for fact in layers if fact.kind != "Embedding"]
    graph = model.ir
    return InspectionReport(
        model=model.file,
        opset=graph.opset_imports.get("", 0),
        ir_version=graph.ir_version or 0,
        producer=" ".join(part for part in (graph.producer_name, graph.producer_version) if part),
        inputs={item.name: _describe(item) for item in model.inputs()},
        outputs={item.name: _describe(item) for item in model.outputs()},
        nodes=dict(Counter(node.op_type for _, node in _all_nodes(model)).most_common()),
        layers=layers,
        skips=tuple(skip for skip in finder.skips() if skip.layer not in listed),
        parameters=finder.parameters + finder.other_parameters(),
        macs=None if None in macs else sum(count for count in macs if count is not None),
    )


class _Finder:
    """One walk over the operators that have weights."""

    def __init__(self, model: Model) -> None:
        found = model.find_layers()
        self.parameters = 0
        self._skips = found.skips
        self._model = model
        self._tracer = ConstantTracer(model.shapes())
        self._layers = {
            (model.layer_nodes(layer)[0].name or "", model.weight_name(layer)): layer
            for layer in found.layers
        }
        self._reasons = {skip.layer: skip.reason for skip in found.skips}
        self._macs = _macs_by_node(model)
        self._seen: set[ir.Value] = set()

    def facts(self) -> Iterator[LayerFact]:
        """Every layer with a constant weight, those inside control flow included."""
        for outer, node in _all_nodes(self._model):
            if node.op_type not in KINDS or self._tracer.is_constant(node.outputs[0]):
                continue
            weights = self._weights(node)
            for value, stored in weights:
                yield self._fact(outer, node, value, stored, alone=len(weights) == 1)

    def skips(self) -> Iterator[Skip]:
        """Weights outside layers; scales and tables of packed weights are not among them."""
        decoders = {
            node.name
            for outer, node in _all_nodes(self._model)
            if not outer and self._tracer.is_constant(node.outputs[0])
        }
        yield from (skip for skip in self._skips if skip.layer not in decoders)

    def other_parameters(self) -> int:
        """Float values that operators read and that no layer holds: biases, statistics, tables."""
        count = 0
        for _, node in _all_nodes(self._model):
            if node.op_type == "Constant" or self._tracer.is_constant(node.outputs[0]):
                continue
            for value in node.inputs:
                tensor = constant_tensor(value)
                if value is None or tensor is None or value in self._seen:
                    continue
                self._seen.add(value)
                count += size_of(tensor) if tensor.dtype.is_floating_point() else 0
        return count

    def _weights(self, node: ir.Node) -> list[tuple[ir.Value, StoredWeight]]:
        kind, places = KINDS[node.op_type]
        found: list[tuple[ir.Value, StoredWeight]] = []
        for place in places:
            value = node.inputs[place] if place < len(node.inputs) else None
            stored = self._tracer.stored(value)
            if value is None or stored is None:
                continue
            if kind == "Embedding" and math.prod(stored.shape) <= SMALLEST_TABLE:
                continue
            found.append((value, stored))
        return found[:1] if kind == "MatMul" else found

    def _fact(
        self, outer: str, node: ir.Node, value: ir.Value, stored: StoredWeight, *, alone: bool
    ) -> LayerFact:
        parameters = math.prod(stored.shape)
        self.parameters += 0 if value in self._seen else parameters
        self._seen.add(value)
        bits = stored.storage_bits
        if stored.weight_bits >= 16:  # computed from parts that overlap: no more than the result
            bits = min(bits, parameters * stored.weight_bits)
        layer = self._layers.get((node.name or "", value.name or ""))
        name = layer.name if layer else outer + (node.name or node.outputs[0].name or "")
        shapes = self._model.shapes()
        entering = next(v for v in (*node.inputs, value) if v is not None and v is not value)
        macs = self._macs.get(outer + (node.name or "")) if alone else None
        note = _note(layer) if layer else self._reasons.get(name, INSIDE_A_BODY if outer else "")
        return LayerFact(
            name=name if layer or alone else f"{name}/{value.name}",
            kind=KINDS[node.op_type][0],
            weight_shape=layer.weight_shape if layer else _canonical(node, value, stored.shape),
            input_shape=layer.input_shape if layer else shapes.get(entering.name or "", ()),
            output_shape=(
                layer.output_shape if layer else shapes.get(node.outputs[0].name or "", ())
            ),
            macs=macs if macs is not None else (layer.macs if layer else None),
            parameters=parameters,
            weight_bits=stored.weight_bits,
            storage_bits=bits,
            note=note,
        )


def _all_nodes(model: Model) -> Iterator[tuple[str, ir.Node]]:
    """Every node, with the names of the control-flow nodes around it as a prefix."""
    for node in model.ir.graph:
        yield "", node
        for inner in nested_nodes(node):
            yield f"{node.name or node.op_type}/", inner


def _macs_by_node(model: Model) -> dict[str, int]:
    """Multiply-accumulates by node name, an open batch as 1; empty where shapes are open."""
    try:
        works = derive_work(model, model.input_shapes)
    except Unsupported:
        return {}
    return {
        work.name: work.operator.macs
        for work in works
        if not isinstance(work.operator, ElementWork)
    }


def _note(layer: Layer) -> str:
    if layer.frozen:
        return layer.frozen
    return "weight shared by several operators" if layer.shared else ""


def _canonical(node: ir.Node, value: ir.Value, shape: Shape) -> Shape:
    """The shape of a weight in the order (out, in, ...)."""
    if node.op_type == "ConvTranspose" and len(shape) > 2:
        group = attribute_int(node, "group", 1)
        return (shape[1] * group, shape[0] // group, *shape[2:])
    if KINDS[node.op_type][0] != "MatMul" or len(shape) != 2:
        return shape
    left = node.inputs[0] is value
    turned = node.op_type == "Gemm" and attribute_int(node, "transA" if left else "transB", 0)
    return shape if left != bool(turned) else (shape[1], shape[0])


def _describe(item: InputSpec) -> str:
    """``float32[?,3,32,32]``."""
    sizes = ",".join("?" if size is None else str(size) for size in item.shape)
    kind = "other" if item.dtype.kind == "O" else item.dtype.name
    return f"{kind}[{sizes}]"
