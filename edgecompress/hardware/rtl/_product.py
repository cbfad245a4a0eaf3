"""What the two systolic generators share: the array's widths, and a layer as matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.hardware.array_resources import SystolicCounts
from edgecompress.hardware.models._systolic import parameters_of, why_sums_are_narrow
from edgecompress.hardware.rtl.verilog import impossible
from edgecompress.hardware.simulator.layers import (
    IntArray,
    IntegerConv,
    IntegerLayer,
    IntegerProduct,
    conv_patches,
    exact_outputs,
)
from edgecompress.hardware.target import Target

ADDRESS_BITS = 16
"""Width of the address and step counters, unless a layer needs more."""

MOST_BITS = 16
DEFAULT_ACTIVATION_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayShape:
    """A systolic array as it is generated.

    Attributes:
        rows, columns: Processing elements.
        activation_bits, weight_bits: Signed operands, 1 to 16 bits; ternary weights take 2.
        sum_bits: Width of a sum; sums wrap around beyond it.
        dsp: The multipliers are meant for DSP blocks; else for look-up tables.
        depth: Words of the memories that sums wait in; a product of more rows and more than one
            inner fold runs as several where the weights are held. None: as many as it needs.
    """

    rows: int
    columns: int
    activation_bits: int
    weight_bits: int
    sum_bits: int
    dsp: bool
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"an array of {self.rows} x {self.columns}")
        if not (1 <= self.activation_bits <= MOST_BITS and 1 <= self.weight_bits <= MOST_BITS):
            raise ValueError(
                f"operands of {self.activation_bits} and {self.weight_bits} bits, "
                f"where 1 to {MOST_BITS} are generated"
            )
        if self.sum_bits < self.activation_bits + self.weight_bits:
            raise ValueError(f"a product does not fit in {self.sum_bits} bits")

    @property
    def settings(self) -> tuple[tuple[str, int], ...]:
        """Parameters of the top module."""
        return (
            ("ROWS", self.rows),
            ("COLUMNS", self.columns),
            ("ACT_BITS", self.activation_bits),
            ("WEIGHT_BITS", self.weight_bits),
            ("SUM_BITS", self.sum_bits),
            ("USE_DSP", int(self.dsp)),
            ("ADDRESS_BITS", ADDRESS_BITS),
        )

    @property
    def counts(self) -> SystolicCounts:
        """What its resources depend on."""
        return SystolicCounts(
            rows=self.rows,
            columns=self.columns,
            moved_bits=self.activation_bits,
            held_bits=self.weight_bits,
            sum_bits=self.sum_bits,
            dsp=self.dsp,
        )

    @property
    def described(self) -> str:
        """The array in words."""
        return (
            f"{self.rows} x {self.columns} elements, activations {self.activation_bits} bits, "
            f"weights {self.weight_bits} bits, sums {self.sum_bits} bits, all signed; "
            f"multipliers in {'DSP blocks' if self.dsp else 'look-up tables'}."
        )


def shape_of(target: Target) -> ArrayShape:
    """The array of a target.

    Raises:
        ConfigurationInvalid: Its widths are none that an array is generated with.
    """
    p = parameters_of(target)
    narrow = why_sums_are_narrow(target)
    if narrow is not None:
        raise impossible(target, narrow, "accumulator_bits")
    try:
        return ArrayShape(
            rows=p.array_rows,
            columns=p.array_columns,
            activation_bits=target.activation_bits or DEFAULT_ACTIVATION_BITS,
            weight_bits=target.weight_stream.weight_bits,
            sum_bits=p.accumulator_bits,
            dsp=p.multiplier == "dsp",
            depth=p.accumulator_words,
        )
    except ValueError as error:
        raise impossible(
            target, str(error), "activation_bits and weight_stream.weight_bits"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """One matrix product for the array, in signed codes.

    Attributes:
        inputs: (rows, inner); unsigned codes are moved by half their range, the zero point too.
        weights: (inner, columns).
        correction: (columns,): minus the zero point times the sum of a column's weights, which
            the bias of a layer takes in.
        expected: (rows, columns): with the correction.
    """

    inputs: IntArray
    weights: IntArray
    correction: IntArray
    expected: IntArray


def products_of(layer: IntegerLayer) -> tuple[Operands, ...]:
    """A layer as products: one, or one for each group of a convolution."""
    half = 0 if layer.input_signed else 1 << (layer.input_bits - 1)
    zero_point = layer.zero_point - half
    match layer:
        case IntegerProduct():
            expected = exact_outputs(layer)
            return (_operands(layer.inputs - half, layer.weights, zero_point, expected),)
        case IntegerConv():
            return _conv_operands(layer, half, zero_point)


def _conv_operands(layer: IntegerConv, half: int, zero_point: int) -> tuple[Operands, ...]:
    """One product per group: rows are the output pixels of all images."""
    patches = conv_patches(layer) - half
    images, groups, taps, height, width = patches.shape
    columns = layer.weights.shape[0] // groups
    rows = patches.transpose(1, 0, 3, 4, 2).reshape(groups, images * height * width, taps)
    weights = layer.weights.reshape(groups, columns, taps).transpose(0, 2, 1)
    outputs = exact_outputs(layer).reshape(images, groups, columns, height * width)
    expected = outputs.transpose(1, 0, 3, 2).reshape(groups, -1, columns)
    return tuple(
        _operands(rows[group], weights[group], zero_point, expected[group])
        for group in range(groups)
    )


def _operands(inputs: IntArray, weights: IntArray, zero_point: int, expected: IntArray) -> Operands:
    correction = -zero_point * weights.sum(axis=0)
    return Operands(inputs=inputs, weights=weights, correction=correction, expected=expected)


def why_not(shape: ArrayShape, layer: IntegerLayer) -> str | None:
    """Why the array cannot run a layer, or None."""
    if layer.input_bits > shape.activation_bits:
        return f"{layer.input_bits}-bit activations on an array of {shape.activation_bits} bits"
    if layer.weight_bits > shape.weight_bits:
        return f"{layer.weight_bits}-bit weights on an array of {shape.weight_bits} bits"
    for product in products_of(layer):
        if not product.expected.size or not product.weights.size:
            return "an empty product"
        raw = product.expected - product.correction
        needed = max(signed_bits(product.expected), signed_bits(raw))
        if needed > shape.sum_bits:
            return f"sums of {needed} bits on an array with {shape.sum_bits} bits for them"
    return None


def signed_bits(values: IntArray) -> int:
    """Bits of the widest value in two's complement."""
    low, high = int(values.min()), int(values.max())
    return max((-low - 1).bit_length() if low < 0 else 0, max(high, 0).bit_length()) + 1


