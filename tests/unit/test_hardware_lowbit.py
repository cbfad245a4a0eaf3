"""The ternary engine, LUT-MAC, bit-serial and Bit Fusion cost models by hand and as published."""

from __future__ import annotations

import dataclasses
import statistics
import time

import pytest

from edgecompress.core.work import ConvWork, MatMulWork, OperatorWork, WeightStatistics, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.families import family_named
from edgecompress.hardware.models import bit_fusion, bit_serial, lut_mac, ternary_engine
from edgecompress.hardware.models._lowbit import Products
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import Target, load_target

PARTS = {
    # Source: AMD DS190 and DS891; two blocks of 18 Kib in one of 36.
    "xc7z020": Resources(dsp=220, bram18=280, lut=53200),
    "xczu3eg": Resources(dsp=360, bram18=432, lut=70560),
}
NAMES = (
    "tdla-z7020",
    "lutmac-ultra96",
    "bitserial-ultra96",
    "bitserial-pynq-z1",
    "bitfusion-45nm",
)
CONV = ConvWork(
    batch=1,
    in_channels=64,
    out_channels=64,
    in_height=28,
    in_width=28,
    out_height=28,
    out_width=28,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    pads=(1, 1, 1, 1),
    group=1,
    weight_bits=2,
    activation_bits=8,
)
MATMUL = MatMulWork(
    count=1, rows=196, inner=64, columns=48, constant=True, weight_bits=2, activation_bits=8
)


def as_work(operator: OperatorWork) -> Work:
    return Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)


def engine(**changes: object) -> Target:
    target = load_target("tdla-z7020")
    return dataclasses.replace(target, parameters=target.parameters.model_copy(update=changes))


def compute(operator: OperatorWork, target: Target) -> float:
    return cost(as_work(operator), target).compute_cycles


@pytest.mark.parametrize("name", NAMES)
def test_design_fits_the_part_that_the_target_names(name: str) -> None:
    target = load_target(name)
    found = family_named(target.family).resources(target)
    assert (found is None) == (target.part == "")
    assert found is None or found.fits(PARTS[target.part])


@pytest.mark.parametrize("name", NAMES)
def test_what_stays_on_chip_does_not_go_through_memory(name: str) -> None:
    target = load_target(name)
    kept = dataclasses.replace(CONV, input_on_chip=True, output_on_chip=True)
    for whole, chained in (
        (CONV, kept),
        (MATMUL, dataclasses.replace(MATMUL, input_on_chip=True, output_on_chip=True)),
    ):
        before, found = (cost(as_work(operator), target) for operator in (whole, chained))
        assert before.activation_bytes > found.activation_bytes == 0
        assert found.store_cycles == 0
        assert found.total_cycles <= before.total_cycles
        assert found.compute_cycles == before.compute_cycles


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_costed_in_less_than_a_millisecond(name: str) -> None:
    target = load_target(name)
    layers = [dataclasses.replace(CONV, out_channels=64 + i, in_height=900) for i in range(50)]
    took = []
    for layer in layers:
        start = time.perf_counter()
        cost(as_work(layer), target)
        took.append(time.perf_counter() - start)
    assert statistics.median(took) < 1e-3


# Ternary engine


def test_tdla_peak_is_the_published_one_exactly() -> None:
    """0.4 TOPS (abstract): 16 x 4 x 25 select units, two operations, 125 MHz."""
    target = load_target("tdla-z7020")
    assert isinstance(target.parameters, ternary_engine.Parameters)
    assert 2 * target.parameters.select_units * target.clock_hz == 0.4e12


def test_tdla_dsp_blocks_are_the_published_ones() -> None:
    """96 + 48 + 24 + 16 + 8 + 4 + 2 in the trees, 4 for biases, 16 for scales: 218 of 220."""
    target = load_target("tdla-z7020")
    found = family_named("ternary_engine").resources(target)
    assert found is not None
    assert found.dsp == 96 + 48 + 24 + 16 + 8 + 4 + 2 + 4 + 16 == 218


def test_ternary_engine_has_the_published_cycle_form() -> None:
    """ceil(64 / 4) ceil(64 / 16) (3 + 2 + 28 x 28), and the first 8 cycles of weights."""
    assert compute(CONV, load_target("tdla-z7020")) == 8 + 16 * 4 * (3 + 2 + 28 * 28)


