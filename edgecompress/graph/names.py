"""Shorter names inside a graph that is written; its inputs and outputs keep theirs."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator
from itertools import count, product

import onnx

_FIRST = string.ascii_letters
_NEXT = string.ascii_letters + string.digits

NAMED_OPERATORS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "ConvInteger",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "MatMulNBits",
        "LSTM",
        "GRU",
        "RNN",
    }
)
"""Operators with weights: their nodes keep their names, which reports show."""


def strip(graph: onnx.GraphProto) -> None:
    """Drop doc strings, node metadata and value annotations, bodies included, in place."""
    graph.ClearField("doc_string")
    graph.ClearField("value_info")
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
    for info in (*graph.input, *graph.output):
        info.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("doc_string")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    for body in _bodies(graph):
        strip(body)


def shorten(graph: onnx.GraphProto) -> None:
    """Give all values but the graph's inputs and outputs short names, in place.

    The names that occur most often become the shortest. Names are unique over all bodies, so
    that no body hides a value of the graph around it. Nodes without weights lose their names.
    """
    kept = {info.name for info in (*graph.input, *graph.output)}
    occurrences: Counter[str] = Counter()
    _count(graph, occurrences)
    short = (name for name in _short_names() if name not in kept)
    # Ties keep the order of the graph, so the same graph gives the same names.
    mapping = {name: next(short) for name, _ in occurrences.most_common() if name not in kept}
    _rename(graph, {"": "", **{name: name for name in kept}, **mapping})


def _short_names() -> Iterator[str]:
    for length in count(0):
        for tail in product(_NEXT, repeat=length):
            for first in _FIRST:
                yield first + "".join(tail)


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                yield from attribute.graphs


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from node.output
    for tensor in graph.initializer:
        yield tensor.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for info in (*graph.input, *graph.output):
        yield info.name


def _count(graph: onnx.GraphProto, occurrences: Counter[str]) -> None:
    occurrences.update(name for name in _names(graph) if name)
    for body in _bodies(graph):
        _count(body, occurrences)


def _rename(graph: onnx.GraphProto, mapping: dict[str, str]) -> None:
    graph.name = graph.name[:1] or "g"
    for node in graph.node:
        node.ClearField("metadata_props")
        if node.op_type not in NAMED_OPERATORS:
            node.ClearField("name")
        node.input[:] = [mapping[name] for name in node.input]
        node.output[:] = [mapping[name] for name in node.output]
    for tensor in graph.initializer:
        tensor.name = mapping[tensor.name]
    for sparse in graph.sparse_initializer:
        sparse.values.name = mapping[sparse.values.name]
    for info in (*graph.input, *graph.output):
        info.name = mapping[info.name]
    for note in graph.quantization_annotation:
        note.tensor_name = mapping.get(note.tensor_name, note.tensor_name)
        for pair in note.quant_parameter_tensor_names:
            pair.value = mapping.get(pair.value, pair.value)
    for body in _bodies(graph):
        _rename(body, mapping)
