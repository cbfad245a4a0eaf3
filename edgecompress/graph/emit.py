"""Writes stages as ONNX nodes in place of a layer, or new weights into the layer's own node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.stages import Conv, Embedding, MatMul, Permute, Recurrent, Reshape, Stage
from edgecompress.core.tensors import Affine, Dense, Tensor
from edgecompress.graph.origins import LAYER_KEY


def fresh_names(taken: set[str]) -> Iterator[str]:
    """Value names that are not taken, added to ``taken`` as they are given out."""
    count = 0
    while True:
        name = f"ec_{count}"
        count += 1
        if name not in taken:
            taken.add(name)
            yield name


@dataclass
class ChainWriter:
    """Makes the nodes of a chain and its initializers.

    Attributes:
        graph: Initializers go here; the nodes are for the caller to insert.
        layer: Name of the layer that the chain replaces.
        dtype: Of the weights in the graph.
        names: Fresh value names.
        quantized: Value name -> codes, filled for quantized stages.
        nodes: In order.
    """

    graph: ir.Graph
    layer: str
    dtype: np.dtype[np.floating]
    names: Iterator[str]
    quantized: dict[str, Affine]
    nodes: list[ir.Node] = field(default_factory=list)

    def write(
        self, entering: ir.Value, stages: Sequence[Stage], bias: FloatArray | None
    ) -> ir.Value:
        """The value after all stages; ``bias`` goes on the last stage, or is added after it."""
        weighted = [i for i, stage in enumerate(stages) if not isinstance(stage, Reshape | Permute)]
        last = weighted[-1] if weighted else -1
        value = entering
        for index, stage in enumerate(stages):
            value = self._stage(value, stage, bias if index == last == len(stages) - 1 else None)
        return value if bias is None or last == len(stages) - 1 else self._add(value, bias)

    def _stage(self, x: ir.Value, stage: Stage, bias: FloatArray | None) -> ir.Value:
        match stage:
            case Conv():
                return self._conv(x, stage, bias)
            case MatMul(weight=weight):
                product = self._node("MatMul", [x, self._weight(_transposed(weight))])
                return product if bias is None else self._add(product, bias)
            case Embedding(weight=weight):
                rows = self._node("Gather", [self._weight(weight), x], {"axis": 0})
                return rows if bias is None else self._add(rows, bias)
            case Reshape(shape=shape):
                return self._node("Reshape", [x, self._constant(np.array(shape, np.int64))])
            case Permute(axes=axes):
                return self._node("Transpose", [x], {"perm": list(axes)})
            case Recurrent():
                raise ValueError("a recurrent weight cannot be a stage of a chain")
            case _:
                assert_never(stage)

    def _conv(self, x: ir.Value, stage: Conv, bias: FloatArray | None) -> ir.Value:
        weight = stage.weight
        attributes: dict[str, list[int] | int] = {
            "strides": list(stage.stride),
            "pads": list(stage.pads),
            "dilations": list(stage.dilation),
            "group": stage.group,
            "kernel_shape": list(weight.shape[2:]),
        }
        if stage.transposed:
            spatial = len(stage.stride)
            begins, ends = stage.pads[:spatial], stage.pads[spatial:]
            attributes["pads"] = [*begins, *[max(0, end) for end in ends]]
            attributes["output_padding"] = [max(0, -end) for end in ends]
            weight = _graph_order(weight, stage.group)
        inputs = [x, self._weight(weight)]
        if bias is not None:
            inputs.append(self._constant(bias.astype(self.dtype)))
        return self._node("ConvTranspose" if stage.transposed else "Conv", inputs, attributes)

    def _add(self, x: ir.Value, bias: FloatArray) -> ir.Value:
        return self._node("Add", [x, self._constant(bias.astype(self.dtype))])

    def _weight(self, weight: Tensor) -> ir.Value:
        value = self._constant(graph_values(weight, self.dtype))
        if isinstance(weight, Affine):
            self.quantized[value.name or ""] = weight
        return value

    def _constant(self, array: Array) -> ir.Value:
        return new_initializer(self.graph, next(self.names), array)

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: dict[str, list[int] | int] | None = None,
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=attributes or {})
        node.name = f"{self.layer}/{len(self.nodes)}"
        node.metadata_props[LAYER_KEY] = self.layer
        node.outputs[0].name = next(self.names)
        self.nodes.append(node)
        return node.outputs[0]


def new_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new constant of the graph."""
    tensor = ir.Tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
    )
    graph.register_initializer(value)
    return value


def set_constant(value: ir.Value, array: Array) -> None:
    """New values for an initializer, in place; type and shape follow."""
    tensor = ir.Tensor(np.asarray(array, order="C"), name=value.name)
    value.const_value = tensor
    value.type = ir.TensorType(tensor.dtype)
    value.shape = tensor.shape


def graph_values(weight: Tensor, dtype: np.dtype[np.floating]) -> FloatArray:
    """What an initializer holds for a weight: floats of the graph's type."""
    match weight:
        case Dense(values):
            return values.astype(dtype)
        case Affine():
            return weight.to_dense().astype(dtype)


def _transposed(weight: Tensor) -> Tensor:
    match weight:
        case Dense(values):
            return Dense(values.T)
        case Affine():
            return weight.transpose((1, 0))


def _graph_order(weight: Tensor, group: int) -> Tensor:
    from edgecompress.graph.layout import Layout, Order

    return Layout(order=Order.TRANSPOSED_CONVOLUTION, group=group).to_graph(weight)
