"""Reads the operators that hold weights: stage, layout, bias, shapes and multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.core.arrays import Array, Shape
from edgecompress.core.stages import Conv, Embedding, MatMul, Recurrent, WeightStage
from edgecompress.core.tensors import Dense
from edgecompress.graph.layout import Layout, Order
from edgecompress.graph.values import (
    OpenShape,
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_string,
    constant_array,
    shape_of,
)

Shapes = Mapping[str, OpenShape]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One weight of one node.

    Attributes:
        stage: With the weight in canonical order.
        layout: Of the weight in the graph.
        weight_index, activation_index: Inputs of the node.
        activation: What enters the layer.
        bias, bias_factor: Constant bias of the node itself.
        frozen: As in `Layer`.
        suffix: Tells the weights of one node apart.
        left: ``W x``.
        weight_users: Inputs of this node that are the weight.
    """

    stage: WeightStage
    layout: Layout = field(default_factory=Layout)
    weight_index: int
    activation: ir.Value
    activation_index: int = 0
    bias: ir.Value | None = None
    bias_factor: float = 1.0
    frozen: str = ""
    suffix: str = ""
    left: bool = False
    weight_users: tuple[int, ...] = ()


def weight_inputs(node: ir.Node) -> tuple[int, ...]:
    """Which inputs of a node can be a weight."""
    match node.op_type:
        case "Conv" | "ConvTranspose" | "Gemm":
            return (1,)
        case "MatMul":
            return (1, 0)
        case "Gather":
            return (0,)
        case _:
            return (1, 2)


def read(node: ir.Node, index: int, shapes: Shapes) -> Reading | str:
    """The layer at one input of a node, or why there is none (empty: nothing to say)."""
    values = constant_array(node.inputs[index])
    if values is None:
        return ""
    match node.op_type:
        case "Conv" | "ConvTranspose":
            return _convolution(node, values, shapes)
        case "Gemm":
            return _gemm(node, values)
        case "MatMul":
            return _matmul(node, index, values)
        case "Gather":
            return _gather(node, values)
        case _:
            return _recurrent(node, index, values)


