"""Values of options, read from text into the types that the pipeline takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import UsageError
from edgecompress.core.options import (
    EnergyRank,
    FixedRanks,
    Gates,
    ParameterRatio,
    RankRule,
    Tolerance,
)
from edgecompress.core.quantities import read_budget, read_share, read_size, read_time
from edgecompress.core.work import AssumedBits

T = TypeVar("T")
GATES = ("max_size", "max_latency", "max_drop", "min_accuracy")
RANKS = (
    "rank",
    "energy",
    "tolerance",
    "param_ratio",
    "target_params",
    "target_macs",
    "target_latency",
)


def option_name(attribute: str) -> str:
    """``--max-size`` from ``max_size``."""
    special = {"format_name": "--format", "input_shapes": "--input-shape"}
    return special.get(attribute, "--" + attribute.replace("_", "-"))


def read_option(reader: Callable[[str], T], text: str, option: str) -> T:
    """What the reader gives; its complaint as a usage error about the option.

    Raises:
        UsageError: The reader raised `ValueError`.
    """
    try:
        return reader(text)
    except ValueError as problem:
        raise UsageError(str(problem), where=option) from None


def read_gates(texts: Mapping[str, str | None], base: Gates) -> Gates:
    """Limits as given on the command line, over those of the recipe.

    Raises:
        UsageError: A limit that cannot be read.
    """
    readers: dict[str, tuple[str, Callable[[str], float]]] = {
        "max_size": ("max_size_bytes", read_size),
        "max_latency": ("max_latency_s", read_time),
        "max_drop": ("max_drop", read_share),
        "min_accuracy": ("min_accuracy", read_share),
    }
    changes: dict[str, Any] = {}
    for option, (attribute, reader) in readers.items():
        text = texts.get(option)
        if text is not None:
            changes[attribute] = read_option(reader, text, option_name(option))
    return replace(base, **changes)


def read_input_shapes(texts: tuple[str, ...]) -> dict[str, Shape]:
    """Shapes by input name, from ``NAME=1,3,224,224`` or ``NAME=1x3x224x224``.

    Raises:
        UsageError: A text of another form, or a name given twice.
    """
    shapes: dict[str, Shape] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        if not equals or not name or name in shapes:
            problem = "is given twice" if name in shapes else "is not of the form NAME=1,3,224,224"
            raise UsageError(f"{text!r} {problem}", where="--input-shape")
        shapes[name] = read_option(read_sizes, sizes, "--input-shape")
    return shapes


def read_assumed_bits(text: str | None) -> AssumedBits | None:
    """Widths of activations and weights from ``8/4``.

    Raises:
        UsageError: A text of another form, or widths that there are not.
    """
    return None if text is None else read_option(_read_widths, text, "--assume-bits")


def _read_widths(text: str) -> AssumedBits:
    activations, slash, weights = text.partition("/")
    if not slash or not activations.strip().isdecimal() or not weights.strip().isdecimal():
        raise ValueError(f"{text!r} is not of the form 8/4: bits of activations, bits of weights")
    return AssumedBits(activations=int(activations), weights=int(weights))


def read_ranks(texts: Mapping[str, str | None]) -> RankRule | None:
    """The rank rule that is given; None if there is none.

    Raises:
        UsageError: More than one, or one that cannot be read.
    """
    given = {name: text for name, text in texts.items() if text is not None}
    if len(given) > 1:
        raise UsageError(f"{' and '.join(map(option_name, given))} exclude each other")
    if not given:
        return None
    name, text = given.popitem()
    return read_option(partial(_read_ranks, name), text, option_name(name))


def _read_ranks(name: str, text: str) -> RankRule:
    match name:
        case "rank":
            return FixedRanks(read_sizes(text))
        case "tolerance":
            return Tolerance(_read_part(text))
        case "energy":
            return EnergyRank(_read_part(text))
        case "param_ratio":
            return ParameterRatio(_read_part(text))
        case _:
            return read_budget(name.removeprefix("target_"), text)


def _read_part(text: str) -> float:
    share = read_share(text)
    if share == 0:
        raise ValueError(f"{text!r} leaves nothing")
    return share


def read_sizes(text: str) -> Shape:
    """Positive whole numbers from ``8,4`` or ``8x4``.

    Raises:
        ValueError: Something else.
    """
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{text!r} is not a list of positive whole numbers")
    return tuple(int(part) for part in parts)
