"""Comparing running times on a machine that does other things at the same time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median

ROUNDS = 21
FEWEST_ROUNDS = 3
SHORTEST_READING_S = 0.002
LONGEST_S = 6.0


def interleaved_medians(runs: Sequence[Callable[[], object]]) -> tuple[float, ...]:
    """Median seconds of one call of each, measured in turns in this process.

    Taking turns gives every candidate the same share of whatever else the machine does, so the
    ratio of two medians is steadier than the medians are. Calls that are too short for the clock
    are timed several at a time.

    Args:
        runs: Each is called at least four times.

    Returns:
        One median for each, in order.
    """
    repeats = [_repeats(run) for run in runs]
    readings: list[list[float]] = [[] for _ in runs]
    begin = time.perf_counter()
    for done in range(ROUNDS):
        if done >= FEWEST_ROUNDS and time.perf_counter() - begin > LONGEST_S:
            break
        for run, count, column in zip(runs, repeats, readings, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                run()
            column.append((time.perf_counter() - start) / count)
    return tuple(median(column) for column in readings)


def _repeats(run: Callable[[], object]) -> int:
    """Calls in one reading; the first call warms up."""
    run()
    start = time.perf_counter()
    run()
    once = max(time.perf_counter() - start, 1e-7)
    return max(1, math.ceil(SHORTEST_READING_S / once))
