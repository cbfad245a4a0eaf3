"""The generator of the systolic families; each dataflow gives its design, bench and cycles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.hardware.array_resources import systolic_resources
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.rtl._product import (
    ArrayShape,
    Operands,
    random_product,
    shape_of,
    why_not,
)
from edgecompress.hardware.rtl.bench import Bench
from edgecompress.hardware.rtl.verilog import (
    INTERFACE,
    ONE_FILE,
    RESET,
    Design,
    header,
    module_text,
)
from edgecompress.hardware.simulator.layers import IntegerLayer
from edgecompress.hardware.target import Target

ProductCycles = Callable[[int, int, int, int, int], tuple[int, int]]
"""Folds of a product and cycles of each, from (rows, inner, columns, array rows, columns)."""


def array_design(top: str, what: str, about: tuple[str, ...], shape: ArrayShape) -> Design:
    """An array with its control: the module ``top`` and what both dataflows are made of."""
    text = "\n".join(
        (
            header(what, (shape.described, *about, INTERFACE, RESET)),
            ONE_FILE,
            module_text(top, **dict(shape.settings)),
            module_text("signed_product"),
            module_text("lane_skew"),
        )
    )
    return Design(top=top, text=text, dsp=shape.dsp, settings=shape.settings)


def closed_form(shape: ArrayShape, products: Sequence[Operands], cycles: ProductCycles) -> int:
    """Cycles of products one after the other."""
    total = 0
    for product in products:
        rows, inner = product.inputs.shape
        columns = product.weights.shape[1]
        folds, each = cycles(rows, inner, columns, shape.rows, shape.columns)
        total += folds * each
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class SystolicGenerator:
    """The generator of one dataflow.

    Attributes:
        design_of: The array with its control.
        bench_of: The array with a test bench.
        cycles_of: The closed form for a layer.
        sums_stay: Output-stationary; else weight-stationary.
    """

    design_of: Callable[[ArrayShape], Design]
    bench_of: Callable[[ArrayShape, IntegerLayer], Bench]
    cycles_of: Callable[[ArrayShape, IntegerLayer], int]
    sums_stay: bool

    def design(self, target: Target) -> Design:
        """The target's array with its control."""
        return self.design_of(shape_of(target))

    def why_not(self, target: Target, layer: IntegerLayer) -> str | None:
        """Why the array cannot run a layer, or None."""
        return why_not(shape_of(target), layer)

    def bench(self, target: Target, layer: IntegerLayer) -> Bench:
        """The array with a test bench that runs ``layer``."""
        return self.bench_of(shape_of(target), layer)

    def random_layer(self, target: Target, generator: np.random.Generator) -> IntegerLayer:
        """A product that leaves a part of the last folds empty."""
        return random_product(shape_of(target), generator)

    def predicted_cycles(self, target: Target, layer: IntegerLayer) -> int:
        """What the closed form says about ``layer``."""
        return self.cycles_of(shape_of(target), layer)

    def predicted_resources(self, target: Target) -> Resources | None:
        """Look-up tables and DSP blocks of the generated array."""
        return systolic_resources(shape_of(target).counts, sums_stay=self.sums_stay)
