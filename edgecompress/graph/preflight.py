"""Checks in plain Python before any other package works on a model; all linear in its size."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from edgecompress.core.errors import InputOutputFailed, ModelInvalid, ResourceLimit, Unsupported
from edgecompress.graph.external import LARGEST_BYTES, model_tensors
from edgecompress.graph.tensor_checks import check_tensor

NEWEST_IR = 13
NEWEST_OPSET = 26
"""What stock onnxruntime reads: IR 13, opset 26."""

DEEPEST_NESTING = 8
LARGEST_EXPANSION = 1_000_000
_DOMAINS = ("", "ai.onnx")
_NAME_FIELDS = frozenset({"name", "op_type", "domain", "input", "output", "dim_param", "overload"})


def read_proto(path: Path) -> tuple[onnx.ModelProto, int]:
    """Parse a model file.

    Returns:
        The model and the size of the file in bytes.

    Raises:
        InputOutputFailed: Missing, not a plain file, or not readable.
        ResourceLimit: Above what protobuf can hold.
        ModelInvalid: Empty, or not an ONNX model.
    """
    where = str(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a plain file"
            raise InputOutputFailed(f"is {kind}, not a model file", where=where)
        if info.st_size > LARGEST_BYTES:
            raise ResourceLimit(f"is above {LARGEST_BYTES:,} bytes", where=where)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputOutputFailed(f"cannot be read: {reason}", where=where) from error
    if not data:
        raise ModelInvalid("is empty", where=where)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelInvalid("is not an ONNX model, or is cut off or damaged", where=where) from error
    return proto, len(data)


def check_tensors(proto: onnx.ModelProto) -> None:
    """Check all of a parsed model but the order of its nodes.

    Raises:
        ModelInvalid: In one sentence, with the place.
        Unsupported: It holds training graphs.
        ResourceLimit: Its functions expand to more than `LARGEST_EXPANSION` nodes.
    """
    _check_versions(proto)
    _check_names(proto)
    _check_depth(proto)
    for tensor in model_tensors(proto):
        check_tensor(tensor)
    _check_functions(proto)
    if proto.training_info:
        raise Unsupported("the model holds training graphs", hint="export it for inference")


def check_graph(proto: onnx.ModelProto) -> None:
    """Check that every value is made once, before it is read.

    Raises:
        ModelInvalid: In one sentence, with the place.
    """
    _check_scope(proto.graph, frozenset(), "the graph")


def _check_versions(proto: onnx.ModelProto) -> None:
    if not proto.HasField("graph"):
        raise ModelInvalid("is not an ONNX model: it has no graph")
    if proto.ir_version < 1:
        raise ModelInvalid("is not an ONNX model: it has no IR version")
    if proto.ir_version > NEWEST_IR:
        raise ModelInvalid(f"IR version {proto.ir_version} is above {NEWEST_IR}")
    if not proto.opset_import and proto.ir_version >= 3:
        raise ModelInvalid("it does not say which opset it uses")
    seen: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain in _DOMAINS else entry.domain
        if seen.setdefault(domain, entry.version) != entry.version:
            raise ModelInvalid(f"two opset versions for domain {domain!r}")
        if domain == "" and not 1 <= entry.version <= NEWEST_OPSET:
            raise ModelInvalid(f"opset {entry.version} is not between 1 and {NEWEST_OPSET}")


def _check_names(proto: onnx.ModelProto) -> None:
    """Refuse text that is not UTF-8 (protobuf hands it out as bytes), and zeros in names."""
    pending: list[Message] = [proto]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.NodeProto) and message.domain in _DOMAINS:
            _check_string_attributes(message)
        for field, value in message.ListFields():
            values = value if field.is_repeated else (value,)
            if field.type == field.TYPE_MESSAGE:
                pending.extend(values)
            elif field.type == field.TYPE_STRING:
                for text in values:
                    _check_text(field.name, text)


def _check_string_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        for text in (attribute.s, *attribute.strings):
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                message = f"attribute {attribute.name!r} of {_label(node)} is not UTF-8"
                raise ModelInvalid(message) from error


def _check_text(field: str, text: str | bytes) -> None:
    if isinstance(text, bytes):
        raise ModelInvalid(f"{field} is not UTF-8: {text[:40]!r}")
    if "\0" in text and field in _NAME_FIELDS:
        raise ModelInvalid(f"a zero character in {field}: {text[:40]!r}")


def _check_depth(proto: onnx.ModelProto) -> None:
    pending = [(graph, 0) for graph in (proto.graph,)]
    pending += [(body, 1) for f in proto.functions for body in _bodies(f.node)]
    while pending:
        graph, depth = pending.pop()
        if depth > DEEPEST_NESTING:
            raise ModelInvalid(f"control flow is nested more than {DEEPEST_NESTING} deep")
        pending += [(body, depth + 1) for body in _bodies(graph.node)]


def _bodies(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _check_functions(proto: onnx.ModelProto) -> None:
    """Refuse functions that call themselves, or that expand to too many nodes."""
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    if len(functions) != len(proto.functions):
        raise ModelInvalid("two functions of one name")
    sizes: dict[tuple[str, str, str], int] = {}
    for key in functions:
        _expanded_size(key, functions, sizes)
    nodes = _all_nodes(proto.graph.node)
    total = sum(sizes.get((n.domain, n.op_type, n.overload), 1) for n in nodes)
    if total > LARGEST_EXPANSION:
        raise ResourceLimit(f"its functions expand to more than {LARGEST_EXPANSION:,} nodes")


def _expanded_size(
    root: tuple[str, str, str],
    functions: dict[tuple[str, str, str], onnx.FunctionProto],
    sizes: dict[tuple[str, str, str], int],
) -> None:
    """Size of a function with all calls expanded, into ``sizes``; without recursion."""
    path: list[tuple[str, str, str]] = [root]
    while path:
        key = path[-1]
        calls = [(n.domain, n.op_type, n.overload) for n in _all_nodes(functions[key].node)]
        unknown = [call for call in calls if call in functions and call not in sizes]
        if key in sizes or not unknown:
            sizes.setdefault(key, sum(sizes.get(call, 1) for call in calls))
            path.pop()
        elif unknown[0] in path:
            raise ModelInvalid(f"function {unknown[0][1]!r} calls itself")
        else:
            path.append(unknown[0])


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in _bodies([node]):
            yield from _all_nodes(body.node)


def _check_scope(graph: onnx.GraphProto, outside: frozenset[str], place: str) -> None:
    """Every value is made once, before it is read."""
    inputs = [info.name for info in graph.input]
    constants = [t.name for t in graph.initializer]
    constants += [sparse.values.name for sparse in graph.sparse_initializer]
    _check_unique("input", inputs, place)
    _check_unique("initializer", constants, place)
    here = set(inputs) | set(constants)
    made_later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        label = _label(node)
        for name in node.input:
            if name and name not in here and name not in outside:
                why = (
                    "before any node has made it (there is a cycle)"
                    if name in made_later
                    else "which nothing makes"
                )
                raise ModelInvalid(f"{label} reads {name!r}, {why}", where=place)
        inner = list(_bodies([node]))
        visible = frozenset(here) | outside if inner else outside
        for body in inner:
            _check_scope(body, visible, f"a body of {label}")
        for name in node.output:
            if name and name in here:
                raise ModelInvalid(f"value {name!r} is made twice in {place}")
            here.add(name)
    for info in graph.output:
        if info.name not in here and info.name not in outside:
            raise ModelInvalid(f"output {info.name!r} of {place} is made by no node")


def _label(node: onnx.NodeProto) -> str:
    return f"node {node.name!r}" if node.name else f"a {node.op_type} node"


def _check_unique(what: str, names: Sequence[str], place: str) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise ModelInvalid(f"{what} {doubled[0]!r} is there twice in {place}")
