"""Linear layers in 8 bits without calibration: the input is quantized when it arrives.

``DynamicQuantizeLinear -> MatMulInteger(codes) -> Cast -> Mul(scales) -> Add(bias)``, which
onnxruntime fuses into one ``DynamicQuantizeMatMul``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.tensors import Affine
from edgecompress.graph.emitter import Emitter

# Below this many weights quantizing the input costs more time than 8-bit products save, at 8 rows
# (measured by benchmarks/forms/linear_threshold.py).
_SMALLEST = 16384


@dataclass
class _Rewriter:
    emit: Emitter
    weights: Mapping[str, Affine]
    codes: Mapping[str, ir.Value]
    inputs: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)
    transposed: dict[str, ir.Value] = field(default_factory=dict)

    def quantized_input(self, value: ir.Value) -> tuple[ir.Value, ...]:
        """uint8 values, scale and zero point; once for all layers that read the value."""
        if value not in self.inputs:
            stem = value.name or "input"
            stems = (f"{stem}_u8", f"{stem}_u8_scale", f"{stem}_u8_zero")
            self.inputs[value] = self.emit.nodes("DynamicQuantizeLinear", (value,), stems)
        return self.inputs[value]

    def matrix(self, name: str, *, transpose: bool) -> ir.Value:
        """The codes as (in, out)."""
        if not transpose:
            return self.codes[name]
        if name not in self.transposed:
            self.transposed[name] = self.emit.node(
                "Transpose", (self.codes[name],), f"{name}_qt", perm=(1, 0)
            )
        return self.transposed[name]

    def rewrite(self, node: ir.Node, name: str) -> None:
        emit = self.emit
        entering = node.inputs[0]
        if entering is None:
            raise ValueError(f"{node.op_type} {node.name} has no input")
        stem = node.outputs[0].name or name
        scale = self.weights[name].scale.reshape(-1).astype(np.float32)
        data, data_scale, data_zero = self.quantized_input(entering)
        matrix = self.matrix(name, transpose=_is_transposed(node))
        sums = emit.node("MatMulInteger", (data, matrix, data_zero), f"{stem}_i32")
        emit.rename_node(sums, node)
        floats = emit.cast(sums, ir.DataType.FLOAT, f"{stem}_sums")
        weight_scale = emit.constant(scale, f"{name}_scale")
        scales = emit.node("Mul", (data_scale, weight_scale), f"{stem}_scale")
        result = emit.node("Mul", (floats, scales), f"{stem}_product")
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            result = emit.node("Add", (result, node.inputs[2]), f"{stem}_sum")
        emit.place_before(node)
        emit.take_over(node, result)


def make_linear_dynamic(
    emit: Emitter, weights: Mapping[str, Affine], codes: Mapping[str, ir.Value]
) -> int:
    """Rewrite MatMul and Gemm nodes with a packed (in, out) or (out, in) weight, in place.

    Layers that do not fit (a scale along the input axis, the weight on the left, a scaled Gemm,
    half precision, few weights) are left for the weights-only form.

    Args:
        emit: Of the graph.
        weights: By initializer name.
        codes: Their int8 values, same names.

    Returns:
        Number of layers rewritten.
    """
    rewriter = _Rewriter(emit, weights, codes)
    count = 0
    for node in list(emit.graph):
        name = _weight_name(node)
        if name in weights and _fits(node, weights[name]):
            rewriter.rewrite(node, name)
            count += 1
    return count


def _weight_name(node: ir.Node) -> str:
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm"):
        return ""
    weight = node.inputs[1]
    return "" if weight is None or weight.dtype != ir.DataType.FLOAT else weight.name or ""


def _is_transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))


def _fits(node: ir.Node, affine: Affine) -> bool:
    if len(affine.shape) != 2 or affine.codes.size < _SMALLEST:
        return False
    inner = 1 if _is_transposed(node) else 0
    if affine.scale.shape[inner] != 1:
        return False
    return (
        node.attributes.get_float("alpha", 1.0) == 1.0
        and node.attributes.get_float("beta", 1.0) == 1.0
        and not node.attributes.get_int("transA", 0)
    )
