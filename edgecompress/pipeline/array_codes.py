"""Weight codes as an array holds them: as wide as in the file, whatever zero they are about.

A weight with half steps is an odd integer w in units of half a step, one bit wider than its code.
The array runs the code c of w = 2 c + 1 instead (or of w = 2 c - 1, where that leaves the codes
nearer to being symmetric). What it leaves out is made up for at its outputs:

    sum of w (x - z) = 2 x sum of c (x - z) + sum of (x - z)

Doubling is a shift; the last sum, of the inputs under the kernel, is the same for all output
channels of a group and is accumulated once. Weights whose zero point makes their differences wider
than their codes run likewise, with an offset for each output channel and no doubling.

Source: arithmetic; the sum of inputs is that of Jacob et al. (arXiv 1712.05877, section 2.3), who
take zero points of weights out of a product in this way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.graph.integers import NamedLayer
from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    exact_outputs,
)
from edgecompress.hardware.target import Target

HALF_STEPS = (
    "weights with half steps run as codes as wide as in the file: outside the array their sums are"
    " doubled and the sum of the inputs is added, one for all output channels (of a group)"
)
ZERO_POINTS = (
    "weights with a zero point run as codes as wide as in the file: outside the array the sum of"
    " the inputs, times what was taken off the weights, is added"
)
WIDER = "weight codes that do not fit the width in the file run with the bits that they need"
_WIDEST = 8  # Source: codes of more bits are no layers (`graph.integer_codes.WIDE`)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLayer:
    """A layer with the codes that an array runs; its weights are ``step`` x codes + ``offset``.

    Attributes:
        layer: With codes as weights, and their width.
        step: 2 for weights with half steps, else 1.
        offset: One per output channel, or one for all.
        note: What was done to the weights; empty if nothing.
    """

    layer: IntegerLayer
    step: int = 1
    offset: IntArray
    note: str = ""

    def restored(self, layer: IntegerLayer, outputs: IntArray) -> IntArray:
        """The sums of the weights from those of the codes.

        Args:
            layer: What the array ran: `layer`, or a part of its rows.
            outputs: What it gave.
        """
        if not self.note:
            return outputs
        outside: IntArray = input_sums(layer)
        if isinstance(layer, IntegerProduct):
            return self.step * outputs + self.offset * outside
        whole = np.repeat(outside, outputs.shape[1] // layer.group, axis=1)
        return self.step * outputs + self.offset.reshape(-1, 1, 1) * whole


def as_integer_layer(found: NamedLayer) -> IntegerLayer:
    """A layer of a graph as the simulators take it, with its whole weights."""
    widths: dict[str, Any] = {
        "zero_point": found.zero_point,
        "input_bits": found.input_bits,
        "input_signed": found.input_signed,
        "weight_bits": found.weight_bits,
    }
    geometry = found.geometry
    if geometry is None:
        return IntegerProduct(inputs=found.inputs, weights=found.weights, **widths)
    return IntegerConv(
        inputs=found.inputs,
        weights=found.weights,
        stride=geometry.stride,
        dilation=geometry.dilation,
        pads=geometry.pads,
        group=geometry.group,
        **widths,
    )


def as_array_layer(found: NamedLayer, target: Target) -> ArrayLayer:
    """A layer with the codes that the array of a target runs.

    They have the width that the cost models price: that of a weight in the file, or of the array
    if that is less. Weights that need more keep it.
    """
    stored = min(found.stored_bits, _WIDEST)
    for bits in sorted({min(stored, target.weight_stream.weight_bits), stored}):
        held = _held(found, bits)
        if held is not None:
            return held
    return ArrayLayer(layer=as_integer_layer(found), offset=np.zeros(1, np.int64))


def _held(found: NamedLayer, bits: int) -> ArrayLayer | None:
    """A layer with codes of that width; None where its weights have none."""
    whole, none = as_integer_layer(found), np.zeros(1, np.int64)
    if _fit(found.weights, bits):
        return ArrayLayer(layer=replace(whole, weight_bits=bits), offset=none)
    if np.all(found.weights & 1):
        # The offset that leaves the codes nearer to being symmetric.
        for sign in sorted((1, -1), key=lambda sign: np.abs((found.weights - sign) >> 1).max()):
            codes = (found.weights - sign) >> 1
            if _fit(codes, bits):
                layer = replace(whole, weights=codes, weight_bits=bits)
                return ArrayLayer(layer=layer, step=2, offset=none + sign, note=HALF_STEPS)
    offset = _offset(found, bits)
    codes = found.weights - _by_output(offset, found)
    if _fit(codes, bits):
        layer = replace(whole, weights=codes, weight_bits=bits)
        return ArrayLayer(layer=layer, offset=offset, note=ZERO_POINTS)
    return None


def input_sums(layer: IntegerLayer) -> IntArray:
    """Inputs less their zero point, summed under each position of the kernel.

    Returns:
        (n, group, oh, ow), or (rows, 1) for a product.
    """
    if isinstance(layer, IntegerProduct):
        return exact_outputs(replace(layer, weights=np.ones((layer.weights.shape[0], 1), np.int64)))
    ones = np.ones((layer.group, *layer.weights.shape[1:]), np.int64)
    return exact_outputs(replace(layer, weights=ones))


def _fit(codes: Array, bits: int) -> bool:
    """Whether all codes are in two's complement of that many bits."""
    half = 1 << (bits - 1)
    return -half <= int(codes.min(initial=0)) and int(codes.max(initial=0)) < half


def _offset(found: NamedLayer, bits: int) -> IntArray:
    """The least offset of each output channel that brings its weights into the width."""
    half = 1 << (bits - 1)
    by_output = found.weights if found.geometry is not None else found.weights.T
    flat = by_output.reshape(by_output.shape[0], -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    offset: IntArray = np.where(high >= half, high - half + 1, np.minimum(low + half, 0))
    return offset


def _by_output(offset: IntArray, found: NamedLayer) -> IntArray:
    """One value per output channel, shaped to go with the weights of a layer."""
    return offset.reshape(-1, 1, 1, 1) if found.geometry is not None else offset
