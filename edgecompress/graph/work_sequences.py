"""Counts of operators that are several: attention and recurrent cells, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.core.arrays import Shape
from edgecompress.core.work import ElementWork, MatMulWork, TensorUse
from edgecompress.graph.constants import StoredWeight
from edgecompress.graph.values import ONNX_DOMAINS, attribute_int, attribute_ints
from edgecompress.graph.work_scene import Part, Scene

MICROSOFT = "com.microsoft"

# Operations per score: scale, mask, and the softmax (largest, difference, exponential of 8, sum and
# division). Source: the definition of Attention in ONNX, functions counted as in `work_elements`.
_SCORE_OPERATIONS = 2 + 4 + 8
# Operations per element of the state: functions of 8 operations, products, sums, biases.
# Source: the equations of LSTM, GRU and RNN in ONNX.
_GATE_OPERATIONS = {"LSTM": 5 * 8 + 4 + 8, "GRU": 3 * 8 + 5 + 6, "RNN": 8 + 3}


def count_sequence(node: ir.Node, scene: Scene) -> tuple[Part, ...] | None:
    """The parts of attention or of a recurrent cell; None for other operators and odd shapes."""
    cell = node.op_type.removeprefix("DynamicQuantize")
    if cell in _GATE_OPERATIONS:
        return _recurrent(node, cell, scene)
    reader = _READERS.get((node.domain if node.domain not in ONNX_DOMAINS else "", node.op_type))
    return None if reader is None else reader(node, scene)


def is_sequence(node: ir.Node) -> bool:
    """Whether an operator is one of those."""
    return node.op_type in {name for _, name in _READERS} | set(_GATE_OPERATIONS)


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _made(node: ir.Node, scene: Scene, part: str, elements: int, width: int) -> TensorUse:
    """An activation between two parts of a node."""
    own = scene.use(node.outputs[0]).name
    return TensorUse(name=f"{own}/{part}", bits=elements * width, width_bits=width)


def _weight(scene: Scene, value: ir.Value | None, stored: StoredWeight | None) -> tuple[int, int]:
    """Width and stored bits of the second operand of a product."""
    if stored is None:
        return scene.width(value), 0
    return stored.weight_bits, stored.storage_bits


# --- recurrent cells -----------------------------------------------------------------------------


def _recurrent(node: ir.Node, cell: str, scene: Scene) -> tuple[Part, ...] | None:
    """The product of all inputs at once, that of the state step by step, and the gates."""
    entering, inner, hidden = node.inputs[0], _input(node, 1), _input(node, 2)
    shape, weights, recurrence = (scene.shape(v) for v in (entering, inner, hidden))
    if len(shape) != 3 or len(weights) != 3 or len(recurrence) != 3:
        return None
    if cell != node.op_type:  # quantized cells keep (directions, in, out)
        weights = (weights[0], weights[2], weights[1])
        recurrence = (recurrence[0], recurrence[2], recurrence[1])
    batch_first = attribute_int(node, "layout", 0) == 1
    steps, batch = (shape[1], shape[0]) if batch_first else (shape[0], shape[1])
    directions, columns, size = weights[0], weights[1], recurrence[2]
    width = scene.width(entering)
    sums = directions * steps * batch * columns
    first = _made(node, scene, "inputs", sums, width)
    second = _made(node, scene, "states", sums, width)
    written = scene.uses(node.outputs)
    steady = scene.uses(node.inputs[3:])
    products = []
    for value, depth, count, rows, repeats in (
        (inner, weights[2], directions, steps * batch, 1),
        (hidden, size, directions * steps, batch, max(1, steps)),
    ):
        stored = scene.stored(value)
        bits, storage = _weight(scene, value, stored)
        products.append(
            MatMulWork(
                count=count,
                rows=rows,
                inner=depth,
                columns=columns,
                constant=stored is not None,
                repeats=repeats,
                weight_bits=bits,
                activation_bits=width,
                weight_storage_bits=storage,
            )
        )
    gates = ElementWork(
        operations=_GATE_OPERATIONS[cell] * directions * steps * batch * size,
        read_bits=first.bits + second.bits,
        written_bits=sum(use.bits for use in written),
        weight_storage_bits=sum(
            stored.storage_bits for v in node.inputs[3:] if (stored := scene.stored(v)) is not None
        ),
        activation_bits=width,
    )
    return (
        Part(
            name="inputs",
            operator=products[0],
            reads=scene.uses([entering]),
            writes=(first,),
            weight=inner,
        ),
        Part(name="states", operator=products[1], reads=steady, writes=(second,), weight=hidden),
        Part(name="gates", operator=gates, reads=(first, second), writes=written),
    )


# --- attention -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """Sizes of an attention: ``groups`` heads share a key and a value each."""

    batch: int
    groups: int
    key_heads: int
    rows: int
    length: int
    size: int
    value_size: int


def _attend(
    node: ir.Node, scene: Scene, heads: _Heads, entering: tuple[TensorUse, ...]
) -> tuple[Part, ...]:
    """Scores, their softmax, and the products with the values."""
    width = scene.width(node.inputs[0])
    count, rows = heads.batch * heads.key_heads, heads.groups * heads.rows
    elements = count * rows * heads.length
    scores = _made(node, scene, "scores", elements, width)
    shares = _made(node, scene, "shares", elements, width)
    products = [
        MatMulWork(
            count=count,
            rows=rows,
            inner=inner,
            columns=columns,
            constant=False,
            weight_bits=width,
            activation_bits=width,
        )
        for inner, columns in ((heads.size, heads.length), (heads.length, heads.value_size))
    ]
    softmax = ElementWork(
        operations=_SCORE_OPERATIONS * elements,
        read_bits=scores.bits,
        written_bits=shares.bits,
        activation_bits=width,
    )
    return (
        Part(name="scores", operator=products[0], reads=entering, writes=(scores,)),
        Part(name="softmax", operator=softmax, reads=(scores,), writes=(shares,)),
        Part(
            name="values",
            operator=products[1],
            reads=(shares, *entering),
            writes=scene.uses(node.outputs),
        ),
    )


def _onnx_attention(node: ir.Node, scene: Scene) -> tuple[Part, ...] | None:
    """Attention of opset 23: Q, K, V, mask, past key, past value."""
    if len(node.inputs) < 3:
        return None
    query, key, value = (scene.shape(v) for v in node.inputs[:3])
    if not len(query) == len(key) == len(value) or len(query) not in (3, 4):
        return None
    if len(query) == 3:
        heads = attribute_int(node, "q_num_heads", 1)
        shared = attribute_int(node, "kv_num_heads", heads)
        query, key, value = _split(query, heads), _split(key, shared), _split(value, shared)
    past = scene.shape(_input(node, 4))
    return _attend(
        node,
        scene,
        _Heads(
            batch=query[0],
            groups=max(1, query[1] // max(1, key[1])),
            key_heads=key[1],
            rows=query[2],
            length=key[2] + (past[2] if len(past) == 4 else 0),
            size=query[3],
            value_size=value[3],
        ),
        scene.uses(node.inputs),
    )


def _split(shape: Shape, heads: int) -> Shape:
    """(batch, rows, heads x size) as (batch, heads, rows, size)."""
    return (shape[0], heads, shape[1], shape[2] // max(1, heads))


def _multi_head(node: ir.Node, scene: Scene) -> tuple[Part, ...] | None:
    """MultiHeadAttention: query, key, value (or all in one tensor of five axes), past at 6."""
    query, key, value = (scene.shape(_input(node, place)) for place in range(3))
    heads = attribute_int(node, "num_heads", 1)
    if len(query) == 5:
        batch, rows, size = query[0], query[1], query[4]
        length, value_size = rows, size
    elif len(query) == 3:
        batch, rows, size = query[0], query[1], query[2] // max(1, heads)
        length = key[2] if len(key) == 4 else key[1] if len(key) > 1 else rows
        value_size = value[2] // max(1, heads) if len(value) == 3 else size
    else:
        return None
    past = scene.shape(_input(node, 6))
    sizes = _Heads(
        batch=batch,
        groups=1,
        key_heads=heads,
        rows=rows,
        length=length + (past[2] if len(past) == 4 else 0),
        size=size,
        value_size=value_size,
    )
    return _attend(node, scene, sizes, scene.uses(node.inputs))


def _group_query(node: ir.Node, scene: Scene) -> tuple[Part, ...] | None:
    """GroupQueryAttention: query, key, value, past key, past value; packed without a key."""
    query, key = scene.shape(node.inputs[0]), scene.shape(_input(node, 1))
    heads = attribute_int(node, "num_heads", 1)
    shared = max(1, attribute_int(node, "kv_num_heads", heads))
    if len(query) != 3:
        return None
    packed = len(key) != 3
    size = query[2] // max(1, heads + 2 * shared if packed else heads)
    past = scene.shape(_input(node, 3))
    present = scene.shape(node.outputs[1]) if len(node.outputs) > 1 else ()
    rows = query[1]
    length = rows if packed else key[1]
    length += past[2] if len(past) == 4 else 0
    if len(present) == 4 and not scene.is_open(node.outputs[1]):
        length = present[2]
    sizes = _Heads(
        batch=query[0],
        groups=max(1, heads // shared),
        key_heads=shared,
        rows=rows,
        length=length,
        size=size,
        value_size=size,
    )
    return _attend(node, scene, sizes, scene.uses(node.inputs))


def _projected(past_place: int) -> Callable[[ir.Node, Scene], tuple[Part, ...] | None]:
    """Attention of com.microsoft: the projection to queries, keys and values is part of it."""

    def read(node: ir.Node, scene: Scene) -> tuple[Part, ...] | None:
        entering, weight = scene.shape(node.inputs[0]), scene.shape(_input(node, 1))
        if len(entering) != 3 or len(weight) != 2:
            return None
        heads = max(1, attribute_int(node, "num_heads", 1))
        third = weight[1] // 3
        sizes = attribute_ints(node, "qkv_hidden_sizes", (third, third, third))
        past = scene.shape(_input(node, past_place))
        rows, width = entering[1], scene.width(node.inputs[0])
        stored = scene.stored(node.inputs[1])
        bits, storage = _weight(scene, node.inputs[1], stored)
        projection = MatMulWork(
            count=1,
            rows=entering[0] * rows,
            inner=weight[0],
            columns=weight[1],
            constant=stored is not None,
            weight_bits=bits,
            activation_bits=width,
            weight_storage_bits=storage,
        )
        made = _made(node, scene, "projected", entering[0] * rows * weight[1], width)
        geometry = _Heads(
            batch=entering[0],
            groups=1,
            key_heads=heads,
            rows=rows,
            length=rows + (past[3] if len(past) == 5 else 0),
            size=sizes[0] // heads,
            value_size=sizes[2] // heads,
        )
        first = Part(
            name="projection",
            operator=projection,
            reads=scene.uses(node.inputs[:1]),
            writes=(made,),
            weight=node.inputs[1],
        )
        others = scene.uses(node.inputs[2:])
        return (first, *_attend(node, scene, geometry, (made, *others)))

    return read


_READERS: dict[tuple[str, str], Callable[[ir.Node, Scene], tuple[Part, ...] | None]] = {
    ("", "Attention"): _onnx_attention,
    (MICROSOFT, "Attention"): _projected(4),
    (MICROSOFT, "QAttention"): _projected(8),
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "GroupQueryAttention"): _group_query,
}
