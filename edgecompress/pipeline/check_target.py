"""Target files, checked beyond their schema: units, sources, and whether the part holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.exploration import TargetCheck, TargetCheckReport
from edgecompress.hardware.families import family_named
from edgecompress.hardware.models._systolic import Parameters, why_sums_are_narrow
from edgecompress.hardware.parts import list_parts, load_part
from edgecompress.hardware.target import TARGET_FOLDER, Target, list_targets, read_target
from edgecompress.hardware.target_text import numbers_of
from edgecompress.pipeline.explore_buffers import said_small

KINDS = ("measured", "published", "arithmetic", "explored", "assumed", "stated")
"""What a source says of its number; ``stated`` is every source that says it in other words."""
_WORDS = {
    "measured": "measured",
    "fitted": "measured",
    "calibrated": "measured",
    "published": "published",
    "datasheet": "published",
    "data sheet": "published",
    "arithmetic": "arithmetic",
    "calculated": "arithmetic",
    "explored": "explored",
    "assumed": "assumed",
    "guessed": "assumed",
}
_FIRST_WORD = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})\b", re.IGNORECASE)

PLAUSIBLE: tuple[tuple[str, float, float, str], ...] = (
    (r"clock_hz", 1e6, 10e9, "is the clock in hertz?"),
    (r"dram_bytes_per_s", 1e6, 10e12, "is it in bytes a second?"),
    (r"dram_efficiency_share", 0.1, 1.0, "memories give more of their peak"),
    (r"element_operations_per_s", 1e5, 1e15, "is it in operations a second?"),
    (r"activation_bits|weight_stream\.weight_bits", 1, 32, "is it in bits?"),
    (r"on_chip_bytes", 0, 1e9, "is it in bytes?"),
    (r"operator_overhead_s", 0, 0.1, "is it in seconds?"),
    (r"model_error", 0, 1, "is it a share, not per cent?"),
    (r"energy\.mac_pj\..*", 1e-7, 1e4, "is it in picojoules?"),
    (r"energy\.(on_chip|dram)_pj_per_byte", 0, 1e6, "is it in picojoules a byte?"),
    (r"energy\.static_w", 0, 1e3, "is it in watts?"),
    (r"parameters\.macs_per_s.*", 1e5, 1e16, "is it in multiply-accumulates a second?"),
    (r"parameters\..*_bytes", 1, 1e9, "is it in bytes?"),
    (r"parameters\.array_(rows|columns)", 1, 4096, "is it one side of the array?"),
)
"""Numbers by path, the range in which nothing is said, and the question outside it: devices from
the smallest microcontroller to the largest data-centre chip are inside.
Source: orders of magnitude; assumed."""
_WIDEST_BYTES_PER_CYCLE = 4096


def check_targets(names: Sequence[str]) -> TargetCheckReport:
    """Every file checked; nothing is raised for one that is wrong.

    Args:
        names: Names or paths.

    Raises:
        ConfigurationInvalid: A name that is neither.
        InputOutputFailed: A file that is not there or cannot be read.
    """
    return TargetCheckReport(targets=tuple(check_target(name) for name in names))


def check_target(name: str) -> TargetCheck:
    """What is wrong or looks off in one target file."""
    content = _content(name)
    try:
        target, problems = read_target(content, where=name)
    except ConfigurationInvalid as error:
        target, problems = None, (error.message,)
    if target is None:
        return TargetCheck(
            file=name,
            family="",
            problems=problems,
            warnings=(),
            sources={},
            part="",
            used={},
            available={},
        )
    found, used, available = _part(target)
    unknown = (found,) if found and not available else ()
    narrow = why_sums_are_narrow(target) if isinstance(target.parameters, Parameters) else None
    unfit = (found,) if found and available else ()
    return TargetCheck(
        file=name,
        family=target.family,
        problems=(*unknown, *((narrow,) if narrow else ())),
        warnings=(*_implausible(target), *unfit),
        sources=source_kinds(target),
        part=target.part if available else "",
        used=used,
        available=available,
    )


def source_kind(source: str) -> str:
    """What a source says of its number, by its first word."""
    match = _FIRST_WORD.match(source.strip())
    return _WORDS[match[1].lower()] if match else "stated"


def source_kinds(target: Target) -> dict[str, int]:
    """How many numbers of a target have a source of each kind, those of none left out."""
    found = [source_kind(source) for _, source in target.sources]
    return {kind: found.count(kind) for kind in KINDS if kind in found}


def looks_like_a_path(name: str) -> bool:
    """Whether a file is meant, and not one of the targets that have a name."""
    path = Path(name)
    return path.suffix == ".toml" or len(path.parts) != 1 or path.is_dir()


def _content(name: str) -> bytes:
    path = TARGET_FOLDER / f"{name}.toml" if name in list_targets() else Path(name)
    if looks_like_a_path(name) and not path.is_file():
        reason = "a folder, not a file" if path.is_dir() else "no such file"
        raise InputOutputFailed(reason, where=name)
    if not path.is_file():
        known = ", ".join(list_targets())
        raise ConfigurationInvalid(
            f"no target {name!r}", hint=f"a path of a .toml file, or one of {known}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputOutputFailed(f"cannot read the target: {reason}", where=name) from error


def _implausible(target: Target) -> Iterator[str]:
    """Numbers that are rarely meant."""
    numbers = numbers_of(target)
    for path, value in numbers.items():
        if isinstance(value, (bool, str)):
            continue
        for pattern, low, high, question in PLAUSIBLE:
            if re.fullmatch(pattern, path) and not low <= value <= high:
                yield f"{path} = {value:g}: {question}"
    if target.dram_bytes_per_cycle > _WIDEST_BYTES_PER_CYCLE:
        yield f"the memory gives {target.dram_bytes_per_cycle:.4g} bytes a cycle of the clock"
    energy = target.energy
    if energy is not None and energy.on_chip_pj_per_byte > energy.dram_pj_per_byte > 0:
        yield "a byte on chip takes more energy than one of the memory"
    if target.model_error is None and source_kinds(target).keys() == {"assumed"}:
        yield "every number is assumed"
    yield from said_small(numbers)


def _part(target: Target) -> tuple[str, dict[str, int], dict[str, int]]:
    """What is wrong about the part, what the design takes of it, and what it has."""
    if not target.part:
        return "", {}, {}
    if target.part not in list_parts():
        known = ", ".join(list_parts())
        return f"part: no part {target.part!r}; there are {known}", {}, {}
    available = load_part(target.part).resources
    used = family_named(target.family).resources(target)
    if used is None:
        return "", {}, asdict(available)
    short = [
        f"{getattr(used, name):,} of {getattr(available, name):,} {name.upper()}"
        for name in ("dsp", "bram18", "lut")
        if getattr(used, name) > getattr(available, name)
    ]
    text = f"by the estimate the design does not fit {target.part}: {', '.join(short)}"
    return text if short else "", asdict(used), asdict(available)
