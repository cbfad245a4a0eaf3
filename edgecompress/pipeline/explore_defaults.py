"""What is varied where nothing else is asked, and which numbers follow from others, by family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgecompress.core.exploration import Axis, Value
from edgecompress.hardware.families import family_named, list_families
from edgecompress.hardware.target import Target
from edgecompress.hardware.target_text import numbers_of

SYSTOLIC = ("systolic_ws", "systolic_os", "systolic_is")
ROWS, COLUMNS = "parameters.array_rows", "parameters.array_columns"
OMEGA, DEPTH = "parameters.omega_pixels", "parameters.channels_per_element"
BATCH, BANKS = "parameters.batch_images", "parameters.input_bank_columns"
ACTIVATIONS = "parameters.activation_buffer_bytes"
WEIGHTS = "parameters.weight_buffer_bytes"
OUT_LANES, IN_LANES = "parameters.output_lanes", "parameters.input_lanes"
WINDOW, WEIGHT_LOAD = "parameters.window", "parameters.weight_load_cycles"
PORT_BYTES = "parameters.port_bytes_per_cycle"
IN_PORTS, OUT_PORTS = "parameters.input_ports", "parameters.output_ports"
DRAM, CLOCK = "dram_bytes_per_s", "clock_hz"
PORT_NUMBERS = {PORT_BYTES, IN_PORTS, OUT_PORTS, CLOCK}
_KIB = 1024
_STEPPED = {OMEGA, WINDOW, BATCH}
"""Sizes that exist in steps only: of Winograd tiles, of windows with a middle, of image pairs."""

_WINOCNN: dict[str, tuple[Value, ...]] = {
    OMEGA: (4, 6),
    ROWS: (1, 2, 4, 8, 16),
    COLUMNS: tuple(range(1, 9)),
    DEPTH: (2, 4, 8),
    BATCH: (1, 2),
    "parameters.input_bank_words": (2048, 4096, 8192),
    "parameters.weight_buffer_words": (512, 1024, 2048),
    "parameters.output_buffer_words": (512, 1024, 2048),
}
_SYSTOLIC: dict[str, tuple[Value, ...]] = {
    ROWS: tuple(range(8, 65, 8)),
    COLUMNS: tuple(range(8, 65, 8)),
    ACTIVATIONS: tuple(_KIB * 2**power for power in range(5, 10)),
    WEIGHTS: tuple(_KIB * 2**power for power in range(5, 10)),
}
_LUT_MAC: dict[str, tuple[Value, ...]] = {
    "parameters.luts": tuple(1000 * k for k in (5, 10, 20, 30, 40, 50, 70, 100, 150, 200, 250)),
    "parameters.dsp_blocks": (0, 80, 160, 200, 320, 640, 1280, 2400),
    "parameters.dot_length": (4, 8, 16, 32, 64),
    ACTIVATIONS: tuple(_KIB * 2**power for power in range(4, 9)),
    WEIGHTS: tuple(_KIB * 2**power for power in range(4, 9)),
}
_TERNARY: dict[str, tuple[Value, ...]] = {
    OUT_LANES: (4, 8, 16, 32, 64),
    IN_LANES: (2, 4, 8, 16),
    WINDOW: (3, 5, 7),
    "parameters.packs_rows": (False, True),
    ACTIVATIONS: tuple(_KIB * 2**power for power in range(4, 9)),
    WEIGHTS: tuple(_KIB * 2**power for power in range(4, 9)),
}
_BIT_SERIAL: dict[str, tuple[Value, ...]] = {
    "parameters.row_units": (2, 4, 8, 10, 16),
    "parameters.column_units": (2, 4, 8, 10, 16),
    "parameters.unit_bits": (64, 128, 256, 512),
    ACTIVATIONS: tuple(_KIB * 2**power for power in range(4, 9)),
    WEIGHTS: tuple(_KIB * 2**power for power in range(4, 9)),
}
_ANY_ARRAY: dict[str, tuple[Value, ...]] = {
    ROWS: (4, 8, 16, 24, 32, 48, 64, 96, 128),
    COLUMNS: (4, 8, 16, 24, 32, 48, 64, 96, 128),
}
_TABLES = {
    "winocnn": _WINOCNN,
    "lut_mac": _LUT_MAC,
    "ternary_engine": _TERNARY,
    "bit_serial": _BIT_SERIAL,
    **dict.fromkeys(SYSTOLIC, _SYSTOLIC),
}
"""By family; of one without an entry the shape of its array is varied, if it has one."""


def default_axes(base: Target) -> tuple[Axis, ...]:
    """What is varied of a target's family, its own numbers among them; empty if nothing is."""
    known = numbers_of(base)
    table = _TABLES.get(base.family, _ANY_ARRAY)
    found = [
        Axis(path=path, values=tuple(sorted({*values, known[path]})))
        for path, values in table.items()
        if path in known
    ]
    flows = dataflows(base)
    if len(flows) > 1:
        found.insert(0, Axis(path="family", values=flows))
    return tuple(found)


