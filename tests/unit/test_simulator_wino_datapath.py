"""The truncating WinoCNN datapath against a tile-by-tile model in Python integers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgecompress.hardware.simulator.layers import IntegerConv, exact_outputs
from edgecompress.hardware.simulator.wino_datapath import (
    PUBLISHED,
    Datapath,
    Scales,
    choose_scales,
    cut_offsets,
    truncated_conv,
)

# Tiles of 4 and 6 as the published source writes them out (wino_transform.cpp), not as ours.
INPUT = {
    4: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    6: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
WEIGHT = {
    4: [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]],
    6: [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
}
OUTPUT = {
    4: [[1, 1, 1, 0], [0, 1, -1, -1]],
    6: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


def register(value: int, bits: int) -> int:
    """Two's complement of so many bits."""
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def sandwich(left: list[list[int]], middle: list[list[int]]) -> list[list[int]]:
    """left x middle x left transposed, in Python integers."""
    half = [
        [sum(row[k] * middle[k][j] for k in range(len(middle))) for j in range(len(middle[0]))]
        for row in left
    ]
    return [[sum(row[k] * other[k] for k in range(len(other))) for other in left] for row in half]


def by_hand(codes: np.ndarray, weights: np.ndarray, path: Datapath) -> list[int]:
    """Output buffer of one tile and output channel: codes (c, omega, omega), weights (c, 3, 3)."""
    omega, tile = path.omega, path.omega - 2
    buffer = [[0] * tile for _ in range(tile)]
    limit = 1 << (path.accumulator_bits - 1)
    for first in range(0, len(codes), path.channels):
        total = [[0] * omega for _ in range(omega)]
        for channel in range(first, min(len(codes), first + path.channels)):
            v = sandwich(INPUT[omega], codes[channel].tolist())
            u = sandwich(WEIGHT[omega], weights[channel].tolist())
            for i in range(omega):
                for j in range(omega):
                    left = register(v[i][j] >> path.input_shift, path.transformed_input_bits)
                    right = register(u[i][j] >> path.weight_shift, path.transformed_weight_bits)
                    total[i][j] += left * right
        cut = [[register(x, path.product_bits) >> path.product_shift for x in row] for row in total]
        result = sandwich(OUTPUT[omega], cut)
        for i in range(tile):
            for j in range(tile):
                value = register(result[i][j] >> path.output_shift, path.tile_bits)
                buffer[i][j] = max(-limit, min(limit - 1, buffer[i][j] + value))
    return [value for row in buffer for value in row]


def tile_layer(rng: np.random.Generator, omega: int, channels: int, top: int) -> IntegerConv:
    return IntegerConv(
        inputs=rng.integers(-127, 128, (1, channels, omega, omega)),
        weights=rng.integers(-top, top + 1, (1, channels, 3, 3)),
    )


UNSCALED = Scales(input=1.0, weight=1.0, unit=1.0)


@pytest.mark.parametrize("omega", [4, 6])
@pytest.mark.parametrize("channels", [1, 4, 11])
def test_one_tile_against_python_integers(omega: int, channels: int) -> None:
    rng = np.random.default_rng(omega * channels)
    path = PUBLISHED[omega]
    for top in (1, 20, 63):
        layer = tile_layer(rng, omega, channels, top)
        found = truncated_conv(layer, path, UNSCALED)
        assert found.ravel().tolist() == by_hand(layer.inputs[0], layer.weights[0], path)


def test_narrow_registers_wrap_around_and_the_output_buffer_saturates() -> None:
    rng = np.random.default_rng(1)
    narrow = dataclasses.replace(
        PUBLISHED[6],
        transformed_input_bits=8,
        transformed_weight_bits=9,
        product_bits=14,
        tile_bits=10,
        accumulator_bits=5,
    )
    ends = set()
    for _ in range(10):
        layer = tile_layer(rng, 6, 9, 63)
        found = truncated_conv(layer, narrow, UNSCALED)
        assert found.ravel().tolist() == by_hand(layer.inputs[0], layer.weights[0], narrow)
        ends |= {int(found.min()), int(found.max())}
    assert {-16, 15} <= ends


LAYERS = [
    {},
    {"stride": (2, 2)},
    {"pads": (1, 0, 2, 1)},
    {"group": 3},
    {"dilation": (2, 2)},
    {"kernel": (1, 1)},
    {"kernel": (5, 5), "pads": (2, 2, 2, 2)},
    {"kernel": (1, 3)},
    {"kernel": (4, 7), "stride": (2, 1)},
]


