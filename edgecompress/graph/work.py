"""What every operator of a written graph has to do: its `Work`.

Constant parts of the graph (decoders of packed weights) are no operators: their stored bits are
the weight bits of the operator that reads them. Bodies of control flow are counted, and flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, OperatorWork, Work
from edgecompress.graph.constants import ConstantTracer
from edgecompress.graph.model import Model
from edgecompress.graph.values import bodies, constant_array
from edgecompress.graph.work_elements import count_elements, note_results
from edgecompress.graph.work_products import count_product, is_product
from edgecompress.graph.work_scene import Scene
from edgecompress.graph.work_shapes import concrete_shapes

BRANCH = "the costlier branch of an If"
ONCE = "the body of a loop whose trip count is not constant, counted once"
STEPS = "the body of a loop, times its trip count"
PRODUCT_UNKNOWN = "a product whose shapes are not known: counted as bound by memory"
_MOST_NESTED = 20


def derive_work(model: Model, input_shapes: Mapping[str, Shape]) -> tuple[Work, ...]:
    """Counts of every operator of a graph, in graph order.

    Args:
        model: As written; not changed.
        input_shapes: For inputs whose shape is open beyond the batch axis; an open batch is 1.

    Raises:
        Unsupported: An input has an open axis that nothing is known about.
        UsageError: A given shape fits no input.
    """
    shapes = concrete_shapes(model, input_shapes)
    scene = Scene(shapes, ConstantTracer(shapes))
    works = _graph_works(model.ir.graph, scene, "", 0)
    origins = model.origins
    return tuple(
        replace(
            work,
            source_layer=origins.get(work.name, ""),
        )
        for work in works
    )


def _graph_works(
    graph: ir.Graph | Iterable[ir.Node], scene: Scene, prefix: str, depth: int
) -> list[Work]:
    nodes = list(graph)
    for node in nodes:
        scene.learn(node)
    works: list[Work] = []
    for node in nodes:
        if node.outputs and all(scene.tracer.is_constant(value) for value in node.outputs):
            continue
        works += _node_works(node, scene, prefix, depth)
    return works


def _node_works(node: ir.Node, scene: Scene, prefix: str, depth: int) -> Iterator[Work]:
    """One operator, or the operators of its body."""
    if any(True for _ in bodies(node)) and depth < _MOST_NESTED:
        yield from _body_works(node, scene, prefix, depth)
        return
    counted = count_product(node, scene)
    if counted is None:
        operator, assumed = count_elements(node, scene)
        assumed = PRODUCT_UNKNOWN if is_product(node) else assumed
        work: OperatorWork = operator
        fused = operator.fused
    else:
        work, assumed = counted
        fused = False
    note_results(node, scene, product=counted is not None, fused=fused)
    free = isinstance(work, ElementWork) and work.free
    yield Work(
        name=prefix + (node.name or _made_up_name(node)),
        op_type=node.op_type,
        operator=work,
        input_bits=scene.read_bits(node),
        output_bits=scene.written_bits(node),
        assumed=assumed if free else _joined(assumed, scene.open_shapes(node)),
    )


def _body_works(node: ir.Node, scene: Scene, prefix: str, depth: int) -> list[Work]:
    inner = f"{prefix}{node.name or _made_up_name(node)}/"
    bodies_works = [_graph_works(body, scene, inner, depth + 1) for body in bodies(node)]
    if node.op_type == "If":
        costlier = max(bodies_works, key=_size)
        return [replace(work, assumed=_joined(BRANCH, work.assumed)) for work in costlier]
    count = _trip_count(node, scene)
    note = ONCE if count is None else STEPS
    return [
        replace(
            work,
            operator=_repeated(work.operator, count or 1),
            input_bits=work.input_bits * (count or 1),
            output_bits=work.output_bits * (count or 1),
            assumed=_joined(note, work.assumed),
        )
        for works in bodies_works
        for work in works
    ]


def _size(works: list[Work]) -> tuple[int, int]:
    """Multiply-accumulates, then traffic: which branch costs more."""
    macs = sum(
        0 if isinstance(work.operator, ElementWork) else work.operator.macs for work in works
    )
    return macs, sum(work.input_bits + work.output_bits for work in works)


def _trip_count(node: ir.Node, scene: Scene) -> int | None:
    """Times that the body of a loop runs; None if that is known at run time only."""
    if node.op_type == "Loop":
        limit = constant_array(node.inputs[0])
        stops = node.inputs[1] is not None and not scene.tracer.is_constant(node.inputs[1])
        return None if limit is None or stops or not limit.size else max(0, int(limit.item()))
    if node.op_type == "Scan":
        states = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
        shape = scene.shape(node.inputs[states]) if states < len(node.inputs) else ()
        return shape[0] if shape else None
    return None


def _repeated(operator: OperatorWork, count: int) -> OperatorWork:
    """The same counts ``count`` times over, with the same weights."""
    match operator:
        case ConvWork():
            return replace(operator, batch=operator.batch * count)
        case MatMulWork():
            repeats = operator.repeats * count if operator.constant else operator.repeats
            return replace(operator, count=operator.count * count, repeats=repeats)
        case ElementWork():
            return replace(
                operator,
                operations=operator.operations * count,
                read_bits=operator.read_bits * count,
                written_bits=operator.written_bits * count,
                weight_storage_bits=operator.weight_storage_bits * count,
            )


def _made_up_name(node: ir.Node) -> str:
    named = [value.name for value in node.outputs if value.name]
    return "_".join([node.op_type, *named[:1]])


def _joined(*notes: str) -> str:
    """Notes once each, in order."""
    parts = [part for note in notes for part in note.split("; ") if part]
    return "; ".join(dict.fromkeys(parts))
