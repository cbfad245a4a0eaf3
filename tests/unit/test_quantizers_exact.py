"""Weights that are on a grid already are found to be, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.grids import GRIDS
from edgecompress.quantizers._exact import exact_rows

BY_LEVELS = ("ternary", "2", "3", "4", "8")


def made(
    grid: str, shape: tuple[int, int, int], *, per_channel: bool, seed: int, dtype: Any = np.float32
) -> np.ndarray[Any, Any]:
    """Codes of the grid, all in use where there is room, times float32 scales."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(GRIDS[grid].codes, size=shape)
    scales = rng.uniform(0.001, 2.0, size=(*shape[:2], 1) if per_channel else ())
    values: np.ndarray[Any, Any] = (codes * scales.astype(np.float32)).astype(dtype)
    return values


def values_of(found: Any, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """float32 products in the weight's type, as the written graph makes them."""
    product = found.rows.codes.astype(np.float32) * found.rows.scale.astype(np.float32)
    values: np.ndarray[Any, Any] = product.astype(dtype)
    return values


@given(
    grid=st.sampled_from(BY_LEVELS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 80)),
    per_channel=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_times_a_scale_come_back_bit_for_bit(
    grid: str, shape: tuple[int, int, int], per_channel: bool, half: bool, seed: int
) -> None:
    dtype = np.float16 if half and grid != "8" else np.float32
    weight = made(grid, shape, per_channel=per_channel, seed=seed, dtype=dtype)
    found = exact_rows(weight, GRIDS[grid], per_channel=per_channel)
    assert found is not None
    assert found.grid.levels <= GRIDS[grid].levels
    assert np.isin(found.rows.codes, found.grid.codes).all()
    np.testing.assert_array_equal(values_of(found, dtype), weight)
    if not per_channel:
        assert np.ptp(found.rows.scale) == 0


@pytest.mark.parametrize("asked", BY_LEVELS)
@pytest.mark.parametrize("own", BY_LEVELS)
def test_the_narrowest_grid_is_taken_and_none_above_the_asked_one(own: str, asked: str) -> None:
    weight = made(own, (1, 6, 400), per_channel=True, seed=4)
    found = exact_rows(weight, GRIDS[asked], per_channel=True)
    if GRIDS[own].levels > GRIDS[asked].levels:
        assert found is None
    else:
        assert found is not None
        assert found.grid.name == own


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(1, 64, 256), (1, 8, 9), (32, 1, 9), (1, 4, 4), (1, 1, 12)])
@pytest.mark.parametrize("grid", ["4", "8"])
def test_ordinary_weights_are_on_no_grid(grid: str, shape: Any, dtype: Any) -> None:
    for seed in range(20):
        weight = np.random.default_rng(seed).normal(0, 0.05, size=shape).astype(dtype)
        if dtype is np.float16 and grid == "8" and shape[2] < 100:
            continue  # 127 codes reach most ratios of numbers of 11 bits
        assert exact_rows(weight, GRIDS[grid], per_channel=True) is None


@pytest.mark.parametrize("places", [5, 10, 1000])
@pytest.mark.parametrize("per_channel", [True, False])
def test_one_weight_beside_the_grid_is_seen(places: int, per_channel: bool) -> None:
    weight = made("4", (1, 40, 100), per_channel=per_channel, seed=1)
    at = (0, 39, 57)
    weight[at] = weight[at].view(np.int32).__add__(places).astype(np.int32).view(np.float32)
    assert exact_rows(weight, GRIDS["8"], per_channel=per_channel) is None


def test_a_folded_normalisation_is_a_scale_to_rounding() -> None:
    """Truth: a product of two float32 roundings is within 2 half units of the exact product."""
    rng = np.random.default_rng(2)
    codes = rng.choice(GRIDS["4"].codes, size=(1, 16, 72))
    step, gains = np.float32(0.0371), rng.uniform(0.2, 3, (1, 16, 1)).astype(np.float32)
    weight = (codes.astype(np.float32) * step) * gains
    found = exact_rows(weight, GRIDS["4"], per_channel=True)
    assert found is not None
    assert found.per_channel
    np.testing.assert_array_equal(found.rows.codes, codes)
    np.testing.assert_allclose(values_of(found), weight, rtol=2.0**-23 * 1.5)


def test_codes_that_are_seldom_used() -> None:
    """Two magnitudes 5 and 15 times a step are 1 and 3 times a larger one: narrower."""
    weight = np.float32([[[5, -15, 15, 5]]]) * np.float32(0.3)
    found = exact_rows(weight, GRIDS["4"], per_channel=False)
    assert found is not None
    assert found.grid.name == "2"
    assert found.rows.codes.tolist() == [[[1, -3, 3, 1]]]
    even = np.float32([[[2, -4, 2, 6]]])  # 1, 2, 3: not odd, so on the 8-bit grid alone
    assert exact_rows(even, GRIDS["4"], per_channel=True) is None
    found = exact_rows(even, GRIDS["8"], per_channel=True)
    assert found is not None
    assert found.grid.name == "8"
    assert found.rows.codes.tolist() == [[[1, -2, 1, 3]]]


def test_one_scale_is_stored_where_one_does() -> None:
    weight = made("3", (1, 12, 50), per_channel=False, seed=7)
    found = exact_rows(weight, GRIDS["8"], per_channel=True)
    assert found is not None
    assert not found.per_channel
    assert found.grid.name == "3"


def test_rows_of_zeros() -> None:
    """Odd codes have no zero; the others give it a scale of zero."""
    odd = made("4", (1, 5, 60), per_channel=True, seed=3)
    odd[0, 2] = 0
    assert exact_rows(odd, GRIDS["4"], per_channel=True) is None
    some = made("ternary", (1, 5, 60), per_channel=True, seed=3)
    some[0, 2] = 0
    found = exact_rows(some, GRIDS["4"], per_channel=True)
    assert found is not None
    assert found.grid.name == "ternary"
    assert found.rows.scale[0, 2] == 0
    np.testing.assert_array_equal(values_of(found), some)
    nothing = exact_rows(np.zeros((1, 3, 4), np.float32), GRIDS["4"], per_channel=True)
    assert nothing is not None
    assert not values_of(nothing).any()


def test_what_is_not_finite_or_not_there() -> None:
    for bad in (np.nan, np.inf):
        weight = made("4", (1, 3, 30), per_channel=False, seed=0)
        weight[0, 0, 0] = bad
        assert exact_rows(weight, GRIDS["8"], per_channel=True) is None
    assert exact_rows(np.zeros((1, 0, 4), np.float32), GRIDS["8"], per_channel=True) is None