def any_layer(options: dict, seed: int = 3, top: int = 63) -> IntegerConv:
    rng = np.random.default_rng(seed)
    rest = dict(options)
    kernel = rest.pop("kernel", (3, 3))
    inputs = 9 // rest.get("group", 1)
    return IntegerConv(
        inputs=rng.integers(0, 256, (2, 9, 13, 15)),
        weights=rng.integers(-top, top + 1, (6, inputs, *kernel)),
        zero_point=100,
        input_signed=False,
        **rest,
    )


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("omega", [4, 6])
def test_exact_mode_gives_the_sums_of_the_layer(options: dict, omega: int) -> None:
    layer = any_layer(options)
    found = truncated_conv(layer, PUBLISHED[omega], exact=True)
    np.testing.assert_array_equal(found, exact_outputs(layer))


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_without_cuts_only_the_codes_are_rounded(options: dict) -> None:
    """Every cut and limit away: the sums of the rounded codes, exactly."""
    wide = dataclasses.replace(
        PUBLISHED[4],
        transformed_input_bits=40,
        transformed_weight_bits=40,
        product_bits=50,
        tile_bits=50,
        accumulator_bits=50,
    )
    layer = any_layer(options)
    scales = choose_scales(layer, wide)
    codes = np.clip(np.rint((layer.inputs - 100) * scales.input), -127, 127).astype(np.int64)
    rounded = dataclasses.replace(layer, inputs=codes, zero_point=0)
    found = truncated_conv(layer, wide, scales)
    np.testing.assert_array_equal(found, 4 * exact_outputs(rounded))
    error = found * scales.unit - exact_outputs(layer)
    assert np.abs(error).mean() < 0.02 * np.abs(exact_outputs(layer)).mean()


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("omega", [4, 6])
def test_outputs_times_unit_are_about_the_sums(options: dict, omega: int) -> None:
    """Bounds by theory: a cut loses at most a step; no saturation with the chosen scales."""
    path = PUBLISHED[omega]
    layer = any_layer(options)
    scales = choose_scales(layer, path)
    found = truncated_conv(layer, path, scales)
    truth = exact_outputs(layer)
    error = found - cut_offsets(layer, path, scales)[:, None, None] - truth / scales.unit
    passes = -(-layer.weights.shape[1] // 4) * int(np.prod(layer.weights.shape[2:]))
    assert np.abs(error).max() < 5 * passes + 0.1 * np.abs(truth / scales.unit).max()
    assert np.abs(found).max() <= 2 ** (path.accumulator_bits - 1)
    assert np.corrcoef((found * scales.unit).ravel(), truth.ravel())[0, 1] > 0.9


def test_kernels_of_one_as_the_source_stands_fill_the_buffer_at_256() -> None:
    """Truth: 32 x code x code >> 5 is the product of the codes; nine bits hold -256 to 255."""
    as_written = dataclasses.replace(PUBLISHED[6], point_shift=0)
    layer = IntegerConv(
        inputs=np.array([[10, 20, -60, 3]]).reshape(1, 4, 1, 1),
        weights=np.array([[1, 2, 3, 4], [10, 20, 0, 0], [0, 0, 20, 0]]).reshape(3, 4, 1, 1),
    )
    found = truncated_conv(layer, as_written, UNSCALED)
    assert found.ravel().tolist() == [10 + 40 - 180 + 12, 255, -256]
    assert as_written.unit(1) == 1.0


def test_units_are_those_of_the_cuts() -> None:
    """Truth: by hand: cuts of 4 + 4 + 5 + 6 bits, G times 24 on each of two sides."""
    assert PUBLISHED[6].unit(3) == 2**19 / 576
    assert PUBLISHED[6].unit(1) == 2**15 / 32
    assert PUBLISHED[4].unit(3) == PUBLISHED[4].unit(1) == 1 / 4


@pytest.mark.parametrize(("top", "factor"), [(1, 63.0), (15, 4.0), (63, 1.0), (127, 63 / 127)])
def test_scales_fill_the_weight_codes(top: int, factor: float) -> None:
    weights = np.zeros((1, 1, 3, 3), dtype=np.int64)
    weights[0, 0, 1, 1] = top
    inputs = np.full((1, 1, 6, 6), 100)
    inputs[0, 0, 0, 0] = 127
    found = choose_scales(IntegerConv(inputs=inputs, weights=weights), PUBLISHED[6])
    assert (found.input, found.weight) == (1.0, factor)
    assert found.unit == pytest.approx(2**19 / 576 / factor)


def test_scales_keep_the_largest_sum_in_the_output_buffer() -> None:
    layer = IntegerConv(
        inputs=np.full((1, 64, 6, 6), 127), weights=np.full((1, 64, 3, 3), 63, dtype=np.int64)
    )
    found = choose_scales(layer, PUBLISHED[6])
    peak = 64 * 9 * 127 * 63
    assert found.unit == pytest.approx(peak / 255)
    outputs = truncated_conv(layer, PUBLISHED[6], found)
    assert outputs.min() > 200
    assert outputs.max() <= 255


def test_rounding_down_is_most_of_the_squared_error_of_deep_layers() -> None:
    """A step is lost about every 4 channels (half in the last cut, more in those before)."""
    rng = np.random.default_rng(5)
    layer = IntegerConv(
        inputs=rng.integers(-127, 128, (4, 64, 12, 12)),
        weights=rng.integers(-63, 64, (8, 64, 3, 3)),
    )
    scales = choose_scales(layer, PUBLISHED[6])
    offsets = cut_offsets(layer, PUBLISHED[6], scales)
    assert (offsets > -1.2 * 16).all()
    assert (offsets < -0.4 * 16).all()
    truth = exact_outputs(layer) / scales.unit
    outputs = truncated_conv(layer, PUBLISHED[6], scales)
    as_is, corrected = outputs - truth, outputs - offsets[:, None, None] - truth
    assert (corrected**2).mean() < 0.5 * (as_is**2).mean()
