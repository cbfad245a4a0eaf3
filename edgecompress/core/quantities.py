"""Numbers with units as people write them: sizes, times, shares and budgets.

Every function raises `ValueError` with a sentence for the user; the command line turns it into a
usage error and a recipe into a configuration error.
"""

from __future__ import annotations

import math
import re

from edgecompress.core.options import Budget

SIZE_UNITS = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
COUNT_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}
BUDGET_KINDS = ("params", "macs", "latency")

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)\s*([^\s0-9.]*)")


def read_size(text: str) -> int:
    """Bytes from ``250KiB``, ``100kB``, ``1.5MB``; the unit is required.

    Raises:
        ValueError: Not a positive number with one of the units.
    """
    return math.floor(_quantity(text, dict(SIZE_UNITS), "size", "250KiB"))


def read_time(text: str) -> float:
    """Seconds from ``5ms``, ``120us``, ``0.01s``; the unit is required.

    Raises:
        ValueError: Not a positive number with one of the units.
    """
    return _quantity(text, TIME_UNITS, "time", "5ms")


def read_share(text: str) -> float:
    """A share from 0 to 1, from ``0.5%`` or ``0.005``.

    Raises:
        ValueError: Not a number, or out of range.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in ("", "%"):
        raise ValueError(f"{text!r} is not a share; write it as 0.5% or 0.005")
    share = float(match[1]) / (100.0 if match[2] else 1.0)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{text!r} is not between 0 and 1 (0% and 100%)")
    return share


def read_budget(kind: str, text: str) -> Budget:
    """What may remain over all layers: a share (``50%``, ``0.5``) or an amount.

    Args:
        kind: ``params``, ``macs`` or ``latency``.
        text: A number of at most 1, or one with ``%``, is a share of the dense model; ``30x`` is
            that many times less than it. Amounts of parameters or MACs are whole numbers above 1,
            or have one of the suffixes k, M, G; latencies have a unit of time.

    Raises:
        ValueError: Neither a share nor an amount of this kind.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is neither a share (50%) nor an amount")
    if match[2] == "%" or (not match[2] and float(match[1]) <= 1.0):
        share = read_share(text)
        if not 0.0 < share <= 1.0:
            raise ValueError(f"{text!r} leaves nothing of the model")
        return Budget(kind, ratio=share)
    if match[2] == "x":
        if not 1.0 <= float(match[1]) < math.inf:
            raise ValueError(f"{text!r} times less would be more")
        return Budget(kind, ratio=1.0 / float(match[1]))
    if kind == "latency":
        return Budget(kind, limit=read_time(text))
    return Budget(kind, limit=_quantity(text, dict(COUNT_UNITS), "number", "200k"))


def _quantity(text: str, units: dict[str, float], what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    known = ", ".join(unit for unit in units if unit)
    if match is None:
        raise ValueError(f"{text!r} is not a {what}; write it as {example}")
    if match[2] not in units:
        found = f"unknown unit {match[2]!r}" if match[2] else "a unit is missing"
        raise ValueError(f"{text!r}: {found}; units are {known}, as in {example}")
    value = float(match[1]) * units[match[2]]
    if not 0.0 < value < math.inf:
        raise ValueError(f"{text!r} is not a positive {what}")
    return value
