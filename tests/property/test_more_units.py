"""More units are never slower, in the families where that holds by construction.

Not on systolic arrays and on WinoCNN: an example of each, by hand, is at the end. The sizes of an
Ethos-U are devices of their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cost_properties import as_work, operators

from edgecompress.core.work import ConvWork, Cost, MatMulWork, OperatorWork
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import Target, list_targets, load_target

ROUNDING = 1 + 1e-9
UNITS = {
    "roofline": tuple(f"macs_per_s_{bits}_bit" for bits in (2, 4, 8, 16, 32)),
    "ternary_engine": ("output_lanes", "input_lanes", "accumulators"),
    "lut_mac": ("luts", "dsp_blocks", "accumulators"),
    "bit_serial": ("row_units", "column_units", "unit_bits"),
    "bit_fusion": ("array_rows", "array_columns"),
}
NAMES = [name for name in list_targets() if load_target(name).family in UNITS]


@st.composite
def any_operator(draw: st.DrawFn) -> OperatorWork:
    """Of all widths; convolutions transposed too, with tensors on chip or not."""
    operator = draw(operators)
    widths = st.integers(1, 8)
    changed: dict[str, Any] = {"weight_bits": draw(widths), "activation_bits": draw(widths)}
    if isinstance(operator, ConvWork):
        changed |= {"weight_storage_bits": 0}
        changed |= {name: draw(st.booleans()) for name in ("input_on_chip", "output_on_chip")}
        if draw(st.booleans()):
            changed |= {"transposed": True}
            changed |= {"in_height": operator.out_height, "in_width": operator.out_width}
            changed |= {"out_height": operator.in_height, "out_width": operator.in_width}
    return dataclasses.replace(operator, **changed)


def with_units(target: Target, **units: float) -> Target:
    parameters = target.parameters.model_copy(update=units)
    return dataclasses.replace(target, parameters=parameters)


def fill_of(target: Target) -> int:
    """Cycles in which a Bit Fusion array fills and drains: N + M - 1."""
    if target.family != "bit_fusion":
        return 0
    sides = target.parameters.model_dump()
    return int(sides["array_rows"]) + int(sides["array_columns"]) - 1


@pytest.mark.parametrize("name", NAMES)
@given(operator=any_operator(), factor=st.integers(2, 5))
def test_never_slower_with_more_units(name: str, operator: OperatorWork, factor: int) -> None:
    target, work = load_target(name), as_work(operator)
    now = cost(work, target).total_cycles
    for unit in UNITS[target.family]:
        value = getattr(target.parameters, unit) * factor
        larger = with_units(target, **{unit: value})
        allowed = now * ROUNDING + fill_of(larger) - fill_of(target)
        assert cost(work, larger).total_cycles <= allowed, unit


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [
        # Weights held: one fold of 2R + C + M - 2 cycles.
        ("systolic-ws-32", 2 * 32 + 32 + 1 - 2, 2 * 64 + 64 + 1 - 2),
        # Sums held: one fold of R + C + K - 2.
        ("systolic-os-32", 32 + 32 + 32 - 2, 64 + 64 + 32 - 2),
        # Inputs held: one fold of 2R + C + N - 2.
        ("systolic-is-32", 2 * 32 + 32 + 32 - 2, 2 * 64 + 64 + 32 - 2),
    ],
)
def test_a_larger_systolic_array_takes_longer_to_fill_and_drain(
    name: str, small: int, large: int
) -> None:
    """One row by 32 x 32 weights: they use a quarter of 64 x 64 elements and cross all of them."""
    operator = MatMulWork(
        count=1, rows=1, inner=32, columns=32, constant=True, weight_bits=8, activation_bits=8
    )
    target = load_target(name)
    now = cost(as_work(operator), target)
    then = cost(as_work(operator), with_units(target, array_rows=64, array_columns=64))
    assert (now.compute_cycles, then.compute_cycles) == (small, large)
    assert then.total_cycles - now.total_cycles == pytest.approx(large - small)


def on_winocnn(array_rows: int) -> Cost:
    """A 3x3 convolution of 64 to 8 channels on 4 x 4 pixels of two images, omega 6."""
    operator = ConvWork(
        batch=2,
        in_channels=64,
        out_channels=8,
        in_height=4,
        in_width=4,
        out_height=4,
        out_width=4,
        kernel=(3, 3),
        stride=(1, 1),
        dilation=(1, 1),
        pads=(1, 1, 1, 1),
        group=1,
        weight_bits=8,
        activation_bits=8,
    )
    target = load_target("winocnn-zcu102-w6")
    return cost(as_work(operator), with_units(target, array_rows=array_rows))


def test_a_larger_winocnn_array_waits_for_the_weights_of_idle_rows() -> None:
    """16 passes of 4 input channels over one tile, at least 4 cycles each: 64 cycles of sweep.

    Weights come in slots of 9 x 7 bits, two in a word: 2 words for the 4 channels of a row and a
    pass. 8 rows on 4 ports take 2 x 2 x 16 = 64 words of a port, as long as the sweep; 16 rows, of
    which 8 have no output channel, take 128.

    In all, at 0.8 words a cycle: first 2 rounds of 64 words of inputs, then the weights, at the
    end 3 x 8 words of outputs; in between the one row step loads 4 x 64 words of its next rows and
    the weights, which is longer than the sweep.
    """
    small, large = on_winocnn(8), on_winocnn(16)
    assert (small.compute_cycles, large.compute_cycles) == (64, 128)
    assert small.total_cycles == pytest.approx((2 * 64 + 64 + 3 * 8) / 0.8 + (4 * 64 + 64) / 0.8)
    assert large.total_cycles == pytest.approx((2 * 64 + 128 + 3 * 8) / 0.8 + (4 * 64 + 128) / 0.8)
