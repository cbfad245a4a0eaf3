"""Rounding and scaling. Expected values are worked out by hand."""

from __future__ import annotations

import math

import pytest

from edgecompress.report import figures


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (142_300, "142 kB"), (1_094_000, "1.09 MB")],
)
def test_size(bytes_: int, text: str) -> None:
    assert figures.size(bytes_) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.50 s"),
        (0.0123, "12.3 ms"),
        (301e-6, "301 µs"),
        (5e-9, "5.00 ns"),
        (0.0, "0 ns"),
        (None, "-"),
        (math.inf, "inf"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (1000, 125, "8.00x smaller"),
        (100, 150, "1.50x larger"),
        (100, 100, "no change"),
        (1000, 1001, "no change"),
        (0, 5, ""),
    ],
)
def test_factor(before: float, after: float, text: str) -> None:
    assert figures.factor(before, after, "smaller", "larger") == text


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (-0.005, "-0.50 points"),
        (0.012, "+1.20 points"),
        (0.0, "no change"),
        (-0.000001, "no change"),
    ],
)
def test_points(difference: float, text: str) -> None:
    assert figures.points(difference) == text


def test_change_of_an_open_count_is_empty() -> None:
    assert figures.change(None, 5) == ""
    assert figures.change(200, 100) == "-50 %"
    assert figures.change(100, 100) == "no change"


def test_identical_outputs_have_no_noise() -> None:
    assert figures.decibels(math.inf) == "identical"
    assert figures.decibels(27.46) == "27.5 dB"


@pytest.mark.parametrize(
    ("number", "text"),
    [(999, "999"), (2304, "2.30k"), (40_551_040, "40.6M"), (9_999, "10.0k"), (None, "-")],
)
def test_short_count(number: float | None, text: str) -> None:
    assert figures.short_count(number) == text


def test_shape_and_error() -> None:
    assert figures.shape((None, 3, 32)) == "?x3x32"
    assert figures.shape(()) == "scalar"
    assert figures.error(0.0312) == "3.12 %"
    assert figures.error(1.2e-6) == "1.2e-06"
    assert figures.error(None) == "-"
