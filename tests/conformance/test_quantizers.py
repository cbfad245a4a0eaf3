"""What every quantizer promises, on every grid."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import GRIDS
from edgecompress.quantizers import QUANTIZERS
from edgecompress.quantizers.base import Moments, Rows

SHAPES = [(1, 1, 1), (1, 4, 1), (1, 1, 9), (1, 5, 27), (6, 1, 9), (2, 3, 8)]
NAMES = QUANTIZERS.names()


def weight_of(shape: tuple[int, ...]) -> FloatArray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def moments_for(weight: FloatArray) -> Moments:
    groups, _, columns = weight.shape
    inputs = np.random.default_rng(columns).normal(size=(groups, 400, columns))
    gram = np.swapaxes(inputs, 1, 2) @ inputs / 400
    return Moments(gram=gram, cross=weight @ gram, count=400)


def quantize(name: str, weight: FloatArray, grid: str, *, per_channel: bool = True) -> Rows:
    return QUANTIZERS.get(name).quantize(
        weight, GRIDS[grid], moments=moments_for(weight), per_channel=per_channel
    )


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_file(name: str) -> None:
    assert QUANTIZERS.get(name).name == name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NAMES)
def test_codes_on_the_grid_and_finite_scales(
    name: str, grid: str, per_channel: bool, shape: tuple[int, ...]
) -> None:
    weight = weight_of(shape)
    found = quantize(name, weight, grid, per_channel=per_channel)
    assert found.codes.dtype == np.int8
    assert found.codes.shape == shape
    assert found.scale.shape == (*shape[:2], 1)
    assert np.isin(found.codes, GRIDS[grid].codes).all()
    assert np.isfinite(found.scale).all()
    assert (found.scale >= 0).all()
    if not per_channel:
        assert np.ptp(found.scale) == 0


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NAMES)
def test_zero_rows_stay_zero(name: str, grid: str) -> None:
    weight = weight_of((2, 3, 8))
    weight[0, 1] = 0.0
    found = quantize(name, weight, grid)
    assert not found.to_dense()[0, 1].any()
    assert found.to_dense()[0, 0].any()
    assert not quantize(name, np.zeros((1, 2, 5)), grid).to_dense().any()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_factor_goes_into_the_scale(name: str, grid: str) -> None:
    weight = weight_of((1, 5, 27))
    found, larger = quantize(name, weight, grid), quantize(name, 4.0 * weight, grid)
    np.testing.assert_array_equal(larger.codes, found.codes)
    np.testing.assert_allclose(larger.scale, 4.0 * found.scale, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_same_input_same_codes(name: str) -> None:
    weight = weight_of((1, 5, 27))
    first, second = quantize(name, weight, "3"), quantize(name, weight, "3")
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.scale, second.scale)


@pytest.mark.parametrize("name", NAMES)
def test_finer_grids_have_smaller_errors(name: str) -> None:
    weight = weight_of((1, 16, 64))
    errors = [
        float(np.linalg.norm(quantize(name, weight, grid).to_dense() - weight))
        for grid in ("ternary", "2", "3", "4", "8")
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.8 * float(np.linalg.norm(weight))


@pytest.mark.parametrize("name", NAMES)
def test_values_on_the_grid_come_back(name: str) -> None:
    """A weight that is a grid already is not changed: the search must find its scale."""
    rng = np.random.default_rng(3)
    codes = rng.choice(GRIDS["ternary"].codes, size=(1, 8, 60), p=[0.25, 0.5, 0.25])
    found = quantize(name, 0.3 * codes.astype(np.float64), "ternary")
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.scale, 0.3, rtol=1e-9)
