"""Promises of every cost model, on every target that ships."""

from __future__ import annotations

import dataclasses
import math

import pytest

from edgecompress.core.work import (
    ConvWork,
    Cost,
    ElementWork,
    MatMulWork,
    OperatorWork,
    WeightStatistics,
    Work,
)
from edgecompress.hardware.cost import bound_cycles, cost
from edgecompress.hardware.target import list_targets, load_target

CONV = ConvWork(
    batch=1,
    in_channels=16,
    out_channels=32,
    in_height=20,
    in_width=20,
    out_height=20,
    out_width=20,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    pads=(1, 1, 1, 1),
    group=1,
    weight_bits=8,
    activation_bits=8,
    weight_storage_bits=16 * 32 * 9 * 8,
)
MATMUL = MatMulWork(
    count=2, rows=10, inner=64, columns=48, constant=True, weight_bits=8, activation_bits=8
)
OPERATORS: dict[str, OperatorWork] = {
    "3x3": CONV,
    "1x1": dataclasses.replace(CONV, kernel=(1, 1), pads=(0, 0, 0, 0)),
    "7x7 stride 2": dataclasses.replace(
        CONV, kernel=(7, 7), stride=(2, 2), out_height=10, out_width=10
    ),
    "1x7": dataclasses.replace(CONV, kernel=(1, 7), pads=(0, 3, 0, 3)),
    "depthwise": dataclasses.replace(CONV, group=16, out_channels=16),
    "grouped": dataclasses.replace(CONV, group=4),
    "dilated": dataclasses.replace(CONV, dilation=(2, 2)),
    "transposed": dataclasses.replace(
        CONV, transposed=True, stride=(2, 2), out_height=40, out_width=40
    ),
    "one axis": dataclasses.replace(
        CONV, kernel=(1, 9), in_height=1, out_height=1, in_width=16000, out_width=16000
    ),
    "one pixel": dataclasses.replace(CONV, in_height=1, in_width=1, out_height=1, out_width=1),
    "huge image": dataclasses.replace(
        CONV, in_height=4000, out_height=4000, in_width=9000, out_width=9000
    ),
    "many channels": dataclasses.replace(CONV, in_channels=30000, out_channels=5000),
    "odd channels": dataclasses.replace(CONV, in_channels=3, out_channels=1),
    "float": dataclasses.replace(CONV, weight_bits=32, activation_bits=32, weight_storage_bits=0),
    "matmul": MATMUL,
    "fully connected": dataclasses.replace(MATMUL, rows=1, inner=25088, columns=4096),
    "two activations": dataclasses.replace(MATMUL, constant=False),
    "recurrent": dataclasses.replace(MATMUL, count=50, repeats=50, rows=1),
}


def as_work(operator: OperatorWork) -> Work:
    return Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)


@pytest.fixture(params=list_targets())
def target_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def numbers(found: Cost) -> list[float]:
    values = [getattr(found, field.name) for field in dataclasses.fields(Cost)]
    return [value for value in values if isinstance(value, int | float)]


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_has_a_finite_time_above_the_roofline(name: str, target_name: str) -> None:
    target = load_target(target_name)
    work = as_work(OPERATORS[name])
    found = cost(work, target)
    assert all(math.isfinite(value) and value >= 0 for value in numbers(found))
    assert found.total_cycles >= bound_cycles(work, target) * (1 - 1e-9) > 0
    assert found.latency_s == pytest.approx(found.total_cycles / target.clock_hz)
    assert found.total_cycles >= found.compute_cycles
    assert found.bottleneck in ("compute", "load", "store", "fill")


@pytest.mark.parametrize("name", OPERATORS)
def test_twice_the_clock_and_memory_is_never_slower(name: str, target_name: str) -> None:
    target = load_target(target_name)
    work = as_work(OPERATORS[name])
    now = cost(work, target).latency_s
    for change in (
        {"clock_hz": 2 * target.clock_hz},
        {"dram_bytes_per_s": 2 * target.dram_bytes_per_s},
        {"element_operations_per_s": 2 * target.element_operations_per_s},
    ):
        assert cost(work, dataclasses.replace(target, **change)).latency_s <= now * (1 + 1e-12)


def test_no_work_takes_no_time(target_name: str) -> None:
    target = load_target(target_name)
    for operator in (
        dataclasses.replace(CONV, batch=0),
        dataclasses.replace(CONV, out_height=0),
        dataclasses.replace(CONV, in_channels=0),
        dataclasses.replace(MATMUL, rows=0),
        dataclasses.replace(MATMUL, count=0),
        ElementWork(operations=0, read_bits=0, written_bits=0),
    ):
        found = cost(as_work(operator), target)
        assert found.latency_s == 0
        assert found.bottleneck == "none"


def test_arithmetic_that_takes_no_time_says_why(target_name: str) -> None:
    target = load_target(target_name)
    for fused in (False, True):
        work = ElementWork(operations=9, read_bits=0, written_bits=0, fused=fused)
        found = cost(as_work(work), target)
        assert found.latency_s > 0 or found.assumed


def test_twice_the_images_take_at_most_twice_the_time(target_name: str) -> None:
    target = load_target(target_name)
    two = dataclasses.replace(CONV, batch=2)
    one_s = cost(as_work(CONV), target).latency_s
    assert one_s <= cost(as_work(two), target).latency_s <= 2 * one_s * (1 + 1e-9)


def test_kinds_are_what_is_covered_without_an_assumption(target_name: str) -> None:
    """At the width of weights that the device is made for: 8 bits on most, ternary on some."""
    target = load_target(target_name)
    exact = set()
    for bits, levels in ((8, 255), (2, 3)):
        plain: dict[str, OperatorWork] = {
            "conv": dataclasses.replace(CONV, weight_bits=bits),
            "matmul": dataclasses.replace(MATMUL, count=1, weight_bits=bits),
            "element": ElementWork(operations=9, read_bits=320, written_bits=320),
        }
        measured = WeightStatistics(
            count=4608,
            levels=levels,
            entropy_bits=1.5,
            zero_share=0.01,
            zero_run_bits=2.0,
            winograd_zero_shares=((4, 0.01), (6, 0.01), (8, 0.01)),
        )
        for kind, operator in plain.items():
            work = dataclasses.replace(as_work(operator), weights=measured)
            exact |= set() if cost(work, target).assumed else {kind}
    assert exact == set(target.kinds)
