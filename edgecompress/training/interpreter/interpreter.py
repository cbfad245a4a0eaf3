"""An ONNX graph as a torch module: any part of it, from any values, with exact gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from edgecompress.graph.model import Model
from edgecompress.training.interpreter.calls import Numerics
from edgecompress.training.interpreter.scope import Scope, missing_operators
from edgecompress.training.interpreter.tensors import to_tensor
from edgecompress.training.interpreter.weights import (
    Constant,
    Weights,
    attribute_name,
    constants_of,
)


class Interpreter(nn.Module):
    """The graph of a model, run operator by operator.

    Float initializers that a gradient can reach are parameters; everything else that is constant
    is computed once. Dropout passes its input on and batch normalisation uses its stored
    statistics, in training too. Nothing is changed in place, values are freed when no later node
    of the run reads them.

    Args:
        model: Its values are copied.
        dtype: Stands for ONNX's float; with float64 every float is double.
        device: Of parameters and of what is computed with them; shapes stay on the CPU.
        keep_half: Whether float16 and bfloat16 are computed as such; off, they are ``dtype``.
        straight_through: Whether rounding to codes passes gradients to what it rounds.

    Raises:
        Unsupported: Operators that are not covered, all of them named.
    """

    def __init__(
        self,
        model: Model,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        keep_half: bool = True,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        graph = model.ir
        if graph.functions:
            graph = graph.clone()
            passes.InlinePass()(graph)
        missing_operators(graph.graph)
        numerics = Numerics(single=dtype, keep_half=keep_half, straight_through=straight_through)
        self._weights = Weights()
        self._scope = Scope.of_graph(graph, numerics, self._weights)
        for name, value in self._weights.found.items():
            self.register_parameter(attribute_name(name), value)
        self._weights.live = self._parameters
        if device is not None:
            self.to(device)

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """Name of an initializer (or of the output of a ``Constant``) -> its parameter."""
        found = ((name, self._parameters[attribute_name(name)]) for name in self._weights.found)
        return {name: value for name, value in found if value is not None}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        return self._scope.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return self._scope.outputs

    def forward(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Values of the graph.

        Args:
            feeds: Values by name: inputs, or any values that stand in for what the graph would
                compute (weights included).
            wanted: Names of the values to return; the outputs of the graph if None. Only nodes
                that they need are run.

        Raises:
            ValueError: No such value, or an input that is needed is not fed.
            Unsupported: A form of an operator that is not covered.
        """
        names = tuple(self._scope.outputs if wanted is None else wanted)
        found: dict[str, Any] = self._scope.evaluate(dict(feeds), names)
        return found

    def write_back(self, model: Model) -> int:
        """Put the parameters into a model with the same initializers, in place.

        Codes that the model keeps of an initializer are dropped when its values change.

        Returns:
            Number of initializers whose values changed.

        Raises:
            ValueError: The model lacks one of them, or has it in another shape.
        """
        places = constants_of(model.ir.graph)
        lacking = sorted(set(self.weights) - set(places))
        if lacking:
            raise ValueError(f"the model has no initializer {lacking[0]!r}")
        changed = [n for n, value in self.weights.items() if _written(places[n], value)]
        for name in changed:
            model.quantized.pop(name, None)
        return len(changed)


def _written(place: Constant, value: Tensor) -> bool:
    """Whether the values that were there are others."""
    old = place.tensor
    if tuple(value.shape) != tuple(old.shape.numpy()):
        raise ValueError(f"initializer {old.name!r} has shape {old.shape}, not {value.shape}")
    new = to_tensor(value, old)
    if new.tobytes() == old.tobytes():
        return False
    place.put(new)
    return True