def padded(table: IntArray, row_unit: int, column_unit: int) -> IntArray:
    """Zeros below and to the right, up to multiples of the units."""
    rows, columns = table.shape
    return np.pad(table, ((0, -rows % row_unit), (0, -columns % column_unit)))


def random_product(
    shape: ArrayShape, generator: np.random.Generator, size: tuple[int, int, int] | None = None
) -> IntegerProduct:
    """A product of random codes over the whole range of both widths.

    Args:
        shape: Of the array; sums fit in its ``sum_bits``.
        generator: Of the values, and of the size if there is none.
        size: (rows, inner, columns); by default about two folds each way with a remainder.
    """
    rows, inner, columns = size or (
        int(generator.integers(1, 2 * shape.rows + 2)),
        int(generator.integers(1, 2 * shape.rows + 2)),
        int(generator.integers(1, 2 * shape.columns + 2)),
    )
    activations, weights = 1 << (shape.activation_bits - 1), 1 << (shape.weight_bits - 1)
    return IntegerProduct(
        inputs=generator.integers(-activations, activations, (rows, inner)),
        weights=generator.integers(-weights, weights, (inner, columns)),
        input_bits=shape.activation_bits,
        weight_bits=shape.weight_bits,
    )


def address_bits(*depths: int) -> int:
    """Width of the counters for memories of these depths."""
    return max(ADDRESS_BITS, *((depth + 1).bit_length() for depth in depths))


def folded(table: IntArray, lanes: int) -> IntArray:
    """(rows, folds x lanes) as (folds x rows, lanes)."""
    rows = table.shape[0]
    return table.reshape(rows, -1, lanes).transpose(1, 0, 2).reshape(-1, lanes)
