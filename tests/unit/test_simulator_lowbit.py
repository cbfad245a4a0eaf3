"""The simulators of the low-bit arrays: exact values, cycles of the closed forms, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.latency import lowbit_agreement as bench
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.hardware.simulator import bit_fusion, bit_serial, lut_mac, ternary_engine
from edgecompress.hardware.simulator.layers import (
    IntegerConv,
    IntegerProduct,
    exact_outputs,
)
from edgecompress.hardware.simulator.products import digits

TDLA = ternary_engine.TernaryArray(
    output_lanes=16, input_lanes=4, window=5, weight_load_cycles=8, accumulators=1024
)


@pytest.mark.parametrize("family", bench.FAMILIES)
def test_values_are_exact_and_cycles_are_those_of_the_closed_form(family: str, full: bool) -> None:
    """Truth: plain integer sums, and the clock of the simulator, which knows no closed form."""
    for seed in range(bench.LAYERS if full else 45):
        values, cycles, count = bench.agree(family, seed)
        assert values, f"{family}: values of layer {seed}"
        assert cycles, f"{family}: cycles of layer {seed}"
        assert count > 0


def test_committed_agreement_is_complete() -> None:
    document = json.loads(bench.RESULTS.read_text())
    assert document["command"] == bench.COMMAND
    rows = document["results"]
    assert [row["family"] for row in rows] == list(bench.FAMILIES)
    for row in rows:
        assert row["layers"] == row["values_equal"] == row["cycles_equal"] >= 500


def ternary_layer(rng: np.random.Generator, **more: object) -> IntegerConv:
    return IntegerConv(
        inputs=rng.integers(-128, 128, (1, 5, 6, 7)),
        weights=rng.integers(-1, 2, (17, 5, 3, 3)),
        pads=(1, 1, 1, 1),
        weight_bits=2,
        **more,  # type: ignore[arg-type]
    )


def test_ternary_engine_takes_the_published_cycles_and_the_first_load() -> None:
    """ceil(5 / 4) ceil(17 / 16) (3 + 2 + 7 x 6) and 8 cycles of weights before the first block."""
    found = ternary_engine.simulate(TDLA, ternary_layer(np.random.default_rng(0)))
    assert found.cycles == 8 + 2 * 2 * (3 + 2 + 7 * 6)


def test_weights_are_waited_for_when_their_block_is_shorter() -> None:
    """One pixel: blocks of 1 + 2 + 1 cycles, the next 8 cycles of weights behind each but one."""
    rng = np.random.default_rng(0)
    layer = IntegerProduct(
        inputs=rng.integers(-128, 128, (1, 12)),
        weights=rng.integers(-1, 2, (12, 20)),
        weight_bits=2,
    )
    found = ternary_engine.simulate(TDLA, layer)
    assert found.cycles == 8 + 5 * 8 + 4  # 3 chunks x 2 sets of lanes


@pytest.mark.parametrize(("codes", "bits"), [((-2, 1), 2), ((-3, 3), 2), ((-128, 127), 8)])
def test_codes_that_are_not_symmetric_take_one_plane_more(
    codes: tuple[int, int], bits: int
) -> None:
    """Blocks of 1 + 2 + 9 cycles, one for each plane, behind the first 8 cycles of weights."""
    rng = np.random.default_rng(0)
    layer = IntegerProduct(
        inputs=rng.integers(-128, 128, (9, 4)),
        weights=rng.choice(codes, (4, 16)),
        weight_bits=bits,
    )
    found = ternary_engine.simulate(TDLA, layer)
    np.testing.assert_array_equal(found.outputs, exact_outputs(layer))
    assert found.cycles == 8 + bits * (1 + 2 + 9)


def test_ternary_engine_refuses_what_its_digits_cannot_hold() -> None:
    layer = IntegerProduct(
        inputs=np.ones((1, 1), np.int64), weights=np.full((1, 1), -4), weight_bits=2
    )
    with pytest.raises(ConfigurationInvalid, match="from -4 to -4 do not fit in 2 ternary digits"):
        ternary_engine.simulate(TDLA, layer)


def test_lut_mac_by_hand() -> None:
    """5 rows, 10 terms in dot products of 4 (4, 4, 2), 3 columns on 2: see the steps.

    First load 4; then blocks of max(5 rows, load of the next) six times; pipeline of 3.
    """
    rng = np.random.default_rng(0)
    layer = IntegerProduct(
        inputs=rng.integers(-128, 128, (5, 10)), weights=rng.integers(-2, 2, (10, 3)), weight_bits=2
    )
    array = lut_mac.LutMacArray(
        dot_length=4,
        columns=2,
        unit_activation_bits=8,
        unit_weight_bits=2,
        pipeline_cycles=3,
        accumulators=100,
    )
    found = lut_mac.simulate(array, layer)
    assert found.cycles == 4 + 6 * 5 + 3
    assert found.multiplications == 5 * 10 * 3


def test_bit_serial_by_hand() -> None:
    """2 x 2 tiles of 3 x 2 results, 8 x 3 pairs of planes, 2 parts of 6 bits, pipeline of 4."""
    rng = np.random.default_rng(0)
    layer = IntegerProduct(
        inputs=rng.integers(0, 256, (4, 10)),
        weights=rng.integers(-4, 4, (10, 3)),
        weight_bits=3,
        input_signed=False,
    )
    array = bit_serial.BitSerialArray(row_units=3, column_units=2, unit_bits=6, pipeline_cycles=4)
    found = bit_serial.simulate(array, layer)
    assert found.cycles == 4 * 24 * 2 + 4


@pytest.mark.parametrize(("bits", "weight_bits", "steps"), [(8, 8, 8), (8, 4, 4), (4, 2, 2)])
def test_bit_fusion_by_hand(bits: int, weight_bits: int, steps: int) -> None:
    """16 channels on 2 rows: 8, 4 or 1 steps (F = 1, 2, 8), 2 sets of columns, 3 pixels; 2 + 3 - 1
    cycles of fill and drain.
    """
    rng = np.random.default_rng(0)
    layer = IntegerProduct(
        inputs=rng.integers(0, 1 << bits, (3, 16)),
        weights=rng.integers(-1, 2, (16, 5)),
        input_bits=bits,
        weight_bits=weight_bits,
        input_signed=False,
    )
    array = bit_fusion.BitFusionArray(array_rows=2, array_columns=3)
    fused = (8 // bits) * (8 // weight_bits)
    assert 16 // (2 * fused) == (1 if fused == 8 else steps)
    found = bit_fusion.simulate(array, layer)
    assert found.cycles == 16 // (2 * fused) * 2 * 3 + 2 + 3 - 1


def test_bit_fusion_takes_group_after_group() -> None:
    """64 channels alone, 8 x 8 pixels, 9 taps: a step for each, and the fill and drain of 16 x 32.

    Multiplications are the taps inside the feature map: 3 x 8 - 2 along each axis.
    """
    rng = np.random.default_rng(0)
    layer = IntegerConv(
        inputs=rng.integers(-128, 128, (1, 64, 8, 8)),
        weights=rng.integers(-128, 128, (64, 1, 3, 3)),
        pads=(1, 1, 1, 1),
        group=64,
        zero_point=3,
    )
    found = bit_fusion.simulate(bit_fusion.BitFusionArray(array_rows=16, array_columns=32), layer)
    np.testing.assert_array_equal(found.outputs, exact_outputs(layer))
    assert found.cycles == 64 * 64 * 9 + 16 + 32 - 1
    assert found.multiplications == 64 * 22 * 22


@pytest.mark.parametrize("family", bench.FAMILIES)
def test_multiplications_leave_out_padding_and_idle_units(family: str) -> None:
    """Truth: the same convolution of ones with ones counts the taps inside the feature map."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        layer = bench.random_layer(rng, ternary_digits=family == "ternary_engine")
        ones = (
            IntegerProduct(inputs=np.ones_like(layer.inputs), weights=np.ones_like(layer.weights))
            if isinstance(layer, IntegerProduct)
            else IntegerConv(
                inputs=np.ones_like(layer.inputs),
                weights=np.ones_like(layer.weights),
                stride=layer.stride,
                dilation=layer.dilation,
                pads=layer.pads,
                group=layer.group,
            )
        )
        found, _ = bench.FAMILIES[family](rng, layer)
        assert found.multiplications == exact_outputs(ones).sum()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("digit_bits", [1, 2, 3, 8, 9])
def test_digits_add_up_to_the_code(signed: bool, digit_bits: int) -> None:
    codes = np.arange(-128, 128) if signed else np.arange(256)
    parts = digits(codes, 8, digit_bits, signed=signed)
    np.testing.assert_array_equal(
        sum(part << place * digit_bits for place, part in enumerate(parts)), codes
    )
    assert all(part.min() >= 0 for part in parts[:-1])


def test_codes_that_exceed_their_width_are_refused() -> None:
    layer = IntegerProduct(inputs=np.full((1, 1), 128), weights=np.ones((1, 1), np.int64))
    array = bit_fusion.BitFusionArray(array_rows=1, array_columns=1)
    with pytest.raises(ConfigurationInvalid, match="inputs from 128 to 128 do not fit in 8 bits"):
        bit_fusion.simulate(array, layer)
