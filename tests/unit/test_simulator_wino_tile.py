"""The simulators of the Winograd element and of the WinoCNN tile: values, cycles, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecompress.core.errors import Unsupported
from edgecompress.core.winograd import IntArray
from edgecompress.hardware.models._winograd import Parameters, Shape, describe
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerProduct, exact_outputs
from edgecompress.hardware.simulator.wino_datapath import PUBLISHED, Scales, truncated_conv
from edgecompress.hardware.simulator.wino_element import (
    Datapath,
    Truncation,
    published_datapath,
    simulate_element,
)
from edgecompress.hardware.simulator.wino_tile import WinoTile, load, plan, simulate
from edgecompress.hardware.target import load_target

SLICE, ALL = 40, 400


def random_tile(generator: np.random.Generator, datapath: Datapath) -> WinoTile:
    return WinoTile(
        datapath=datapath,
        rows=int(generator.integers(1, 4)),
        columns=int(generator.integers(1, 4)),
        images=int(generator.integers(1, 3)),
        load_words=int(generator.choice([1, 2, 512])),
    )


def random_conv(generator: np.random.Generator, weight_bits: int = 8) -> IntegerConv:
    kernel = [(1, 1), (3, 3), (5, 5), (7, 1), (1, 3), (2, 2)][generator.integers(6)]
    signed = bool(generator.integers(2))
    low = -128 if signed else 0
    channels, outputs, images = (int(n) for n in generator.integers(1, [9, 9, 4]))
    size = (images, channels, *(int(n) for n in generator.integers(7, 13, 2)))
    largest = 1 << (weight_bits - 1)
    return IntegerConv(
        inputs=generator.integers(low, low + 256, size),
        weights=generator.integers(-largest, largest, (outputs, channels, *kernel)),
        zero_point=int(generator.integers(low, low + 256)),
        stride=tuple(int(n) for n in generator.integers(1, 3, 2)),
        dilation=(1, 1 + int(kernel == (1, 3) and generator.integers(2))),
        pads=tuple(int(n) for n in generator.integers(0, 3, 4)),
        weight_bits=weight_bits,
        input_signed=signed,
    )


def plain_element(tiles: IntArray, kernels: IntArray) -> IntArray:
    """Correlations of all tiles with their kernels, summed over passes and channels."""
    side = kernels.shape[-1]
    reach = tiles.shape[-1] + 1 - side
    return sum(
        np.einsum("gpcyx,gpc->gyx", tiles[..., y : y + reach, x : x + reach], kernels[..., y, x])
        for y in range(side)
        for x in range(side)
    )


@pytest.mark.parametrize("omega", [4, 6])
@pytest.mark.parametrize("kernel", [1, 3])
def test_element_gives_plain_sums_five_clocks_after_the_last_pass(omega: int, kernel: int) -> None:
    generator = np.random.default_rng(omega + kernel)
    for channels in (1, 3, 4):
        tiles = generator.integers(-128, 128, (3, 2, channels, omega, omega))
        kernels = generator.integers(-128, 128, (3, 2, channels, kernel, kernel))
        run = simulate_element(Datapath(omega=omega, channels=channels), tiles, kernels)
        np.testing.assert_array_equal(run.outputs, plain_element(tiles, kernels))
        assert run.cycles == 3 * 2 + 5


def test_exact_results_must_fit() -> None:
    datapath = Datapath(omega=4, channels=1, output_bits=8)
    tiles = np.full((1, 1, 1, 4, 4), 127)
    with pytest.raises(ValueError, match="exact results do not fit in 8 bits"):
        simulate_element(datapath, tiles, np.full((1, 1, 1, 3, 3), 127))


def test_widths_are_the_published_ones() -> None:
    """Truth: note on widths in the published sources: 13 and 11 bits of a transformed weight."""
    six, four = published_datapath(6, 4), published_datapath(4, 4)
    assert (six.factor_bits, four.factor_bits) == (13, 11)
    assert (four.value_bits, four.sum_bits, six.sum_bits) == (10, 23, 26)


def test_tile_gives_exact_outputs(full: bool) -> None:
    """Truth: `exact_outputs`."""
    for seed in range(ALL if full else SLICE):
        generator = np.random.default_rng(seed)
        datapath = Datapath(omega=(4, 6)[seed % 2], channels=int(generator.integers(2, 5)))
        tile, layer = random_tile(generator, datapath), random_conv(generator)
        kernel = (None, 1)[seed % 3 == 0]
        np.testing.assert_array_equal(
            simulate(tile, layer, kernel).outputs, exact_outputs(layer), err_msg=f"seed {seed}"
        )


def test_both_modes_give_the_same() -> None:
    layer = random_conv(np.random.default_rng(8))
    layer = replace(layer, weights=np.arange(-27, 27).reshape(2, 3, 3, 3), dilation=(1, 1))
    layer = replace(layer, inputs=layer.inputs[:, :1].repeat(3, axis=1))
    tile = WinoTile(datapath=Datapath(omega=6, channels=2), rows=2, columns=1)
    wide, single = simulate(tile, layer, 3), simulate(tile, layer, 1)
    np.testing.assert_array_equal(wide.outputs, single.outputs)
    assert wide.cycles < single.cycles
    assert wide.multiplications < single.multiplications


@pytest.mark.parametrize("omega", [4, 6])
def test_truncating_tile_is_the_published_datapath(omega: int) -> None:
    """Truth: `wino_datapath`, independent code that knows no tile and no clock."""
    scales = Scales(input=1.0, weight=1.0, unit=1.0)
    for seed in range(12):
        generator = np.random.default_rng([omega, seed])
        layer = random_conv(generator, weight_bits=7)
        layer = replace(
            layer,
            inputs=generator.integers(-127, 128, layer.inputs.shape),
            weights=generator.integers(-63, 64, layer.weights.shape),
            zero_point=0,
            input_signed=True,
        )
        tile = random_tile(generator, published_datapath(omega, 4))
        single = max(layer.weights.shape[2:]) == 1 or max(layer.dilation) > 1
        run = simulate(tile, layer, 1 if single else 3)
        expected = truncated_conv(layer, PUBLISHED[omega], scales)
        np.testing.assert_array_equal(run.outputs, expected, err_msg=f"seed {seed}")


def test_zero_point_of_a_truncating_tile_is_scaled_like_the_results() -> None:
    """By hand: one tap of weight 16 on codes 100 with zero point 4: 96 x 16 = 1536; the array cuts
    100 x 16 to 1600 >> 3 = 200 and the share of the zero point to 64 >> 3 = 8."""
    datapath = Datapath(
        omega=4, channels=2, output_bits=12, truncation=Truncation(bypass_output_shift=3)
    )
    layer = IntegerConv(
        inputs=np.full((1, 1, 2, 2), 100), weights=np.full((1, 1, 1, 1), 16), zero_point=4
    )
    run = simulate(WinoTile(datapath=datapath, rows=1, columns=1), layer, 1)
    np.testing.assert_array_equal(run.outputs, np.full((1, 1, 2, 2), 192))


def test_product_runs_as_a_convolution() -> None:
    generator = np.random.default_rng(3)
    layer = IntegerProduct(
        inputs=generator.integers(0, 256, (11, 7)),
        weights=generator.integers(-128, 128, (7, 5)),
        zero_point=9,
        input_signed=False,
    )
    tile = WinoTile(datapath=Datapath(omega=4, channels=2), rows=2, columns=2)
    np.testing.assert_array_equal(simulate(tile, layer).outputs, exact_outputs(layer))


@pytest.mark.parametrize("omega", [4, 6])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 8), (16, 40), (40, 16)])
def test_loops_take_the_cycles_of_the_cost_model(
    omega: int, kernel: int, inputs: int, outputs: int
) -> None:
    """All that a run takes beyond lo x li x fi x tr x tc x max(fo, Q): Q clocks that shift the
    first tile in, 6 stages of a cell and the way to the last one, and the results, one a clock,
    behind two more stages."""
    p = load_target("winocnn-zcu102-w6").parameters
    assert isinstance(p, Parameters)
    p = p.model_copy(
        update={
            "omega_pixels": omega,
            "batch_images": 1,
            "weight_buffer_words": 64,
            "bound_rows_by_output": True,
        }
    )
    assert (p.array_rows, p.array_columns, p.channels_per_element) == (4, 2, 4)
    tile = WinoTile(
        datapath=Datapath(omega=omega, channels=4),
        rows=4,
        columns=2,
        load_words=p.weight_buffer_words // 2,
    )
    shape = Shape(
        in_height=9,
        in_width=15,
        in_channels=inputs,
        out_height=9,
        out_width=15,
        out_channels=outputs,
        kernel_height=kernel,
        kernel_width=kernel,
        stride_height=1,
        stride_width=1,
    )
    rows = min(9, describe(shape, kernel, p).row_step)  # one row step
    d = describe(replace(shape, in_height=rows, out_height=rows), kernel, p)
    generator = np.random.default_rng(inputs)
    layer = IntegerConv(
        inputs=generator.integers(-128, 128, (1, inputs, rows, 15)),
        weights=generator.integers(-128, 128, (outputs, inputs, kernel, kernel)),
        pads=(kernel // 2,) * 4,
    )
    fill = 4 + (6 + (4 - 1) + (2 - 1))
    run = simulate(tile, layer, kernel)
    assert run.cycles == d.passes * d.pe_cycles + fill + outputs * rows * 15 + 2


def test_few_output_channels_wait_for_the_input() -> None:
    """By hand: 2 output passes of a step of 4 channels take 4 clocks each."""
    tile = WinoTile(datapath=Datapath(omega=4, channels=4), rows=1, columns=1)
    layer = IntegerConv(inputs=np.ones((1, 8, 4, 4), int), weights=np.ones((2, 8, 3, 3), int))
    loops = plan(tile, layer, 3)
    assert (loops.fi * loops.li, loops.tr, loops.tc, loops.fo) == (2, 1, 1, 2)
    assert simulate(tile, layer, 3).cycles == 2 * 4 + (4 + 6) + 2 * 2 * 2 + 2


def test_multiplications_leave_out_padding() -> None:
    """By hand: two tiles of 36 for each of 3 x 5 pairs of channels."""
    tile = WinoTile(datapath=Datapath(omega=6, channels=4), rows=4, columns=2)
    layer = IntegerConv(inputs=np.ones((1, 3, 6, 10), int), weights=np.ones((5, 3, 3, 3), int))
    assert simulate(tile, layer).multiplications == 2 * 36 * 15


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": 2}, "grouped convolution"),
        ({"weight_bits": 16}, "8 x 16 bits on 8 x 8"),
        ({"stride": (3, 3)}, "stride 3 of a tile of 2 outputs"),
        ({"inputs": np.ones((1, 2, 40, 40), int)}, "input buffer: [0-9]+ words, it holds 128"),
        ({"weights": np.ones((64, 2, 3, 3), int)}, "weight buffer: 64 words, it holds 32"),
        ({"weights": np.ones((32, 2, 1, 1), int)}, "output buffer: [0-9]+ words, it holds 256"),
        ({"weights": np.full((1, 2, 7, 7), 127)}, "do not fit in 20 bits"),
        ({"inputs": np.ones((1, 0, 8, 8), int)}, "no input at all"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], reason: str) -> None:
    tile = WinoTile(
        datapath=Datapath(omega=4, channels=2, output_bits=20),
        rows=1,
        columns=1,
        input_words=128,
        kernel_words=32,
    )
    layer = IntegerConv(inputs=np.ones((1, 2, 16, 16), int), weights=np.ones((1, 2, 3, 3), int))
    with pytest.raises(Unsupported, match=reason):
        simulate(tile, replace(layer, **change))  # type: ignore[arg-type]


def test_taps_that_are_apart_have_no_3x3_mode() -> None:
    tile = WinoTile(datapath=Datapath(omega=4, channels=2), rows=1, columns=1)
    layer = IntegerConv(
        inputs=np.ones((1, 1, 8, 8), int), weights=np.ones((1, 1, 3, 3), int), dilation=(2, 2)
    )
    with pytest.raises(Unsupported, match=r"dilation \(2, 2\) with sub-kernels of 3"):
        simulate(tile, layer, 3)
    np.testing.assert_array_equal(simulate(tile, layer).outputs, exact_outputs(layer))


def test_sets_of_images_follow_each_other() -> None:
    layer = replace(random_conv(np.random.default_rng(5)), weights=np.ones((1, 1, 3, 3), int))
    layer = replace(layer, inputs=np.arange(5 * 64).reshape(5, 1, 8, 8) % 100)
    tile = WinoTile(datapath=Datapath(omega=4, channels=2), rows=1, columns=1, images=2)
    run = simulate(tile, layer)
    np.testing.assert_array_equal(run.outputs, exact_outputs(layer))
    assert run.cycles == 3 * simulate(tile, replace(layer, inputs=layer.inputs[:2])).cycles
    with pytest.raises(Unsupported, match="5 images"):
        load(tile, layer)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Datapath(omega=8, channels=2), "4 or 6 pixels"),
        (lambda: Datapath(omega=4, channels=0), "channels must be positive"),
        (
            lambda: Datapath(omega=4, channels=1, truncation=Truncation(input_shift=2)),
            "fewer bits than the operands",
        ),
        (lambda: WinoTile(datapath=Datapath(omega=4, channels=2), rows=0, columns=1), "positive"),
        (lambda: WinoTile(datapath=Datapath(omega=4, channels=1), rows=1, columns=1), "two chan"),
        (
            lambda: WinoTile(
                datapath=Datapath(omega=4, channels=2), rows=1, columns=1, kernel_words=65537
            ),
            "a buffer of 65537 words",
        ),
    ],
)
def test_impossible_machines_are_not_built(make: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()  # type: ignore[operator]
