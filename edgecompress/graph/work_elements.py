"""Counts of operators without a matrix product: arithmetic per element, and what they move."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgecompress.core.work import ElementWork
from edgecompress.graph.work_operations import (
    DATA_DEPENDENT_SIZES,
    FREE,
    MOVES,
    ONE_TO_ONE,
    SUMS,
    count_operations,
    known_name,
)
from edgecompress.graph.work_scene import BOUNDS, Scene

DATA_DEPENDENT = "its output size depends on the data: counted as for zeros"
SHAPES_ONLY = "works on shapes only: done before the network runs"
UNKNOWN = "unknown operator {name}: counted as bound by memory, one operation per element"


def count_elements(node: ir.Node, scene: Scene) -> tuple[ElementWork, str]:
    """Counts of an operator, and what was assumed."""
    name = known_name(node)
    operations, assumed = count_operations(node, scene), ""
    if operations is None:
        inputs = sum(scene.elements(value) for value in scene.activations(node))
        outputs = sum(scene.elements(value) for value in node.outputs if value.name)
        operations = max(inputs, outputs)
        assumed = UNKNOWN.format(name="::".join(filter(None, (node.domain, node.op_type))))
    if name in DATA_DEPENDENT_SIZES:
        assumed = DATA_DEPENDENT
    free = name in FREE or _is_notation(node)
    if not free and _is_shape_arithmetic(node, scene):
        free, assumed = True, SHAPES_ONLY
    work = ElementWork(
        operations=operations,
        read_bits=_read_bits(node, scene, name),
        written_bits=0 if name in FREE else scene.written_bits(node),
        weight_storage_bits=0 if name in FREE else _constant_bits(node, scene, name),
        movement=name in MOVES,
        free=free,
        fused=bool(name) and _is_fused(node, scene),
        activation_bits=_widest(node, scene),
    )
    return work, assumed


def _is_notation(node: ir.Node) -> bool:
    """Whether a node is the second half of a quantize/dequantize pair.

    The pair says in what form a value is kept; its first half rounds, its second does nothing, for
    what reads it works on the codes.
    """
    entering = node.inputs[0] if node.inputs else None
    producer = None if entering is None else entering.producer()
    return (
        node.op_type == "DequantizeLinear"
        and producer is not None
        and producer.op_type == "QuantizeLinear"
    )


def note_results(node: ir.Node, scene: Scene, *, product: bool, fused: bool) -> None:
    """Remember what a node makes of shapes only, and results that can still be changed for free."""
    if _is_shape_arithmetic(node, scene):
        scene.shape_values.update(node.outputs)
    quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
    for value in node.outputs:
        single = len(value.uses()) == 1 and not value.is_graph_output()
        bounded = node.op_type in SUMS and any(use.node.op_type in BOUNDS for use in value.uses())
        if (single and (product or fused or bounded)) or (fused and quantizes):
            scene.written.add(value)


def _read_bits(node: ir.Node, scene: Scene, name: str) -> int:
    """Activations read; a part that is picked counts as itself."""
    if name in FREE:
        return 0
    picked = {"Gather", "GatherElements", "GatherND", "Slice", "Compress"}
    if name in picked and node.inputs[0] in scene.activations(node):
        data = node.inputs[0]
        rest = scene.read_bits(node) - scene.bits(data)
        return rest + min(scene.bits(data), scene.elements(node.outputs[0]) * scene.width(data))
    return scene.read_bits(node)


def _constant_bits(node: ir.Node, scene: Scene, name: str) -> int:
    """Stored constants read; of an embedding table the rows that are looked up."""
    table = scene.stored(node.inputs[0]) if name == "Gather" and node.inputs else None
    if table is None:
        return scene.constant_bits(node)
    rows = scene.elements(node.outputs[0]) / max(1, math.prod(table.shape))
    return math.ceil(table.storage_bits * min(1.0, rows))


def _widest(node: ir.Node, scene: Scene) -> int:
    """Width of the elements that a node works on."""
    values = [*scene.activations(node)[:1], *node.outputs[:1]]
    return max((scene.width(value) for value in values), default=32)


def _is_shape_arithmetic(node: ir.Node, scene: Scene) -> bool:
    """Whether a node works on shapes only; those are known before the network runs."""
    if node.op_type in ("Shape", "Size"):
        return True
    entering = scene.activations(node)
    return bool(entering) and all(value in scene.shape_values for value in entering)


def _is_fused(node: ir.Node, scene: Scene) -> bool:
    """Whether the node only changes results while they are written.

    Element-wise operators with one activation right after a product, or after such an operator;
    a bound such as Relu after a sum of two activations; and the quantize/dequantize pair, which
    says in what form a result is kept.
    """
    entering = scene.activations(node)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and entering:
        return entering[0].producer() is not None
    if node.op_type not in ONE_TO_ONE or not entering:
        return False
    main = max(entering, key=scene.elements)
    small = [value for value in entering if value is not main]
    return main in scene.written and all(
        scene.elements(value) <= 1 or _is_scale(value, scene) for value in small
    )


def _is_scale(value: ir.Value, scene: Scene) -> bool:
    """Whether a value is one number per channel."""
    shape = scene.shape(value)
    return sum(size > 1 for size in shape) <= 1 and scene.elements(value) <= 1 << 16
