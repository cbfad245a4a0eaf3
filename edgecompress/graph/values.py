"""Constants, names and shapes of the values of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array

OpenShape = tuple[int | None, ...]
ONNX_DOMAINS = ("", "ai.onnx")


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a ``Constant`` node, else None."""
    if value is None:
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is not None and node.op_type == "Constant" and node.domain in ONNX_DOMAINS:
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            return attribute.as_tensor()
    return None


def constant_array(value: ir.Value | None) -> Array | None:
    """The values of a constant, else None."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def size_of(tensor: ir.TensorProtocol) -> int:
    """Number of elements."""
    count = 1
    for size in tensor.shape.numpy():
        count *= size
    return count


def printable(name: str) -> str:
    """A name without control characters and other characters that do not print."""
    return "".join(character for character in name if character.isprintable())


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Graphs inside a control-flow node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def nested_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """All nodes inside the bodies of a node, at any depth."""
    for body in bodies(node):
        for inner in body:
            yield inner
            yield from nested_nodes(inner)


def name_nodes(graph: ir.Graph) -> None:
    """Give every node of the graph a unique, printable name, in place; good names stay.

    A node without a name is called after its operator and its first output.
    """
    taken: set[str] = set()
    for node in graph:
        name = printable(node.name or "") or _made_up(node)
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        if node.name != unique:
            node.name = unique


def _made_up(node: ir.Node) -> str:
    outputs = [printable(value.name or "") for value in node.outputs]
    return "_".join([printable(node.op_type), *[name for name in outputs if name][:1]])


def all_value_names(graph: ir.Graph) -> set[str]:
    """Names of all values of the graph and of its bodies."""
    names = {value.name or "" for value in graph.inputs} | set(graph.initializers)
    for node in graph:
        names |= {value.name or "" for value in node.outputs}
        for body in bodies(node):
            names |= all_value_names(body)
    return names


def static_shape(value: ir.Value) -> OpenShape | None:
    """Shape as the graph says, None for an open axis; None if the rank is open too."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in value.shape)


def shape_of(value: ir.Value | None, shapes: Mapping[str, OpenShape]) -> OpenShape | None:
    """Shape of a value: of its constant, else as inferred."""
    tensor = constant_tensor(value)
    if tensor is not None:
        return tuple(int(size) for size in tensor.shape.numpy())
    return None if value is None else shapes.get(value.name or "")


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def attribute_ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute of integers."""
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def attribute_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def is_float(array: Array) -> bool:
    """Whether it is of a float type that NumPy has."""
    return bool(np.issubdtype(array.dtype, np.floating))
