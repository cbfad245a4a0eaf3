"""The convolutions and matrix products of a written graph as integers: real codes, real inputs.

Weights are read through the decoder that the graph has for them. Inputs are the codes that the
graph computes; where it computes floats they are quantized here, by their range, to 8 bits, and the
layer says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.core.layers import Skip
from edgecompress.core.samples import Feed
from edgecompress.graph.code_reader import CodeReader
from edgecompress.graph.constants import ConstantTracer
from edgecompress.graph.integer_codes import (
    CONVOLUTIONS,
    SHAPE,
    WIDE,
    ConvGeometry,
    FoundLayer,
    NamedLayer,
    is_conv,
    node_input,
    node_name,
    oriented,
    read_layer,
)
from edgecompress.graph.model import Model
from edgecompress.graph.taps import run_taps
from edgecompress.graph.values import (
    ONNX_DOMAINS,
    attribute_int,
    constant_array,
)

__all__ = [
    "CONVOLUTIONS",
    "SHAPE",
    "WIDE",
    "ConvGeometry",
    "FoundLayer",
    "NamedLayer",
    "find_layer",
    "integer_layers",
    "node_name",
    "read_layer",
]

TWO_ACTIVATIONS = "product of two activations: no weight to read"
UNREADABLE = "the codes of its weight cannot be read"
FLOAT_WEIGHT = "its weight is stored as floats"
TRANSPOSED = "transposed convolution"
SCALED = "a scaled or transposed Gemm"
INSIDE = "zero point that varies inside an output channel"
_MOVES = frozenset(
    {"Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_PRODUCTS = {"Gemm": (0, 1), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
_PLACES = CONVOLUTIONS | _PRODUCTS
_INPUT_ZERO = {"ConvInteger": 2, "MatMulInteger": 2, "QLinearConv": 2, "QLinearMatMul": 2}
_WEIGHT_ZERO = {"ConvInteger": 3, "MatMulInteger": 3, "QLinearConv": 5, "QLinearMatMul": 5}
_OTHER_PRODUCTS = frozenset({"ConvTranspose", "Attention", "Einsum", "GRU", "LSTM", "RNN"})


def integer_layers(
    model: Model, feeds: Iterable[Feed], *, names: Sequence[str] = ()
) -> Iterator[NamedLayer | Skip]:
    """Every convolution and matrix product of the top-level graph, in its order.

    Args:
        model: Loaded with ``normalize=False``: the graph as it is written.
        feeds: Inputs; their samples are put one after the other.
        names: Of the nodes that are wanted; all if empty.

    Yields:
        A layer, or what cannot be one with the reason.

    Raises:
        Unsupported: onnxruntime cannot run the graph.
    """
    found: list[FoundLayer | Skip] = []
    reader, tracer = CodeReader(), ConstantTracer(model.shapes())
    for node in model.ir.graph:
        if names and node_name(node) not in names:
            continue
        one = find_layer(node, reader, tracer)
        if one is not None:
            found.append(one)
    values = _values([one for one in found if isinstance(one, FoundLayer)], model, feeds)
    for one in found:
        yield one if isinstance(one, Skip) else read_layer(one, values)


def find_layer(
    node: ir.Node, reader: CodeReader, tracer: ConstantTracer
) -> FoundLayer | Skip | None:
    """A layer, a reason, or None for what is no product."""
    name = node_name(node)
    if node.op_type in _OTHER_PRODUCTS:
        return Skip(name, TRANSPOSED if node.op_type == "ConvTranspose" else SHAPE, 0)
    if node.op_type not in _PLACES or node.domain not in ONNX_DOMAINS:
        return None
    entering, weight = (node.inputs[place] for place in _PLACES[node.op_type])
    if entering is None or weight is None or all(tracer.is_constant(v) for v in node.inputs):
        return None
    codes = reader.read(weight) if tracer.is_constant(weight) else None
    reason = _why_not(node, codes) if tracer.is_constant(weight) else TWO_ACTIVATIONS
    if codes is None or reason:
        return Skip(name, reason, 0 if codes is None else codes.size)
    codes = codes.astype(np.int64)
    place = _INPUT_ZERO.get(node.op_type)
    stored = tracer.stored(weight)
    return FoundLayer(
        node=node,
        activation=entering,
        weight=weight,
        codes=oriented(node, _less_zero(node, codes)),
        zero=None if place is None else node_input(node, place),
        source=None if node.op_type in _INPUT_ZERO else _dequantizer(entering),
        stored_bits=8 if stored is None else stored.weight_bits,
    )


def _why_not(node: ir.Node, codes: Array | None) -> str:
    """Why an operator with these weight codes is not simulated; empty if it is."""
    if codes is None:
        return UNREADABLE
    if codes.dtype.kind == "f":
        return FLOAT_WEIGHT
    if codes.ndim not in ((3, 4) if is_conv(node) else (2,)):
        return SHAPE
    if node.op_type == "Gemm" and attribute_int(node, "transA", 0):
        return SCALED
    zero = _weight_zero(node)
    outputs = codes.shape[0] if is_conv(node) else codes.shape[-1]
    return INSIDE if zero is not None and zero.size not in (1, outputs) else ""


def _weight_zero(node: ir.Node) -> Array | None:
    place = _WEIGHT_ZERO.get(node.op_type)
    return None if place is None else constant_array(node_input(node, place))


def _less_zero(node: ir.Node, codes: Array) -> Array:
    """Weight codes with the code of zero at 0."""
    zero = _weight_zero(node)
    if zero is None or not zero.any():
        return codes
    flat = zero.reshape(-1).astype(np.int64)
    return codes - (flat.reshape(-1, *[1] * (codes.ndim - 1)) if is_conv(node) else flat)


def _dequantizer(value: ir.Value) -> ir.Node | None:
    """The DequantizeLinear behind a value that has only been moved since, if its scale is one."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES and node.domain in ONNX_DOMAINS:
        entering = node.inputs[0]
        node = None if entering is None else entering.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    scale = constant_array(node.inputs[1])
    zero = constant_array(node_input(node, 2))
    plain = scale is not None and scale.size == 1 and (zero is None or zero.size == 1)
    return node if plain else None


def _values(
    found: Sequence[FoundLayer], model: Model, feeds: Iterable[Feed]
) -> Mapping[str, list[Array]]:
    """What enters every layer, its zero point where it is computed, and computed weights."""
    wanted: dict[str, None] = {}
    for one in found:
        wanted[one.activation.name or ""] = None
        if one.zero is not None and constant_array(one.zero) is None:
            wanted[one.zero.name or ""] = None
        if one.weight.producer() is not None:
            wanted[one.weight.name or ""] = None
    values: dict[str, list[Array]] = {name: [] for name in wanted}
    for arrays in run_taps(model, wanted, feeds) if wanted else ():
        for name, array in zip(wanted, arrays, strict=True):
            values[name].append(array)
    return values
