"""Run a few nodes of a graph on values at hand, instead of the whole graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.errors import Unsupported
from edgecompress.graph.session import ORT_ERRORS, open_session, short
from edgecompress.graph.values import bodies

Values = dict[str, Any]
"""Value name -> array, or a list of arrays for a sequence."""


def values_read(node: ir.Node) -> list[ir.Value]:
    """Values that a node takes, those that its bodies capture from outside included."""
    found: list[ir.Value] = [value for value in node.inputs if value is not None]
    for body in bodies(node):
        inside = {id(value) for value in body.inputs}
        inside |= {id(value) for value in body.initializers.values()}
        inside |= {id(value) for inner in body for value in inner.outputs}
        captured = [value for inner in body for value in values_read(inner)]
        captured += [value for value in body.outputs if value is not None]
        found += [value for value in captured if id(value) not in inside]
    return found


class Fragment:
    """Consecutive nodes of a graph as a session of their own, optimisations off.

    Args:
        model: Where the nodes come from; gives opsets.
        nodes: In topological order.
        wanted: Names of the values to compute.
        example: One set of values, for the types of what enters.

    Raises:
        Unsupported: onnxruntime cannot run the nodes.
    """

    def __init__(
        self, model: ir.Model, nodes: Sequence[ir.Node], wanted: Sequence[str], example: Values
    ) -> None:
        self._wanted = list(wanted)
        made = {value.name for node in nodes for value in node.outputs}
        read = _unique(value for node in nodes for value in values_read(node))
        graph = onnx.GraphProto(name="fragment")
        graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
        self._entering: list[str] = []
        for value in read:
            name = value.name or ""
            if name in made or not name:
                continue
            if name in example:
                self._entering.append(name)
                graph.input.append(onnx.ValueInfoProto(name=name, type=_type_of(example[name])))
            elif value.const_value is not None:
                tensor = ir.serde.serialize_tensor(value.const_value)
                tensor.name = name
                graph.initializer.append(tensor)
            else:
                raise Unsupported(f"value {name!r} is not available where it is used")
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        opsets = [
            onnx.OperatorSetIdProto(domain=domain, version=version)
            for domain, version in model.opset_imports.items()
        ]
        proto = onnx.ModelProto(ir_version=min(model.ir_version, 13), graph=graph)
        proto.opset_import.extend(opsets)
        self._session = open_session(proto, optimize=False)

    def run(self, values: Mapping[str, Any]) -> list[Any]:
        """The wanted values, in order.

        Raises:
            Unsupported: onnxruntime fails on these inputs.
        """
        feed = {name: values[name] for name in self._entering}
        try:
            return list(self._session.run(self._wanted, feed))
        except ORT_ERRORS as error:
            message = f"onnxruntime cannot run the model on these data: {short(error)}"
            raise Unsupported(message) from error


def _unique(values: Iterable[ir.Value]) -> list[ir.Value]:
    return list({value.name: value for value in values}.values())


def _type_of(example: Any) -> onnx.TypeProto:
    if isinstance(example, list):
        element = np.asarray(example[0]) if example else np.zeros(0, np.float32)
        inner = onnx.helper.make_tensor_type_proto(_code(element), None)
        return onnx.helper.make_sequence_type_proto(inner)
    return onnx.helper.make_tensor_type_proto(_code(np.asarray(example)), None)


def _code(array: np.ndarray[Any, Any]) -> int:
    if array.dtype.kind in "UOS":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