def test_full_window_reaches_the_peak_and_small_kernels_their_share_of_it() -> None:
    target = load_target("tdla-z7020")
    for size, share in ((5, 1.0), (3, 9 / 25), (1, 1 / 25)):
        operator = dataclasses.replace(CONV, kernel=(size, size), pads=(size // 2,) * 4)
        assert cost(as_work(operator), target).utilisation == pytest.approx(share, rel=0.03)


def test_rows_of_the_window_that_are_shared_take_more_channels() -> None:
    """1x1: five chunks of four channels above each other, so ceil(64 / 20) instead of 16."""
    pointwise = dataclasses.replace(CONV, kernel=(1, 1), pads=(0, 0, 0, 0))
    assert compute(pointwise, engine()) == 8 + 16 * 4 * (1 + 2 + 784)
    assert compute(pointwise, engine(packs_rows=True)) == 8 + 4 * 4 * (1 + 2 + 784)


@pytest.mark.parametrize(
    ("change", "blocks"),
    [
        # Parts of 5 and 2 rows and columns; at dilation 2 three taps cover 5, at 3 two cover 4.
        ({"kernel": (7, 7)}, 2 * (5 + 2 + 784) + 2 * (2 + 2 + 784)),
        ({"dilation": (2, 2)}, 5 + 2 + 784),
        ({"dilation": (3, 3)}, 2 * (4 + 2 + 784) + 2 * (1 + 2 + 784)),
    ],
)
def test_kernels_beyond_the_window_run_in_parts(change: dict[str, object], blocks: int) -> None:
    operator = dataclasses.replace(CONV, **change)  # type: ignore[arg-type]
    assert compute(operator, engine()) == 8 + 16 * 4 * blocks


def test_stride_skips_rows_and_not_columns() -> None:
    operator = dataclasses.replace(CONV, stride=(2, 2), out_height=14, out_width=14)
    assert compute(operator, engine()) == 8 + 16 * 4 * (3 + 2 + 28 * 14)


def test_feature_maps_beyond_the_accumulators_run_in_strips() -> None:
    """56 x 56 sums on 1024: 18 rows at a time, so three strips and one of two rows."""
    sizes = {"in_height": 56, "in_width": 56, "out_height": 56, "out_width": 56}
    operator = dataclasses.replace(CONV, **sizes)
    strips = 3 * (3 + 2 + 56 * 18) + (3 + 2 + 56 * 2)
    assert compute(operator, engine()) == 8 + 16 * 4 * strips


def test_depthwise_groups_share_a_block() -> None:
    """Four channels on the diagonal of a block; the assumption is named."""
    operator = dataclasses.replace(CONV, group=64)
    assert compute(operator, engine()) == 8 + 16 * (3 + 2 + 784)
    assert "side by side" in cost(as_work(operator), engine()).assumed


@pytest.mark.parametrize(
    ("bits", "levels", "planes"),
    [(1, None, 1), (2, None, 1), (2, 3, 1), (2, 4, 2), (3, 7, 2), (3, 8, 3), (8, None, 7)],
)
def test_wider_weights_run_as_digit_planes(bits: int, levels: int | None, planes: int) -> None:
    assert ternary_engine.digit_planes(bits, levels) == planes
    measured = levels and WeightStatistics(
        count=9, levels=levels, entropy_bits=1.5, zero_share=0.1, zero_run_bits=2.0
    )
    operator = dataclasses.replace(CONV, weight_bits=bits)
    work = dataclasses.replace(as_work(operator), weights=measured or None)
    found = cost(work, engine())
    assert found.compute_cycles == 8 + 16 * 4 * planes * (3 + 2 + 784)
    assert ("digit planes" in found.assumed) == (planes > 1)


def test_two_activations_take_a_plane_for_each_bit() -> None:
    operator = dataclasses.replace(MATMUL, constant=False)
    assert compute(operator, engine()) == 8 + 8 * 16 * 3 * (1 + 2 + 196)


# LUT-MAC


def lut_parameters(**changes: object) -> lut_mac.Parameters:
    target = load_target("lutmac-ultra96")
    assert isinstance(target.parameters, lut_mac.Parameters)
    return target.parameters.model_copy(update=changes)


def test_units_are_the_best_mix_of_the_measured_costs() -> None:
    """8 x 2: 640 on 320 blocks at 12.5 look-up tables, the rest of 49392 at 29.5: 2043."""
    p = lut_parameters()
    assert p.units(8, 2) == int(640 + (49392 - 640 * 12.5) / 29.5) == 2043
    assert lut_parameters(dsp_blocks=0).units(8, 8) == int(49392 / 209.9)
    # 4 x 2 rounds up to nothing cheaper: 18.5 in look-up tables, 12.5 with a block.
    assert p.units(4, 2) == int(640 + (49392 - 8000) / 18.5)
    assert p.units(2, 2) == int(49392 / 12.0)  # no block helps


def test_blocks_are_taken_only_where_they_help() -> None:
    target = load_target("lutmac-ultra96")
    for weight, blocks in ((2, 320), (4, 320)):
        p = lut_parameters(unit_weight_bits=weight)
        found = family_named("lut_mac").resources(dataclasses.replace(target, parameters=p))
        assert found is not None
        assert found.dsp == blocks
    narrow = lut_parameters(unit_activation_bits=2)
    found = family_named("lut_mac").resources(dataclasses.replace(target, parameters=narrow))
    assert found is not None
    assert found.dsp == 0


def test_two_bits_give_seven_times_the_units_of_eight() -> None:
    """The measured 29.5 against 209.9 look-up tables."""
    p = lut_parameters(dsp_blocks=0)
    assert p.units(8, 2) / p.units(8, 8) == pytest.approx(209.9 / 29.5, rel=0.01)


def test_widths_between_the_entries_are_built_as_the_next_one() -> None:
    p = lut_parameters(dsp_blocks=0)
    assert p.units(8, 5) == p.units(8, 6)
    assert p.units(3, 7) == p.units(8, 3)  # either order of the operands
    assert p.units(16, 8) == pytest.approx(p.units(8, 8) / 2, abs=1)


def test_lut_mac_cycles_by_hand() -> None:
    """196 rows, 4 parts of 16 terms; 127 columns hold all 48: 16 + 4 x 196 + 6."""
    target = load_target("lutmac-ultra96")
    assert compute(MATMUL, target) == 16 + 4 * 196 + 6
    wide = dataclasses.replace(MATMUL, weight_bits=8)
    found = cost(as_work(wide), target)
    assert found.compute_cycles == 16 + 4 * 4 * 196 + 6
    assert "digit by digit" in found.assumed


def test_array_that_is_built_for_each_operator_says_so() -> None:
    target = load_target("lutmac-ultra96")
    rebuilt = dataclasses.replace(
        target, parameters=lut_parameters(unit_activation_bits=None, unit_weight_bits=None)
    )
    found = cost(as_work(dataclasses.replace(MATMUL, weight_bits=8)), rebuilt)
    assert "built again" in found.assumed
    assert "digit" not in found.assumed


# Bit-serial


@pytest.mark.parametrize(
    ("name", "tops"), [("bitserial-ultra96", 15.4), ("bitserial-pynq-z1", 6.5)]
)
def test_bismo_peak_is_the_published_one(name: str, tops: float) -> None:
    """15.4 binary TOPS (10 x 256 x 10, 300 MHz) and 6.5 (8 x 256 x 8, 200 MHz), to their digits."""
    target = load_target(name)
    assert isinstance(target.parameters, bit_serial.Parameters)
    assert round(2 * target.parameters.binary_macs * target.clock_hz / 1e12, 1) in (
        tops,
        pytest.approx(tops, abs=0.11),
    )


def test_bit_serial_time_is_proportional_to_both_widths() -> None:
    """196 x 48 results on 10 x 10 units, 64 terms in one part of 256."""
    target = load_target("bitserial-ultra96")
    for activation, weight in ((8, 2), (4, 2), (2, 1)):
        operator = dataclasses.replace(MATMUL, activation_bits=activation, weight_bits=weight)
        assert compute(operator, target) == 20 * 5 * activation * weight + 12


# Bit Fusion


@pytest.mark.parametrize(
    ("activation", "weight", "fused", "passes"),
    [
        (8, 8, 1, 1),
        (8, 4, 2, 1),
        (4, 4, 4, 1),
        (8, 2, 4, 1),
        (2, 2, 16, 1),
        (1, 1, 16, 1),
        (3, 2, 8, 1),
        (16, 8, 1, 2),
        (16, 16, 1, 4),
        (16, 2, 4, 2),
    ],
)
def test_fusion_of_a_unit(activation: int, weight: int, fused: int, passes: int) -> None:
    """(8 / max(a, 2)) (8 / max(w, 2)), widths between rounded up, wider ones in passes."""
    assert bit_fusion.fusion(activation, weight) == (fused, passes)


def test_bit_fusion_steps_are_those_of_the_published_simulator() -> None:
    """ceil(oc / M) x ow x oh x kw x kh x ceil(ic / (N F)); N + M - 1 of fill and drain more."""
    target = load_target("bitfusion-45nm")
    for weight, chunks in ((8, 4), (4, 2), (2, 1)):
        operator = dataclasses.replace(CONV, weight_bits=weight)
        assert compute(operator, target) == 2 * 28 * 28 * 9 * chunks + 16 + 32 - 1


def test_channels_of_a_kernel_position_do_not_share_a_step() -> None:
    """Three channels take a step for each position, as published, not one for all 27 terms."""
    products = Products(count=1, rows=10, inner=27, columns=8, taps=9)
    target = load_target("bitfusion-45nm")
    assert isinstance(target.parameters, bit_fusion.Parameters)
    assert bit_fusion.array_cycles(products, 8, 2, target.parameters) == 10 * 9 + 16 + 32 - 1


def test_energy_of_a_multiplication_falls_with_the_fusion_of_a_unit() -> None:
    target = load_target("bitfusion-45nm")
    assert target.energy is not None
    whole = target.energy.mac_energy_pj(8, 8)
    for activation in (2, 4, 8):
        for weight in (2, 4, 8):
            fused, _ = bit_fusion.fusion(activation, weight)
            found = target.energy.mac_energy_pj(activation, weight)
            assert found == pytest.approx(whole / fused)
