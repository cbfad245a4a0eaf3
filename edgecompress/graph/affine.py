"""Folds BatchNorm, and constants added to or multiplied on channels, into the layer before."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, MatMul
from edgecompress.core.tensors import Dense
from edgecompress.graph.model import Model
from edgecompress.graph.values import ONNX_DOMAINS, attribute_float, attribute_int, constant_array

Affine = tuple[FloatArray, FloatArray]
"""Scale and shift of each output channel, float64 (out,)."""


def fold_affine(model: Model) -> dict[str, int]:
    """Fold all per-channel affine operators that directly follow a layer, in place.

    Returns:
        How many nodes of which operator were folded.
    """
    folded: dict[str, int] = {}
    while done := _one_round(model):
        for op_type in done:
            folded[op_type] = folded.get(op_type, 0) + 1
    return folded


def _one_round(model: Model) -> list[str]:
    done: list[str] = []
    for layer in model.find_layers().layers:
        if layer.shared or layer.frozen or not isinstance(layer.stage, Conv | MatMul):
            continue
        found = _follower(model, layer)
        if found is not None:
            follower, affine = found
            done.append(follower.op_type)
            _absorb(model, layer, follower, affine)
    return done


def _follower(model: Model, layer: Layer) -> tuple[ir.Node, Affine] | None:
    output = model.layer_nodes(layer)[-1].outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    node, index = uses[0].node, uses[0].idx
    if node.domain not in ONNX_DOMAINS or node.graph is not model.ir.graph:
        return None
    rank = len(layer.weight_shape if isinstance(layer.stage, Conv) else layer.output_shape)
    if node.op_type == "BatchNormalization":
        affine = _batch_norm(node, index, rank, layer)
    elif node.op_type in ("Add", "Sub", "Mul", "Div") and rank:
        affine = _elementwise(node, index, rank, layer)
    else:
        return None
    return None if affine is None else (node, affine)


def _batch_norm(node: ir.Node, index: int, rank: int, layer: Layer) -> Affine | None:
    """Scale and shift: (x - mean) gamma / sqrt(var + epsilon) + beta."""
    training = attribute_int(node, "training_mode", 0)
    extra = any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
    channels_last_only = isinstance(layer.stage, MatMul) and rank != 2
    if index != 0 or training or extra or channels_last_only:
        return None
    outputs = layer.weight_shape[0]
    arrays = [constant_array(value) for value in node.inputs[1:5]]
    vectors = [np.asarray(a, np.float64) for a in arrays if a is not None and a.size == outputs]
    if len(vectors) != 4 or any(v.shape != (outputs,) for v in vectors):
        return None
    gamma, beta, mean, variance = vectors
    scale = gamma / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _elementwise(node: ir.Node, index: int, rank: int, layer: Layer) -> Affine | None:
    other = constant_array(node.inputs[1 - index])
    if other is None or other.dtype.kind != "f" or (index == 1 and node.op_type == "Div"):
        return None
    axis = 1 if isinstance(layer.stage, Conv) else rank - 1
    vector = _per_channel(other, rank, axis, layer.weight_shape[0])
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    match node.op_type:
        case "Add":
            return one, vector
        case "Sub":
            return (one, -vector) if index == 0 else (-one, vector)
        case "Mul":
            return vector, zero
        case _:
            return (1.0 / vector, zero) if np.all(vector) else None


def _per_channel(array: Array, rank: int, axis: int, outputs: int) -> FloatArray | None:
    """A constant as a vector over the channels, if it broadcasts over all other axes."""
    if array.ndim > rank:
        return None
    sizes = (1,) * (rank - array.ndim) + array.shape
    if array.size not in (1, outputs) or sizes[axis] != array.size:
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (outputs,)).copy()


def _absorb(model: Model, layer: Layer, follower: ir.Node, affine: Affine) -> None:
    scale, shift = affine
    stage = layer.stage
    weight = stage.weight.to_dense().astype(np.float64)
    turned = scale.reshape(-1, *(1,) * (weight.ndim - 1)) * weight
    bias = shift + (0.0 if layer.bias is None else scale * layer.bias.astype(np.float64))
    dense = Dense(turned)
    match stage:
        case Conv():
            swapped: Conv | MatMul = Conv(
                weight=dense,
                stride=stage.stride,
                pads=stage.pads,
                dilation=stage.dilation,
                group=stage.group,
                transposed=stage.transposed,
            )
        case _:
            swapped = MatMul(weight=dense)
    model.replace(layer, [swapped], bias if layer.bias is not None or np.any(bias) else None)
    output = model.layer_nodes(layer)[-1].outputs[0]
    bypass(follower, output)
    model.forget_shapes()


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Let ``source`` take the place of a node's output, in place; a graph output keeps its name."""
    graph, output = node.graph, node.outputs[0]
    name = output.name
    was_output = output.is_graph_output()
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    if graph is not None:
        graph.remove(node, safe=True)
    if was_output:
        source.name, source.type, source.shape = name, output.type, output.shape


def described(folded: dict[str, int]) -> Iterable[str]:
    """Notes for the report."""
    for op_type, count in sorted(folded.items()):
        yield f"folded {count} {op_type} into the layers before"
