"""Mends what onnxruntime lets pass but the standard does not, before the checker sees it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx

from edgecompress.core.errors import Unsupported
from edgecompress.graph.session import open_session
from edgecompress.graph.shapes import inferred_proto
from edgecompress.graph.values import ONNX_DOMAINS

_INITIALIZERS_ALONE = 4
"""Up to IR version 3 every initializer has to be an input too."""


def mended(proto: onnx.ModelProto) -> list[str]:
    """Mend a model in place; what was done, in words.

    An opset entry that is there twice with one version, nodes out of order without a cycle,
    initializers that are not inputs at an IR version where they had to be.
    """
    notes: list[str] = []
    if _drop_doubled_opsets(proto):
        notes.append("dropped an opset entry that was there twice")
    if _sort_nodes(proto.graph):
        notes.append("put the nodes into topological order")
    if proto.ir_version < _INITIALIZERS_ALONE and _has_plain_initializers(proto.graph):
        proto.ir_version = _INITIALIZERS_ALONE
        notes.append("raised the IR version: its initializers are not inputs")
    return notes


def _drop_doubled_opsets(proto: onnx.ModelProto) -> bool:
    kept: dict[tuple[str, int], onnx.OperatorSetIdProto] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain in ONNX_DOMAINS else entry.domain
        kept.setdefault((domain, entry.version), entry)
    if len(kept) == len(proto.opset_import):
        return False
    entries = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in kept]
    del proto.opset_import[:]
    proto.opset_import.extend(entries)
    return True


def _has_plain_initializers(graph: onnx.GraphProto) -> bool:
    return not {tensor.name for tensor in graph.initializer} <= {i.name for i in graph.input}


def _sort_nodes(graph: onnx.GraphProto) -> bool:
    """Stable topological order of the top-level nodes; a graph with a cycle is left alone."""
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [
        {maker[name] for name in _reads(node) if name in maker} - {index}
        for index, node in enumerate(nodes)
    ]
    if all(need < index for index, wanted in enumerate(needs) for need in wanted):
        return False
    readers: list[list[int]] = [[] for _ in nodes]
    for index, wanted in enumerate(needs):
        for need in wanted:
            readers[need].append(index)
    missing = [len(wanted) for wanted in needs]
    ready = [index for index, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(order) != len(nodes):
        return False
    ordered = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(ordered)
    return True


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads; for its bodies all names, which may be more than it captures."""
    yield from node.input
    for attribute in node.attribute:
        graphs = [*attribute.graphs, attribute.g] if attribute.HasField("g") else attribute.graphs
        for body in graphs:
            for inner in body.node:
                yield from _reads(inner)
            yield from (info.name for info in body.output)


def complete_outputs(proto: onnx.ModelProto) -> list[str]:
    """Add shapes that onnx or onnxruntime infer to outputs without one, in place; notes."""
    lacking = [output for output in proto.graph.output if _lacks_shape(output)]
    inferred = inferred_proto(proto) if lacking else None
    if inferred is not None:
        found = {info.name: info for info in inferred.graph.output if not _lacks_shape(info)}
        for output in lacking:
            if output.name in found:
                output.type.CopyFrom(found[output.name].type)
    if any(_lacks_shape(output) for output in lacking):
        _ask_onnxruntime(proto)
    count = sum(not _lacks_shape(output) for output in lacking)
    return [f"added the shape of {count} outputs that had none"] if count else []


def _ask_onnxruntime(proto: onnx.ModelProto) -> None:
    """Its own shape inference knows more operators; an empty shape may mean an open rank."""
    try:
        session = open_session(proto, optimize=False)
    except Unsupported:
        return
    shapes = {output.name: output.shape for output in session.get_outputs()}
    for output in proto.graph.output:
        if _lacks_shape(output) and shapes.get(output.name) and output.type.HasField("tensor_type"):
            for size in shapes[output.name]:
                dim = output.type.tensor_type.shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size


def _lacks_shape(info: onnx.ValueInfoProto) -> bool:
    kind = info.type
    if kind.WhichOneof("value") is None:
        return True
    return kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape")
