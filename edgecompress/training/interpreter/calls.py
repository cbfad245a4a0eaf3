"""What an operator's function is told about its node, and the register of those functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.core.errors import Unsupported

FAMILIES = (
    "attention",
    "activations",
    "control",
    "convolution",
    "elementwise",
    "generating",
    "indexing",
    "integer_products",
    "logic",
    "normalization",
    "pooling",
    "products",
    "quantize",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
    "shape",
)
"""Modules of this folder that hold operators."""

INTEGER_TYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT64: torch.uint64,
}
"""ONNX type -> torch type; codes of less than a byte stand in one byte each."""

_HALVES = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """In which types the graph is computed, and what rounding does to a gradient.

    Attributes:
        single: What stands for ONNX's float.
        keep_half: Whether half floats stay what they are (as long as ``single`` is float32); off,
            they are ``single``.
        straight_through: Whether rounding to codes passes gradients; codes are then floats of
            whole numbers.
    """

    single: torch.dtype = torch.float32
    keep_half: bool = True
    straight_through: bool = False

    def torch_type(self, kind: ir.DataType) -> torch.dtype:
        """The torch type of an ONNX type.

        Raises:
            Unsupported: Strings, complex numbers and floats of a byte or less.
        """
        if kind in INTEGER_TYPES:
            return INTEGER_TYPES[kind]
        if kind == ir.DataType.FLOAT:
            return self.single
        if kind == ir.DataType.DOUBLE:
            return torch.float64
        if kind in _HALVES:
            keep = self.keep_half and self.single == torch.float32
            return _HALVES[kind] if keep else self.single
        raise Unsupported(f"values of type {kind.name} cannot be computed in torch")


class Body(Protocol):
    """A graph inside a node."""

    inputs: tuple[str, ...]

    def run(self, captured: Mapping[str, Any], given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Outputs of the body for values of its inputs, and of outside that it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One node.

    Attributes:
        operator: Its operator.
        name: Its name.
        version: Opset of its domain.
        attributes: As Python values; tensors as `ir.TensorProtocol`.
        input_types: As far as the graph says.
        outputs: Number of outputs; ``used``: whether each has a name.
        numerics: Types to compute in.
        bodies: Graphs inside, by attribute.
    """

    operator: str
    name: str
    version: int
    attributes: Mapping[str, Any]
    input_types: tuple[ir.DataType | None, ...]
    outputs: int
    used: tuple[bool, ...]
    numerics: Numerics
    bodies: Mapping[str, Body] = field(default_factory=dict)

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(attribute, default)

    def refused(self, why: str) -> Unsupported:
        """The error for a form of the operator that is not covered."""
        return Unsupported(
            f"the interpreter does not cover {self.operator} with {why}",
            where=f"node {self.name!r}",
        )


Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """How an operator is computed.

    Attributes:
        function: ``function(call, *inputs)`` -> one value, or a tuple of them; inputs that are
            left out are None.
        numbers: Inputs that are read as plain numbers (shapes, axes, bounds): they stay on the
            CPU and no gradient reaches them.
        frozen: Inputs that are not trained (statistics).
        differentiable: Whether a gradient passes at all.
    """

    function: Function
    numbers: tuple[int, ...] = ()
    frozen: tuple[int, ...] = ()
    differentiable: bool = True

    def reads_number(self, place: int) -> bool:
        """Whether an input is read as plain numbers."""
        return place in self.numbers

    def trains(self, place: int) -> bool:
        """Whether a gradient reaches an input."""
        return self.differentiable and place not in self.numbers and place not in self.frozen


_REGISTER: dict[tuple[str, str], Operation] = {}


def operator(
    *names: str,
    domain: str = "",
    numbers: tuple[int, ...] = (),
    frozen: tuple[int, ...] = (),
    differentiable: bool = True,
) -> Callable[[Function], Function]:
    """Register a function as what computes these operators."""

    def register(function: Function) -> Function:
        for name in names:
            _REGISTER[domain, name] = Operation(
                function=function,
                numbers=numbers,
                frozen=frozen,
                differentiable=differentiable,
            )
        return function

    return register


def operations() -> Mapping[tuple[str, str], Operation]:
    """(domain, operator) -> how it is computed."""
    for family in FAMILIES:
        import_module(f"edgecompress.training.interpreter.{family}")
    return _REGISTER


def whole_numbers(value: Tensor | None, default: list[int] | None = None) -> list[int]:
    """A tensor of integers as Python numbers; ``default`` where it is left out."""
    if value is None:
        return list(default or [])
    return [int(number) for number in value.reshape(-1).tolist()]


def whole_number(value: Tensor) -> int:
    """A tensor of one integer as a Python number."""
    return int(value.item())


def real_number(value: Tensor | None, default: float) -> float:
    """A tensor of one float as a Python number."""
    return default if value is None or value.numel() == 0 else float(value.item())


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis
