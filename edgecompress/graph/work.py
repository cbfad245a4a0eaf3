"""What every operator of a written graph has to do: its `Work`.

Constant parts of the graph (decoders of packed weights) are no operators: their stored bits are
the weight bits of the operator that reads them. Bodies of control flow are counted, and flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.work import (
    AssumedBits,
    ConvWork,
    ElementWork,
    MatMulWork,
    OperatorWork,
    TensorUse,
    WeightStatistics,
    WeightValues,
    Work,
)
from edgecompress.graph.constants import ConstantTracer
from edgecompress.graph.model import Model
from edgecompress.graph.values import bodies, constant_array
from edgecompress.graph.weight_statistics import WeightMeter
from edgecompress.graph.work_elements import count_elements, note_results
from edgecompress.graph.work_groups import name_groups
from edgecompress.graph.work_products import count_product, is_product
from edgecompress.graph.work_scene import Part, Scene
from edgecompress.graph.work_sequences import count_sequence, is_sequence
from edgecompress.graph.work_shapes import concrete_shapes

BRANCH = "the costlier branch of an If"
ONCE = "the body of a loop whose trip count is not constant, counted once"
STEPS = "the body of a loop, times its trip count"
PRODUCT_UNKNOWN = "a product whose shapes are not known: counted as bound by memory"
_MOST_NESTED = 20


def derive_work(
    model: Model,
    input_shapes: Mapping[str, Shape],
    *,
    statistics: WeightValues = "none",
    assumed: AssumedBits | None = None,
) -> tuple[Work, ...]:
    """Counts of every operator of a graph, in graph order.

    Args:
        model: As written; not changed.
        input_shapes: For inputs whose shape is open beyond the batch axis; an open batch is 1.
        statistics: What to measure on the values of weights.
        assumed: Widths of what is float in the graph; None: as it is.

    Raises:
        Unsupported: An input has an open axis that nothing is known about.
        UsageError: A given shape fits no input.
    """
    shapes = concrete_shapes(model, input_shapes)
    counter = _Counter(Scene(shapes, ConstantTracer(shapes), assumed), WeightMeter(statistics))
    works = counter.graph(model.ir.graph, "", 0)
    return name_groups(works, model.origins)


@dataclass(frozen=True, slots=True)
class _Counter:
    """One walk through a graph and its bodies."""

    scene: Scene
    meter: WeightMeter

    def graph(self, graph: ir.Graph | Iterable[ir.Node], prefix: str, depth: int) -> list[Work]:
        """Works of a graph; names of what is in it begin with ``prefix``."""
        nodes = list(graph)
        for node in nodes:
            self.scene.learn(node)
            if prefix:
                self.scene.names.update((v, f"{prefix}{v.name}") for v in node.outputs if v.name)
        works: list[Work] = []
        for node in nodes:
            if node.outputs and all(self.scene.tracer.is_constant(v) for v in node.outputs):
                continue
            works += self._node(node, prefix, depth)
        return works

    def _node(self, node: ir.Node, prefix: str, depth: int) -> Iterator[Work]:
        """One operator, its parts, or the operators of its body."""
        if any(True for _ in bodies(node)) and depth < _MOST_NESTED:
            yield from self._body(node, prefix, depth)
            return
        name = prefix + (node.name or _made_up_name(node))
        parts = count_sequence(node, self.scene)
        if parts is None:
            yield self._single(node, name)
            return
        note_results(node, self.scene, product=False, fused=False)
        for part in parts:
            yield self._part(node, part, f"{name}/{part.name}")

    def _single(self, node: ir.Node, name: str) -> Work:
        """A node that is one operator."""
        scene = self.scene
        counted = count_product(node, scene)
        weight: ir.Value | None = None
        operator: OperatorWork
        if counted is None:
            operator, assumed = elements = count_elements(node, scene)
            assumed = PRODUCT_UNKNOWN if is_product(node) or is_sequence(node) else assumed
            note_results(node, scene, product=False, fused=elements[0].fused)
        else:
            operator, assumed, weight = counted
            note_results(node, scene, product=True, fused=False)
        found, note = self._statistics(node, weight, operator)
        free = isinstance(operator, ElementWork) and operator.free
        return Work(
            name=name,
            op_type=node.op_type,
            operator=operator,
            input_bits=scene.read_bits(node),
            output_bits=scene.written_bits(node),
            assumed=assumed if free else _joined(assumed, scene.open_shapes(node), note),
            reads=scene.uses(node.inputs),
            writes=scene.uses(node.outputs),
            weights=found,
        )

    def _part(self, node: ir.Node, part: Part, name: str) -> Work:
        found, note = self._statistics(node, part.weight, part.operator)
        return Work(
            name=name,
            op_type=node.op_type,
            operator=part.operator,
            input_bits=sum(use.bits for use in part.reads),
            output_bits=sum(use.bits for use in part.writes),
            assumed=_joined(part.assumed, self.scene.open_shapes(node), note),
            reads=part.reads,
            writes=part.writes,
            weights=found,
        )

    def _statistics(
        self, node: ir.Node, weight: ir.Value | None, operator: OperatorWork
    ) -> tuple[WeightStatistics | None, str]:
        if weight is None or isinstance(operator, ElementWork):
            return None, ""
        return self.meter.measure(node, weight, operator.weight_bits)

    def _body(self, node: ir.Node, prefix: str, depth: int) -> list[Work]:
        """The operators of the bodies; what enters and leaves has its name outside."""
        inner = f"{prefix}{node.name or _made_up_name(node)}/"
        graphs = list(bodies(node))
        for graph in graphs:
            for inside, outside in _entering(node, graph):
                self.scene.names[inside] = self.scene.use(outside).name
        found = [self.graph(graph, inner, depth + 1) for graph in graphs]
        renamed = [
            _renamed(works, self._leaving(node, graph))
            for works, graph in zip(found, graphs, strict=True)
        ]
        if node.op_type == "If":
            costlier = max(renamed, key=_size)
            return [replace(work, assumed=_joined(BRANCH, work.assumed)) for work in costlier]
        count = _trip_count(node, self.scene)
        if count == 0:
            return []
        note = ONCE if count is None else STEPS
        return [
            replace(
                work,
                operator=_repeated(work.operator, count or 1),
                input_bits=work.input_bits * (count or 1),
                output_bits=work.output_bits * (count or 1),
                assumed=_joined(note, work.assumed),
            )
            for works in renamed
            for work in works
        ]

    def _leaving(self, node: ir.Node, graph: ir.Graph) -> dict[str, TensorUse]:
        """Name inside a body -> what it is outside."""
        skipped = 1 if node.op_type == "Loop" else 0  # whether to go on
        pairs = zip(graph.outputs[skipped:], node.outputs, strict=False)
        return {
            self.scene.use(inside).name: self.scene.use(outside)
            for inside, outside in pairs
            if inside.producer() is not None and outside.name
        }


def _entering(node: ir.Node, graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Inputs of a body and what they are outside."""
    if node.op_type not in ("Loop", "Scan"):
        return
    for inside, outside in zip(graph.inputs, node.inputs, strict=False):
        if outside is not None and outside.name:
            yield inside, outside


def _renamed(works: Sequence[Work], outside: Mapping[str, TensorUse]) -> list[Work]:
    """Works that write what leaves a body under the names that it has outside."""
    if not outside:
        return list(works)

    def turned(uses: tuple[TensorUse, ...]) -> tuple[TensorUse, ...]:
        return tuple(outside.get(use.name, use) for use in uses)

    return [replace(w, reads=turned(w.reads), writes=turned(w.writes)) for w in works]


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
