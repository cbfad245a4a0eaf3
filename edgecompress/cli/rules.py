"""Layer rules as options: ``PATTERN:bits=8,format=none,skip``."""

from __future__ import annotations

import re
from typing import Any

from edgecompress.core.grids import GRIDS
from edgecompress.core.options import LayerRule

_KEYS = ("skip", "bits", "format", "ranks")


def read_rule(text: str) -> LayerRule:
    """A rule from ``PATTERN:SETTING,SETTING``; the last colon ends the pattern.

    Raises:
        ValueError: What is wrong with which part.
    """
    pattern, colon, settings = text.rpartition(":")
    if not colon or not pattern or pattern == "re" or not settings:
        raise ValueError(f"{text!r} is not of the form PATTERN:bits=8,format=none,skip")
    if pattern.startswith("re:"):
        try:
            re.compile(pattern.removeprefix("re:"))
        except re.error as problem:
            raise ValueError(f"{pattern!r} is not a regular expression: {problem}") from None
    values: dict[str, Any] = {}
    for setting in settings.split(","):
        key, value = _read_setting(setting.strip())
        if key in values:
            raise ValueError(f"{key!r} is given twice in {text!r}")
        values[key] = value
    return LayerRule(match=pattern, **values)


def _read_setting(setting: str) -> tuple[str, bool | str | tuple[int, ...]]:
    key, equals, value = setting.partition("=")
    match key, bool(equals):
        case "skip", False:
            return key, True
        case "bits", True if value in GRIDS:
            return key, value
        case "bits", _:
            raise ValueError(f"{setting!r}: bits is one of {', '.join(GRIDS)}")
        case "format", True if value:
            return key, value
        case "ranks", True:
            sizes = value.split("x")
            if not all(size.isdecimal() and int(size) > 0 for size in sizes):
                raise ValueError(f"{setting!r}: ranks are written as 8 or 8x8")
            return key, tuple(int(size) for size in sizes)
        case _:
            raise ValueError(f"{setting!r} is not a setting; they are {', '.join(_KEYS)}")
