"""Invariants of the low-bit cost models on random operators and arrays."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.work import ConvWork, MatMulWork, OperatorWork, Work
from edgecompress.hardware.cost import bound_cycles, cost
from edgecompress.hardware.target import Target, load_target

NAMES = ("tdla-z7020", "lutmac-ultra96", "bitserial-pynq-z1", "bitfusion-45nm")
ROUNDING = 1 + 1e-9
small = st.integers(1, 40)
channels = st.integers(1, 300)
widths = st.integers(1, 8)


@st.composite
def convolutions(draw: st.DrawFn) -> ConvWork:
    group = draw(st.sampled_from([1, 1, 2, 8]))
    kernel, stride, dilation = (
        (draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (7, 3, 3)
    )
    height, width = draw(small), draw(small)
    transposed = draw(st.booleans()) and draw(st.booleans())
    covers = [(kernel[a] - 1) * dilation[a] + 1 for a in (0, 1)]
    large = [(size - 1) * stride[a] + covers[a] for a, size in enumerate((height, width))]
    inner, outer = ((height, width), large) if transposed else (large, (height, width))
    return ConvWork(
        batch=draw(st.integers(1, 3)),
        in_channels=group * draw(channels),
        out_channels=group * draw(channels),
        in_height=inner[0],
        in_width=inner[1],
        out_height=outer[0],
        out_width=outer[1],
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pads=(0, 0, 0, 0),
        group=group,
        transposed=transposed,
        weight_bits=draw(widths),
        activation_bits=draw(widths),
        input_on_chip=draw(st.booleans()),
        output_on_chip=draw(st.booleans()),
    )


@st.composite
def products(draw: st.DrawFn) -> MatMulWork:
    repeats = draw(st.integers(1, 4))
    return MatMulWork(
        count=repeats * draw(st.integers(1, 4)),
        rows=draw(st.integers(1, 2000)),
        inner=draw(st.integers(1, 4000)),
        columns=draw(st.integers(1, 4000)),
        constant=draw(st.booleans()),
        repeats=repeats,
        weight_bits=draw(widths),
        activation_bits=draw(widths),
    )


operators = st.one_of(convolutions(), products())


def as_work(operator: OperatorWork) -> Work:
    return Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)


def with_more(target: Target, unit: str, factor: int) -> Target:
    value = getattr(target.parameters, unit) * factor
    return dataclasses.replace(
        target, parameters=target.parameters.model_copy(update={unit: value})
    )


@pytest.mark.parametrize("name", NAMES)
@given(operator=operators)
def test_never_under_the_bound(name: str, operator: OperatorWork) -> None:
    target, work = load_target(name), as_work(operator)
    found = cost(work, target)
    assert found.total_cycles * ROUNDING >= bound_cycles(work, target) > 0
    assert found.total_cycles * ROUNDING >= found.compute_cycles
    assert found.total_cycles * ROUNDING >= found.load_cycles + found.store_cycles
    assert 0 < found.utilisation <= ROUNDING


@pytest.mark.parametrize("name", NAMES)
@given(operator=operators, factor=st.floats(1.0, 8.0))
def test_never_slower_with_more_bandwidth_clock_or_buffer(
    name: str, operator: OperatorWork, factor: float
) -> None:
    target, work = load_target(name), as_work(operator)
    now = cost(work, target).latency_s * ROUNDING
    faster = dataclasses.replace(target, clock_hz=target.clock_hz * factor)
    wider = dataclasses.replace(target, dram_bytes_per_s=target.dram_bytes_per_s * factor)
    assert cost(work, faster).latency_s <= now
    assert cost(work, wider).latency_s <= now
    for buffer in ("activation_buffer_bytes", "weight_buffer_bytes"):
        assert cost(work, with_more(target, buffer, int(factor) + 1)).latency_s <= now


@pytest.mark.parametrize("name", NAMES)
@given(operator=operators)
def test_never_slower_with_fewer_bits(name: str, operator: OperatorWork) -> None:
    target = load_target(name)
    now = cost(as_work(operator), target).total_cycles
    for field in ("weight_bits", "activation_bits"):
        bits = getattr(operator, field)
        fewer = dataclasses.replace(operator, **{field: max(1, bits - 1)})
        assert cost(as_work(fewer), target).total_cycles <= now * ROUNDING


@pytest.mark.parametrize("name", NAMES)
@given(operator=operators)
def test_no_work_takes_no_time(name: str, operator: OperatorWork) -> None:
    target = load_target(name)
    emptied = (
        dataclasses.replace(operator, batch=0)
        if isinstance(operator, ConvWork)
        else dataclasses.replace(operator, rows=0)
    )
    assert cost(as_work(emptied), target).latency_s == 0
