"""VecQ and the least-squares search against the Gaussian and against the paper's formulas."""

from __future__ import annotations

from itertools import pairwise
from math import erf, exp, inf, isinf, pi, sqrt

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from edgecompress.core.arrays import FloatArray
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.grids import GRIDS, Grid
from edgecompress.quantizers import QUANTIZERS
from edgecompress.quantizers._steering import GAUSSIAN_STEP

GOLDEN = {"ternary": 0.19017, "2": 0.11885, "3": 0.03744, "4": 0.01154}
"""Relative squared error of the best equally spaced quantizer of a Gaussian: Max 1960, table II
(4, 8 and 16 levels); the ternary one is the minimum over the step of the closed form below."""


def density(x: float) -> float:
    return 0.0 if isinf(x) else exp(-x * x / 2) / sqrt(2 * pi)


def below(x: float) -> float:
    return 0.5 * (1 + erf(x / sqrt(2)))


def gaussian_error(step: float, levels: int) -> float:
    """Squared error of levels ``step`` apart, symmetric about 0, for a unit Gaussian."""
    points = [(k - (levels - 1) / 2) * step for k in range(levels)]
    edges = [-inf, *((a + b) / 2 for a, b in pairwise(points)), inf]
    total = 0.0
    for point, low, high in zip(points, edges, edges[1:], strict=False):
        mass = below(high) - below(low)
        first = density(low) - density(high)
        second = mass + (0 if isinf(low) else low * density(low))
        second -= 0 if isinf(high) else high * density(high)
        total += second - 2 * point * first + point * point * mass
    return total


def rows(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=lambda grid: grid.name)
def test_step_is_the_best_one_for_a_gaussian(grid: Grid) -> None:
    table = GAUSSIAN_STEP[grid.name]
    best = minimize_scalar(
        lambda step: gaussian_error(step, grid.levels), bracket=(0.9 * table, 1.1 * table)
    )
    assert table == pytest.approx(best.x, rel=1e-4)


@pytest.mark.parametrize(("name", "bits"), [("2", 2), ("3", 3), ("4", 4)])
def test_codes_and_scale_are_those_of_the_paper(name: str, bits: int) -> None:
    weight = rows(1, 1, 5, 40)
    step = GAUSSIAN_STEP[name] * sqrt(float(np.mean(weight**2)))
    halves = np.round(np.clip(weight / step - 0.5, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)) + 0.5
    alpha = float((weight * halves).sum() / (halves * halves).sum())
    found = QUANTIZERS.get("vecq").quantize(weight, GRIDS[name], moments=None, per_channel=False)
    np.testing.assert_array_equal(found.codes, 2 * halves)
    np.testing.assert_allclose(found.to_dense(), alpha * halves, rtol=1e-12)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("method", ["vecq", "l2"])
def test_error_on_gaussian_weights(name: str, method: str) -> None:
    weight = rows(2, 1, 4, 50_000)
    found = QUANTIZERS.get(method).quantize(weight, GRIDS[name], moments=None, per_channel=True)
    error = np.sum((found.to_dense() - weight) ** 2) / np.sum(weight**2)
    assert error == pytest.approx(GOLDEN[name], rel=0.02)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("method", ["vecq", "l2"])
def test_no_other_scale_is_better_for_the_codes(method: str, per_channel: bool) -> None:
    weight = rows(3, 2, 3, 30) ** 3
    found = QUANTIZERS.get(method).quantize(
        weight, GRIDS["2"], moments=None, per_channel=per_channel
    )
    axes = (2,) if per_channel else (0, 1, 2)
    best = np.sum((found.to_dense() - weight) ** 2, axis=axes)
    for factor in (0.99, 1.01):
        assert (np.sum((factor * found.to_dense() - weight) ** 2, axis=axes) > best).all()


def test_search_beats_the_gaussian_step_where_weights_are_not_gaussian() -> None:
    weight = rows(4, 1, 16, 200) ** 3
    errors = {}
    for method in ("vecq", "l2"):
        found = QUANTIZERS.get(method).quantize(weight, GRIDS["3"], moments=None, per_channel=True)
        errors[method] = np.sum((found.to_dense() - weight) ** 2)
    assert errors["l2"] < 0.95 * errors["vecq"]


def test_one_scale_for_the_tensor() -> None:
    weight = rows(5, 3, 4, 20) * np.array([1.0, 2.0, 5.0])[:, None, None]
    for method in ("vecq", "l2"):
        found = QUANTIZERS.get(method).quantize(weight, GRIDS["4"], moments=None, per_channel=False)
        assert len(np.unique(found.scale)) == 1


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"unknown quantization method 'nonesuch'"):
        QUANTIZERS.get("nonesuch")
    assert QUANTIZERS.names() == ("hessian", "l2", "vecq")
