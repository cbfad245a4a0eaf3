"""A layer as matrix products, for the arrays that run convolutions as products of their windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    conv_patches,
)

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """Products of the same shape, one for each group.

    Attributes:
        inputs: (count, rows, inner) codes as they are stored, padding with the code of zero.
        real: As ``inputs``: not padding.
        weights: (count, inner, columns).
        taps: Kernel positions in ``inner``, the channels before them.
        zero_point: Input code that stands for zero.
        input_bits, weight_bits, input_signed: Of the codes.
    """

    inputs: IntArray
    real: BoolArray
    weights: IntArray
    taps: int
    zero_point: int
    input_bits: int
    weight_bits: int
    input_signed: bool

    def corrected(self, sums: IntArray) -> IntArray:
        """Sums over codes less what the zero point adds, as hardware folds it into the bias."""
        constant: IntArray = self.zero_point * self.weights.sum(axis=1)[:, None, :]
        return sums - constant


def as_products(layer: IntegerLayer) -> Products:
    """The products of a layer.

    Raises:
        ConfigurationInvalid: A code does not fit in its width.
    """
    _check(layer)
    if isinstance(layer, IntegerProduct):
        return Products(
            inputs=layer.inputs[None],
            real=np.ones((1, *layer.inputs.shape), np.bool_),
            weights=layer.weights[None],
            taps=1,
            zero_point=layer.zero_point,
            input_bits=layer.input_bits,
            weight_bits=layer.weight_bits,
            input_signed=layer.input_signed,
        )
    outputs, channels, height, width = layer.weights.shape
    inner = channels * height * width
    ones = replace(layer, inputs=np.ones_like(layer.inputs), zero_point=0)
    codes, real = (
        np.moveaxis(patches, 0, 1).swapaxes(1, 2).reshape(layer.group, inner, -1).swapaxes(1, 2)
        for patches in (conv_patches(layer), conv_patches(ones))
    )
    return Products(
        inputs=codes,
        real=real.astype(np.bool_),
        weights=layer.weights.reshape(layer.group, outputs // layer.group, inner).swapaxes(1, 2),
        taps=height * width,
        zero_point=layer.zero_point,
        input_bits=layer.input_bits,
        weight_bits=layer.weight_bits,
        input_signed=layer.input_signed,
    )


def as_outputs(layer: IntegerLayer, sums: IntArray) -> IntArray:
    """Results of the products, (count, rows, columns), in the shape of the layer's outputs."""
    if isinstance(layer, IntegerProduct):
        only: IntArray = sums[0]
        return only
    images, (height, width) = layer.inputs.shape[0], out_size(layer)
    shaped = sums.reshape(layer.group, images, height, width, -1)
    return shaped.transpose(1, 0, 4, 2, 3).reshape(images, -1, height, width)


def out_size(layer: IntegerConv) -> tuple[int, int]:
    """Height and width of the output."""
    top, left, bottom, right = layer.pads
    height, width = layer.inputs.shape[2:]
    kh, kw = layer.weights.shape[2:]
    return (
        (height + top + bottom - (kh - 1) * layer.dilation[0] - 1) // layer.stride[0] + 1,
        (width + left + right - (kw - 1) * layer.dilation[1] - 1) // layer.stride[1] + 1,
    )


def digits(codes: IntArray, bits: int, digit_bits: int, *, signed: bool) -> list[IntArray]:
    """Codes as digits, the lowest first: all unsigned but the top one of signed codes.

    The sum of ``digit << (place x digit_bits)`` is the code.
    """
    places = -(-bits // digit_bits)
    mask = (1 << digit_bits) - 1
    low = [codes >> (place * digit_bits) & mask for place in range(places - 1)]
    top = codes >> ((places - 1) * digit_bits)
    return [*low, top if signed else top & mask]


def _check(layer: IntegerConv | IntegerProduct) -> None:
    """Codes fit in the widths that the layer states."""
    for name, codes, bits, signed in (
        ("inputs", layer.inputs, layer.input_bits, layer.input_signed),
        ("weights", layer.weights, layer.weight_bits, True),
    ):
        low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
        if codes.min(initial=0) < low or codes.max(initial=0) >= high:
            raise ConfigurationInvalid(
                f"{name} from {codes.min()} to {codes.max()} do not fit in {bits} bits",
                hint="state the width that the codes have",
            )
