"""Ranges of activations for 8-bit arithmetic, from calibration data.

Two passes over the data, so that memory does not grow with them: the extremes first, then a
histogram of each value. A range is then narrowed to where the squared error of an 8-bit grid is
least: cutting off a few large values can cost less than coarse steps for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.errors import DataInvalid
from edgecompress.core.samples import Feed, Samples
from edgecompress.graph.taps import eight_bit_values, run_taps

if TYPE_CHECKING:
    from edgecompress.graph.model import Model

LIMIT = 256
"""Samples that ranges are measured on."""
BINS = 2048
LEVELS = 255
SHARES = np.linspace(0.3, 1.0, 71)
"""Shares of an extreme that are tried as the end of a range."""


def calibrate_activations(model: Model, samples: Samples) -> dict[str, tuple[float, float]]:
    """Ranges of all activations that 8-bit kernels read or write.

    Args:
        model: With its weights as they will be written.
        samples: Calibration data; at most `LIMIT` samples are used.

    Returns:
        Value name -> (low, high), low <= 0 <= high.

    Raises:
        DataInvalid: An activation is not finite.
    """
    feeds = _some(samples)
    names = eight_bit_values(model)
    extremes = _extremes(model, names, feeds)
    kept = list(extremes)
    histograms = {name: np.zeros(BINS, np.int64) for name in kept}
    for values in run_taps(model, kept, feeds):
        for name, value in zip(kept, values, strict=True):
            low, high = extremes[name]
            counted = value[value != 0]
            if counted.size and high > low:
                histograms[name] += np.histogram(counted, BINS, (low, high))[0]
    return {name: narrowed(histograms[name], *extremes[name]) for name in kept}


def _some(samples: Samples) -> Sequence[Feed]:
    """Feeds from all over the data with about `LIMIT` samples."""
    each = max(1, round(samples.count / max(1, len(samples.feeds))))
    wanted = max(1, min(len(samples.feeds), LIMIT // each))
    places = np.linspace(0, len(samples.feeds) - 1, wanted).round().astype(int)
    return [samples.feeds[place] for place in dict.fromkeys(places.tolist())]


def _extremes(
    model: Model, names: Sequence[str], feeds: Sequence[Feed]
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each float32 activation, zero included."""
    found: dict[str, tuple[float, float]] = {}
    for values in run_taps(model, names, feeds):
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, np.ndarray) or value.dtype != np.float32:
                continue
            low, high = _ends(name, value)
            before = found.get(name, (0.0, 0.0))
            found[name] = (min(low, before[0]), max(high, before[1]))
    return found


def _ends(name: str, value: Array) -> tuple[float, float]:
    if not value.size:
        return 0.0, 0.0
    low, high = float(value.min()), float(value.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise DataInvalid(
            f"activation {name!r} is not finite on the calibration data",
            hint="check the data and --preprocess",
        )
    return low, high


def narrowed(histogram: Array, low: float, high: float) -> tuple[float, float]:
    """The range with the least squared error of an 8-bit grid.

    Args:
        histogram: Counts in equal bins from ``low`` to ``high``; zeros, which are exact on the
            grid, are not in it.
        low: At most 0.
        high: At least 0.

    Returns:
        (low, high), inside the given range and around 0.
    """
    if not histogram.any():
        return low, high
    width = (high - low) / len(histogram)
    centres = low + width * (np.arange(len(histogram)) + 0.5)
    counts = histogram.astype(np.float64)
    for _ in range(2):
        if high > 0:
            high = high * _best([_error(centres, counts, low, high * s) for s in SHARES])
        if low < 0:
            low = low * _best([_error(centres, counts, low * s, high) for s in SHARES])
    return low, high


def _best(errors: Sequence[float]) -> float:
    """The largest share with the least error."""
    place = len(errors) - 1 - int(np.argmin(errors[::-1]))
    return float(SHARES[place])


def _error(centres: FloatArray, counts: FloatArray, low: float, high: float) -> float:
    """Squared error of an 8-bit grid: cut off outside, uniform rounding inside."""
    step = (high - low) / LEVELS
    outside = centres - np.clip(centres, low, high)
    inside = counts[outside == 0].sum()
    return float((counts * outside**2).sum() + inside * step**2 / 12)
