"""Add nodes and constants to a graph under names that are free."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array

Attribute = int | float | str | Sequence[int]


class Emitter:
    """Collects new nodes until the caller says where they go; equal constants are kept once.

    Args:
        graph: Changed in place.
        keep_names: Readable names made from stems; otherwise short ones.
    """

    def __init__(self, graph: ir.Graph, *, keep_names: bool) -> None:
        self.graph = graph
        self._keep_names = keep_names
        self._taken = _names_in(graph)
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._pending: list[ir.Node] = []

    def fresh(self, stem: str) -> str:
        """A name that no value or node of the graph has."""
        candidate = stem if self._keep_names else ""
        while not candidate or candidate in self._taken:
            self._count += 1
            candidate = f"{stem if self._keep_names else ''}_{self._count}"
        self._taken.add(candidate)
        return candidate

    def constant(self, array: Array, stem: str) -> ir.Value:
        """An initializer with these values."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            name = self.fresh(stem)
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name,
                const_value=tensor,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def nodes(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        stems: Sequence[str],
        **attributes: Attribute,
    ) -> tuple[ir.Value, ...]:
        """A new node with one output per stem; its outputs."""
        node = ir.node(
            op_type,
            inputs,
            attributes=attributes,
            num_outputs=len(stems),
            name=self.fresh(f"{stems[0]}/{op_type}"),
        )
        for value, stem in zip(node.outputs, stems, strict=True):
            value.name = self.fresh(stem)
        self._pending.append(node)
        return tuple(node.outputs)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        stem: str,
        **attributes: Attribute,
    ) -> ir.Value:
        """A new node with one output; its output."""
        return self.nodes(op_type, inputs, (stem,), **attributes)[0]

    def cast(self, value: ir.Value, dtype: ir.DataType, stem: str) -> ir.Value:
        """The value cast to another type."""
        result = self.node("Cast", (value,), stem, to=int(dtype))
        result.dtype, result.shape = dtype, value.shape
        return result

    def rename_node(self, made: ir.Value, old: ir.Node) -> None:
        """Give the node that made a value the name of the node that it stands for."""
        producer = made.producer()
        if producer is not None and old.name:
            producer.name, old.name = old.name, None
            producer.metadata_props.update(old.metadata_props)

    def place_first(self) -> None:
        """Put what was collected at the start of the graph."""
        if self._pending and len(self.graph):
            self.graph.insert_before(self.graph[0], self._take())
        else:
            self.graph.extend(self._take())

    def place_before(self, node: ir.Node) -> None:
        """Put what was collected right before a node of the graph."""
        self.graph.insert_before(node, self._take())

    def place_after(self, node: ir.Node | None) -> None:
        """Put what was collected right after a node; None is the start of the graph."""
        if node is None:
            self.place_first()
        else:
            self.graph.insert_after(node, self._take())

    def take_over(self, node: ir.Node, result: ir.Value) -> None:
        """Let a new value take the name and place of a node's only output; remove the node."""
        output = node.outputs[0]
        name, output.name = output.name, self.fresh(f"{output.name}_old")
        result.name = name
        result.type, result.shape = output.type, output.shape
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def _take(self) -> list[ir.Node]:
        taken, self._pending = self._pending, []
        return taken


def _names_in(graph: ir.Graph) -> set[str]:
    """Names of all values and nodes, those in bodies included."""
    names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph.all_nodes():
        names.add(node.name)
        names |= {value.name for value in (*node.inputs, *node.outputs) if value is not None}
    for body in graph.subgraphs():
        names |= {value.name for value in (*body.inputs, *body.initializers.values())}
    return {name for name in names if name}
