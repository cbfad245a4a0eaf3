"""Ranges of 8-bit activations, by hand and by brute force."""

from __future__ import annotations

import numpy as np

from edgecompress.pipeline.activations import narrowed


def histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.histogram(values, 2048, (low, high))[0]


def error(values: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    codes = np.clip(np.round((values - low) / step), 0, 255)
    return float(np.mean((codes * step + low - values) ** 2))


def test_uniform_values_keep_their_range() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 100_000)
    low, high = narrowed(histogram(values, -1, 1), -1.0, 1.0)
    assert low < -0.97
    assert high > 0.97


def test_a_lonely_outlier_is_cut_off() -> None:
    values = np.abs(np.random.default_rng(1).normal(size=1_000_000))
    values[0] = 20.0
    low, high = narrowed(histogram(values, 0, 20), 0.0, 20.0)
    assert low == 0.0
    assert 4 < high < 10
    assert error(values, low, high) < 0.5 * error(values, 0, 20)


def test_about_the_best_range_of_a_long_tail() -> None:
    values = np.random.default_rng(2).laplace(size=200_000)
    ends = float(values.min()), float(values.max())
    low, high = narrowed(histogram(values, *ends), *ends)
    shares = np.linspace(0.2, 1, 33)
    best = min(error(values, ends[0] * a, ends[1] * b) for a in shares for b in shares)
    assert error(values, low, high) < 1.05 * best


def test_nothing_but_zeros() -> None:
    assert narrowed(np.zeros(2048, np.int64), 0.0, 0.0) == (0.0, 0.0)
