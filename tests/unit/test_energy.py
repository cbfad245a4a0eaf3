"""Energy: what it is made of, on every target that ships, and what raises or lowers it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecompress.core.errors import Unsupported
from edgecompress.core.work import ConvWork, Cost, ElementWork, MatMulWork, OperatorWork, Work
from edgecompress.graph.model import load_model
from edgecompress.hardware.cost import cost
from edgecompress.hardware.simulator.layers import exact_outputs
from edgecompress.hardware.target import Target, list_targets, load_target
from edgecompress.hardware.timeline import Timeline, as_cost
from edgecompress.pipeline.estimate import ENERGY, estimate_latency
from edgecompress.pipeline.explore import ExploreRequest, explore
from edgecompress.pipeline.explore_target import picked_point

LATENCY = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"
CONV = ConvWork(
    batch=1,
    in_channels=16,
    out_channels=32,
    in_height=14,
    in_width=14,
    out_height=14,
    out_width=14,
    kernel=(3, 3),
    stride=(1, 1),
    pads=(1, 1, 1, 1),
    dilation=(1, 1),
    group=1,
    transposed=False,
    weight_bits=8,
    activation_bits=8,
)
PRODUCT = MatMulWork(
    count=1, rows=4, inner=256, columns=64, constant=True, weight_bits=8, activation_bits=8
)
ELEMENT = ElementWork(
    operations=32 * 14 * 14,
    activation_bits=8,
    read_bits=2 * 8 * 32 * 14 * 14,
    written_bits=8 * 32 * 14 * 14,
)


def priced(operator: OperatorWork, target: Target) -> Cost:
    work = Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)
    return cost(work, target)


def energy_pj(operator: OperatorWork, target: Target) -> float:
    found = priced(operator, target).energy_pj
    assert found is not None
    return found


@pytest.mark.parametrize("name", list_targets())
@pytest.mark.parametrize("operator", [CONV, PRODUCT, ELEMENT], ids=["conv", "product", "element"])
def test_every_operator_has_an_energy(name: str, operator: OperatorWork) -> None:
    found = priced(operator, load_target(name))
    assert found.energy is not None
    parts = (
        found.energy.mac_pj,
        found.energy.on_chip_pj,
        found.energy.dram_pj,
        found.energy.static_pj,
    )
    assert all(part >= 0 for part in parts)
    assert found.energy_pj == pytest.approx(sum(parts))
    assert sum(parts) > 0
    assert (found.energy.mac_pj == 0) == isinstance(operator, ElementWork)


@pytest.mark.parametrize("name", list_targets())
def test_more_work_takes_more_energy(name: str) -> None:
    """Twice the output channels, or rows: more multiplications, and more bytes."""
    target = load_target(name)
    wide = replace(CONV, out_channels=2 * CONV.out_channels)
    assert energy_pj(wide, target) > energy_pj(CONV, target)
    assert energy_pj(replace(PRODUCT, rows=256), target) > energy_pj(PRODUCT, target)


@pytest.mark.parametrize(
    "name",
    [name for name in list_targets() if load_target(name).weight_stream.encoding == "packed"],
)
def test_fewer_weight_bits_never_take_more_energy(name: str) -> None:
    target = load_target(name)
    for operator in (CONV, PRODUCT):
        found = [
            energy_pj(replace(operator, weight_bits=bits), target) for bits in (1, 2, 3, 4, 6, 8)
        ]
        # What unpacks codes of less than a byte in software takes longer with them.
        found = found[-1:] if target.family == "mcu" else found
        assert found == sorted(found)


def test_each_cause_by_its_rate() -> None:
    """Truth: by hand; 3 multiplications rather than the operator's, 10 + 20 and 40 bytes, 50 ns."""
    target = load_target("bitfusion-45nm")
    assert target.energy is not None
    work = Work(name="n", op_type="X", operator=PRODUCT, input_bits=0, output_bits=0)
    timeline = Timeline(
        compute=25,
        load=0,
        store=0,
        fill=0,
        total=25,
        macs_per_cycle=1,
        weight_bytes=10,
        activation_bytes=20,
        buffer_bytes=40,
        multiplications=3,
    )
    found = as_cost(work, target, timeline).energy
    assert found is not None
    assert found.mac_pj == pytest.approx(3 * 0.4592)
    assert found.on_chip_pj == pytest.approx(40 * 0.26)
    assert found.dram_pj == pytest.approx(30 * 87.5)
    assert found.static_pj == pytest.approx(0.243 * 50e-9 * 1e12)
    counted = as_cost(work, target, replace(timeline, multiplications=None)).energy
    assert counted is not None
    assert counted.mac_pj == pytest.approx(4 * 256 * 64 * 0.4592)


