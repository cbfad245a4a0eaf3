"""What a number of a target is varied over, from text such as ``array_rows=1:16``."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from difflib import get_close_matches

from edgecompress.core.errors import UsageError
from edgecompress.core.exploration import Axis, Value
from edgecompress.hardware.target import Target
from edgecompress.hardware.target_text import numbers_of

MOST_VALUES = 10_000
ALIASES = {
    "dram.bandwidth": ("dram_bytes_per_s", 1e9),
    "dram.efficiency": ("dram_efficiency_share", 1.0),
    "clock": ("clock_hz", 1e6),
}
"""Other names: (path in the file, factor from the value given to the value in the file): the
bandwidth in GB/s and the clock in MHz."""
_STEPS = re.compile(r"([0-9]+)(log)?")
_WORDS = {"true": True, "false": False}


def read_axis(text: str, base: Target, option: str) -> Axis:
    """The axis that ``PATH=VALUES`` describes.

    Args:
        text: VALUES are ``4,6`` or ``1:16`` (every whole number), ``8:64:8`` (8 values evenly
            spaced, both ends among them) or ``1e9:20e9:16log`` (16 values by equal ratios). The
            prefix ``parameters.`` may be left out.
        base: Has the number; its type decides what values are.
        option: For messages.

    Raises:
        UsageError: No such number, or values that cannot be read.
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    if not equals or not name or not values.strip():
        raise UsageError(f"{text!r} is not of the form NAME=VALUES", where=option)
    path, factor = ALIASES.get(name, (name, 1.0))
    known = numbers_of(base)
    if path not in known and f"parameters.{path}" in known:
        path = f"parameters.{path}"
    if path not in known:
        close = _like(name, known)
        advice = f"did you mean {close!r}?" if close else "targets show NAME lists the numbers"
        raise UsageError(f"{base.name} has no number {name!r}", where=option, hint=advice)
    try:
        found = _read_values(values.strip(), known[path], factor)
    except ValueError as problem:
        raise UsageError(f"{name}: {problem}", where=option) from None
    return Axis(path=path, values=tuple(dict.fromkeys(found)))


def _like(name: str, known: Collection[str]) -> str | None:
    """The name, or other name, of a number that is written most like this one."""
    names = {path.removeprefix("parameters."): path for path in known}
    names |= {path: path for path in known}
    names |= {other: other for other, (path, _) in ALIASES.items() if path in known}
    close = get_close_matches(name, names, n=1)
    return names[close[0]] if close else None


def is_whole_range(text: str, axis: Axis) -> bool:
    """Whether VALUES of ``NAME=VALUES`` are a range of whole numbers, not a list."""
    return ":" in text.partition("=")[2] and all(type(value) is int for value in axis.values)


def _read_values(text: str, like: Value, factor: float) -> list[Value]:
    if ":" not in text:
        return [_read_value(part.strip(), like, factor) for part in text.split(",")]
    if isinstance(like, (bool, str)):
        raise ValueError(f"{text!r}: a range needs a number; list the values with commas")
    return _read_range(text, like, factor)


def _read_value(text: str, like: Value, factor: float) -> Value:
    match like:
        case bool():
            if text not in _WORDS:
                raise ValueError(f"{text!r} is neither true nor false")
            return _WORDS[text]
        case str():
            return text
        case int():
            number = _number(text)
            if number != round(number):
                raise ValueError(f"{text!r} is not a whole number")
            return round(number)
        case _:
            return _number(text) * factor


def _read_range(text: str, like: float, factor: float) -> list[Value]:
    first, last, *steps = text.split(":")
    low, high = _number(first), _number(last)
    if high < low or len(steps) > 1:
        raise ValueError(f"{text!r} is not a range FROM:TO or FROM:TO:COUNT")
    whole = isinstance(like, int)
    if not steps:
        if not whole:
            raise ValueError(f"{text!r} needs a count, as in {text}:16 or {text}:16log")
        start = math.ceil(low)
        return list(range(start, start + _few(math.floor(high) - start + 1)))
    match = _STEPS.fullmatch(steps[0])
    if match is None or int(match[1]) < 2:
        raise ValueError(f"{steps[0]!r} is not a count of at least 2, such as 16 or 16log")
    count = _few(int(match[1])) - 1
    if match[2] and low <= 0:
        raise ValueError(f"{text!r}: equal ratios need numbers above 0")
    places = [index / count for index in range(count + 1)]
    spaced = (
        [low * (high / low) ** place for place in places]
        if match[2]
        else [low + (high - low) * place for place in places]
    )
    return [round(value) if whole else value * factor for value in spaced]


def _few(count: int) -> int:
    if count > MOST_VALUES:
        raise ValueError(f"{count} values; at most {MOST_VALUES} are taken")
    return count


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number
