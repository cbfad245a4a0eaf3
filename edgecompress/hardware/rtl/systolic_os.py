"""Verilog of a output-stationary systolic array, with its control and a test bench."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.hardware.models.systolic_os import product_cycles
from edgecompress.hardware.rtl._product import (
    ArrayShape,
    Operands,
    address_bits,
    folded,
    padded,
    products_of,
)
from edgecompress.hardware.rtl._systolic import SystolicGenerator, array_design, closed_form
from edgecompress.hardware.rtl.bench import Bench, packed_words
from edgecompress.hardware.rtl.verilog import (
    Design,
    module_text,
)
from edgecompress.hardware.simulator.layers import IntArray, IntegerLayer

TOP = "systolic_os"

ABOUT = (
    "A product (rows x inner) (inner x columns) runs in folds of ROWS by COLUMNS sums: a column of "
    "activations enters each cycle, row r of the array r cycles later, a row of weights likewise, "
    "and every element keeps its sum. The first operands replace the sum before; a sum leaves in "
    "the cycle after its last operands. A fold takes ROWS + COLUMNS + inner - 2 cycles.",
    "Memories give data in the cycle after a read. The bias of a column is added outside.",
)


def design(shape: ArrayShape) -> Design:
    """The array with its control."""
    return array_design(TOP, "Output-stationary systolic array.", ABOUT, shape)


def bench(shape: ArrayShape, layer: IntegerLayer) -> Bench:
    """The array with a test bench that runs a layer, group after group."""
    products = products_of(layer)
    (rows, inner), columns = products[0].inputs.shape, products[0].weights.shape[1]
    row_folds, column_folds = -(-rows // shape.rows), -(-columns // shape.columns)
    settings: dict[str, int | str] = {
        **dict(shape.settings),
        "ADDRESS_BITS": address_bits(
            inner * row_folds, inner * column_folds, row_folds * shape.rows * column_folds
        ),
        "PRODUCTS": len(products),
        "M": rows,
        "K": inner,
        "N": columns,
        "ROW_FOLDS": row_folds,
        "COLUMN_FOLDS": column_folds,
        "EXPECTED_CYCLES": predicted_cycles(shape, layer),
        "VERDICT": module_text("bench_verdict"),
    }
    return Bench(
        top=f"{TOP}_bench",
        sources={
            f"{TOP}.v": design(shape).text,
            f"{TOP}_bench.v": module_text(f"{TOP}_bench", **settings),
        },
        memories=_memories(shape, products),
    )


def _memories(shape: ArrayShape, products: Sequence[Operands]) -> dict[str, str]:
    """The hex files of the test bench."""
    rows, columns = shape.rows, shape.columns
    weights = [folded(padded(p.weights, 1, columns), columns) for p in products]
    acts = [folded(padded(p.inputs, rows, 1).T, rows) for p in products]
    biases = [folded(padded(p.correction[None], 1, columns), columns) for p in products]
    expected = [folded(padded(_with_bias(p, rows), rows, columns), columns) for p in products]
    return {
        "weights.hex": packed_words(np.concatenate(weights), shape.weight_bits),
        "activations.hex": packed_words(np.concatenate(acts), shape.activation_bits),
        "biases.hex": packed_words(np.concatenate(biases), shape.sum_bits),
        "expected.hex": packed_words(np.concatenate(expected), shape.sum_bits),
    }


def _with_bias(product: Operands, unit: int) -> IntArray:
    """What is expected, with the bias alone in the rows that the last fold leaves empty."""
    empty = -product.expected.shape[0] % unit
    return np.concatenate([product.expected, np.tile(product.correction, (empty, 1))])


def predicted_cycles(shape: ArrayShape, layer: IntegerLayer) -> int:
    """The closed form, group after group."""
    return closed_form(shape, products_of(layer), product_cycles)


RTL = SystolicGenerator(
    design_of=design, bench_of=bench, cycles_of=predicted_cycles, sums_stay=True
)
