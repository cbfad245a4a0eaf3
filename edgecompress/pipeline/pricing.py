"""Predicted time of a chain of stages in the place of a layer, for the rank planner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from edgecompress.core.arrays import Shape
from edgecompress.core.layers import Layer
from edgecompress.core.stages import (
    Conv,
    Embedding,
    MatMul,
    Permute,
    Recurrent,
    Reshape,
    Stage,
)
from edgecompress.core.tensors import Affine, Tensor
from edgecompress.core.work import (
    ConvWork,
    ElementWork,
    MatMulWork,
    OperatorWork,
    TensorUse,
    Work,
)
from edgecompress.hardware.chains import fuse_chains
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import Target


def price_stages(stages: Sequence[Stage], layer: Layer, target: Target) -> float:
    """Predicted seconds of a chain of stages in the place of a layer, for the rank planner.

    Open batch axes count as 1, other open axes of a matrix product too. What passes between two
    stages stays on chip where the target has room for it and that is faster. Values of weights do
    not count, for a plan is made before there are any: on a target with a coded weight stream
    every weight takes its full width.

    Args:
        stages: In order; weights may be dense or quantized.
        layer: Gives the shape of what enters.
        target: The device.

    Raises:
        ValueError: A spatial axis of a convolution's input is open.
    """
    entering = tuple(1 if size is None else size for size in layer.input_shape)
    if isinstance(layer.stage, Conv) and None in layer.input_shape[1:]:
        raise ValueError(f"the input of layer {layer.name!r} has an open shape")
    operators: list[OperatorWork] = []
    for stage in stages:
        operator, entering = _stage_work(stage, entering)
        operators.append(operator)
    return _price(tuple(operators), target)


@lru_cache(maxsize=65536)
def _price(operators: tuple[OperatorWork, ...], target: Target) -> float:
    """Seconds of operators in a row, each reading what the one before writes."""
    works = tuple(
        Work(
            name=str(place),
            op_type="",
            operator=operator,
            input_bits=0,
            output_bits=0,
            source_layer="chain",
            reads=(TensorUse(name=str(place), bits=0),),
            writes=(TensorUse(name=str(place + 1), bits=0),),
        )
        for place, operator in enumerate(operators)
    )
    fused, _ = fuse_chains(works, target)
    return math.fsum(cost(work, target).latency_s for work in fused)


def _stage_work(stage: Stage, entering: Shape) -> tuple[OperatorWork, Shape]:
    """Counts of a stage, and the shape that leaves it."""
    match stage:
        case Conv():
            return _conv_work(stage, entering)
        case MatMul(weight=weight):
            columns, inner = weight.shape
            rows = math.prod(entering[:-1])
            return _product(1, rows, inner, columns, weight), (*entering[:-1], columns)
        case Recurrent(weight=weight):
            directions, columns, inner = weight.shape
            steps, batch = (*entering, 1, 1)[:2]
            return _product(directions * steps, batch, inner, columns, weight, steps), entering
        case Embedding(weight=weight):
            rows = math.prod(entering)
            width = weight.shape[1]
            part = rows / max(1, weight.shape[0])
            return _movement(rows * width * 32, math.ceil(weight.storage_bits * min(1.0, part))), (
                *entering,
                width,
            )
        case Reshape(shape=shape):
            return ElementWork(operations=0, read_bits=0, written_bits=0, free=True), _reshaped(
                entering, shape
            )
        case Permute(axes=axes):
            bits = math.prod(entering) * 32
            order = axes or tuple(reversed(range(len(entering))))
            return _movement(bits, 0), tuple(entering[axis] for axis in order)


def _movement(bits: int, weight_bits: int) -> ElementWork:
    read = 0 if weight_bits else bits
    return ElementWork(
        operations=0,
        read_bits=read,
        written_bits=bits,
        weight_storage_bits=weight_bits,
        movement=True,
    )


def _weight_bits(weight: Tensor) -> int:
    return weight.grid.bits if isinstance(weight, Affine) else weight.values.dtype.itemsize * 8


def _product(
    count: int, rows: int, inner: int, columns: int, weight: Tensor, repeats: int = 1
) -> MatMulWork:
    return MatMulWork(
        count=count,
        rows=rows,
        inner=inner,
        columns=columns,
        constant=True,
        repeats=max(1, repeats),
        weight_bits=_weight_bits(weight),
        weight_storage_bits=weight.storage_bits,
    )


def _conv_work(stage: Conv, entering: Shape) -> tuple[ConvWork, Shape]:
    """A convolution stage; axes before the last two count as images and channels."""
    spatial = len(stage.stride)
    kernel = stage.weight.shape[2:]
    leaving = tuple(_leaving_size(stage, axis, entering[2 + axis]) for axis in range(spatial))
    depth = max(0, spatial - 2)
    images = math.prod((entering[2:] if stage.transposed else leaving)[:depth])
    last = slice(-2, None)
    pads = (*stage.pads[:spatial][last], *stage.pads[spatial:][last])
    if spatial == 1:
        pads = (0, stage.pads[0], 0, stage.pads[1])
    work = ConvWork(
        batch=entering[0] * images,
        in_channels=entering[1] * math.prod(kernel[:depth]),
        out_channels=stage.weight.shape[0],
        in_height=entering[-2] if spatial > 1 else 1,
        in_width=entering[-1],
        out_height=leaving[-2] if spatial > 1 else 1,
        out_width=leaving[-1],
        kernel=_pair(kernel),
        stride=_pair(stage.stride),
        dilation=_pair(stage.dilation),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        group=stage.group,
        transposed=stage.transposed,
        weight_bits=_weight_bits(stage.weight),
        weight_storage_bits=stage.weight.storage_bits,
    )
    return work, (entering[0], stage.weight.shape[0], *leaving)


def _pair(sizes: Shape) -> tuple[int, int]:
    return (sizes[-2], sizes[-1]) if len(sizes) > 1 else (1, sizes[-1])


def _leaving_size(stage: Conv, axis: int, size: int) -> int:
    """Output size along a spatial axis."""
    spatial = len(stage.stride)
    pads = stage.pads[axis] + stage.pads[spatial + axis]
    reach = (stage.weight.shape[2 + axis] - 1) * stage.dilation[axis] + 1
    if stage.transposed:
        return (size - 1) * stage.stride[axis] + reach - pads
    return max(0, (size + pads - reach) // stage.stride[axis] + 1)


def _reshaped(entering: Shape, wanted: Shape) -> Shape:
    """Shape after a Reshape, as ONNX defines it."""
    sizes = [entering[i] if size == 0 else size for i, size in enumerate(wanted)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(entering) // known if known else 0
    return tuple(sizes)
