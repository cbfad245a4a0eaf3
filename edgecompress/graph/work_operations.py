"""Arithmetic of operators without a matrix product: operations by kind of operator."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgecompress.graph.values import ONNX_DOMAINS, attribute_int, attribute_ints
from edgecompress.graph.work_scene import Scene
from edgecompress.graph.work_sequences import MICROSOFT

# Operations per element of the output. One for what is one instruction on most devices; 8 for a
# function that is a short polynomial or a table with interpolation.
# Source: assumed; devices that have more exact figures differ by less than the memory traffic.
_SIMPLE, _FUNCTION = 1, 8

FREE = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size"}
)
MOVES = frozenset(
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
        "GatherBlockQuantized",
        "Im2Col",
        "MaxUnpool",
        "QLinearConcat",
        "QLinearWhere",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ]
)
DATA_DEPENDENT_SIZES = frozenset({"Compress", "NonZero", "Unique", "NonMaxSuppression"})
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
        "QLinearAdd",
        "QLinearLeakyRelu",
        "QLinearMul",
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
        "BiasGelu",
        "FastGelu",
        "QLinearSigmoid",
        "QuickGelu",
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
    "BiasSoftmax": 4 + _FUNCTION,
    "Col2Im": 1,
    "EmbedLayerNormalization": 7,
    "MaxRoiPool": 1,
    "QLinearGlobalAveragePool": 1,
    "QLinearReduceMean": 1,
    "QLinearSoftmax": 3 + _FUNCTION,
    "SimplifiedLayerNormalization": 3,
    "SkipLayerNormalization": 6,
    "SkipSimplifiedLayerNormalization": 4,
}
SUMS = frozenset({"Add", "Mul", "QLinearAdd", "QLinearMul", "Sub", "Sum"})
_PER_OUTPUT = {"Resize": 8, "Upsample": 8, "GridSample": 8, "LRN": 8, "AffineGrid": 6}
_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool", "NhwcMaxPool", "QLinearAveragePool"})
_LOGARITHMIC = {"DFT": 5, "STFT": 5, "TopK": 1}
ONE_TO_ONE = (_SIMPLE_OPS | _FUNCTIONS | {"Cast", "CastLike", "BatchNormalization"}) - {
    "Max",
    "Mean",
    "Min",
    "Sum",
    "Where",
}


def known_name(node: ir.Node) -> str:
    """Type of an operator of ONNX or onnxruntime; empty for those of others."""
    return node.op_type if node.domain in (*ONNX_DOMAINS, MICROSOFT) else ""


def count_operations(node: ir.Node, scene: Scene) -> int | None:
    """Operations of a node; None if nothing is known about it."""
    name = known_name(node)
    outputs = sum(scene.elements(value) for value in node.outputs if value.name)
    if name in FREE or name in MOVES:
        return 0
    if name in _SIMPLE_OPS:
        entering = scene.activations(node)
        inputs = sum(scene.elements(value) for value in entering) if len(entering) > 2 else 0
        return _SIMPLE * max(outputs, inputs)
    if name in _FUNCTIONS:
        return _FUNCTION * outputs
    if name in _PER_INPUT:
        return _PER_INPUT[name] * scene.elements(node.inputs[0])
    if name in _PER_OUTPUT:
        return _PER_OUTPUT[name] * outputs
    return _windowed(node, name, outputs, scene)


def _windowed(node: ir.Node, name: str, outputs: int, scene: Scene) -> int | None:
    """Operators whose operations depend on more than the number of elements."""
    if name in _POOLS:
        window = math.prod(attribute_ints(node, "kernel_shape", (1,)))
        return window * scene.elements(node.outputs[0])
    if name in _LOGARITHMIC:
        return _logarithmic(node, scene)
    if name == "RoiAlign":
        samples = max(1, attribute_int(node, "sampling_ratio", 0)) ** 2
        return _PER_OUTPUT["Resize"] * samples * outputs
    return None


def _logarithmic(node: ir.Node, scene: Scene) -> int:
    """Operations of a sort, or of a Fourier transform as a fast one.

    Source: n log2 n comparisons of a merge sort; 5 n log2 n operations of a radix-2 transform
    (Cooley and Tukey 1965).
    """
    each = _LOGARITHMIC[node.op_type]
    if node.op_type == "STFT":  # (batch, frames, bins, 2): a transform of the length for each frame
        shape = scene.shape(node.outputs[0])
        frame = scene.shape(node.inputs[2])[:1] if len(node.inputs) > 2 and node.inputs[2] else ()
        length = frame[0] if frame else 2 * (shape[2] if len(shape) == 4 else 1)
        count = (shape[0] * shape[1] if len(shape) == 4 else 1) * length
    else:
        shape = scene.shape(node.inputs[0])
        count = scene.elements(node.inputs[0])
        axis = attribute_int(node, "axis", 1 if node.op_type == "DFT" else -1)
        length = shape[axis] if -len(shape) <= axis < len(shape) else count
    return each * count * max(1, length - 1).bit_length()
