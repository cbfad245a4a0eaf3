"""Verilog of a weight-stationary systolic array, with its control and a test bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgecompress.hardware.models.systolic_ws import product_cycles
from edgecompress.hardware.rtl._product import (
    ArrayShape,
    Operands,
    address_bits,
    folded,
    padded,
    products_of,
)
from edgecompress.hardware.rtl._systolic import SystolicGenerator, array_design, closed_form
from edgecompress.hardware.rtl.bench import Bench, hex_words, packed_words
from edgecompress.hardware.rtl.verilog import (
    Design,
    module_text,
)
from edgecompress.hardware.simulator.layers import IntArray, IntegerLayer

TOP = "systolic_ws"

ABOUT = (
    "A product (rows x inner) (inner x columns) runs in folds of ROWS taps by COLUMNS outputs: "
    "ROWS cycles load the weights of a fold, then a row of activations enters each cycle, row r "
    "of the array r cycles later, and sums move down. The partial sums of the fold before enter "
    "at the top, so that folds over the inner axis accumulate inside the array; in between they "
    "wait in a memory outside. A fold takes 2 ROWS + COLUMNS + rows - 2 cycles.",
    "Memories give data in the cycle after a read; one that is read where it is written gives "
    "the new value. Where sum_first is set the sum memory gives the bias of the column.",
)


def design(shape: ArrayShape) -> Design:
    """The array with its control."""
    return array_design(TOP, "Weight-stationary systolic array.", ABOUT, shape)


def bench(shape: ArrayShape, layer: IntegerLayer) -> Bench:
    """The array with a test bench that runs a layer, group after group."""
    products = _blocks(shape, products_of(layer))
    inner, columns = products[0].weights.shape
    row_counts = np.array([len(product.inputs) for product in products])
    rows = int(row_counts.max())
    inner_folds, column_folds = -(-inner // shape.rows), -(-columns // shape.columns)
    settings: dict[str, int | str] = {
        **dict(shape.settings),
        "ADDRESS_BITS": address_bits(
            inner_folds * column_folds * shape.rows, rows * inner_folds, rows * column_folds
        ),
        "PRODUCTS": len(products),
        "M": rows,
        "ROW_SUM": int(row_counts.sum()),
        "K": inner,
        "N": columns,
        "INNER_FOLDS": inner_folds,
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
        memories=_memories(shape, products)
        | {"row_counts.hex": hex_words(row_counts, int(settings["ADDRESS_BITS"]))},
    )


def _blocks(shape: ArrayShape, products: Sequence[Operands]) -> list[Operands]:
    """Products whose sums the memories hold: all rows, or some at a time."""
    found = []
    for one in products:
        rows, inner = one.inputs.shape
        most = rows if shape.depth is None or inner <= shape.rows else min(rows, shape.depth)
        for first in range(0, rows, most):
            part = slice(first, first + most)
            found.append(replace(one, inputs=one.inputs[part], expected=one.expected[part]))
    return found


def _memories(shape: ArrayShape, products: Sequence[Operands]) -> dict[str, str]:
    """The hex files of the test bench."""
    weights = [_weight_words(padded(p.weights, shape.rows, shape.columns), shape) for p in products]
    acts = [folded(padded(p.inputs, 1, shape.rows), shape.rows) for p in products]
    biases = [folded(padded(p.correction[None], 1, shape.columns), shape.columns) for p in products]
    expected = [folded(padded(p.expected, 1, shape.columns), shape.columns) for p in products]
    return {
        "weights.hex": packed_words(np.concatenate(weights), shape.weight_bits),
        "activations.hex": packed_words(np.concatenate(acts), shape.activation_bits),
        "biases.hex": packed_words(np.concatenate(biases), shape.sum_bits),
        "expected.hex": packed_words(np.concatenate(expected), shape.sum_bits),
    }


def _weight_words(weights: IntArray, shape: ArrayShape) -> IntArray:
    """Padded weights in loading order: columns outside, inner folds inside, last row first."""
    inner, columns = weights.shape
    folds = weights.reshape(inner // shape.rows, shape.rows, columns // shape.columns, -1)
    return folds[:, ::-1].transpose(2, 0, 1, 3).reshape(-1, shape.columns)


def predicted_cycles(shape: ArrayShape, layer: IntegerLayer) -> int:
    """The closed form, product after product."""
    return closed_form(shape, _blocks(shape, products_of(layer)), product_cycles)


RTL = SystolicGenerator(
    design_of=design, bench_of=bench, cycles_of=predicted_cycles, sums_stay=False
)
