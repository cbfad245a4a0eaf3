"""A graph, or a graph inside a node, as a list of steps; which of them a value needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.core.errors import Unsupported
from edgecompress.graph.fragments import values_read
from edgecompress.graph.values import ONNX_DOMAINS, nested_nodes
from edgecompress.training.interpreter.calls import (
    Body,
    Call,
    Numerics,
    Operation,
    operations,
)
from edgecompress.training.interpreter.weights import Held, Weights, constant_node, held

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node: what it reads and makes, "" for what is left out.

    ``inner``: weights of the graphs inside, which may be fed in place of what the model has.
    """

    call: Call
    operation: Operation
    inputs: tuple[str, ...]
    captured: tuple[str, ...]
    outputs: tuple[str, ...]
    inner: tuple[str, ...] = ()

    def reads(self) -> set[str]:
        """Names of all values that it takes."""
        return {name for name in (*self.inputs, *self.captured) if name}


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and after each the values that nothing needs any more."""

    steps: tuple[tuple[Step, tuple[str, ...]], ...]


def missing_operators(graph: ir.Graph) -> None:
    """Refuse a graph with operators that are not covered.

    Raises:
        Unsupported: Names them all, and the first node of each.
    """
    register = operations()
    missing: dict[str, str] = {}
    for top in graph:
        for node in (top, *nested_nodes(top)):
            domain = _domain(node)
            if (domain, node.op_type) not in register and node.op_type != "Constant":
                full = f"{domain}:{node.op_type}" if domain else node.op_type
                missing.setdefault(full, node.name or "")
    if missing:
        listed = ", ".join(f"{kind} (node {name!r})" for kind, name in sorted(missing.items()))
        raise Unsupported(f"the interpreter does not cover these operators: {listed}")


class Scope:
    """A graph that can be run in parts.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
    """

    def __init__(
        self, graph: ir.Graph, versions: Mapping[str, int], numerics: Numerics, kept: _Kept
    ) -> None:
        self.inputs = tuple(value.name or "" for value in graph.inputs)
        self.outputs = tuple(value.name or "" for value in graph.outputs)
        self._weights = kept.weights
        self._names: dict[str, str] = {}
        self._constants: dict[str, Tensor] = {}
        self._copies: dict[tuple[str, torch.device], Tensor] = {}
        self._plans: dict[tuple[frozenset[str], tuple[str, ...]], Plan] = {}
        self._input_types = _input_types(graph, numerics)
        for value in graph.initializers.values():
            self._hold(value, kept.held)
        self._steps: list[Step] = []
        for node in graph:
            if constant_node(node) is not None:
                self._hold(node.outputs[0], kept.held)
            else:
                self._steps.append(_step(node, versions, numerics, kept))
        self._makers = {
            name: place for place, step in enumerate(self._steps) for name in step.outputs if name
        }
        self._fold({name for name in self.inputs if name in self._constants})

    @classmethod
    def of_graph(cls, model: ir.Model, numerics: Numerics, weights: Weights) -> Scope:
        """The top-level graph; fills ``weights``."""
        kept = _Kept(held(model.graph, numerics, weights), weights)
        versions = {("" if k in ONNX_DOMAINS else k): v for k, v in model.opset_imports.items()}
        return cls(model.graph, versions, numerics, kept)

    def evaluate(self, values: dict[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
        """Values by name, computed from those given; ``values`` is used up."""
        plan = self._plan(frozenset(values), wanted)
        for name, kind in self._input_types.items():
            given = values.get(name)
            if isinstance(given, Tensor) and given.is_floating_point() and given.dtype != kind:
                values[name] = given.to(kind)
        device = self._device(values)
        for step, dead in plan.steps:
            made = self._run(step, values, device)
            values.update((name, one) for name, one in zip(step.outputs, made, strict=False))
            for name in dead:
                values.pop(name, None)
        return {name: self._look_up(name, values) for name in wanted}

    def run(self, captured: Mapping[str, Any], given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Outputs, as a graph inside a node."""
        fed = {name: captured[key] for name, key in self._names.items() if key in captured}
        values = {**captured, **fed, **dict(zip(self.inputs, given, strict=False))}
        found = self.evaluate(values, self.outputs)
        return tuple(found[name] for name in self.outputs)

    def weights(self) -> tuple[str, ...]:
        """Names of the weights of this graph and of all inside."""
        inside = (key for step in self._steps for key in step.inner)
        return (*self._names.values(), *inside)

    def _hold(self, value: ir.Value, constants: Held) -> None:
        name, key = value.name or "", id(value)
        if key in constants.weights:
            self._names[name] = constants.weights[key]
        elif key in constants.constants:
            self._constants[name] = constants.constants[key]

    @torch.no_grad()
    def _fold(self, open_names: set[str]) -> None:
        """Compute once what only constants enter; keep of it what other steps read."""
        known = {k: v for k, v in self._constants.items() if k not in open_names}
        folded: set[str] = set()
        needed = set(self.outputs)
        for step in self._steps:
            if self._folds(step, known):
                made = self._run(step, known, _CPU)
                known.update(zip(step.outputs, made, strict=False))
                folded.update(step.outputs)
            else:
                needed |= step.reads()
        self._constants.update((name, known[name]) for name in folded & needed if name)

    def _folds(self, step: Step, known: Mapping[str, Any]) -> bool:
        return not step.call.bodies and all(name in known for name in step.reads())

    def _plan(self, fed: frozenset[str], wanted: tuple[str, ...]) -> Plan:
        plan = self._plans.get((fed, wanted))
        if plan is None:
            plan = self._plans[fed, wanted] = self._new_plan(fed, wanted)
        return plan

    def _new_plan(self, fed: frozenset[str], wanted: tuple[str, ...]) -> Plan:
        needed: set[int] = set()
        open_names = list(wanted)
        while open_names:
            name = open_names.pop()
            if name in fed or name in self._names or name in self._constants:
                continue
            place = self._makers.get(name)
            if place is None:
                what = "is not fed" if name in self.inputs else "is not in the graph"
                raise ValueError(f"value {name!r} is needed and {what}")
            if place not in needed:
                needed.add(place)
                open_names += self._steps[place].reads()
        spoken_for = set(wanted)
        steps: list[tuple[Step, tuple[str, ...]]] = []
        for place in sorted(needed, reverse=True):
            step = self._steps[place]
            dead = (step.reads() | {*step.inner, *step.outputs}) - spoken_for
            spoken_for |= dead
            steps.append((step, tuple(dead)))
        return Plan(tuple(steps[::-1]))

    def _device(self, values: Mapping[str, Any]) -> torch.device:
        """Where floats are: that of the first weight or value that is not on the CPU."""
        weights = (self._weights.now(name) for name in self._names.values())
        for value in (*weights, *values.values()):
            if isinstance(value, Tensor) and value.device.type != "cpu":
                return value.device
        return _CPU

    def _look_up(self, name: str, values: Mapping[str, Any]) -> Any:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._names:
            return self._weights.now(self._names[name])
        return self._constants[name]

    def _copy(self, name: str, constant: Tensor, device: torch.device) -> Tensor:
        copy = self._copies.get((name, device))
        if copy is None:
            copy = self._copies[name, device] = constant.to(device)
        return copy

    def _run(self, step: Step, values: Mapping[str, Any], device: torch.device) -> tuple[Any, ...]:
        inputs = [self._look_up(name, values) for name in step.inputs]
        if device.type != "cpu":
            self._gather(step, inputs, device)
        try:
            if step.call.bodies:
                captured = {n: self._look_up(n, values) for n in step.captured}
                captured.update((n, values[n]) for n in step.inner if n in values)
                made = step.operation.function(step.call, captured, *inputs)
            else:
                made = step.operation.function(step.call, *inputs)
        except NotImplementedError as error:
            raise step.call.refused(f"these types: {error}") from error
        return made if isinstance(made, tuple) else (made,)

    def _gather(self, step: Step, inputs: list[Any], device: torch.device) -> None:
        """Bring what is computed with on one device; numbers stay on the CPU."""
        places = [
            place
            for place, value in enumerate(inputs)
            if isinstance(value, Tensor) and not step.operation.reads_number(place)
        ]
        if all(inputs[place].device.type == "cpu" for place in places):
            return
        for place in places:
            value, name = inputs[place], step.inputs[place]
            if value.device == device:
                continue
            is_constant = self._constants.get(name) is value
            inputs[place] = self._copy(name, value, device) if is_constant else value.to(device)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Constants and weights of the whole model."""

    held: Held
    weights: Weights


def _step(node: ir.Node, versions: Mapping[str, int], numerics: Numerics, kept: _Kept) -> Step:
    domain = _domain(node)
    inner: dict[str, Scope] = {}
    attributes: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            inner[name] = Scope(attribute.as_graph(), versions, numerics, kept)
        else:
            attributes[name] = attribute.value
    outside = values_read(node)[len([value for value in node.inputs if value is not None]) :]
    call = Call(
        operator=node.op_type,
        name=node.name or "",
        version=versions.get(domain, 1),
        attributes=attributes,
        input_types=tuple(None if value is None else _type(value) for value in node.inputs),
        outputs=len(node.outputs),
        used=tuple(bool(value.name) for value in node.outputs),
        numerics=numerics,
        bodies=dict[str, Body](inner),
    )
    return Step(
        call,
        operations()[domain, node.op_type],
        _names(node.inputs),
        tuple(dict.fromkeys(_names(outside))),
        _names(node.outputs),
        tuple(dict.fromkeys(key for body in inner.values() for key in body.weights())),
    )


def _names(values: Iterable[ir.Value | None]) -> tuple[str, ...]:
    return tuple("" if value is None else value.name or "" for value in values)


def _type(value: ir.Value) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else value.dtype


def _domain(node: ir.Node) -> str:
    return "" if node.domain in ONNX_DOMAINS else node.domain


def _input_types(graph: ir.Graph, numerics: Numerics) -> dict[str, torch.dtype]:
    """Name of a float input -> the type that it is computed in."""
    kinds = {value.name or "": value.dtype for value in graph.inputs}
    found = {name: numerics.torch_type(kind) for name, kind in kinds.items() if kind is not None}
    return {name: kind for name, kind in found.items() if kind.is_floating_point}
