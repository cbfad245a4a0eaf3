"""Invariants of all cost models on random operators, chained and measured ones included."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.work import (
    ConvWork,
    ElementWork,
    MatMulWork,
    OperatorWork,
    TensorUse,
    WeightStatistics,
    Work,
)
from edgecompress.hardware.chains import fuse_chains
from edgecompress.hardware.cost import bound_cycles, cost, estimate
from edgecompress.hardware.target import list_targets, load_target

SLACK = 1 + 1e-9
names = st.sampled_from(list_targets())
channels = st.one_of(st.integers(1, 40), st.integers(1, 600))


@st.composite
def convolutions(draw: st.DrawFn) -> ConvWork:
    group = draw(st.sampled_from([1, 1, 1, 2, 16]))
    kernel = (draw(st.sampled_from([1, 1, 3, 3, 5, 2])), draw(st.sampled_from([1, 1, 3, 3, 7])))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (3, 3)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2)]))
    transposed = draw(st.sampled_from([False, False, False, True]))
    small = (draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    large = tuple(
        (small[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        for axis in (0, 1)
    )
    entering, leaving = (small, large) if transposed else (large, small)
    bits = draw(st.sampled_from([2, 4, 8, 32]))
    inputs, outputs = group * draw(channels), group * draw(channels)
    weights = inputs // group * outputs * kernel[0] * kernel[1]
    return ConvWork(
        batch=draw(st.integers(1, 3)),
        in_channels=inputs,
        out_channels=outputs,
        in_height=entering[0],
        in_width=entering[1],
        out_height=leaving[0],
        out_width=leaving[1],
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pads=(0, 0, 0, 0),
        group=group,
        transposed=transposed,
        weight_bits=bits,
        activation_bits=draw(st.sampled_from([8, 16, 32])),
        weight_storage_bits=draw(st.sampled_from([0, bits * weights])),
    )


@st.composite
def products(draw: st.DrawFn) -> MatMulWork:
    constant = draw(st.booleans())
    repeats = draw(st.integers(1, 4)) if constant else 1
    return MatMulWork(
        count=repeats * draw(st.integers(1, 6)),
        rows=draw(st.one_of(st.just(1), st.integers(1, 2000))),
        inner=draw(st.integers(1, 3000)),
        columns=draw(st.integers(1, 3000)),
        constant=constant,
        repeats=repeats,
        weight_bits=draw(st.sampled_from([2, 4, 8, 32])),
        activation_bits=draw(st.sampled_from([8, 16, 32])),
    )


@st.composite
def elements(draw: st.DrawFn) -> ElementWork:
    return ElementWork(
        operations=draw(st.integers(0, 10**7)),
        read_bits=draw(st.integers(0, 10**8)),
        written_bits=draw(st.integers(0, 10**8)),
        weight_storage_bits=draw(st.sampled_from([0, 8000])),
        movement=draw(st.booleans()),
        fused=draw(st.booleans()),
        activation_bits=draw(st.sampled_from([8, 32])),
    )


@st.composite
def measurements(draw: st.DrawFn) -> WeightStatistics:
    """Of codes that are zero with some probability, all others being equally frequent."""
    others = draw(st.integers(1, 254))
    zeros = draw(st.floats(0.01, 0.99))
    entropy = -zeros * math.log2(zeros) - (1 - zeros) * math.log2((1 - zeros) / others)
    return WeightStatistics(
        count=1000,
        levels=others + 1,
        entropy_bits=entropy,
        zero_share=zeros,
        zero_run_bits=(1 - zeros) * 12,
        winograd_zero_shares=tuple((omega, zeros / 2) for omega in (4, 6, 8)),
    )


def as_work(operator: OperatorWork, weights: WeightStatistics | None = None) -> Work:
    return Work(
        name="n", op_type="X", operator=operator, input_bits=0, output_bits=0, weights=weights
    )


@st.composite
def works(draw: st.DrawFn) -> Work:
    operator = draw(st.one_of(convolutions(), products(), elements()))
    measured = None if isinstance(operator, ElementWork) else draw(st.none() | measurements())
    return as_work(operator, measured)


@pytest.fixture(params=list_targets(), scope="module")
def target_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@given(work=works())
def test_never_under_the_bound(target_name: str, work: Work) -> None:
    target = load_target(target_name)
    assert cost(work, target).total_cycles * SLACK >= bound_cycles(work, target) >= 0


@given(work=works(), factor=st.floats(1.0, 8.0))
def test_never_slower_with_more_clock_bandwidth_or_efficiency(
    target_name: str, work: Work, factor: float
) -> None:
    target = load_target(target_name)
    now = cost(work, target).latency_s
    for change in (
        {"clock_hz": target.clock_hz * factor},
        {"dram_bytes_per_s": target.dram_bytes_per_s * factor},
        {"dram_efficiency_share": min(1.0, target.dram_efficiency_share * factor)},
        {"element_operations_per_s": target.element_operations_per_s * factor},
    ):
        better = dataclasses.replace(target, **change)
        assert cost(work, better).latency_s <= now * SLACK, change


@given(target_name=names, operator=st.one_of(convolutions(), products()))
def test_zero_work_takes_zero_time(target_name: str, operator: ConvWork | MatMulWork) -> None:
    target = load_target(target_name)
    empty = (
        dataclasses.replace(operator, batch=0)
        if isinstance(operator, ConvWork)
        else dataclasses.replace(operator, rows=0)
    )
    found = cost(as_work(empty), target)
    assert (found.total_cycles, found.latency_s, found.bottleneck) == (0, 0, "none")
    nothing = cost(as_work(ElementWork(operations=0, read_bits=0, written_bits=0)), target)
    assert nothing.total_cycles == 0


@given(target_name=names, work=works())
def test_figures_are_finite_and_sums_add_up(target_name: str, work: Work) -> None:
    target = load_target(target_name)
    found = cost(work, target)
    numbers = [getattr(found, field.name) for field in dataclasses.fields(found)]
    numbers = [value for value in numbers if isinstance(value, int | float)]
    assert all(math.isfinite(value) and value >= 0 for value in numbers)
    assert found.latency_s == pytest.approx(found.total_cycles / target.clock_hz)
    assert (found.energy is None) == (found.energy_pj is None)
    if found.energy is not None:
        assert found.energy_pj == pytest.approx(found.energy.total_pj)
        moved = found.weight_bytes + found.activation_bytes
        assert target.energy is not None
        assert found.energy.dram_pj == pytest.approx(moved * target.energy.dram_pj_per_byte)
    if not isinstance(work.operator, ElementWork):
        assert found.total_cycles > 0
    elif found.total_cycles == 0 and work.operator.operations:
        assert found.assumed


@given(target_name=names, chosen=st.lists(convolutions(), min_size=2, max_size=4))
def test_a_chain_is_never_slower_for_what_may_stay_on_chip(
    target_name: str, chosen: list[ConvWork]
) -> None:
    target = load_target(target_name)
    chain = [
        dataclasses.replace(
            as_work(operator),
            name=str(place),
            source_layer="layer",
            reads=(TensorUse(name=str(place), bits=8),),
            writes=(TensorUse(name=str(place + 1), bits=8),),
        )
        for place, operator in enumerate(chosen)
    ]
    fused, (found,) = fuse_chains(chain, target)
    total = math.fsum(one.latency_s for one in estimate(fused, target))
    assert total <= found.memory_s * SLACK
    assert total == pytest.approx(found.fused_s if found.is_fused else found.memory_s)
