"""The Hessian metric against exhaustive search, plain linear algebra and a slow reference."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import GRIDS
from edgecompress.quantizers import hessian
from edgecompress.quantizers._descent import error_feedback, sweep
from edgecompress.quantizers.base import Moments, nearest_codes
from edgecompress.quantizers.hessian import QUANTIZER, asymmetric_target


def moments_of(inputs: FloatArray, outputs: FloatArray) -> Moments:
    """Of one group: inputs (count, columns), outputs (count, rows)."""
    count = len(inputs)
    return Moments(
        gram=(inputs.T @ inputs / count)[None],
        cross=(outputs.T @ inputs / count)[None],
        count=count,
    )


def correlated(rng: np.random.Generator, count: int, columns: int) -> FloatArray:
    return rng.normal(size=(count, columns)) @ rng.normal(size=(columns, columns))


def test_close_to_exhaustive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessian, "DAMPING", 1e-9)
    monkeypatch.setattr(hessian, "PULL", 1e-9)
    found_sum = best_sum = 0.0
    codes = np.array(list(product((-1.0, 0.0, 1.0), repeat=6)))
    codes = codes[codes.any(axis=1)]
    for seed in range(40):
        rng = np.random.default_rng(seed)
        inputs, weight = correlated(rng, 50, 6), rng.normal(size=(1, 1, 6))
        outputs = inputs @ weight[0].T
        given = codes @ inputs.T
        gain = (given @ outputs)[:, 0].clip(0) ** 2 / (given**2).sum(axis=1)
        best = float((outputs**2).sum() - gain.max())
        found = QUANTIZER.quantize(
            weight, GRIDS["ternary"], moments=moments_of(inputs, outputs), per_channel=True
        )
        error = float(((outputs - inputs @ found.to_dense()[0].T) ** 2).sum())
        assert error >= best * (1 - 1e-9)
        found_sum += error
        best_sum += best
    assert found_sum < 1.15 * best_sum


def test_target_is_the_least_squares_solution() -> None:
    rng = np.random.default_rng(7)
    inputs, weight = correlated(rng, 30, 8), rng.normal(size=(3, 8))
    outputs = rng.normal(size=(30, 3))
    found = asymmetric_target(weight[None], moments_of(inputs, outputs), 0.1)[0]
    # |y - W* x|^2 / n + mu |W* - W|^2 as one least-squares problem.
    mu = 0.1 * float(np.mean(np.sum(inputs**2, axis=0)) / 30)
    stacked = np.vstack([inputs / np.sqrt(30), np.sqrt(mu) * np.eye(8)])
    right = np.vstack([outputs / np.sqrt(30), np.sqrt(mu) * weight.T])
    expected = np.linalg.lstsq(stacked, right, rcond=None)[0].T
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_target_repairs_what_a_linear_map_can() -> None:
    """If the compressed input is a linear map of the float one, the float output comes back."""
    rng = np.random.default_rng(8)
    clean, weight = rng.normal(size=(200, 5)), rng.normal(size=(2, 5))
    mixed = clean @ (np.eye(5) + 0.2 * rng.normal(size=(5, 5)))
    moments = moments_of(mixed, clean @ weight.T)
    target = asymmetric_target(weight[None], moments, 1e-10)[0]
    np.testing.assert_allclose(mixed @ target.T, clean @ weight.T, atol=1e-6)


def slow_feedback(target: FloatArray, scale: float, metric: FloatArray, name: str) -> FloatArray:
    """Greedy codes; after each one the free weights are solved for again from scratch."""
    order = np.argsort(-np.diag(metric), kind="stable")
    work, codes = target.copy(), np.zeros_like(target)
    for place, j in enumerate(order):
        code = nearest_codes(np.array(work[j]), np.array(scale), GRIDS[name])
        codes[j] = code
        rest = order[place + 1 :]
        if rest.size:
            error = work[j] - scale * code
            work[rest] += np.linalg.solve(metric[np.ix_(rest, rest)], metric[rest, j] * error)
        work[j] = scale * code
    return codes


@pytest.mark.parametrize("name", ["ternary", "2", "4"])
def test_error_feedback_is_the_greedy_solution(name: str) -> None:
    rng = np.random.default_rng(9)
    columns = 70  # more than one block
    inputs = correlated(rng, 200, columns)
    metric = inputs.T @ inputs / 200 + 5.0 * np.eye(columns)
    target = rng.normal(size=(2, columns))
    scales = np.array([0.4, 0.7])
    found = error_feedback(target[None], scales[None, :, None], metric[None], GRIDS[name])
    for row in range(2):
        expected = slow_feedback(target[row], float(scales[row]), metric, name)
        np.testing.assert_array_equal(found[0, row], expected)


def loss(
    target: FloatArray, codes: FloatArray, scale: FloatArray, metric: FloatArray
) -> FloatArray:
    error = target - scale * codes
    return np.einsum("grk,gkl,grl->gr", error, metric, error)


def test_a_sweep_never_raises_the_error_and_ends_where_no_single_code_helps() -> None:
    rng = np.random.default_rng(10)
    grid = GRIDS["2"]
    inputs = correlated(rng, 300, 80)
    metric = (inputs.T @ inputs / 300 + 0.1 * np.eye(80))[None]
    target, scale = rng.normal(size=(1, 3, 80)), np.full((1, 3, 1), 0.5)
    codes = nearest_codes(target, scale, grid)
    before = loss(target, codes, scale, metric)
    for _ in range(60):
        turned = codes @ metric
        codes, change = sweep(codes, scale, (target - scale * codes) @ metric, metric, grid)
        np.testing.assert_allclose(turned + change, codes @ metric, atol=1e-8)
        after = loss(target, codes, scale, metric)
        assert (after <= before * (1 + 1e-12)).all()
        before = after
    for column in range(80):
        for code in grid.codes:
            other = codes.copy()
            other[..., column] = code
            assert (loss(target, other, scale, metric) >= before * (1 - 1e-12)).all()


def test_groups_are_independent() -> None:
    rng = np.random.default_rng(11)
    parts = []
    for _ in range(3):
        inputs, weight = correlated(rng, 60, 9), rng.normal(size=(4, 9))
        parts.append((weight, moments_of(inputs, inputs @ weight.T)))
    together = Moments(
        gram=np.concatenate([m.gram for _, m in parts]),
        cross=np.concatenate([m.cross for _, m in parts]),
        count=60,
    )
    found = QUANTIZER.quantize(
        np.stack([w for w, _ in parts]), GRIDS["3"], moments=together, per_channel=True
    )
    for index, (weight, moments) in enumerate(parts):
        alone = QUANTIZER.quantize(weight[None], GRIDS["3"], moments=moments, per_channel=True)
        np.testing.assert_array_equal(found.codes[index], alone.codes[0])
        np.testing.assert_allclose(found.scale[index], alone.scale[0], rtol=1e-9)


@pytest.mark.parametrize("name", GRIDS)
def test_fewer_samples_than_columns_and_dead_columns(name: str) -> None:
    rng = np.random.default_rng(12)
    inputs, weight = rng.normal(size=(5, 40)), rng.normal(size=(1, 6, 40))
    inputs[:, :10] = 0.0
    moments = moments_of(inputs, inputs @ weight[0].T)
    found = QUANTIZER.quantize(weight, GRIDS[name], moments=moments, per_channel=True)
    error = inputs @ (found.to_dense()[0] - weight[0]).T
    assert np.linalg.norm(error) < 0.6 * np.linalg.norm(inputs @ weight[0].T)


def test_better_than_nearest_codes_on_correlated_inputs() -> None:
    """The reason for the method: at the same grid a much smaller error of the output."""
    rng = np.random.default_rng(13)
    mixing = rng.normal(size=(32, 32)) / (1 + np.arange(32))[:, None]
    inputs, weight = rng.normal(size=(2000, 32)) @ mixing, rng.normal(size=(1, 16, 32))
    outputs = inputs @ weight[0].T
    moments = moments_of(inputs, outputs)
    plain = hessian.steer(weight, GRIDS["ternary"], None, per_channel=True)
    nearest = np.linalg.norm(outputs - inputs @ (plain[0] * plain[1])[0].T)
    found = QUANTIZER.quantize(weight, GRIDS["ternary"], moments=moments, per_channel=True)
    assert np.linalg.norm(outputs - inputs @ found.to_dense()[0].T) < 0.5 * nearest


def test_needs_moments() -> None:
    with pytest.raises(ValueError, match="needs moments"):
        QUANTIZER.quantize(np.ones((1, 1, 1)), GRIDS["4"], moments=None, per_channel=True)