def _convolution(node: ir.Node, values: Array, shapes: Shapes) -> Reading | str:
    spatial = values.ndim - 2
    group = attribute_int(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    activation = node.inputs[0]
    if activation is None or spatial < 1 or group < 1 or values.shape[0] % group:
        return "weight, group and input of the convolution do not fit"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and constant_array(bias) is None:
        return "its bias is computed at run time"
    pads = resolved_pads(node, values.shape[2:], shape_of(activation, shapes))
    if pads is None:
        return "automatic padding with an open input size"
    layout = Layout(order=Order.TRANSPOSED_CONVOLUTION, group=group) if transposed else Layout()
    ones = (1,) * spatial
    stage = Conv(
        weight=Dense(layout.to_canonical(values)),
        stride=attribute_ints(node, "strides", ones),
        pads=pads,
        dilation=attribute_ints(node, "dilations", ones),
        group=group,
        transposed=transposed,
    )
    return Reading(stage=stage, layout=layout, weight_index=1, activation=activation, bias=bias)


def resolved_pads(node: ir.Node, kernel: Shape, entering: OpenShape | None) -> Shape | None:
    """Explicit pads of a convolution, begins then ends; None if they depend on an open size.

    The output padding of a transposed convolution is taken off its end pads, which can become
    negative.
    """
    spatial = len(kernel)
    mode = attribute_string(node, "auto_pad", "NOTSET")
    transposed = node.op_type == "ConvTranspose"
    if mode == "VALID":
        pads = (0,) * (2 * spatial)
    elif mode == "NOTSET" and "output_shape" not in node.attributes:
        pads = attribute_ints(node, "pads", (0,) * (2 * spatial))
    else:
        totals = _total_pads(node, kernel, entering)
        if totals is None:
            return None
        small = tuple(total // 2 for total in totals)
        large = tuple(total - half for total, half in zip(totals, small, strict=True))
        # Where the odd one goes: SAME_UPPER at the end, except that ConvTranspose's output_shape
        # puts it at the end only for SAME_UPPER too and at the beginning otherwise.
        at_end = mode == "SAME_UPPER"
        pads = small + large if at_end else large + small
    if not transposed:
        return pads
    extra = attribute_ints(node, "output_padding", (0,) * spatial)
    ends = tuple(end - more for end, more in zip(pads[spatial:], extra, strict=True))
    return pads[:spatial] + ends


def _total_pads(node: ir.Node, kernel: Shape, entering: OpenShape | None) -> Shape | None:
    ones = (1,) * len(kernel)
    stride = attribute_ints(node, "strides", ones)
    dilation = attribute_ints(node, "dilations", ones)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if node.op_type == "Conv" and all(s == 1 for s in stride):
        return tuple(size - 1 for size in reach)
    sizes = (entering or ())[2:]
    known = [size for size in sizes if size is not None]
    if len(known) != len(kernel):
        return None
    if node.op_type == "Conv":
        outputs = [math.ceil(size / s) for size, s in zip(known, stride, strict=True)]
        return tuple(
            max(0, (out - 1) * s + r - size)
            for out, s, r, size in zip(outputs, stride, reach, known, strict=True)
        )
    wanted = attribute_ints(
        node, "output_shape", tuple(size * s for size, s in zip(known, stride, strict=True))
    )[-len(kernel) :]
    extra = attribute_ints(node, "output_padding", (0,) * len(kernel))
    return tuple(
        max(0, s * (size - 1) + e + r - out)
        for s, size, e, r, out in zip(stride, known, extra, reach, wanted, strict=True)
    )


def _gemm(node: ir.Node, values: Array) -> Reading | str:
    alpha = attribute_float(node, "alpha", 1.0)
    activation = node.inputs[0]
    if activation is None or constant_array(activation) is not None:
        return "a product of constants"
    if attribute_int(node, "transA", 0):
        return "Gemm with a transposed activation"
    if alpha == 0.0:
        return "Gemm with alpha 0"
    order = Order.CANONICAL if attribute_int(node, "transB", 0) else Order.TRANSPOSED
    layout = Layout(order=order, factor=alpha)
    weight = layout.to_canonical(values)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        vector = constant_array(bias)
        if vector is None:
            return "its bias is computed at run time"
        last = vector.shape[-1] if vector.ndim else 1
        if vector.size != last or last not in (1, weight.shape[0]):
            return "its bias is a matrix"
    return Reading(
        stage=MatMul(weight=Dense(weight)),
        layout=layout,
        weight_index=1,
        activation=activation,
        bias=bias,
        bias_factor=attribute_float(node, "beta", 1.0),
    )


def _matmul(node: ir.Node, index: int, values: Array) -> Reading | str:
    activation = node.inputs[1 - index]
    if activation is None or constant_array(activation) is not None:
        return "a product of constants"
    if values.ndim != 2:
        return f"a product with a constant of {values.ndim} axes"
    left = index == 0
    layout = Layout(order=Order.CANONICAL if left else Order.TRANSPOSED)
    return Reading(
        stage=MatMul(weight=Dense(layout.to_canonical(values))),
        layout=layout,
        weight_index=index,
        activation=activation,
        activation_index=1 - index,
        frozen="the constant is on the left" if left else "",
        left=left,
    )


def _gather(node: ir.Node, values: Array) -> Reading | str:
    activation = node.inputs[1]
    if activation is None or constant_array(activation) is not None:
        return "a constant part of a constant table" if values.size > 16 else ""
    if values.ndim != 2 or attribute_int(node, "axis", 0) not in (0, -2):
        return "Gather from a constant that is not a table of rows" if values.size > 16 else ""
    return Reading(
        stage=Embedding(weight=Dense(values)),
        weight_index=0,
        activation=activation,
        activation_index=1,
        frozen="an embedding table",
    )


def _recurrent(node: ir.Node, index: int, values: Array) -> Reading | str:
    activation = node.inputs[0]
    if activation is None or values.ndim != 3:
        return "weight and input of the recurrent cell do not fit"
    return Reading(
        stage=Recurrent(weight=Dense(values), kind=node.op_type),
        weight_index=index,
        activation=activation,
        frozen="a recurrent cell",
        suffix="/W" if index == 1 else "/R",
    )


def canonical_shape(shape: OpenShape, *, left: bool) -> OpenShape:
    """Shape of an activation in canonical order."""
    return (*shape[:-2], shape[-1], shape[-2]) if left and len(shape) >= 2 else shape


def macs(node: ir.Node, reading: Reading, shapes: Shapes) -> int | None:
    """Multiply-accumulates of one inference; an open first axis counts as 1."""
    entering = shape_of(reading.activation, shapes)
    leaving = shape_of(node.outputs[0], shapes) if node.outputs else None
    weight = reading.stage.weight.shape
    match reading.stage:
        case Embedding():
            return 0
        case Conv(transposed=True):
            positions = _positions(entering, 2)
        case Conv():
            positions = _positions(leaving, 2)
        case Recurrent():
            # (seq, batch, in): both count as positions; an open batch counts as 1.
            positions = (
                None
                if entering is None or len(entering) != 3
                else _product((entering[0], 1 if entering[1] is None else entering[1]))
            )
        case MatMul():
            positions = _matmul_positions(entering, left=reading.left)
    return None if positions is None else positions * int(np.prod(weight, dtype=np.int64))


def _positions(shape: OpenShape | None, first: int) -> int | None:
    if not shape or len(shape) < first:
        return None
    return _product((1 if shape[0] is None else shape[0], *shape[first:]))


def _matmul_positions(shape: OpenShape | None, *, left: bool) -> int | None:
    if not shape:
        return None
    rest = canonical_shape(shape, left=left)[:-1]
    return _product((1 if rest[0] is None else rest[0], *rest[1:])) if rest else 1


def _product(sizes: OpenShape) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