@pytest.mark.parametrize("strict", [False, True])
def test_a_winograd_array_is_charged_for_its_multiplications(strict: bool) -> None:
    """Truth: by hand. Tiles of 6 and 4 x 4 results: 36 multiplications for 16 x 9 of the operator.

    64 channels both ways fill the 4 channels of an element and the 4 rows, two images both halves,
    and 16 x 16 pixels whole tiles of two columns, so that nothing is idle: a quarter of the
    multiply-accumulates.
    """
    target = load_target("winocnn-zcu102-w6")
    parameters = target.parameters.model_copy(update={"bound_rows_by_output": strict})
    target = replace(target, parameters=parameters)
    side = {"in_height": 16, "in_width": 16, "out_height": 16, "out_width": 16}
    conv = replace(CONV, batch=2, in_channels=64, out_channels=64, **side)
    found = priced(conv, target).energy
    assert found is not None
    each = 12 * 13 * 0.10045  # transformed inputs of 12 bits and weights of 13, bit by bit
    assert found.mac_pj == pytest.approx(conv.macs / 4 * each)
    one_by_one = replace(conv, kernel=(1, 1), pads=(0, 0, 0, 0))
    found = priced(one_by_one, target).energy
    assert found is not None
    columns = 24  # for 16: two passes of two tiles of 6
    rows = 18 if strict else 24  # for 16: steps of one row of tiles, or two steps of two rows
    done = one_by_one.macs * columns * rows / 16**2
    assert found.mac_pj == pytest.approx(done * each)


def test_a_winograd_array_is_charged_for_all_that_the_simulator_multiplies(full: bool) -> None:
    """Truth: the simulator, which counts no padding and no lane without work; so never less."""
    sys.path.insert(0, str(LATENCY))
    try:
        agreement = importlib.import_module("winocnn_agreement")
    finally:
        sys.path.remove(str(LATENCY))
    shares = []
    for seed in range(200 if full else 24):
        rng = np.random.default_rng(seed)
        target, array = agreement.random_target(rng)
        layer = agreement.random_layer(rng)
        try:
            found = agreement.simulate(array, layer)
        except Unsupported:
            continue
        energy = cost(agreement.as_work(layer, exact_outputs(layer)), target).energy
        assert energy is not None
        p = target.parameters
        each = 0.10045 * p.transformed_input_bits * p.transformed_weight_bits
        shares.append(found.multiplications * each / energy.mac_pj)
    assert min(shares) > 0
    assert 0.5 < max(shares) <= 1 + 1e-9


def test_a_copy_of_a_table_has_its_own_energy() -> None:
    """A table that was read before and one made of it do not share what was read."""
    table = load_target("bitfusion-45nm").energy
    assert table is not None
    assert table.mac_energy_pj(8, 8) == 0.4592
    assert table.model_copy(update={"mac_pj": {"8x8": 5.0}}).mac_energy_pj(8, 8) == 5.0


def test_planes_of_a_bit_serial_array_are_what_is_charged() -> None:
    """Truth: a product of A x W bits is A W products of two bits."""
    target = load_target("bitserial-pynq-z1")
    assert target.energy is not None
    for activation, weight in ((1, 1), (4, 2), (3, 5), (8, 8)):
        operator = replace(CONV, activation_bits=activation, weight_bits=weight)
        found = priced(operator, target).energy
        assert found is not None
        assert found.mac_pj == pytest.approx(CONV.macs * activation * weight * 0.10045)


def test_a_microcontroller_is_charged_for_its_time() -> None:
    """Truth: the target's power times the time, but for what the multiplications round to."""
    target = load_target("cortex-m4")
    found = priced(CONV, target)
    assert found.energy_pj == pytest.approx(0.012 * found.latency_s * 1e12, rel=1e-6)


def test_a_report_says_what_its_energy_is_worth(sample_models: Path) -> None:
    model = load_model(sample_models / "digits_cnn.onnx", normalize=False)
    assumed = estimate_latency(model, load_target("systolic-ws-32"))
    assert ENERGY in assumed.notes
    own = estimate_latency(model, load_target("bitfusion-45nm"))
    assert own.energy_pj is not None
    assert ENERGY not in own.notes


@pytest.mark.parametrize(
    "name",
    [
        "winocnn-zcu102-w6",
        "winocnn-pynq-z1-w4",
        "systolic-is-32",
        "tdla-z7020",
        "lutmac-ultra96",
        "bitserial-pynq-z1",
        "bitfusion-45nm",
        "ethos-u55-128",
        "cortex-m4",
        "roofline-generic",
    ],
)
def test_a_point_can_be_picked_for_energy(name: str, sample_models: Path) -> None:
    model = str(sample_models / "digits_cnn.onnx")
    vary = ("clock=100,200", "dram.bandwidth=1:4:3log")
    report, _ = explore(ExploreRequest(models=(model,), target=name, vary=vary))
    energies = [point.energy_pj for point in report.front]
    assert all(value is not None and np.isfinite(value) for value in energies)
    assert (ENERGY in report.assumptions) == (name != "bitfusion-45nm")
    assert picked_point(report, "energy").energy_pj == min(value or 0.0 for value in energies)
