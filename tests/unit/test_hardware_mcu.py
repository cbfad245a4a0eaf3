"""Microcontrollers: by hand calculation, and against measurements of MLPerf Tiny submitters."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, OperatorWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.models.mcu import Parameters
from edgecompress.hardware.target import Target, load_target

CHIPS = ("cortex-m4", "cortex-m7", "cortex-m55")
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
    weight_storage_bits=8 * 16 * 32 * 9,
)


def as_work(operator: OperatorWork) -> Work:
    return Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)


def numbers(target: Target) -> Parameters:
    assert isinstance(target.parameters, Parameters)
    return target.parameters


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"
    monkeypatch.syspath_prepend(str(folder))
    import mlperf_tiny as module

    yield module
    for name in ("mlperf_tiny", "layered"):
        sys.modules.pop(name)


def test_a_convolution_by_hand() -> None:
    """2.594 cycles a multiplication, 51.61 an output, 4608 bytes of weights at 0.7555 cycles."""
    found = cost(as_work(CONV), load_target("cortex-m4"))
    assert found.compute_cycles == pytest.approx(1843200 * 2.594 + 12800 * 51.61)
    assert found.load_cycles == pytest.approx(4608 * 0.7555, rel=1e-3)
    assert found.total_cycles == found.compute_cycles + found.load_cycles
    assert found.assumed == ""


@pytest.mark.parametrize(
    ("network", "macs"), [("ic", 12.5e6), ("vww", 7.49e6), ("kws", 2.66e6), ("ad", 0.264e6)]
)
def test_the_networks_have_their_published_size(
    tiny: ModuleType, network: str, macs: float
) -> None:
    """Multiply-accumulates by hand: layer by layer from the published architectures."""
    assert tiny.counts(network)[0] == pytest.approx(macs, rel=0.005)


def test_measurements_are_within_the_stated_error(tiny: ModuleType) -> None:
    """Truth: throughput that others measured; each within the range that the target states."""
    count = 0
    for one in tiny.MEASURED:
        name = "cortex-m55" if one.chip == "cortex-m85" else one.chip
        bar = load_target(name).model_error
        assert bar is not None
        for row in tiny.compared(one, name):
            assert abs(row["error"]) <= bar, row
            count += 1
    assert count == 19


def test_kept_results_are_those_of_the_code(tiny: ModuleType) -> None:
    committed = json.loads(tiny.RESULTS.read_text())
    assert committed["command"] == tiny.COMMAND
    rows = []
    for one in tiny.MEASURED:
        rows += tiny.compared(one, "cortex-m55" if one.chip == "cortex-m85" else one.chip)
    assert committed["results"] == rows


@pytest.mark.parametrize(
    ("chip", "name"),
    [("cortex-m4", "cortex-m4"), ("cortex-m7", "cortex-m7"), ("cortex-m85", "cortex-m55")],
)
def test_the_numbers_of_a_target_are_the_fit_to_the_measurements(
    tiny: ModuleType, chip: str, name: str
) -> None:
    fit, target = tiny.fitted(chip), load_target(name)
    assert numbers(target).cycles_per_mac == pytest.approx(fit["cycles_per_mac"], rel=1e-3)
    assert numbers(target).cycles_per_output == pytest.approx(fit["cycles_per_output"], rel=1e-3)
    assert 1 / target.dram_bytes_per_cycle == pytest.approx(fit["cycles_per_weight_byte"], rel=1e-3)


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_weights_save_flash_and_no_time(name: str, bits: int) -> None:
    target = load_target(name)
    narrow = dataclasses.replace(
        CONV, weight_bits=bits, weight_storage_bits=CONV.weight_storage_bits * bits // 8
    )
    wide, packed = cost(as_work(CONV), target), cost(as_work(narrow), target)
    assert packed.weight_bytes == wide.weight_bytes * bits / 8
    assert packed.total_cycles > wide.total_cycles
    assert "unpacked in software" in packed.assumed


def test_a_fully_connected_layer_waits_for_every_weight() -> None:
    layer = MatMulWork(
        count=1,
        rows=1,
        inner=640,
        columns=128,
        constant=True,
        weight_bits=8,
        activation_bits=8,
    )
    target = load_target("cortex-m4")
    found = cost(as_work(layer), target)
    assert found.load_cycles == pytest.approx(81920 * 0.7555, rel=1e-3)
    two = dataclasses.replace(layer, constant=False)
    assert cost(as_work(two), target).load_cycles == 0


@pytest.mark.parametrize("name", CHIPS)
def test_maps_that_do_not_fit_are_flagged(name: str) -> None:
    """224 x 224 x 64 at 8 bits are 3.2 million bytes, more than any of the SRAMs."""
    large = dataclasses.replace(CONV, in_channels=64, in_height=224, in_width=224)
    assert "do not fit the SRAM" in cost(as_work(large), load_target(name)).assumed
    copy = ElementWork(operations=0, read_bits=8 * 3211264, written_bits=8, movement=True)
    assert "do not fit the SRAM" in cost(as_work(copy), load_target(name)).assumed


def test_wider_activations_are_flagged_and_no_faster() -> None:
    target = load_target("cortex-m7")
    wide = dataclasses.replace(CONV, activation_bits=16)
    found = cost(as_work(wide), target)
    assert found.compute_cycles == 2 * cost(as_work(CONV), target).compute_cycles
    assert "wider than 8 bits" in found.assumed


def test_copies_and_arithmetic_by_hand() -> None:
    target = load_target("cortex-m4")
    copy = ElementWork(operations=0, read_bits=8000, written_bits=8000, movement=True)
    assert cost(as_work(copy), target).total_cycles == 1000
    add = ElementWork(operations=1000, read_bits=16000, written_bits=8000)
    assert cost(as_work(add), target).total_cycles == pytest.approx(2000)


@given(
    channels=st.integers(1, 200),
    more=st.integers(1, 200),
    size=st.integers(1, 50),
    name=st.sampled_from(CHIPS),
)
def test_more_work_takes_longer(channels: int, more: int, size: int, name: str) -> None:
    target = load_target(name)
    small = dataclasses.replace(
        CONV, in_channels=channels, out_height=size, out_width=size, weight_storage_bits=0
    )
    large = dataclasses.replace(small, in_channels=channels + more)
    assert cost(as_work(small), target).total_cycles < cost(as_work(large), target).total_cycles
