"""Write quantized weights as packed bytes with their decoder in the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.core.tensors import Affine
from edgecompress.graph.dynamic import make_linear_dynamic
from edgecompress.graph.emitter import Emitter
from edgecompress.graph.model import Model
from edgecompress.graph.packing_codec import CODEC, CODEC_KEY, decode_weights
from edgecompress.graph.qdq import make_convolutions_static
from edgecompress.quantizers._packing import byte_count

# Bytes of the nodes Reshape, Cast and Mul, the scale's header, a shape and a place in the Split,
# with short names (a test compares it with files).
_NODE_BYTES = 130


def packed_bytes(affine: Affine) -> int:
    """Bytes that a weight takes in the file, its share of shared tables not counted."""
    return byte_count(affine.codes.size, affine.grid) + 4 * affine.scale.size + _NODE_BYTES


def why_not_pack(affine: Affine) -> str:
    """Why a weight is better left float; empty if packing saves bytes."""
    packed, plain = packed_bytes(affine), 4 * affine.codes.size
    if packed < plain:
        return ""
    return f"too small: packed it would take {packed} bytes, as float {plain}"


def pack(model: Model, *, activations: bool, keep_names: bool) -> int:
    """Replace every quantized initializer by packed codes and their decoder, in place.

    Args:
        model: Its ``quantized`` weights are written and then forgotten.
        activations: Also run convolutions with a known range, and linear layers, in 8 bits.
        keep_names: New values get readable names.

    Returns:
        Number of weights packed.
    """
    graph = model.ir.graph
    weights = {
        name: model.quantized[name] for name in graph.initializers if name in model.quantized
    }
    if missing := model.quantized.keys() - weights.keys():
        raise ValueError(f"quantized values that are no initializers: {sorted(missing)}")
    if not weights:
        return 0
    emit = Emitter(graph, keep_names=keep_names)
    codes = decode_weights(emit, weights)
    emit.place_first()
    if activations:
        make_convolutions_static(emit, weights, codes, model.activation_ranges)
        make_linear_dynamic(emit, weights, codes)
    for name, affine in weights.items():
        _write_float(emit, name, affine, codes[name])
    model.ir.metadata_props[CODEC_KEY] = CODEC
    model.quantized.clear()
    return len(weights)


def _write_float(emit: Emitter, name: str, affine: Affine, codes: ir.Value) -> None:
    """Serve the uses that are left: rows of a table, or the weight as float."""
    value = emit.graph.initializers[name]
    dtype = value.dtype or ir.DataType.FLOAT
    if value.is_graph_input():
        emit.graph.inputs.remove(value)
    for use in list(value.uses()):
        if use.node.graph is emit.graph and _is_row_lookup(use.node, use.idx):
            _look_up_codes(emit, use.node, affine, codes, dtype)
    if value.uses() or value.is_graph_output():
        weight = _as_float(emit, name, affine, codes, dtype)
        place = codes.producer()
        del emit.graph.initializers[name]
        value.name = emit.fresh(f"{name}_float")
        weight.name = name
        ir.convenience.replace_all_uses_with(value, weight, replace_graph_outputs=True)
        emit.place_after(place)
    else:
        del emit.graph.initializers[name]


def _as_float(
    emit: Emitter, name: str, affine: Affine, codes: ir.Value, dtype: ir.DataType
) -> ir.Value:
    """codes * scale, computed in float32 as `Affine.to_dense` does."""
    as_float = emit.cast(codes, ir.DataType.FLOAT, f"{name}_codes")
    scale = emit.constant(_trimmed(affine.scale), f"{name}_scale")
    weight = emit.node("Mul", (as_float, scale), f"{name}_value")
    weight.dtype, weight.shape = ir.DataType.FLOAT, ir.Shape(affine.shape)
    if dtype == ir.DataType.FLOAT:
        return weight
    return emit.cast(weight, dtype, f"{name}_cast")


def _trimmed(scale: Array) -> Array:
    """The scale without leading axes of size 1, which broadcasting adds again."""
    scale = scale.astype(np.float32)
    while scale.ndim and scale.shape[0] == 1:
        scale = scale[0]
    return scale


def _is_row_lookup(node: ir.Node, index: int) -> bool:
    axis = node.attributes.get_int("axis", 0)
    return node.op_type == "Gather" and node.domain == "" and index == 0 and axis == 0


def _look_up_codes(
    emit: Emitter, node: ir.Node, affine: Affine, codes: ir.Value, dtype: ir.DataType
) -> None:
    """Gather rows of codes and scale them: the table stays int8 in memory."""
    output = node.outputs[0]
    name = output.name or "rows"
    indices = node.inputs[1]
    rows = emit.node("Gather", (codes, indices), f"{name}_q", axis=0)
    scale = emit.constant(
        _trimmed(affine.scale) if affine.scale.shape[0] == 1 else affine.scale, f"{name}_scale"
    )
    if affine.scale.shape[0] != 1:
        scale = emit.node("Gather", (scale, indices), f"{name}_scales", axis=0)
    result = emit.node(
        "Mul", (emit.cast(rows, ir.DataType.FLOAT, f"{name}_codes"), scale), f"{name}_value"
    )
    if dtype != ir.DataType.FLOAT:
        result = emit.cast(result, dtype, f"{name}_cast")
    emit.place_before(node)
    emit.take_over(node, result)
