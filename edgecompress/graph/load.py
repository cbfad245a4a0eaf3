"""From a file to a graph that is checked, and where asked brought into the form we work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import EdgeCompressError, ModelInvalid
from edgecompress.core.report import FileFact
from edgecompress.graph.external import read_external
from edgecompress.graph.hashing import file_fact
from edgecompress.graph.mend import complete_outputs, mended
from edgecompress.graph.normalize import CODEC_KEY, normalized
from edgecompress.graph.preflight import check_graph, check_tensors, read_proto
from edgecompress.graph.session import short
from edgecompress.graph.shapes import check_input_shapes
from edgecompress.graph.values import name_nodes

_CHECKER_ERRORS = (
    onnx.checker.ValidationError,
    ValueError,
    RuntimeError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
)
"""What the checker and the reader of the graph raise on malformed models."""


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A graph, the file it came from, and notes for the report."""

    ir: ir.Model
    file: FileFact
    notes: tuple[str, ...]


def read_graph(path: Path, *, normalize: bool, input_shapes: Mapping[str, Shape]) -> LoadedGraph:
    """Read, check and, with ``normalize``, bring a graph into the form we work on.

    Raises:
        EdgeCompressError: As `load_model` says; ``where`` begins with the path.
    """
    proto, size = read_proto(path)
    try:
        check_tensors(proto)
        notes = mended(proto)
        check_graph(proto)
        external = read_external(proto, path.parent, size)
        notes.extend(complete_outputs(proto))
        model = _checked(proto)
        check_input_shapes(model, input_shapes)
        if normalize and any(prop.key == CODEC_KEY for prop in proto.metadata_props):
            notes.append("packed by edgecompress before: left as it is")
        elif normalize:
            model, done = normalized(proto, input_shapes)
            notes.extend(done)
    except EdgeCompressError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    name_nodes(model.graph)
    _hold_arrays(model.graph)
    return LoadedGraph(model, file_fact(path, external), tuple(notes))


def _checked(proto: onnx.ModelProto) -> ir.Model:
    """The graph of a model that passes onnx's checker."""
    try:
        onnx.checker.check_model(proto)
        return ir.from_proto(proto)
    except _CHECKER_ERRORS as error:
        raise ModelInvalid(f"is not a valid model: {short(error)}") from error


def _hold_arrays(graph: ir.Graph) -> None:
    """Turn initializers into arrays, in place: what is kept as a message is copied at every look.

    Integers of less than a byte stay, they are unpacked to bytes.
    """
    for value in graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.TensorProtoTensor):
            continue
        array = tensor.numpy() if tensor.dtype != ir.DataType.STRING else None
        if array is not None and array.dtype.kind in "biuf" and array.dtype.isnative:
            value.const_value = ir.Tensor(
                array,
                dtype=tensor.dtype,
                name=tensor.name,
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )
