"""Which operations of an Ethos-U an operator of the graph becomes.

Source: ethos-u-vela 5.2.0, what its operator mapping supports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, Work
from edgecompress.hardware.models._ethos_blocks import NpuOp
from edgecompress.hardware.models._ethos_cores import Core, Size
from edgecompress.hardware.models._ethos_cycles import Output
from edgecompress.hardware.timeline import ratio_up

GROUPED = "grouped convolution: group after group"
UPSAMPLED = "transposed convolution: the input is spread with zeros by its stride"
BY_COLUMNS = "product of two activations: per column one product of elements and one sum"
ACTIVATIONS = "product of two activations: one is loaded like weights"
WIDE = "no floating point on the processor: counted as if quantized to 8 bits"
CHAINED = "sums and products of elements run while the results of the operator before are written"
COPIED = "data movement counted as a copy through the processor"
WINDOWS = "reduced axes counted as windows of a pooling"
IMAGE = "an input of up to four channels is taken for the image, kept pixel by pixel"
RESIZED = "resampling counted as a pooling of 2 x 2 on the larger map"

# An image has one to four channels. Source: assumed; every other map is kept in bricks of 16.
IMAGE_CHANNELS = 4

_SUMS = frozenset({"Add", "Sub", "Sum"})
_PLAIN = frozenset({"Max", "Min", "Abs", "LeakyRelu", "PRelu", "Relu", "Clip", "Mean"})
_TABLES = frozenset(
    {"Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Log", "Mish", "Reciprocal"}
    | {"Selu", "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh"}
)
_COPIES = frozenset(
    {"Cast", "Concat", "DepthToSpace", "DequantizeLinear", "Expand", "Pad", "QuantizeLinear"}
    | {"Slice", "SpaceToDepth", "Split", "Tile", "Transpose"}
)
_POOLS = frozenset({"AveragePool", "MaxPool"})
_GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
_REDUCED = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
_CHAINS = _SUMS | {"Mul", "Max", "Min"}
_RESIZES = frozenset({"Resize", "Upsample"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Operations of the processor that an operator becomes, each of the same kind.

    Attributes:
        count: How many alike.
        op: One of them.
        output: What the output unit does.
        again: Operations that follow each (the sum of a product of two activations), with their
            number per ``op``.
        streamed_bytes: Of a second input, read by each.
        constant_bytes: Of constants that are no weights, read by each from the external memory.
        chained: Runs with the operator before; only a second input is read.
        of_image: The input is taken for the image.
        assumed: What the mapping assumes.
    """

    count: int
    op: NpuOp
    output: Output = "plain"
    again: NpuOp | None = None
    streamed_bytes: float = 0.0
    constant_bytes: float = 0.0
    chained: bool = False
    of_image: bool = False
    assumed: tuple[str, ...] = ()


def element_bytes(bits: int) -> int:
    """Bytes of an element on the processor."""
    return 2 if 8 < bits <= 16 else 1


def map_product(work: Work, core: Core) -> Mapped:
    """Operations of a convolution or a matrix product."""
    match work.operator:
        case ConvWork() as conv:
            mapped = _conv(conv)
            bits = conv.activation_bits
        case MatMulWork() as product:
            mapped = _matmul(product, core)
            bits = product.activation_bits
        case ElementWork():
            raise TypeError("element-wise work has no multiply-accumulates")
    wide = (WIDE,) if bits > 16 else ()
    op = replace(mapped.op, element_bytes=element_bytes(bits))
    return replace(mapped, op=op, assumed=(*mapped.assumed, *wide))


def _conv(conv: ConvWork) -> Mapped:
    depthwise = conv.group > 1 and conv.group == conv.in_channels
    groups = 1 if depthwise else conv.group
    of_image = conv.group == 1 and conv.in_channels <= IMAGE_CHANNELS and not conv.input_on_chip
    assumed = (
        *((GROUPED,) if groups > 1 else ()),
        *((UPSAMPLED,) if conv.transposed else ()),
        *((IMAGE,) if of_image else ()),
    )
    return Mapped(
        count=groups * conv.batch,
        op=NpuOp(
            kind="depthwise" if depthwise else "conv",
            inputs=Size(conv.in_height, conv.in_width, conv.in_channels // groups),
            outputs=Size(conv.out_height, conv.out_width, conv.out_channels // groups),
            kernel=conv.kernel,
            stride=(1, 1) if conv.transposed else conv.stride,
            dilation=conv.dilation,
            upscale=max(conv.stride) if conv.transposed else 1,
        ),
        of_image=of_image,
        assumed=assumed,
    )


def _matmul(product: MatMulWork, core: Core) -> Mapped:
    inputs = Size(1, product.rows, product.inner)
    whole = NpuOp(kind="product", inputs=inputs, outputs=inputs._replace(depth=product.columns))
    if product.constant:
        return Mapped(count=product.count, op=whole)
    if core.is_u85:
        return Mapped(count=product.count, op=whole, assumed=(ACTIVATIONS,))
    return Mapped(
        count=product.count * product.columns,
        op=NpuOp(kind="element", inputs=inputs, outputs=inputs),
        output="product",
        again=NpuOp(kind="product", inputs=inputs, outputs=inputs._replace(depth=1)),
        assumed=(BY_COLUMNS,),
    )


def map_elements(work: Work, operator: ElementWork, core: Core) -> Mapped | None:
    """Operations of anything else; None where it does not run on the processor.

    Shapes are not known here: maps of 16 channels stand for all of the same size.
    """
    bits = operator.activation_bits
    written, read = operator.written_bits // bits, operator.read_bits // bits
    if not written:
        return None
    name, each = work.op_type, element_bytes(bits)
    mapped: Mapped | None = None
    if name in _CHAINS and core.is_u85:
        mapped = Mapped(count=1, op=_elements(written), chained=True, assumed=(CHAINED,))
    elif name in _SUMS or name in _PLAIN or name == "Mul":
        output: Output = "sum" if name in _SUMS else "product" if name == "Mul" else "plain"
        mapped = Mapped(count=1, op=_elements(written), output=output)
    elif name in _TABLES:
        mapped = Mapped(count=1, op=_elements(written), output="table")
    elif name in _COPIES:
        mapped = Mapped(count=1, op=_elements(written), assumed=(COPIED,))
    else:
        mapped = _pooling(name, operator, written, read)
    if mapped is None:
        return None
    wide = (WIDE,) if bits > 16 else ()
    second = max(0, read - written) * each if mapped.op.kind == "element" else 0
    op = replace(mapped.op, element_bytes=each)
    return replace(
        mapped,
        op=op,
        streamed_bytes=second,
        constant_bytes=operator.weight_storage_bits / 8,
        assumed=(*mapped.assumed, *wide),
    )


def _pooling(name: str, operator: ElementWork, written: int, read: int) -> Mapped | None:
    """Windows over maps."""
    if name in _RESIZES:
        op = replace(_elements(written), kind="pool", kernel=(2, 2))
        return Mapped(count=1, op=op, assumed=(RESIZED,))
    if name in _GLOBAL_POOLS or name in _REDUCED:
        taps = max(1, ratio_up(read, written))
        side = math.isqrt(taps)
        kernel = (side, ratio_up(taps, side))
        op = NpuOp(
            kind="pool",
            inputs=Size(kernel[0], kernel[1], written),
            outputs=Size(1, 1, written),
            kernel=kernel,
        )
        return Mapped(count=1, op=op, assumed=(WINDOWS,) if name in _REDUCED else ())
    if name not in _POOLS:
        return None
    taps = max(1, round(operator.operations / written))
    side = math.isqrt(taps)
    kernel = (side, side) if side * side == taps else (1, taps)
    step = max(1, round(math.sqrt(read / written)))
    out = _elements(written).outputs
    op = NpuOp(
        kind="pool",
        inputs=Size(out.height * step, out.width * step, out.depth),
        outputs=out,
        kernel=kernel,
        stride=(step, step),
    )
    return Mapped(count=1, op=op, output="maximum" if name == "MaxPool" else "plain")


def _elements(count: int) -> NpuOp:
    """An operation on so many elements, of a map of 16 channels."""
    if count <= 256:
        size = Size(1, 1, count)
    else:
        side = math.isqrt(ratio_up(count, 16))
        size = Size(side, ratio_up(ratio_up(count, 16), side), 16)
    return NpuOp(kind="element", inputs=size, outputs=size)
