"""Counts of operators without a matrix product: arithmetic per element, and what they move."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgecompress.core.work import ElementWork
from edgecompress.graph.values import ONNX_DOMAINS, attribute_ints
from edgecompress.graph.work_scene import BOUNDS, Scene

DATA_DEPENDENT = "its output size depends on the data: counted as for zeros"
SHAPES_ONLY = "works on shapes only: done before the network runs"
UNKNOWN = "unknown operator {name}: counted as bound by memory, one operation per element"

# Operations per element of the output. One for what is one instruction on most devices; 8 for a
# function that is a short polynomial or a table with interpolation.
# Source: assumed; devices that have more exact figures differ by less than the memory traffic.
_SIMPLE, _FUNCTION = 1, 8

_FREE = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size"}
)
_MOVES = frozenset(
    [
        "Compress",
        "Concat",
        "ConstantOfShape",
        "CenterCropPad",
        "DepthToSpace",
        "Expand",
        "EyeLike",
        "Gather",
        "GatherElements",
        "GatherND",
        "NonZero",
        "OneHot",
        "Pad",
        "Range",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "Scatter",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "TensorScatter",
        "Transpose",
        "Trilu",
        "Unique",
        "Where",
        "CastLike",
        "Cast",
        "BitCast",
        "ConcatFromSequence",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SplitToSequence",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
    ]
)
_DATA_DEPENDENT = frozenset({"Compress", "NonZero", "Unique", "NonMaxSuppression"})
_SIMPLE_OPS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "Clip",
        "Div",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Reciprocal",
        "Relu",
        "Round",
        "Shrink",
        "Sign",
        "Sqrt",
        "Sub",
        "Sum",
        "ThresholdedRelu",
        "Xor",
        "DequantizeLinear",
        "QuantizeLinear",
    ]
)
_FUNCTIONS = frozenset(
    [
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Celu",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "Log",
        "Mish",
        "Pow",
        "Selu",
        "Sigmoid",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Swish",
        "Tan",
        "Tanh",
    ]
)
_PER_INPUT = {
    "ArgMax": 1,
    "ArgMin": 1,
    "BatchNormalization": 2,
    "CumProd": 1,
    "CumSum": 1,
    "DynamicQuantizeLinear": 4,
    "GlobalAveragePool": 1,
    "GlobalLpPool": 2,
    "GlobalMaxPool": 1,
    "GroupNormalization": 5,
    "Hardmax": 2,
    "InstanceNormalization": 5,
    "LayerNormalization": 5,
    "LogSoftmax": 3 + _FUNCTION,
    "LpNormalization": 3,
    "MeanVarianceNormalization": 5,
    "ReduceL1": 1,
    "ReduceL2": 2,
    "ReduceLogSum": 1,
    "ReduceLogSumExp": 1 + _FUNCTION,
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 2,
    "RMSNormalization": 3,
    "RotaryEmbedding": 3,
    "Softmax": 3 + _FUNCTION,
}
_SUMS = frozenset({"Add", "Mul", "Sub", "Sum"})
_PER_OUTPUT = {"Resize": 8, "Upsample": 8, "GridSample": 8, "LRN": 8}
_POOLS = frozenset({"AveragePool", "MaxPool", "LpPool"})
_ONE_TO_ONE = (_SIMPLE_OPS | _FUNCTIONS | {"Cast", "CastLike", "BatchNormalization"}) - {
    "Max",
    "Mean",
    "Min",
    "Sum",
    "Where",
}


def count_elements(node: ir.Node, scene: Scene) -> tuple[ElementWork, str]:
    """Counts of an operator, and what was assumed."""
    outputs = sum(scene.elements(value) for value in node.outputs if value.name)
    inputs = sum(scene.elements(value) for value in scene.activations(node))
    standard = node.domain in ONNX_DOMAINS
    name = node.op_type if standard else ""
    assumed = ""
    movement = name in _MOVES
    match name:
        case _ if name in _FREE or movement:
            operations = 0
        case _ if name in _SIMPLE_OPS:
            operations = _SIMPLE * max(outputs, inputs if len(scene.activations(node)) > 2 else 0)
        case _ if name in _FUNCTIONS:
            operations = _FUNCTION * outputs
        case _ if name in _PER_INPUT:
            operations = _PER_INPUT[name] * scene.elements(node.inputs[0])
        case _ if name in _PER_OUTPUT:
            operations = _PER_OUTPUT[name] * outputs
        case _ if name in _POOLS:
            window = math.prod(attribute_ints(node, "kernel_shape", (1,)))
            operations = window * scene.elements(node.outputs[0])
        case _:
            operations = max(inputs, outputs)
            assumed = UNKNOWN.format(name="::".join(filter(None, (node.domain, node.op_type))))
    if name in _DATA_DEPENDENT:
        assumed = DATA_DEPENDENT
    free = name in _FREE
    if not free and _is_shape_arithmetic(node, scene):
        free, assumed = True, SHAPES_ONLY
    work = ElementWork(
        operations=operations,
        read_bits=_read_bits(node, scene, name),
        written_bits=0 if name in _FREE else scene.written_bits(node),
        weight_storage_bits=0 if name in _FREE else _constant_bits(node, scene, name),
        movement=movement,
        free=free,
        fused=standard and _is_fused(node, scene),
        activation_bits=_widest(node, scene),
    )
    return work, assumed


def note_results(node: ir.Node, scene: Scene, *, product: bool, fused: bool) -> None:
    """Remember what a node makes of shapes only, and results that can still be changed for free."""
    if _is_shape_arithmetic(node, scene):
        scene.shape_values.update(node.outputs)
    quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
    for value in node.outputs:
        single = len(value.uses()) == 1 and not value.is_graph_output()
        bounded = node.op_type in _SUMS and any(use.node.op_type in BOUNDS for use in value.uses())
        if (single and (product or fused or bounded)) or (fused and quantizes):
            scene.written.add(value)


def _read_bits(node: ir.Node, scene: Scene, name: str) -> int:
    """Activations read; a part that is picked counts as itself."""
    if name in _FREE:
        return 0
    picked = {"Gather", "GatherElements", "GatherND", "Slice", "Compress"}
    if name in picked and node.inputs[0] in scene.activations(node):
        data = node.inputs[0]
        rest = scene.read_bits(node) - scene.bits(data)
        return rest + min(scene.bits(data), scene.elements(node.outputs[0]) * scene.width(data))
    return scene.read_bits(node)


def _constant_bits(node: ir.Node, scene: Scene, name: str) -> int:
    """Stored constants read; of an embedding table the rows that are looked up."""
    table = scene.stored(node.inputs[0]) if name == "Gather" and node.inputs else None
    if table is None:
        return scene.constant_bits(node)
    rows = scene.elements(node.outputs[0]) / max(1, math.prod(table.shape))
    return math.ceil(table.storage_bits * min(1.0, rows))


def _widest(node: ir.Node, scene: Scene) -> int:
    """Width of the elements that a node works on."""
    values = [*scene.activations(node)[:1], *node.outputs[:1]]
    return max((scene.width(value) for value in values), default=32)


def _is_shape_arithmetic(node: ir.Node, scene: Scene) -> bool:
    """Whether a node works on shapes only; those are known before the network runs."""
    if node.op_type in ("Shape", "Size"):
        return True
    entering = scene.activations(node)
    return bool(entering) and all(value in scene.shape_values for value in entering)


def _is_fused(node: ir.Node, scene: Scene) -> bool:
    """Whether the node only changes results while they are written.

    Element-wise operators with one activation right after a product, or after such an operator;
    a bound such as Relu after a sum of two activations; and the quantize/dequantize pair, which
    says in what form a result is kept.
    """
    entering = scene.activations(node)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and entering:
        return entering[0].producer() is not None
    if node.op_type not in _ONE_TO_ONE or not entering:
        return False
    main = max(entering, key=scene.elements)
    small = [value for value in entering if value is not main]
    return main in scene.written and all(
        scene.elements(value) <= 1 or _is_scale(value, scene) for value in small
    )


def _is_scale(value: ir.Value, scene: Scene) -> bool:
    """Whether a value is one number per channel."""
    shape = scene.shape(value)
    return sum(size > 1 for size in shape) <= 1 and scene.elements(value) <= 1 << 16
