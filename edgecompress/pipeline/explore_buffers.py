"""Whether the buffers of an array hold what it takes at once, by family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgecompress.core.exploration import Value
from edgecompress.pipeline.explore_defaults import (
    ACTIVATIONS,
    COLUMNS,
    IN_LANES,
    OUT_LANES,
    ROWS,
    WEIGHTS,
    WINDOW,
)

TOO_SMALL = "one half of the {name} buffer does not hold what the array takes at once"
_ROW_UNITS, _COLUMN_UNITS = "parameters.row_units", "parameters.column_units"
_UNIT_BITS, _DOT_LENGTH = "parameters.unit_bits", "parameters.dot_length"
_NAMES = {ACTIVATIONS: "activation", WEIGHTS: "weight"}


def small_buffers(numbers: Mapping[str, Value]) -> Iterator[tuple[str, int]]:
    """Buffers whose half cannot hold one array-full of operands.

    An array that holds an operand in its elements takes rows x columns of it and a column, or row,
    of the other; one that holds sums takes a row and a column and gives rows x columns results.
    A ternary engine fills all its weight registers, and takes a column of its window.

    Args:
        numbers: All of a target, as `numbers_of` gives them.

    Yields:
        (path of the buffer, bytes that are needed).

    Source: arithmetic on what enters such an array before it can go on.
    """
    for path, bits in _needed_bits(numbers):
        needed = -(-bits // 8)
        if needed > _whole(numbers, path):
            yield path, needed


def said_small(numbers: Mapping[str, Value]) -> Iterator[str]:
    """The same in words with the numbers, for a check of a file."""
    for path, needed in small_buffers(numbers):
        reason = TOO_SMALL.format(name=_NAMES[path])
        yield f"{path} = {numbers[path]}: {reason}: {needed:,} bytes"


def why_too_small(numbers: Mapping[str, Value]) -> str:
    """The first reason why a configuration cannot be; empty if it can."""
    return next((TOO_SMALL.format(name=_NAMES[path]) for path, _ in small_buffers(numbers)), "")


def _needed_bits(numbers: Mapping[str, Value]) -> Iterator[tuple[str, int]]:
    """Bits of what is taken at once, by the path of the buffer that it comes from."""
    family = numbers["family"]
    if ACTIVATIONS not in numbers or WEIGHTS not in numbers:
        return
    activation = _whole(numbers, "activation_bits") if "activation_bits" in numbers else 1
    weight = _weight_bits(numbers)
    match family:
        case "systolic_ws" | "systolic_os" | "systolic_is":
            rows, columns = _whole(numbers, ROWS), _whole(numbers, COLUMNS)
            full = rows * columns
            activations, weights = {
                "systolic_ws": (rows + columns, full),
                "systolic_os": (rows + full, columns),
                "systolic_is": (full, rows),
            }[str(family)]
            yield ACTIVATIONS, activations * activation
            yield WEIGHTS, weights * weight
        case "bit_fusion":
            rows = _whole(numbers, ROWS)
            yield ACTIVATIONS, rows * activation
            yield WEIGHTS, rows * _whole(numbers, COLUMNS) * weight
        case "bit_serial":
            unit = _whole(numbers, _UNIT_BITS)
            yield ACTIVATIONS, _whole(numbers, _ROW_UNITS) * unit
            yield WEIGHTS, _whole(numbers, _COLUMN_UNITS) * unit
        case "lut_mac":
            yield ACTIVATIONS, _whole(numbers, _DOT_LENGTH) * activation
            yield WEIGHTS, _whole(numbers, _DOT_LENGTH) * weight
        case "ternary_engine":
            column = _whole(numbers, IN_LANES) * _whole(numbers, WINDOW)
            yield ACTIVATIONS, column * _whole(numbers, "parameters.activation_bits")
            yield WEIGHTS, 2 * column * _whole(numbers, WINDOW) * _whole(numbers, OUT_LANES)
        case _:
            return


def _weight_bits(numbers: Mapping[str, Value]) -> int:
    """Width of a weight in a buffer; the narrowest there is where files may be narrower."""
    fixed = numbers["weight_stream.encoding"] == "fixed"
    known = str(numbers["family"]).startswith("systolic") or fixed
    return _whole(numbers, "weight_stream.weight_bits") if known else 1


def _whole(numbers: Mapping[str, Value], path: str) -> int:
    value = numbers[path]
    if not isinstance(value, int):
        raise TypeError(f"{path} is not a whole number")
    return value
