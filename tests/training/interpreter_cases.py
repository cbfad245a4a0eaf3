"""Small graphs with one operator each, as ONNX text, and values to run them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecompress.core.report import FileFact
from edgecompress.graph.model import Model
from edgecompress.training.interpreter.interpreter import Interpreter

Array = NDArray[Any]
NO_FILE = FileFact(path="", sha256="", size_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A graph with output ``y``.

    Attributes:
        inputs: In ONNX text.
        body: Nodes in ONNX text.
        opset: Of the main domain.
        around: Middle of the input values; ``half``: half of their range.
        given: Inputs that are not drawn.
    """

    inputs: str
    body: str
    opset: int = 21
    around: float = 0.0
    half: float = 2.0
    given: Mapping[str, Array] | None = None

    def proto(self) -> onnx.ModelProto:
        """The model; the type of its outputs is left open but for the kind of number."""
        text = (
            f'<ir_version: 10, opset_import: ["" : {self.opset}, "com.microsoft" : 1]>'
            f" graph ({self.inputs}) => (float y) {{ {self.body} }}"
        )
        proto = onnx.parser.parse_model(text)
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        return proto

    def feed(self, seed: int = 0) -> dict[str, Array]:
        """Values of the inputs: evenly spaced, in a random order, so that no two are equal and
        none is at a corner of an activation function."""
        rng = np.random.default_rng(seed)
        feed: dict[str, Array] = {}
        for place, value in enumerate(self.proto().graph.input):
            if self.given and value.name in self.given:
                feed[value.name] = np.asarray(self.given[value.name])
                continue
            shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            places = (rng.permutation(count) + 0.27 + 0.13 * place) / count * 2 - 1
            values = self.around + self.half * places
            feed[value.name] = values.reshape(shape).astype(np.float32)
        return feed


def model_of(proto: onnx.ModelProto) -> Model:
    """A model without a file."""
    return Model(ir.from_proto(proto), NO_FILE)


def model_from(text: str) -> Model:
    """A model from ONNX text."""
    return model_of(onnx.parser.parse_model(text))


