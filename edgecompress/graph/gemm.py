"""Brings Gemm into the form y = x W + b: no transposed activation, no factors, a vector bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.emit import new_initializer
from edgecompress.graph.fold import unused_name
from edgecompress.graph.values import (
    ONNX_DOMAINS,
    attribute_float,
    attribute_int,
    constant_array,
    constant_tensor,
    is_float,
)


def simplify_gemms(graph: ir.Graph) -> int:
    """Simplify all Gemm nodes with a constant weight, in place."""
    count = 0
    for node in list(graph):
        if node.op_type != "Gemm" or node.domain not in ONNX_DOMAINS:
            continue
        if constant_tensor(node.inputs[1]) is None:
            continue
        count += _turn_activation(graph, node) + _split_bias(graph, node)
        count += _drop_factor(graph, node, "alpha", 1) + _drop_factor(graph, node, "beta", 2)
    return count


def _turn_activation(graph: ir.Graph, node: ir.Node) -> int:
    activation = node.inputs[0]
    if not attribute_int(node, "transA", 0) or activation is None:
        return 0
    turn = ir.node("Transpose", [activation], attributes={"perm": [1, 0]})
    turn.outputs[0].name = unused_name(graph, f"{activation.name}_T")
    turn.outputs[0].type = activation.type
    graph.insert_before(node, turn)
    node.replace_input_with(0, turn.outputs[0])
    del node.attributes["transA"]
    return 1


def _split_bias(graph: ir.Graph, node: ir.Node) -> int:
    """Move a bias that is no constant vector into an ``Add`` of its own."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None or attribute_float(node, "beta", 1.0) != 1.0:
        return 0
    array = constant_array(bias)
    if array is not None and array.size == (array.shape[-1] if array.ndim else 1):
        return 0
    node.resize_inputs(2)
    old = node.outputs[0]
    name = old.name
    old.name = unused_name(graph, f"{name}_product")
    add = ir.node("Add", [old, bias])
    new = add.outputs[0]
    new.type, new.shape = old.type, old.shape
    add.replace_input_with(0, None)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    add.replace_input_with(0, old)
    new.name = name
    graph.insert_after(node, add)
    return 1


def _drop_factor(graph: ir.Graph, node: ir.Node, attribute: str, index: int) -> int:
    """Put ``alpha`` into the weight, or ``beta`` into the bias."""
    factor = attribute_float(node, attribute, 1.0)
    value = node.inputs[index] if index < len(node.inputs) else None
    if attribute not in node.attributes:
        return 0
    if factor != 1.0 and value is not None:
        array = constant_array(value)
        if array is None or not is_float(array) or (index == 1 and len(value.uses()) > 1):
            return 0
        scaled = (array.astype(np.float64) * factor).astype(array.dtype)
        name = unused_name(graph, f"{value.name}_scaled")
        node.replace_input_with(index, new_initializer(graph, name, scaled))
    del node.attributes[attribute]
    return 1
