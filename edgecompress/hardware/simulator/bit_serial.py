"""The bit-serial array, clock by clock: bit planes through AND, count, shift and accumulate.

Codes as they are stored enter the array; what the zero point adds to every sum is subtracted at the
end. The steps are those of the machine that ``hardware/models/bit_serial.py`` describes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecompress.hardware.simulator.layers import IntArray, IntegerLayer, Simulated
from edgecompress.hardware.simulator.products import Products, as_outputs, as_products


@dataclass(frozen=True, slots=True, kw_only=True)
class BitSerialArray:
    """The shape of an array.

    Attributes:
        row_units, column_units, unit_bits: D_m, D_n and D_k.
        pipeline_cycles: From bits that are taken to their count in the accumulator.
    """

    row_units: int
    column_units: int
    unit_bits: int
    pipeline_cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the buffers give in a cycle.

    Attributes:
        rows: (D_m, D_k) bits of one plane of the activations.
        columns: (D_k, D_n) bits of one plane of the weights.
        shift: Place of the two planes together.
        negative: One of the two planes, not both, is a sign.
        real: Multiplications that end with this step, padding and idle units not counted.
        place: (product, first row, first column) of the tile.
        opens, closes: The first and the last step of the tile.
    """

    rows: IntArray
    columns: IntArray
    shift: int
    negative: bool
    real: int
    place: tuple[int, int, int]
    opens: bool
    closes: bool


def simulate(array: BitSerialArray, layer: IntegerLayer) -> Simulated:
    """Run a layer.

    Raises:
        ConfigurationInvalid: A code does not fit in its width.
    """
    products = as_products(layer)
    sums = np.zeros((*products.inputs.shape[:2], products.weights.shape[2]), np.int64)
    accumulators = np.zeros((array.row_units, array.column_units), np.int64)
    pipeline: deque[tuple[Step, IntArray] | None] = deque([None] * array.pipeline_cycles)
    steps = _steps(array, products)
    cycles = multiplications = 0
    step = next(steps, None)
    while step is not None or any(stage is not None for stage in pipeline):
        cycles += 1
        pipeline.append(None if step is None else (step, step.rows @ step.columns))
        multiplications += 0 if step is None else step.real
        step = next(steps, None)
        leaving = pipeline.popleft()
        if leaving is not None:
            done, counts = leaving
            if done.opens:
                accumulators[:] = 0
            accumulators += (-counts if done.negative else counts) << done.shift
            if done.closes:
                product, row, column = done.place
                tile = sums[
                    product, row : row + array.row_units, column : column + array.column_units
                ]
                tile[:] = accumulators[: tile.shape[0], : tile.shape[1]]
    return Simulated(
        outputs=as_outputs(layer, products.corrected(sums)),
        cycles=cycles,
        multiplications=multiplications,
    )


def _steps(array: BitSerialArray, products: Products) -> Iterator[Step]:
    """Steps in order: product, tile of results, pair of planes, part of the inner terms."""
    count, rows, inner = products.inputs.shape
    columns = products.weights.shape[2]
    planes = [(a, w) for a in range(products.input_bits) for w in range(products.weight_bits)]
    last = (products.input_bits - 1, products.weight_bits - 1)
    for product in range(count):
        for row in range(0, rows, array.row_units):
            for column in range(0, columns, array.column_units):
                order = [(p, k) for p in planes for k in range(0, inner, array.unit_bits)]
                for position, ((a, w), first) in enumerate(order):
                    area = np.s_[product, row : row + array.row_units]
                    terms = slice(first, first + array.unit_bits)
                    weights = products.weights[product, terms, column : column + array.column_units]
                    ends = (a, w) == last
                    taken = int(products.real[*area, terms].sum()) * weights.shape[1]
                    yield Step(
                        rows=_plane(
                            products.inputs[*area, terms], a, (array.row_units, array.unit_bits)
                        ),
                        columns=_plane(weights, w, (array.unit_bits, array.column_units)),
                        shift=a + w,
                        negative=(a == last[0] and products.input_signed) != (w == last[1]),
                        real=taken if ends else 0,
                        place=(product, row, column),
                        opens=position == 0,
                        closes=position == len(order) - 1,
                    )


def _plane(codes: IntArray, place: int, shape: tuple[int, int]) -> IntArray:
    """One bit of every code, idle units at zero."""
    bits = np.zeros(shape, np.int64)
    bits[: codes.shape[0], : codes.shape[1]] = codes >> place & 1
    return bits