def finer_paths(axes: Sequence[Axis]) -> frozenset[str]:
    """Whole numbers of default axes that make sense between the values of these as well."""
    return frozenset(
        axis.path
        for axis in axes
        if axis.path not in _STEPPED and all(type(value) is int for value in axis.values)
    )


def dataflows(base: Target) -> tuple[Value, ...]:
    """Families that take the same numbers as this one."""
    there = [name for name in SYSTOLIC if name in list_families()]
    return tuple(name for name in there if family_named(name).parameters is type(base.parameters))


@dataclass(frozen=True, slots=True)
class Followed:
    """A number that follows from others, and how, in words."""

    value: Value
    source: str


Numbers = Mapping[str, Value]


def followed_numbers(values: Numbers, base: Numbers) -> dict[str, Followed]:
    """Numbers that follow from the varied ones, unless they are varied themselves.

    Args:
        values: What is varied, by path.
        base: All numbers of the base target.
    """
    now = {**base, **values}
    found = (
        _winocnn_follow(values, base, now) if OMEGA in base else _array_follow(values, base, now)
    )
    return {path: one for path, one in found.items() if path not in values}


def _winocnn_follow(values: Numbers, base: Numbers, now: Numbers) -> dict[str, Followed]:
    """Banks across that an input window touches, and the peak of the ports.

    Source: the published design (github.com/xliu0709/WinoCNN) has a power of two of banks, at
    least 8, that holds the columns of all tiles, 2 + (omega - 2) x columns.
    """
    found: dict[str, Followed] = {}
    if {OMEGA, COLUMNS} & values.keys():
        window = 2 + (_whole(now, OMEGA) - 2) * _whole(now, COLUMNS)
        banks = max(8, 1 << (window - 1).bit_length())
        found[BANKS] = Followed(banks, "arithmetic: power of two that holds the input window")
    if PORT_NUMBERS & values.keys() and _is_ports_alone(base):
        source = "arithmetic: all ports at this clock, as in the base design"
        found[DRAM] = Followed(_port_rate(now), source)
    return found


def _is_ports_alone(base: Numbers) -> bool:
    """Whether the base takes the memory to give what its ports take."""
    return math.isclose(float(base[DRAM]), _port_rate(base), rel_tol=1e-6)


def _port_rate(numbers: Numbers) -> float:
    ports = memory_ports(numbers)
    if ports is None:
        raise TypeError("no ports")
    return float(numbers[CLOCK]) * ports[0] * ports[1]


def _array_follow(values: Numbers, base: Numbers, now: Numbers) -> dict[str, Followed]:
    """Ranks fill the longer side, weights load at the same rate, activations stay in the buffer."""
    found: dict[str, Followed] = {}
    if {ROWS, COLUMNS} & values.keys() and ROWS in now and COLUMNS in now:
        side = max(_whole(now, ROWS), _whole(now, COLUMNS))
        found["rank_multiple"] = Followed(side, "arithmetic: the longer side of the array")
    if WEIGHT_LOAD in base and {OUT_LANES, IN_LANES, WINDOW} & values.keys():
        cycles = _whole(base, WEIGHT_LOAD) * _taps(now) / _taps(base)
        source = "arithmetic: as many weights a cycle as the base design"
        found[WEIGHT_LOAD] = Followed(max(1, math.ceil(cycles)), source)
    if ACTIVATIONS in values and base["on_chip_bytes"]:
        halves, rest = divmod(_whole(base, "on_chip_bytes"), _whole(base, ACTIVATIONS))
        if not rest:
            source = f"arithmetic: {halves} times the activation buffer, as in the base design"
            found["on_chip_bytes"] = Followed(halves * _whole(now, ACTIVATIONS), source)
    return found


def _taps(numbers: Numbers) -> int:
    lanes = _whole(numbers, OUT_LANES) * _whole(numbers, IN_LANES)
    return lanes * _whole(numbers, WINDOW) ** 2


def memory_ports(now: Numbers) -> tuple[int, int] | None:
    """Ports to the memory and bytes a cycle of each; None where the family has no such numbers."""
    if PORT_BYTES not in now:
        return None
    return _whole(now, IN_PORTS) + _whole(now, OUT_PORTS), _whole(now, PORT_BYTES)


def _whole(numbers: Numbers, path: str) -> int:
    value = numbers[path]
    if not isinstance(value, int):
        raise TypeError(f"{path} is not a whole number")
    return value
