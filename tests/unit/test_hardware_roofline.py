"""The roofline, and what every family shares, by hand calculation."""

from __future__ import annotations

import dataclasses

import pytest

from edgecompress.core.work import ElementWork, MatMulWork, OperatorWork, Work
from edgecompress.hardware.cost import cost, estimate
from edgecompress.hardware.target import load_target


def as_work(operator: OperatorWork, assumed: str = "") -> Work:
    return Work(
        name="n", op_type="X", operator=operator, input_bits=0, output_bits=0, assumed=assumed
    )


PRODUCT = MatMulWork(
    count=1,
    rows=64,
    inner=512,
    columns=256,
    constant=True,
    weight_bits=8,
    activation_bits=8,
    weight_storage_bits=512 * 256 * 8,
)


def test_compute_bound_product() -> None:
    found = cost(as_work(PRODUCT), load_target("roofline-generic"))
    assert found.bottleneck == "compute"
    assert found.latency_s == pytest.approx(64 * 512 * 256 / 250e9)
    assert found.utilisation == pytest.approx(1.0)


def test_memory_bound_product() -> None:
    thin = dataclasses.replace(PRODUCT, rows=1)
    found = cost(as_work(thin), load_target("roofline-generic"))
    assert found.bottleneck == "load"
    assert found.latency_s == pytest.approx((512 * 256 + 512 + 256) / 12.8e9)


@pytest.mark.parametrize(
    ("weight", "activation", "rate"),
    [
        (32, 32, 62.5e9),
        (2, 32, 62.5e9),
        (16, 16, 125e9),
        (2, 8, 250e9),
        (3, 4, 500e9),
        (2, 2, 1e12),
    ],
)
def test_rate_follows_the_wider_operand(weight: int, activation: int, rate: float) -> None:
    wide = dataclasses.replace(
        PRODUCT, rows=4096, weight_bits=weight, activation_bits=activation, weight_storage_bits=0
    )
    found = cost(as_work(wide), load_target("roofline-generic"))
    assert found.compute_cycles / 1e9 == pytest.approx(wide.macs / rate)


ADD = ElementWork(operations=1000, read_bits=64000, written_bits=32000)


def test_element_work_is_bound_by_memory() -> None:
    found = cost(as_work(ADD), load_target("roofline-generic"))
    assert found.latency_s == pytest.approx(12000 / 12.8e9)
    assert found.assumed == ""


def test_element_work_beside_an_array_is_narrow_and_flagged() -> None:
    found = cost(as_work(ADD), load_target("systolic-ws-32"))
    assert found.latency_s == pytest.approx(3000 / (12.8e9 * 0.9))
    assert "not on the array" in found.assumed


def test_many_operations_are_bound_by_arithmetic() -> None:
    heavy = dataclasses.replace(ADD, operations=10**6)
    found = cost(as_work(heavy), load_target("roofline-generic"))
    assert found.bottleneck == "compute"
    assert found.latency_s == pytest.approx(10**6 / 32e9)


def test_fused_work_takes_no_time_and_says_so() -> None:
    fused = dataclasses.replace(ADD, fused=True)
    target = load_target("roofline-generic")
    assert cost(as_work(fused), target).latency_s == 0
    assert "while results are written" in cost(as_work(fused), target).assumed
    alone = dataclasses.replace(target, fused_activations=False)
    assert cost(as_work(fused), alone).latency_s > 0


def test_free_work_takes_no_time_and_needs_no_word() -> None:
    free = dataclasses.replace(ADD, free=True)
    found = cost(as_work(free), load_target("winocnn-zcu102-w6"))
    assert (found.latency_s, found.bottleneck, found.assumed) == (0, "none", "")


def test_assumptions_of_the_work_are_kept() -> None:
    found = cost(as_work(ADD, "a guess"), load_target("systolic-ws-32"))
    assert found.assumed.startswith("a guess; ")


def test_estimate_keeps_the_order() -> None:
    works = [as_work(ADD), as_work(PRODUCT)]
    target = load_target("roofline-generic")
    assert estimate(works, target) == tuple(cost(work, target) for work in works)
