"""The codes that enter a layer, and what its codes stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.layers import Skip
from edgecompress.graph.operators import resolved_pads
from edgecompress.graph.values import (
    attribute_int,
    attribute_ints,
    constant_array,
    printable,
)

SHAPE = "not a convolution over one or two axes, or a product with a matrix"
WIDE = "codes of more than 8 bits"
CONVOLUTIONS = {"Conv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}
_CODES = 255
_WIDEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvGeometry:
    """How a kernel is swept; (vertical, horizontal), one axis as height 1.

    Attributes:
        stride, dilation: Steps.
        pads: (top, left, bottom, right).
        group: Number of groups.
    """

    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLayer:
    """A convolution or a matrix product in integers.

    Attributes:
        name, op_type: Of the node.
        inputs: (n, c, h, w), or (rows, inner) for a product; codes as they are stored, int64.
        weights: (out, in / group, kh, kw), or (inner, columns); symmetric codes, int64.
        zero_point: Input code that stands for zero.
        input_scale: Of the input codes; None where the graph does not say it at the operator.
        weight_scales: One per output channel, or one; empty where the graph does not say it at the
            operator.
        input_bits, input_signed: Of an input code.
        weight_bits: That the weight codes take in two's complement.
        stored_bits: That a weight takes in the file.
        quantized_here: The graph computes this input in floats; the codes were made from their
            range.
        geometry: Of a convolution; None for a product.
    """

    name: str
    op_type: str
    inputs: Array
    weights: Array
    zero_point: int
    input_scale: float | None
    weight_scales: FloatArray
    input_bits: int
    input_signed: bool
    weight_bits: int
    stored_bits: int
    quantized_here: bool
    geometry: ConvGeometry | None


@dataclass(frozen=True, slots=True)
class FoundLayer:
    """An operator whose weight codes are read.

    Attributes:
        node: The operator.
        activation, weight: Its inputs.
        codes: Of the weight, as a layer has them.
        zero: Zero point of the input where the operator takes one.
        source: What made the input of codes.
        stored_bits: Of a weight in the file.
    """

    node: ir.Node
    activation: ir.Value
    weight: ir.Value
    codes: Array
    zero: ir.Value | None
    source: ir.Node | None
    stored_bits: int

    @property
    def name(self) -> str:
        """Of the node."""
        return node_name(self.node)


def node_name(node: ir.Node) -> str:
    """The name of a node, made up from its operator and its first output where it has none."""
    named = [value.name for value in node.outputs if value.name]
    return printable(node.name or "_".join([node.op_type, *named[:1]]))


def node_input(node: ir.Node, place: int) -> ir.Value | None:
    """An input of a node; None where it is left out."""
    return node.inputs[place] if place < len(node.inputs) else None


def is_conv(node: ir.Node) -> bool:
    """Whether an operator is a convolution."""
    return node.op_type in CONVOLUTIONS


def oriented(node: ir.Node, codes: Array) -> Array:
    """Weights as a layer has them."""
    if is_conv(node):
        return codes[:, :, None, :] if codes.ndim == 3 else codes
    if node.op_type == "Gemm" and attribute_int(node, "transB", 0):
        return codes.T
    return codes


def read_layer(one: FoundLayer, values: Mapping[str, list[Array]]) -> NamedLayer | Skip:
    """A layer with the codes that enter it; ``values`` by name, one array for each feed."""
    parts = values[one.activation.name or ""]
    geometry = None
    if is_conv(one.node):
        geometry = _geometry(one, parts[0].shape)
        if geometry is None:
            return Skip(one.name, SHAPE, one.codes.size)
        parts = [part[:, :, None, :] if part.ndim == 3 else part for part in parts]
    else:
        parts = [part.reshape(-1, part.shape[-1]) for part in parts]
    entering = _codes(one, parts, values)
    if entering is None or _bits_of(one.codes) > _WIDEST:
        return Skip(one.name, WIDE, one.codes.size)
    return NamedLayer(
        name=one.name,
        op_type=one.node.op_type,
        inputs=entering.codes,
        weights=one.codes,
        zero_point=entering.zero,
        input_scale=entering.scale,
        weight_scales=_weight_scales(one, values),
        input_bits=entering.bits,
        input_signed=entering.signed,
        weight_bits=_bits_of(one.codes),
        stored_bits=one.stored_bits,
        quantized_here=entering.made,
        geometry=geometry,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entering:
    """Input codes and what they mean."""

    codes: Array
    zero: int
    scale: float | None
    bits: int
    signed: bool
    made: bool = False


def _codes(
    one: FoundLayer, parts: Sequence[Array], values: Mapping[str, list[Array]]
) -> _Entering | None:
    """The input as codes; None where they have more than 8 bits."""
    whole = np.concatenate(parts)
    if whole.dtype.kind != "f":
        if whole.dtype.itemsize > 1:
            return None
        zero = _zero_of(one.zero, values)
        place = {"QLinearConv": 1, "QLinearMatMul": 1}.get(one.node.op_type)
        scale = None if place is None else constant_array(node_input(one.node, place))
        return _Entering(
            codes=whole.astype(np.int64),
            zero=zero,
            scale=None if scale is None else float(scale.reshape(-1)[0]),
            bits=8,
            signed=whole.dtype.kind == "i",
        )
    if one.source is not None:
        return _given_back(whole, one.source)
    low, high = min(0.0, float(whole.min(initial=0))), max(0.0, float(whole.max(initial=0)))
    step = (high - low) / _CODES or 1.0
    zero = round(-low / step)
    codes = np.clip(np.rint(whole / step) + zero, 0, _CODES).astype(np.int64)
    return _Entering(codes=codes, zero=zero, scale=step, bits=8, signed=False, made=True)


def _zero_of(value: ir.Value | None, values: Mapping[str, list[Array]]) -> int:
    """A zero point, constant or of the first feed."""
    if value is None:
        return 0
    known = constant_array(value)
    array = values[value.name or ""][0] if known is None else known
    return int(np.asarray(array).reshape(-1)[0])


def _given_back(whole: Array, source: ir.Node) -> _Entering | None:
    """The codes behind values that a DequantizeLinear made; exact, for they are a step apart."""
    scale = constant_array(source.inputs[1])
    zero_value = node_input(source, 2)
    zero = constant_array(zero_value)
    quantized = source.inputs[0]
    dtype = None if quantized is None else quantized.dtype
    if zero_value is not None and zero_value.dtype is not None:
        dtype = zero_value.dtype
    signed = dtype is not None and dtype.name.startswith("INT")
    bits = 8 if dtype is None else int(dtype.bitwidth)
    if scale is None or bits > 8:
        return None
    step, offset = float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0])
    codes = np.rint(whole.astype(np.float64) / step).astype(np.int64) + offset
    return _Entering(codes=codes, zero=offset, scale=step, bits=bits, signed=signed)


def _weight_scales(one: FoundLayer, values: Mapping[str, list[Array]]) -> FloatArray:
    """Value over code, by output channel; as given at operators on integers."""
    place = {"QLinearConv": 4, "QLinearMatMul": 4}.get(one.node.op_type)
    if place is not None:
        given = constant_array(node_input(one.node, place))
        return np.zeros(0) if given is None else given.reshape(-1).astype(np.float64)
    floats = values.get(one.weight.name or "")
    if not floats or floats[0].dtype.kind != "f":
        return np.zeros(0)
    shaped = oriented(one.node, floats[0].astype(np.float64))
    rows = one.codes.reshape(one.codes.shape[0], -1) if is_conv(one.node) else one.codes.T
    table = shaped.reshape(shaped.shape[0], -1) if is_conv(one.node) else shaped.T
    largest = np.abs(rows).argmax(axis=1)
    lines = np.arange(rows.shape[0])
    codes = rows[lines, largest]
    scales: FloatArray = np.where(codes, table[lines, largest] / np.where(codes, codes, 1), 0.0)
    return scales


def _bits_of(codes: Array) -> int:
    """Bits of two's complement that hold all codes; at least 1."""
    least, most = int(codes.min(initial=0)), int(codes.max(initial=0))
    return max(most.bit_length() + 1, (-least - 1).bit_length() + 1 if least else 1)


def _geometry(one: FoundLayer, shape: Sequence[int]) -> ConvGeometry | None:
    """Strides and pads of a convolution; None where they are not plain."""
    node = one.node
    spatial = len(shape) - 2
    kernel = tuple(int(size) for size in one.codes.shape[2:])[-spatial:] if spatial else ()
    pads = resolved_pads(node, kernel, tuple(shape)) if spatial in (1, 2) else None
    if pads is None or min(pads) < 0 or math.prod(shape) == 0:
        return None
    ones = (1,) * spatial
    stride = attribute_ints(node, "strides", ones)
    dilation = attribute_ints(node, "dilations", ones)
    if spatial == 1:
        stride, dilation, pads = (1, *stride), (1, *dilation), (0, pads[0], 0, pads[1])
    return ConvGeometry(
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        group=attribute_int(node, "group", 1),
    )
