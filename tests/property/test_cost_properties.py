"""Invariants of the cost models on random operators."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.work import ConvWork, MatMulWork, OperatorWork, Work
from edgecompress.hardware.cost import bound_cycles, cost
from edgecompress.hardware.models import systolic_os, systolic_ws
from edgecompress.hardware.target import list_targets, load_target

sizes = st.integers(1, 70)
channels = st.integers(1, 600)


@st.composite
def convolutions(draw: st.DrawFn) -> ConvWork:
    group = draw(st.sampled_from([1, 1, 1, 2, 8]))
    kernel = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    height, width = draw(sizes), draw(sizes)
    bits = draw(st.sampled_from([2, 4, 8, 32]))
    inputs, outputs = group * draw(channels), group * draw(channels)
    weights = inputs // group * outputs * kernel[0] * kernel[1]
    return ConvWork(
        batch=draw(st.integers(1, 5)),
        in_channels=inputs,
        out_channels=outputs,
        in_height=height * stride[0] + kernel[0] - 1,
        in_width=width * stride[1] + kernel[1] - 1,
        out_height=height,
        out_width=width,
        kernel=kernel,
        stride=stride,
        dilation=(1, 1),
        pads=(0, 0, 0, 0),
        group=group,
        weight_bits=bits,
        activation_bits=draw(st.sampled_from([8, 32])),
        weight_storage_bits=draw(st.sampled_from([0, bits * weights])),
    )


@st.composite
def products(draw: st.DrawFn) -> MatMulWork:
    repeats = draw(st.integers(1, 4))
    return MatMulWork(
        count=repeats * draw(st.integers(1, 6)),
        rows=draw(st.integers(1, 3000)),
        inner=draw(st.integers(1, 5000)),
        columns=draw(st.integers(1, 5000)),
        constant=draw(st.booleans()),
        repeats=repeats,
        weight_bits=draw(st.sampled_from([2, 4, 8, 32])),
        activation_bits=draw(st.sampled_from([8, 32])),
    )


operators = st.one_of(convolutions(), products())


def as_work(operator: OperatorWork) -> Work:
    return Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)


@pytest.mark.parametrize("name", list_targets())
@given(operator=operators)
def test_never_under_the_roofline_of_the_target(name: str, operator: OperatorWork) -> None:
    target, work = load_target(name), as_work(operator)
    assert cost(work, target).total_cycles >= bound_cycles(work, target) * (1 - 1e-9) > 0


@pytest.mark.parametrize("name", list_targets())
@given(operator=operators, factor=st.floats(1.0, 8.0))
def test_never_slower_with_more_of_anything(
    name: str, operator: OperatorWork, factor: float
) -> None:
    target, work = load_target(name), as_work(operator)
    now = cost(work, target).latency_s
    faster = dataclasses.replace(target, clock_hz=target.clock_hz * factor)
    wider = dataclasses.replace(target, dram_bytes_per_s=target.dram_bytes_per_s * factor)
    assert cost(work, faster).latency_s <= now * (1 + 1e-9)
    assert cost(work, wider).latency_s <= now * (1 + 1e-9)


# Not on WinoCNN: a row more can lead to a tile shape that its published row rule favours.
@pytest.mark.parametrize("name", ["roofline-generic", "systolic-os-32", "systolic-ws-32"])
@given(operator=products())
def test_more_rows_never_take_less(name: str, operator: MatMulWork) -> None:
    target = load_target(name)
    more = dataclasses.replace(operator, rows=operator.rows + 1)
    assert cost(as_work(more), target).latency_s >= cost(as_work(operator), target).latency_s


@given(
    rows=st.integers(1, 5000),
    inner=st.integers(1, 5000),
    columns=st.integers(1, 5000),
    height=st.integers(1, 64),
    width=st.integers(1, 64),
)
def test_arrays_never_do_more_than_one_mac_per_element_and_cycle(
    rows: int, inner: int, columns: int, height: int, width: int
) -> None:
    for model in (systolic_ws, systolic_os):
        folds, each = model.product_cycles(rows, inner, columns, height, width)
        assert folds * each * height * width >= rows * inner * columns
