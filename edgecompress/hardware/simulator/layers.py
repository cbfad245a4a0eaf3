"""What a simulator runs, and what it gives back: integers, no scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerConv:
    """A convolution in integers: sum of (input - zero point) x weight.

    Attributes:
        inputs: (n, c, h, w), codes as they are stored.
        weights: (out, in / group, kh, kw), symmetric codes (zero point 0).
        zero_point: Input code that stands for zero; padding has this code.
        stride, dilation: (vertical, horizontal).
        pads: (top, left, bottom, right).
        group: Number of groups.
        input_bits, weight_bits: Widths; ``input_signed`` says whether input codes may be negative.
        input_signed: Two's complement input codes; else unsigned.
    """

    inputs: IntArray
    weights: IntArray
    zero_point: int = 0
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1
    input_bits: int = 8
    weight_bits: int = 8
    input_signed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerProduct:
    """A matrix product in integers: (inputs - zero point) @ weights.

    Attributes:
        inputs: (rows, inner), codes as they are stored.
        weights: (inner, columns), symmetric codes.
        zero_point, input_bits, weight_bits, input_signed: As in `IntegerConv`.
    """

    inputs: IntArray
    weights: IntArray
    zero_point: int = 0
    input_bits: int = 8
    weight_bits: int = 8
    input_signed: bool = True


IntegerLayer = IntegerConv | IntegerProduct


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """One layer after it has run.

    Attributes:
        outputs: (n, out, oh, ow) or (rows, columns): what the datapath gives, exact sums unless the
            array truncates.
        cycles: Of the array, from the first operand that enters to the last sum that leaves.
        multiplications: That were done, padding and idle lanes not counted.
    """

    outputs: IntArray
    cycles: int
    multiplications: int


def exact_outputs(layer: IntegerLayer) -> IntArray:
    """The sums without any array: the truth that an exact datapath has to give."""
    match layer:
        case IntegerProduct():
            product: IntArray = (layer.inputs - layer.zero_point) @ layer.weights
            return product
        case IntegerConv():
            patches = conv_patches(layer)
            outputs = layer.weights.shape[0]
            flat = layer.weights.reshape(layer.group, outputs // layer.group, -1)
            sums = np.einsum("ngphw,gop->ngohw", patches - layer.zero_point, flat)
            images, _, _, height, width = sums.shape
            whole: IntArray = sums.reshape(images, outputs, height, width)
            return whole


def conv_patches(layer: IntegerConv) -> IntArray:
    """Input codes under every position of the kernel.

    Returns:
        (n, group, in / group x kh x kw, oh, ow), padding with the zero point.
    """
    top, left, bottom, right = layer.pads
    padded = np.pad(
        layer.inputs,
        ((0, 0), (0, 0), (top, bottom), (left, right)),
        constant_values=layer.zero_point,
    )
    images, channels, height, width = padded.shape
    kh, kw = layer.weights.shape[2:]
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    oh = (height - (kh - 1) * dy - 1) // sy + 1
    ow = (width - (kw - 1) * dx - 1) // sx + 1
    taps = [
        padded[
            :, :, y * dy : y * dy + (oh - 1) * sy + 1 : sy, x * dx : x * dx + (ow - 1) * sx + 1 : sx
        ]
        for y in range(kh)
        for x in range(kw)
    ]
    stacked = np.stack(taps, axis=2)  # (n, c, taps, oh, ow)
    return stacked.reshape(images, layer.group, channels // layer.group * kh * kw, oh, ow)
