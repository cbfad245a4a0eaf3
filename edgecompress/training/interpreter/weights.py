"""The constants of a graph, and which of them a gradient reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from edgecompress.graph.values import ONNX_DOMAINS, bodies
from edgecompress.training.interpreter.calls import Numerics, Operation, operations
from edgecompress.training.interpreter.tensors import to_torch

_NUMBERS = {"value_float": np.float32, "value_floats": np.float32}
_WHOLE = {"value_int": np.int64, "value_ints": np.int64}


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An initializer or the output of a ``Constant``.

    Attributes:
        value: The value that holds it.
        tensor: What it is.
        node: The ``Constant``, None for an initializer.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    node: ir.Node | None

    def put(self, tensor: ir.TensorProtocol) -> None:
        """Replace what it is, in place."""
        if self.node is None:
            self.value.const_value = tensor
            return
        self.node.attributes.clear()
        self.node.attributes["value"] = ir.AttrTensor("value", tensor)


def constants_of(graph: ir.Graph) -> dict[str, Constant]:
    """Name -> constant, of the graph and of all graphs inside.

    Names may recur in graphs inside that do not see each other: the second is ``name#2``.
    """
    found: dict[str, Constant] = {}
    for constant in _constants(graph):
        name = first = constant.value.name or ""
        count = 1
        while name in found:
            count += 1
            name = f"{first}#{count}"
        found[name] = constant
    return found


def _constants(graph: ir.Graph) -> Iterator[Constant]:
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield Constant(value, value.const_value, None)
    for node in graph:
        tensor = constant_node(node)
        if tensor is not None:
            yield Constant(node.outputs[0], tensor, node)
        for body in bodies(node):
            yield from _constants(body)


def constant_node(node: ir.Node) -> ir.TensorProtocol | None:
    """What a ``Constant`` holds; None for another node, and for strings and sparse tensors."""
    if node.op_type != "Constant" or node.domain not in ONNX_DOMAINS:
        return None
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor()
        kind = _NUMBERS.get(name) or _WHOLE.get(name)
        if kind is not None:
            return ir.Tensor(np.array(attribute.value, kind), name=node.outputs[0].name)
    return None


@dataclass(slots=True)
class Weights:
    """Parameters of a graph and of all graphs inside.

    Attributes:
        found: Name -> parameter, as they were made.
        live: Where the module keeps them, by its own names.
    """

    found: dict[str, nn.Parameter] = field(default_factory=dict)
    live: Mapping[str, Tensor | None] = field(default_factory=dict)

    def now(self, name: str) -> Tensor:
        """The parameter as the module has it now."""
        value = self.live[attribute_name(name)]
        if value is None:
            raise ValueError(f"parameter {name!r} was taken out of the module")
        return value


def attribute_name(name: str) -> str:
    """A name as torch wants it: without dots, and never empty."""
    return "weight " + name.replace("%", "%25").replace(".", "%2E")


@dataclass(frozen=True, slots=True)
class Held:
    """Constants of a graph and of all graphs inside, by identity of their value.

    Attributes:
        weights: The name of each that is trained.
        constants: All others.
    """

    weights: dict[int, str]
    constants: dict[int, Tensor]


def held(graph: ir.Graph, numerics: Numerics, weights: Weights) -> Held:
    """Read all constants; those that a gradient reaches become parameters in ``weights``."""
    trained = _trained(graph)
    result = Held({}, {})
    for name, constant in constants_of(graph).items():
        key = id(constant.value)
        if constant.tensor.dtype == ir.DataType.STRING:
            continue
        tensor = to_torch(constant.tensor, numerics)
        if key in trained and tensor.dtype.is_floating_point:
            weights.found[name] = nn.Parameter(tensor)
            result.weights[key] = name
        else:
            result.constants[key] = tensor
    return result


def _trained(graph: ir.Graph) -> set[int]:
    """Values whose gradient reaches an output of the graph, by identity.

    Going back from the outputs: what is only read as plain numbers (a shape, a bound, a size that
    is computed) leads nowhere, however many float operators compute it.
    """
    register = operations()
    leads = {id(value) for value in graph.outputs}
    trained: set[int] = set()
    _walk_back(graph, register, leads, trained)
    return trained


def _walk_back(
    graph: ir.Graph,
    register: Mapping[tuple[str, str], Operation],
    leads: set[int],
    trained: set[int],
) -> None:
    for node in reversed(graph):
        if node.op_type == "Constant" or not any(id(value) in leads for value in node.outputs):
            continue
        for body in bodies(node):
            leads.update(id(value) for value in body.outputs if value is not None)
            _walk_back(body, register, leads, trained)
        domain = "" if node.domain in ONNX_DOMAINS else node.domain
        operation = register[domain, node.op_type]
        for place, value in enumerate(node.inputs):
            if operation.reads_number(place) or place in operation.frozen:
                continue
            leads.add(id(value))
            if operation.trains(place):
                trained.add(id(value))
    trained.update(id(value) for value in graph.outputs)
