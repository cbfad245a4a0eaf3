"""Rounding and scaling of numbers for people; the reports themselves keep SI base units."""

from __future__ import annotations

import math

UNKNOWN = "-"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def size(bytes_: float) -> str:
    """Decimal units: 1 kB is 1000 bytes."""
    for factor, prefix in _PREFIXES:
        if bytes_ >= factor:
            return f"{_three_digits(bytes_ / factor)} {prefix}B"
    return f"{bytes_:.0f} B"


def count(number: float | None) -> str:
    """All digits, grouped by thousands."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def short_count(number: float | None) -> str:
    """Three digits and a prefix: ``40.6M``."""
    if number is None:
        return UNKNOWN
    for factor, prefix in _PREFIXES:
        if number >= factor:
            return f"{_three_digits(number / factor)}{prefix}"
    return f"{number:.0f}"


def duration(seconds: float | None) -> str:
    """Three digits in the unit that fits."""
    if seconds is None:
        return UNKNOWN
    if not math.isfinite(seconds):
        return str(seconds)
    for factor, unit in _TIMES:
        if seconds >= factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def rate(per_second: float) -> str:
    """Inferences a second."""
    return f"{_three_digits(per_second)}/s" if per_second < 1000 else f"{per_second:,.0f}/s"


def share(value: float | None, digits: int = 2) -> str:
    """A share of 1 in per cent."""
    return UNKNOWN if value is None else f"{value * 100:.{digits}f} %"


def points(difference: float) -> str:
    """Difference of two shares in percentage points, always with its sign."""
    rounded = round(difference * 100, 2)
    return "no change" if rounded == 0 else f"{rounded:+.2f} points"


def change(before: float | None, after: float | None) -> str:
    """Relative change in per cent."""
    if before is None or after is None or before == 0:
        return ""
    percent = round((after / before - 1) * 100)
    return "no change" if after == before else f"{percent:+d} %"


def factor(before: float, after: float, better: str, worse: str) -> str:
    """``7.7x smaller``: how many times less ``after`` is than ``before``, or more."""
    if before <= 0 or after <= 0:
        return ""
    ratio = before / after
    word = better if ratio >= 1 else worse
    times = max(ratio, 1 / ratio)
    return "no change" if round(times, 2) == 1 else f"{_three_digits(times)}x {word}"


def short_times(ratio: float) -> str:
    """A ratio with three digits: ``30.3``, ``0.42``."""
    return f"{ratio:,.0f}" if ratio >= 999.5 else _three_digits(ratio)


def decibels(value: float) -> str:
    """Signal to noise; identical outputs have no noise."""
    return "identical" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def error(value: float | None) -> str:
    """A relative error: per cent where that is readable."""
    if value is None:
        return UNKNOWN
    return f"{value * 100:.2f} %" if value >= 1e-4 or value == 0 else f"{value:.1e}"


def shape(sizes: tuple[int | None, ...]) -> str:
    """``1x3x32x32``; ``?`` where an axis is open."""
    return "x".join("?" if axis is None else str(axis) for axis in sizes) or "scalar"


def _three_digits(value: float) -> str:
    """Three significant digits, never in exponent form."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
