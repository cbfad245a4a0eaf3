"""Convolutions in 8 bits with calibrated ranges: quantize/dequantize pairs around int8 kernels.

Values between two pairs run as one integer operator in onnxruntime (QLinearConv, QLinearAdd, ...)
when every operator of a region stands between pairs, so the plan first collects the values and
then writes one pair for each. Activations are uint8; after Relu the zero point is 0, which makes
the Relu part of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import FloatArray
from edgecompress.core.tensors import Affine
from edgecompress.graph.emitter import Emitter

Ranges = Mapping[str, tuple[float, float]]

# Operators with an integer kernel of their own.
_COMPUTED = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu"})
# Operators that only move values: their output has the scale of their input.
_MOVED = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"}
)


# A bias in units of the integer sums stays within 30 bits, so that a sum fits 32.
_LARGEST_BIAS = 2**30
# What raised scales may add to a channel, as a share of its bias, in the worst case.
_HARMLESS = 2.0**-5


@dataclass(frozen=True, slots=True)
class _Eight:
    """How a value is stored in 8 bits: value = scale * (code - zero)."""

    scale: np.float32
    zero: int

    @classmethod
    def covering(cls, low: float, high: float) -> _Eight:
        """The uint8 form of a range; zero is always exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255)
        if not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
            scale = np.float32(1)
        return cls(scale, int(np.clip(round(-low / float(scale)), 0, 255)))