def tensors(feed: Mapping[str, Array], kind: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Arrays as tensors; floats in a type."""
    found = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
    return {name: v.to(kind) if v.is_floating_point() else v for name, v in found.items()}


def run(proto: onnx.ModelProto, feed: Mapping[str, Array], **settings: Any) -> list[Array]:
    """Outputs of the interpreter."""
    interpreter = Interpreter(model_of(proto), **settings)
    with torch.no_grad():
        found = interpreter(tensors(feed))
    return [value.numpy() for value in found.values()]


def unary(name: str, around: float = 0.0, half: float = 2.0, opset: int = 21) -> Case:
    """An operator of one input, attributes in its name if any."""
    head, _, attributes = name.partition(" ")
    body = f"y = {head} {attributes} (x)"
    return Case(inputs="float[2,3,4] x", body=body, around=around, half=half, opset=opset)


def _conv(attributes: str, w: str = "3,2,3,3", x: str = "1,2,6,5", bias: bool = True) -> Case:
    kind, more = ("Conv", f"<{attributes}>")
    out = w.split(",", maxsplit=1)[0]
    inputs = f"float[{x}] x, float[{w}] w" + (f", float[{out}] b" if bias else "")
    return Case(inputs=inputs, body=f"y = {kind} {more} (x, w{', b' if bias else ''})")


def _transposed(attributes: str, w: str = "2,3,3,3", x: str = "1,2,4,3", out: int = 3) -> Case:
    inputs = f"float[{x}] x, float[{w}] w, float[{out}] b"
    return Case(inputs=inputs, body=f"y = ConvTranspose <{attributes}> (x, w, b)")


def _pool(kind: str, attributes: str, x: str = "1,2,7,6", opset: int = 22) -> Case:
    return Case(inputs=f"float[{x}] x", body=f"y = {kind} <{attributes}> (x)", opset=opset)


def _reduced(kind: str, axes: str, keep: int, around: float = 0.0) -> Case:
    body = f"a = Constant <value_ints = [{axes}]> () y = {kind} <keepdims = {keep}> (x, a)"
    return Case(inputs="float[2,3,4] x", body=body, around=around)


def _resized(attributes: str, sizes: str, x: str = "1,2,4,5") -> Case:
    body = f"s = Constant <value_ints = [{sizes}]> () y = Resize <{attributes}> (x, , , s)"
    return Case(inputs=f"float[{x}] x", body=body)


def _recurrent(kind: str, gates: int, attributes: str = "", directions: int = 1) -> Case:
    d = directions
    inputs = (
        f"float[3,2,3] x, float[{d},{gates * 2},3] w, float[{d},{gates * 2},2] r,"
        f" float[{d},{gates * 4}] b, float[{d},2,2] h"
    )
    arguments = "x, w, r, b, , h"
    if kind == "LSTM":
        inputs += f", float[{d},2,2] c, float[{d},6] p"
        arguments += ", c, p"
    attributes = f"hidden_size = 2{', ' if attributes else ''}{attributes}"
    return Case(inputs=inputs, body=f"y, last = {kind} <{attributes}> ({arguments})", half=1.0)


def _indexed(body: str, inputs: str = "float[4,3] x", opset: int = 21) -> Case:
    return Case(inputs=inputs, body=body, opset=opset)


CASES: dict[str, Case] = {
    **{name: unary(name) for name in ("Abs", "Atan", "Cos", "Erf", "Exp", "Neg", "Sin", "Tanh")},
    **{name: unary(name) for name in ("Asinh", "Cosh", "Sinh", "Identity", "Relu", "Sigmoid")},
    **{name: unary(name) for name in ("Softplus", "Softsign", "Mish", "Selu", "HardSwish")},
    **{name: unary(name, around=2.0, half=1.8) for name in ("Log", "Sqrt", "Reciprocal")},
    **{name: unary(name, half=0.9) for name in ("Acos", "Asin", "Atanh", "Tan")},
    "Acosh": unary("Acosh", around=3.0, half=1.5),
    "Elu": unary("Elu <alpha = 0.7>"),
    "Celu": unary("Celu <alpha = 0.7>"),
    "LeakyRelu": unary("LeakyRelu <alpha = 0.3>"),
    "ThresholdedRelu": unary("ThresholdedRelu <alpha = 0.7>"),
    "HardSigmoid": unary("HardSigmoid <alpha = 0.6, beta = 0.4>"),
    "Gelu": unary("Gelu"),
    "Gelu-tanh": unary('Gelu <approximate = "tanh">'),
    "Shrink": unary("Shrink <bias = 0.3, lambd = 0.9>"),
    "Softmax": unary("Softmax <axis = 1>"),
    "Softmax-12": unary("Softmax <axis = 1>", opset=12),
    "LogSoftmax": unary("LogSoftmax <axis = -1>"),
    "Clip": Case(
        inputs="float[9] x",
        body="l = Constant <value_float = -0.5> () h = Constant <value_float = 0.9> ()"
        " y = Clip (x, l, h)",
    ),
    "Clip-6": Case(inputs="float[9] x", body="y = Clip <min = -0.5, max = 0.9> (x)", opset=6),
    "PRelu": Case(inputs="float[2,3,2] x, float[3,1] s", body="y = PRelu (x, s)"),
    "Add": Case(inputs="float[2,3] x, float[3] z", body="y = Add (x, z)"),
    "Add-6": Case(
        inputs="float[2,3,2] x, float[3] z",
        body="y = Add <axis = 1, broadcast = 1> (x, z)",
        opset=6,
    ),
    "Sub": Case(inputs="float[2,1] x, float[1,3] z", body="y = Sub (x, z)"),
    "Mul": Case(inputs="float[2,3] x, float z", body="y = Mul (x, z)"),
    "Div": Case(inputs="float[2,3] x, float[2,1] z", body="y = Div (x, z)", around=3.0),
    "Pow": Case(inputs="float[2,3] x, float[3] z", body="y = Pow (x, z)", around=2.5),
    "Mod": Case(inputs="float[6] x, float[6] z", body="y = Mod <fmod = 1> (x, z)", around=3.5),
    "Max": Case(inputs="float[6] x, float[6] z, float[6] u", body="y = Max (x, z, u)"),
    "Min": Case(inputs="float[6] x, float[6] z", body="y = Min (x, z)"),
    "Mean": Case(inputs="float[6] x, float[6] z", body="y = Mean (x, z)"),
    "Sum": Case(inputs="float[6] x, float[6] z, float[1] u", body="y = Sum (x, z, u)"),
    "Where": Case(
        inputs="float[6] x, float[6] z",
        body="c = Less (x, z) y = Where (c, x, z)",
    ),
    "Conv": _conv("pads = [1,1,1,1]"),
    "Conv-strided": _conv("strides = [2,1], pads = [1,0,0,2], dilations = [1,2]"),
    "Conv-group": _conv("group = 2, pads = [1,1,1,1]", w="4,1,3,3"),
    "Conv-same-upper": _conv('auto_pad = "SAME_UPPER", strides = [2,2]', w="2,2,2,4"),
    "Conv-same-lower": _conv('auto_pad = "SAME_LOWER", strides = [2,2]', w="2,2,2,4"),
    "Conv-1d": _conv("pads = [2,1]", w="3,2,3", x="2,2,5", bias=False),
    "Conv-3d": _conv("pads = [0,1,0,0,1,0]", w="2,2,2,3,2", x="1,2,3,3,3"),
    "ConvTranspose": _transposed("strides = [2,2], pads = [1,1,1,1]"),
    "ConvTranspose-padding": _transposed("strides = [2,3], output_padding = [1,2]"),
    "ConvTranspose-uneven": _transposed("strides = [2,2], pads = [0,1,2,0], dilations = [2,1]"),
    "ConvTranspose-shape": _transposed("strides = [3,2], output_shape = [11,7]"),
    "ConvTranspose-same": _transposed('strides = [3,2], auto_pad = "SAME_UPPER"'),
    "ConvTranspose-group": _transposed("group = 2", w="2,2,3,3", out=4),
    "ConvTranspose-1d": _transposed("strides = [2]", w="2,3,3", x="1,2,5"),
    "MaxPool": _pool("MaxPool", "kernel_shape = [3,2], strides = [2,2], pads = [1,0,1,1]"),
    "MaxPool-ceil": _pool("MaxPool", "kernel_shape = [3,3], strides = [2,2], ceil_mode = 1"),
    "MaxPool-dilated": _pool("MaxPool", "kernel_shape = [2,2], dilations = [2,3]"),
    "MaxPool-same": _pool(
        "MaxPool", 'kernel_shape = [2,3], strides = [2,2], auto_pad = "SAME_UPPER"'
    ),
    "AveragePool": _pool("AveragePool", "kernel_shape = [3,2], pads = [1,0,0,1]"),
    "AveragePool-counted": _pool(
        "AveragePool", "kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1"
    ),
    "AveragePool-ceil": _pool(
        "AveragePool",
        "kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1], ceil_mode = 1,"
        " count_include_pad = 1",
        x="1,2,6,8",
    ),
    "AveragePool-dilated": _pool("AveragePool", "kernel_shape = [2,2], dilations = [2,2]"),
    "AveragePool-1d": _pool("AveragePool", "kernel_shape = [3], strides = [2]", x="1,2,7"),
    "LpPool": _pool("LpPool", "kernel_shape = [2,2], strides = [2,2], p = 3", x="1,2,4,4"),
    "GlobalAveragePool": Case(inputs="float[2,3,2,2] x", body="y = GlobalAveragePool (x)"),
    "GlobalMaxPool": Case(inputs="float[2,3,2,2] x", body="y = GlobalMaxPool (x)"),
    "BatchNormalization": Case(
        inputs="float[2,3,2] x, float[3] s, float[3] b, float[3] m, float[3] v",
        body="y = BatchNormalization <epsilon = 0.01> (x, s, b, m, v)",
        given={"m": np.float32([0.1, -0.2, 0.3]), "v": np.float32([0.5, 1.5, 2.0])},
    ),
    "InstanceNormalization": Case(
        inputs="float[2,3,4] x, float[3] s, float[3] b",
        body="y = InstanceNormalization (x, s, b)",
    ),
    "LayerNormalization": Case(
        inputs="float[2,3,4] x, float[3,4] s, float[3,4] b",
        body="y = LayerNormalization <axis = 1> (x, s, b)",
    ),
    "LayerNormalization-mean": Case(
        inputs="float[2,4] x, float[4] s",
        body="z, m, d = LayerNormalization (x, s) t = Add (z, m) y = Mul (t, d)",
    ),
    "GroupNormalization": Case(
        inputs="float[2,4,3] x, float[4] s, float[4] b",
        body="y = GroupNormalization <num_groups = 2> (x, s, b)",
    ),
    "RMSNormalization": Case(
        inputs="float[2,3,4] x, float[4] s", body="y = RMSNormalization (x, s)", opset=23
    ),
    "LpNormalization": Case(inputs="float[2,4] x", body="y = LpNormalization <axis = 1> (x)"),
    "LRN": Case(
        inputs="float[1,5,2,2] x",
        body="y = LRN <size = 3, alpha = 0.5, beta = 0.6, bias = 1.2> (x)",
    ),
    "MatMul": Case(inputs="float[2,3,4] x, float[4,2] w", body="y = MatMul (x, w)"),
    "MatMul-vector": Case(inputs="float[4] x, float[2,4,3] w", body="y = MatMul (x, w)"),
    "Gemm": Case(
        inputs="float[2,3] x, float[4,3] w, float[4] b", body="y = Gemm <transB = 1> (x, w, b)"
    ),
    "Gemm-scaled": Case(
        inputs="float[3,2] x, float[3,4] w, float[2,1] b",
        body="y = Gemm <transA = 1, alpha = 0.5, beta = 1.5> (x, w, b)",
    ),
    "Einsum": Case(
        inputs="float[2,3,4] x, float[2,4,2] w",
        body='y = Einsum <equation = "b i j, b j k -> i b k"> (x, w)',
    ),
    "Attention": Case(
        inputs="float[1,4,3,4] q, float[1,2,5,4] k, float[1,2,5,2] v, float[3,5] m",
        body="y = Attention <is_causal = 1, softcap = 2.0> (q, k, v, m)",
        opset=23,
    ),
    "RotaryEmbedding": Case(
        inputs="float[1,2,3,4] x, float[5,2] c, float[5,2] s",
        body="p = Constant <value = int64[1,3] {4,0,2}> () y = RotaryEmbedding (x, c, s, p)",
        opset=23,
    ),
    "Reshape": _indexed("s = Constant <value_ints = [0,-1,1]> () y = Reshape (x, s)"),
    "Flatten": Case(inputs="float[2,3,4] x", body="y = Flatten <axis = -1> (x)"),
    "Transpose": Case(inputs="float[2,3,4] x", body="y = Transpose <perm = [2,0,1]> (x)"),
    "Squeeze": Case(
        inputs="float[2,1,3,1] x", body="a = Constant <value_ints = [-1]> () y = Squeeze (x, a)"
    ),
    "Squeeze-11": Case(inputs="float[1,3,1] x", body="y = Squeeze <axes = [0]> (x)", opset=11),
    "Unsqueeze": _indexed("a = Constant <value_ints = [0,-1]> () y = Unsqueeze (x, a)"),
    "Unsqueeze-11": _indexed("y = Unsqueeze <axes = [1,3]> (x)", opset=11),
    "Concat": Case(inputs="float[2,3] x, float[2,2] z", body="y = Concat <axis = -1> (x, z)"),
    "Split": _indexed("a, b = Split <axis = 0, num_outputs = 2> (x) y = Mul (a, b)"),
    "Split-11": _indexed("a, b = Split <axis = 0, split = [3,1]> (x) y = Sub (a, b)", opset=11),
    "Expand": Case(
        inputs="float[3,1] x", body="s = Constant <value_ints = [2,1,4]> () y = Expand (x, s)"
    ),
    "Tile": _indexed("r = Constant <value_ints = [2,3]> () y = Tile (x, r)"),
    "Pad": _indexed(
        "p = Constant <value_ints = [1,-1,0,2]> () v = Constant <value_float = 0.5> ()"
        " y = Pad (x, p, v)"
    ),
    "Pad-reflect": _indexed(
        'p = Constant <value_ints = [1,2,3,1]> () y = Pad <mode = "reflect"> (x, p)'
    ),
    "Pad-edge": _indexed(
        "p = Constant <value_ints = [1,2]> () a = Constant <value_ints = [1]> ()"
        ' y = Pad <mode = "edge"> (x, p, , a)'
    ),
    "Pad-10": _indexed("y = Pad <pads = [0,1,2,0], value = 0.25> (x)", opset=10),
    "DepthToSpace": Case(
        inputs="float[1,8,2,3] x", body='y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)'
    ),
    "SpaceToDepth": Case(inputs="float[1,2,4,6] x", body="y = SpaceToDepth <blocksize = 2> (x)"),
    "Gather": _indexed("i = Constant <value = int64[2,2] {3,0,-1,3}> () y = Gather (x, i)"),
    "Gather-one": _indexed("i = Constant <value_int = -2> () y = Gather <axis = 1> (x, i)"),
    "GatherElements": _indexed(
        "i = Constant <value = int64[2,3] {3,0,-1,3,1,1}> () y = GatherElements (x, i)"
    ),
    "GatherND": _indexed("i = Constant <value = int64[2,2] {3,0,-1,2}> () y = GatherND (x, i)"),
    "GatherND-batch": _indexed(
        "i = Constant <value = int64[4,1] {0,2,1,2}> () y = GatherND <batch_dims = 1> (x, i)"
    ),
    "ScatterND": _indexed(
        "i = Constant <value = int64[2,1] {3,-3}> () y = ScatterND (x, i, u)",
        inputs="float[4,3] x, float[2,3] u",
    ),
    "ScatterND-add": _indexed(
        'i = Constant <value = int64[2,1] {3,3}> () y = ScatterND <reduction = "add"> (x, i, u)',
        inputs="float[4,3] x, float[2,3] u",
    ),
    "ScatterElements": _indexed(
        "i = Constant <value = int64[1,3] {3,0,-2}> () y = ScatterElements (x, i, u)",
        inputs="float[4,3] x, float[1,3] u",
    ),
    "ScatterElements-mul": _indexed(
        "i = Constant <value = int64[2,3] {3,0,-2,3,1,1}> ()"
        ' y = ScatterElements <reduction = "mul"> (x, i, u)',
        inputs="float[4,3] x, float[2,3] u",
    ),
    "Slice": Case(
        inputs="float[5,6] x",
        body="s = Constant <value_ints = [-4,5]> () e = Constant <value_ints = [100,-7]> ()"
        " a = Constant <value_ints = [0,1]> () t = Constant <value_ints = [2,-2]> ()"
        " y = Slice (x, s, e, a, t)",
    ),
    "Slice-9": _indexed("y = Slice <starts = [1,0], ends = [-1,2]> (x)", opset=9),
    "TopK": _indexed("k = Constant <value_ints = [2]> () y, i = TopK <axis = 0> (x, k)"),
    "TopK-least": _indexed("k = Constant <value_ints = [2]> () y, i = TopK <largest = 0> (x, k)"),
    "Compress": _indexed(
        "c = Constant <value = bool[4] {1,0,1,1}> () y = Compress <axis = 0> (x, c)"
    ),
    "Trilu": _indexed("k = Constant <value_int = -1> () y = Trilu (x, k)"),
    "Trilu-lower": _indexed("y = Trilu <upper = 0> (x)"),
    "ReverseSequence": _indexed(
        "n = Constant <value_ints = [1,3,2]> () y = ReverseSequence (x, n)"
    ),
    "CumSum": _indexed("a = Constant <value_int = 0> () y = CumSum <exclusive = 1> (x, a)"),
    "CumSum-back": _indexed("a = Constant <value_int = -1> () y = CumSum <reverse = 1> (x, a)"),
    "ReduceSum": _reduced("ReduceSum", "0,-1", 0),
    "ReduceMean": _reduced("ReduceMean", "1", 1),
    "ReduceMax": _reduced("ReduceMax", "2", 1),
    "ReduceMin": _reduced("ReduceMin", "0,1,2", 0),
    "ReduceProd": _reduced("ReduceProd", "0,2", 1, around=2.5),
    "ReduceL1": _reduced("ReduceL1", "1", 0),
    "ReduceL2": _reduced("ReduceL2", "-1", 1),
    "ReduceLogSum": _reduced("ReduceLogSum", "1", 1, around=2.5),
    "ReduceLogSumExp": _reduced("ReduceLogSumExp", "1,2", 1),
    "ReduceSumSquare": _reduced("ReduceSumSquare", "0", 0),
    "ReduceMean-11": Case(
        inputs="float[2,3,4] x", body="y = ReduceMean <axes = [0,2], keepdims = 0> (x)", opset=11
    ),
    "Resize-nearest": _resized(
        'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
        "1,2,7,9",
    ),
    "Resize-linear": _resized('mode = "linear"', "1,2,7,3"),
    "Resize-corners": _resized(
        'mode = "linear", coordinate_transformation_mode = "align_corners"', "1,2,3,8"
    ),
    "Resize-torch": _resized(
        'mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"', "1,2,1,8"
    ),
    "Resize-cubic": _resized('mode = "cubic"', "1,2,6,7"),
    "Resize-cubic-inside": _resized('mode = "cubic", exclude_outside = 1', "1,2,6,3"),
    "Resize-antialias": _resized('mode = "linear", antialias = 1', "1,2,3,2"),
    "Upsample": Case(
        inputs="float[1,1,2,3] x",
        body='s = Constant <value = float[4] {1,1,2,2}> () y = Upsample <mode = "nearest"> (x, s)',
        opset=9,
    ),
    "Upsample-linear": Case(
        inputs="float[1,1,2,3] x",
        body='s = Constant <value = float[4] {1,1,2,2}> () y = Upsample <mode = "linear"> (x, s)',
        opset=9,
    ),
    "GridSample": Case(
        inputs="float[1,2,3,4] x, float[1,2,3,2] g",
        body="y = GridSample (x, g)",
        half=0.8,
    ),
    "RNN": _recurrent("RNN", 1),
    "RNN-relu": _recurrent("RNN", 1, 'activations = ["Relu"], direction = "reverse"'),
    "GRU": _recurrent("GRU", 3, 'direction = "bidirectional"', directions=2),
    "GRU-before": _recurrent("GRU", 3, "linear_before_reset = 1"),
    "LSTM": _recurrent("LSTM", 4),
    "LSTM-both": _recurrent("LSTM", 4, 'direction = "bidirectional", clip = 0.8', directions=2),
    "Cast": Case(inputs="float[4] x", body="d = Cast <to = 11> (x) y = Cast <to = 1> (d)"),
    "Dropout": Case(inputs="float[4] x", body="y, mask = Dropout (x)"),
    "If": Case(
        inputs="float[3] x, float[3] z",
        body="s = ReduceSum <keepdims = 0> (x) k = Constant <value_float = -9.0> ()"
        " c = Greater (s, k)"
        " y = If (c) <then_branch = t () => (float[3] p) { p = Mul (x, z) },"
        " else_branch = e () => (float[3] q) { q = Sub (x, z) }>",
    ),
    "Loop": Case(
        inputs="float[3] x, float[3] w",
        body="n = Constant <value_int = 3> () c = Constant <value = bool {1}> ()"
        " y = Loop (n, c, x) <body = b (int64 i, bool g, float[3] s) => (bool o, float[3] r)"
        " { o = Identity (g) m = Mul (s, w) r = Add (m, x) }>",
        half=1.0,
    ),
    "Scan": Case(
        inputs="float[3] x, float[4,3] w",
        body="s, y = Scan <num_scan_inputs = 1, body = b (float[3] h, float[3] v) =>"
        " (float[3] r, float[3] o) { r = Mul (h, v) o = Tanh (r) }> (x, w)",
    ),
    "FusedMatMul": Case(
        inputs="float[2,3] x, float[2,4] w",
        body="y = com.microsoft.FusedMatMul <transA = 1, alpha = 0.5> (x, w)",
    ),
    "QuickGelu": Case(inputs="float[6] x", body="y = com.microsoft.QuickGelu <alpha = 1.702> (x)"),
}
"""Name -> case; every operator with floats that a gradient passes, in its forms."""
