"""Counts of convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, OperatorWork
from edgecompress.graph.operators import resolved_pads
from edgecompress.graph.values import attribute_int, attribute_ints, attribute_string
from edgecompress.graph.work_scene import Scene

Counted = tuple[OperatorWork, str, ir.Value | None]
"""Counts, what was assumed, and the value that holds the weight."""

DEEP = "convolution over more than two axes: further axes counted as images and channels"
WEIGHT_IS_ACTIVATION = "the kernel of the convolution is computed at run time"
EINSUM = "Einsum that is no matrix product: counted by its index ranges"


def count_product(node: ir.Node, scene: Scene) -> Counted | None:
    """Counts of an operator with multiply-accumulates, and what was assumed; None for others."""
    reader = _READERS.get(node.op_type)
    return None if reader is None else reader(node, scene)


def is_product(node: ir.Node) -> bool:
    """Whether an operator has multiply-accumulates."""
    return node.op_type in _READERS


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _convolution(weight_place: int) -> Callable[[ir.Node, Scene], Counted | None]:
    def read(node: ir.Node, scene: Scene) -> Counted | None:
        entering, weight = node.inputs[0], _input(node, weight_place)
        leaving = node.outputs[0]
        inputs, outputs, kernel = scene.shape(entering), scene.shape(leaving), scene.shape(weight)
        spatial = len(kernel) - 2
        if spatial < 1 or len(inputs) != len(outputs) or len(inputs) != spatial + 2:
            return None
        transposed = node.op_type == "ConvTranspose"
        ones = (1,) * spatial
        pads = resolved_pads(node, kernel[2:], inputs) or (0,) * (2 * spatial)
        depth = max(0, spatial - 2)
        # Axes before the last two: every position is an image, every tap a set of channels.
        images = math.prod((inputs if transposed else outputs)[2 : 2 + depth])
        taps = math.prod(kernel[2 : 2 + depth])
        stored = scene.stored(weight)
        group = attribute_int(node, "group", 1)
        work = ConvWork(
            batch=inputs[0] * images,
            in_channels=inputs[1] * taps,
            out_channels=outputs[1],
            in_height=_last_two(inputs[2:])[0],
            in_width=inputs[-1],
            out_height=_last_two(outputs[2:])[0],
            out_width=outputs[-1],
            kernel=_last_two(kernel[2:]),
            stride=_last_two(attribute_ints(node, "strides", ones)),
            dilation=_last_two(attribute_ints(node, "dilations", ones)),
            pads=_last_pads(pads, spatial),
            group=group,
            transposed=transposed,
            weight_bits=scene.width(weight) if stored is None else stored.weight_bits,
            activation_bits=scene.width(entering),
            weight_storage_bits=scene.bits(weight) if stored is None else stored.storage_bits,
        )
        notes = [DEEP] if depth else []
        notes += [WEIGHT_IS_ACTIVATION] if stored is None else []
        return work, "; ".join(notes), weight if stored is not None else None

    return read


def _last_two(sizes: Shape) -> tuple[int, int]:
    """The last two axes, the first of them 1 where there is one only."""
    return (sizes[-2], sizes[-1]) if len(sizes) > 1 else (1, sizes[-1])


def _last_pads(pads: Shape, spatial: int) -> tuple[int, int, int, int]:
    if spatial == 1:
        return (0, pads[0], 0, pads[1])
    return (pads[spatial - 2], pads[spatial - 1], pads[-2], pads[-1])


def _matrix_product(left: int, right: int) -> Callable[[ir.Node, Scene], Counted | None]:
    def read(node: ir.Node, scene: Scene) -> Counted | None:
        a, b = node.inputs[left], _input(node, right)
        if b is None or a is None:
            return None
        first, second = scene.shape(a), scene.shape(b)
        if not first or not second:  # no product has scalars: the rank is not known
            return None
        if attribute_int(node, "transA", 0):
            first = _swapped(first) if len(first) > 1 else first
        if attribute_int(node, "transB", 0):
            second = _swapped(second) if len(second) > 1 else second
        first = (1, *first) if len(first) < 2 else first
        second = (*second, 1) if len(second) < 2 else second
        if scene.stored(b) is None and scene.stored(a) is not None:
            # The weight is on the left: y^T = x^T W^T is the same work.
            a, b = b, a
            first, second = _swapped(second), _swapped(first)
        work = _product(scene, a, b, first, second)
        return work, "", b if work.constant else None

    return read


def _swapped(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def _product(scene: Scene, a: ir.Value, b: ir.Value, first: Shape, second: Shape) -> MatMulWork:
    """The product of (..., rows, inner) and (..., inner, columns)."""
    stored = scene.stored(b)
    own, others = math.prod(second[:-2]), math.prod(_broadcast(first[:-2], second[:-2]))
    rows = first[-2]
    if own == 1:
        rows, others = rows * others, 1
    repeats = others // own if own and stored is not None else 1
    return MatMulWork(
        count=others,
        rows=rows,
        inner=first[-1],
        columns=second[-1],
        constant=stored is not None,
        repeats=repeats,
        weight_bits=scene.width(b) if stored is None else stored.weight_bits,
        activation_bits=scene.width(a),
        weight_storage_bits=0 if stored is None else stored.storage_bits,
    )


def _broadcast(a: Shape, b: Shape) -> Shape:
    """Shape of two shapes broadcast against each other."""
    longer = max(len(a), len(b))
    a, b = (1,) * (longer - len(a)) + a, (1,) * (longer - len(b)) + b
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


def _einsum(node: ir.Node, scene: Scene) -> Counted | None:
    equation = attribute_string(node, "equation", "").replace(" ", "")
    operands = [value for value in node.inputs if value is not None]
    terms = equation.split("->")[0].split(",")
    output = equation.split("->")[1] if "->" in equation else ""
    sizes: dict[str, int] = {}
    for term, value in zip(terms, operands, strict=False):
        shape = scene.shape(value)
        if "." in term or len(term) != len(shape):
            return None
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    plain = len(operands) == 2 and "->" in equation and all(len(set(t)) == len(t) for t in terms)
    if not plain:
        total = math.prod(sizes.values())
        work = ElementWork(
            operations=2 * total,
            read_bits=scene.read_bits(node),
            written_bits=scene.written_bits(node),
            weight_storage_bits=scene.constant_bits(node),
            activation_bits=scene.width(node.outputs[0]),
        )
        return work, EINSUM, None
    a, b = operands
    left, right = terms
    if scene.stored(b) is None and scene.stored(a) is not None:
        a, b, left, right = b, a, right, left

    def extent(letters: set[str]) -> int:
        return math.prod(sizes[letter] for letter in letters)

    both, kept = set(left) & set(right), set(output)
    first = (extent(both & kept), extent(set(left) - both), extent(both - kept))
    second = (extent(both & kept), extent(both - kept), extent(set(right) - both))
    found = _product(scene, a, b, first, second)
    return found, "", b if found.constant else None


def _packed_product(node: ir.Node, scene: Scene) -> Counted | None:
    """MatMulNBits and MatMulBnb4: the weight is packed in the operator's own form."""
    inner, columns = attribute_int(node, "K", 0), attribute_int(node, "N", 0)
    work = MatMulWork(
        count=1,
        rows=scene.elements(node.inputs[0]) // max(1, inner),
        inner=inner,
        columns=columns,
        constant=True,
        weight_bits=attribute_int(node, "bits", 4),
        activation_bits=scene.width(node.inputs[0]),
        weight_storage_bits=scene.constant_bits(node),
    )
    return work, "", _input(node, 1)


_READERS: dict[str, Callable[[ir.Node, Scene], Counted | None]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _convolution(1),
    "DeformConv": _convolution(1),
    "FusedConv": _convolution(1),
    "QLinearConv": _convolution(3),
    "DynamicQuantizeMatMul": _matrix_product(0, 1),
    "FusedGemm": _matrix_product(0, 1),
    "FusedMatMul": _matrix_product(0, 1),
    "Gemm": _matrix_product(0, 1),
    "GemmFastGelu": _matrix_product(0, 1),
    "MatMul": _matrix_product(0, 1),
    "MatMulInteger": _matrix_product(0, 1),
    "MatMulIntegerToFloat": _matrix_product(0, 1),
    "QGemm": _matrix_product(0, 3),
    "QLinearMatMul": _matrix_product(0, 3),
    "MatMulBnb4": _packed_product,
    "MatMulNBits": _packed_product,
    "Einsum": _einsum,
}