@dataclass
class _Region:
    """What runs in 8 bits."""

    graph: ir.Graph
    weights: Mapping[str, Affine]
    ranges: Ranges
    convolutions: list[ir.Node] = field(default_factory=list)
    values: dict[ir.Value, _Eight] = field(default_factory=dict)

    def collect(self) -> None:
        """Find the convolutions, then everything that can stay in 8 bits between them."""
        for node in self.graph:
            if node.op_type == "Conv" and node.domain == "" and self._fits(node):
                self.convolutions.append(node)
                self._add(node.inputs[0])
                self._add(_end(node))
        for node in self.graph:
            if node.domain == "" and node.op_type in _COMPUTED:
                self._follow_computed(node)
            elif node.domain == "" and node.op_type in _MOVED:
                self._follow_moved(node)

    def _fits(self, node: ir.Node) -> bool:
        weight = node.inputs[1]
        if weight is None or weight.dtype != ir.DataType.FLOAT:
            return False
        affine = self.weights.get(weight.name or "")
        if affine is None:
            return False
        per_channel = affine.scale.shape[1:]
        inside = all(size == 1 for size in per_channel)
        if not inside or not self._has_range(node.inputs[0]) or not self._can_end(node):
            return False
        return self._bias_fits(node, affine)

    def _bias_fits(self, node: ir.Node, affine: Affine) -> bool:
        """Whether the bias is known, and an integer of 30 bits in steps that do no harm."""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        known = self._range(node.inputs[0]) if node.inputs[0] is not None else None
        if bias is None or known is None:
            return True
        if bias.const_value is None:
            return False
        exact = bias.const_value.numpy()
        entering = _Eight.covering(*known)
        raised = not np.array_equal(_channel_scale(entering, affine, exact), _flat(affine))
        terms = affine.codes.size // affine.codes.shape[0]
        return not raised or terms * affine.grid.largest * 255 < _LARGEST_BIAS * _HARMLESS

    def _can_end(self, node: ir.Node) -> bool:
        """Whether the operator's result has a range and is not wanted in full precision."""
        end = _end(node)
        return self._has_range(end) and not end.is_graph_output()

    def _has_range(self, value: ir.Value | None) -> bool:
        return value is not None and self._range(value) is not None

    def _range(self, value: ir.Value) -> tuple[float, float] | None:
        """Calibrated, or that of what enters the activation function which makes the value."""
        low, high = -np.inf, np.inf
        producer = value.producer()
        entering = value
        if producer is not None and _is_bound(producer):
            low, high = _bounds(producer)
            entering = producer.inputs[0] or value
        known = self.ranges.get(value.name or "") or self.ranges.get(entering.name or "")
        if known is None:
            return None
        return float(np.clip(known[0], low, high)), float(np.clip(known[1], low, high))

    def _add(self, value: ir.Value | None) -> None:
        known = self._range(value) if value is not None else None
        if value is not None and known is not None and value not in self.values:
            self.values[value] = _Eight.covering(*known)

    def _follow_computed(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        if not any(value in self.values for value in inputs) or not self._can_end(node):
            return
        if all(self._has_range(value) or value in self.values for value in inputs):
            for value in (*inputs, _end(node)):
                self._add(value)

    def _follow_moved(self, node: ir.Node) -> None:
        entering, leaving = node.inputs[0], node.outputs[0]
        single = sum(output.name != "" for output in node.outputs) == 1
        if (
            entering in self.values
            and single
            and not leaving.is_graph_output()
            and (node.op_type != "Pad" or _pads_with_zero(node))
        ):
            self.values[leaving] = self.values[entering]


def _is_bound(node: ir.Node) -> bool:
    """Relu, or Clip with constant bounds: part of the kernel before it."""
    if node.domain != "" or node.op_type not in ("Relu", "Clip"):
        return False
    return all(value is None or value.const_value is not None for value in node.inputs[1:])


def _bounds(node: ir.Node) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, np.inf
    limits = [-np.inf, np.inf]
    for place, value in enumerate(node.inputs[1:3]):
        if value is not None and value.const_value is not None:
            limits[place] = float(value.const_value.numpy())
    return limits[0], limits[1]


def _end(node: ir.Node) -> ir.Value:
    """The operator's result, after the Relu or Clip that only it feeds."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) == 1 and not output.is_graph_output() and _is_bound(uses[0].node):
        return uses[0].node.outputs[0]
    return output


def _pads_with_zero(node: ir.Node) -> bool:
    mode = node.attributes.get_string("mode", "constant")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    known = None if value is None else value.const_value
    zero = value is None or (known is not None and not known.numpy().any())
    return mode == "constant" and zero


def make_convolutions_static(
    emit: Emitter, weights: Mapping[str, Affine], codes: Mapping[str, ir.Value], ranges: Ranges
) -> int:
    """Put convolutions, and what lies between them, into 8 bits, in place.

    A convolution without a range for its input or its result, whose result is an output of the
    graph, in half precision, or with a scale that varies inside a channel, is left for the
    weights-only form.

    Args:
        emit: Of the graph.
        weights: By initializer name.
        codes: Their int8 values, same names.
        ranges: Value name -> (low, high).

    Returns:
        Number of convolutions.
    """
    region = _Region(emit.graph, weights, ranges)
    region.collect()
    for node in region.convolutions:
        entering, weight = node.inputs[0], node.inputs[1]
        if entering is not None and weight is not None:
            name = weight.name or ""
            _rewrite(emit, node, region.values[entering], weights[name], codes[name])
    for value, eight in region.values.items():
        _write_pair(emit, value, eight)
    return len(region.convolutions)


def _rewrite(
    emit: Emitter, node: ir.Node, entering: _Eight, affine: Affine, codes: ir.Value
) -> None:
    """Weight and bias of a convolution as integers with their scales."""
    stem = node.inputs[1].name if node.inputs[1] is not None else None
    stem = stem or "weight"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    exact = None if bias is None or bias.const_value is None else bias.const_value.numpy()
    flat = _channel_scale(entering, affine, exact)
    scale = flat if flat.size > 1 else flat.reshape(())
    zero = emit.constant(np.zeros(scale.shape, np.int8), f"zero{scale.size}")
    steps = emit.constant(scale, f"{stem}_scale")
    weight = emit.node("DequantizeLinear", (codes, steps, zero), f"{stem}_dq", axis=0)
    weight.dtype, weight.shape = ir.DataType.FLOAT, ir.Shape(affine.shape)
    if bias is not None and exact is not None:
        units = (flat * entering.scale).astype(np.float64)
        whole = np.rint(exact.astype(np.float64) / units).astype(np.int32)
        integers = emit.constant(whole, f"{bias.name}_i32")
        step = emit.constant(np.array(entering.scale, np.float32), f"{stem}_input_step")
        sum_steps = emit.node("Mul", (steps, step), f"{bias.name}_steps")
        node.replace_input_with(
            2, emit.node("DequantizeLinear", (integers, sum_steps), f"{bias.name}_dq", axis=0)
        )
        if not bias.uses() and not bias.is_graph_output():
            del emit.graph.initializers[bias.name or ""]
    node.replace_input_with(1, weight)
    emit.place_before(node)


def _flat(affine: Affine) -> FloatArray:
    return affine.scale.reshape(-1).astype(np.float32)


def _channel_scale(entering: _Eight, affine: Affine, bias: FloatArray | None) -> FloatArray:
    """The weight's scales, raised where the bias would not fit an integer of sums.

    That happens in channels whose weights are nothing beside their bias; raised, they still are.
    """
    scale = _flat(affine)
    if bias is None:
        return scale
    least = np.abs(bias.astype(np.float64)) / _LARGEST_BIAS / float(entering.scale)
    if scale.size == 1:
        least = least.max(initial=0.0)
    return np.maximum(scale, least.astype(np.float32))


def _write_pair(emit: Emitter, value: ir.Value, eight: _Eight) -> None:
    """Quantize and dequantize a value for all its users."""
    stem = value.name or "value"
    scale = emit.constant(np.array(eight.scale, np.float32), f"{stem}_step")
    zero = emit.constant(np.array(eight.zero, np.uint8), f"{stem}_zero")
    users = list(value.uses())
    small = emit.node("QuantizeLinear", (value, scale, zero), f"{stem}_u8")
    restored = emit.node("DequantizeLinear", (small, scale, zero), f"{stem}_dq")
    restored.dtype, restored.shape = ir.DataType.FLOAT, value.shape
    for use in users:
        use.node.replace_input_with(use.idx, restored)
    emit.place_after(value.producer())
