"""A graph in slices: parts between values that everything passes through.

The float graph and the decomposed one have the names of the values between layers in common, so a
slice of one stands beside the same slice of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.graph.fragments import values_read
from edgecompress.graph.model import Model

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the graph with at least one decomposed layer.

    Attributes:
        enters: Values that it is computed from: what everything passes through there, and shapes
            and other integers that later nodes read as well.
        leaves: Float values that it has to give.
    """

    enters: tuple[str, ...]
    leaves: tuple[str, ...]


def find_slices(teacher: Model, student: Model, changed: Collection[str]) -> tuple[Slice, ...]:
    """The slices of a decomposed graph, in order.

    A cut is a place in the float graph where one float value is alive, and no more. A slice goes
    from the last cut before a decomposed layer to the last one before the first decomposed layer
    of the next slice, so that it holds the activation after its layers, or a whole residual block.

    Args:
        teacher: The float graph.
        student: The same one with layers replaced.
        changed: Names of these layers.

    Returns:
        None where there is no cut between decomposed layers: then the slice would be the graph.
    """
    nodes = list(teacher.ir.graph)
    cuts = _cuts(teacher, nodes, _names(student))
    place = {node.name: index for index, node in enumerate(nodes)}
    starts: dict[int, None] = {}
    for layer in teacher.find_layers().layers:
        if layer.name in changed:
            at = min(place[node.name] for node in teacher.layer_nodes(layer))
            starts[max((cut for cut in cuts if cut < at), default=-1)] = None
    if len(starts) < 2:
        return ()
    outputs = tuple(value.name or "" for value in teacher.ir.graph.outputs if _is_float(value))
    inputs = tuple(spec.name for spec in teacher.inputs())
    first, *following = sorted(starts)
    slices = []
    for begin, end in zip((first, *following), (*following, None), strict=True):
        enters = inputs if begin < 0 else cuts[begin]
        slices.append(Slice(enters, outputs if end is None else cuts[end][:1]))
    return tuple(slices)


def _cuts(model: Model, nodes: Sequence[ir.Node], known: set[str]) -> dict[int, tuple[str, ...]]:
    """Index of a node -> the one float value alive after it, then integers alive there."""
    last: dict[str, int] = {value.name or "": len(nodes) for value in model.ir.graph.outputs}
    for index, node in enumerate(nodes):
        for value in values_read(node):
            name = value.name or ""
            last[name] = max(last.get(name, -1), index)
    inputs = [value for value in model.ir.graph.inputs if not value.is_initializer()]
    alive = {value.name or "": value for value in inputs}
    cuts: dict[int, tuple[str, ...]] = {}
    for index, node in enumerate(nodes):
        if any((value.name or "") in alive for value in values_read(node)):
            alive.update((value.name or "", value) for value in node.outputs)
        alive = {name: value for name, value in alive.items() if last.get(name, -1) > index}
        floats = [name for name, value in alive.items() if _is_float(value)]
        if len(floats) == 1 and known.issuperset(alive):
            cuts[index] = (*floats, *(name for name in alive if name not in floats))
    return cuts


def _names(model: Model) -> set[str]:
    made = {value.name or "" for node in model.ir.graph for value in node.outputs}
    return made | {spec.name for spec in model.inputs()}


def _is_float(value: ir.Value) -> bool:
    """Whether a value is of floats, or nothing says what it is of."""
    kind = value.dtype
    return kind is None or kind in _FLOATS
