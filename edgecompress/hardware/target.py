"""Devices as numbers: target files in TOML, each number with its unit in the name and a source."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.file_errors import each_error
from edgecompress.hardware.families import family_named

TARGET_FOLDER = Path(__file__).parent / "targets"

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Kind = Literal["conv", "matmul", "element"]
Encoding = Literal["fixed", "packed", "entropy", "dictionary", "zero_run"]
Table = TypeVar("Table", bound=BaseModel)


class WeightStream(BaseModel):
    """How weights come from memory to the array.

    Attributes:
        encoding: ``fixed``: every weight takes ``weight_bits`` whatever its width in the file;
            ``packed``: as stored in the file, unpacked on the way in; ``entropy``: a lossless code
            of the measured entropy plus ``overhead_bits``; ``dictionary``: an index into the
            distinct values, rounded up to whole bits, plus ``overhead_bits``; ``zero_run``: runs of
            zeros as counts. No code takes more than ``weight_bits``.
        weight_bits: Width of a weight in the array.
        overhead_bits: Added to each weight of an ``entropy`` or ``dictionary`` code.
        decoder_weights_per_cycle: What the decoder gives; None if it is never what is waited for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    encoding: Encoding
    weight_bits: PositiveInt
    overhead_bits: NotNegative = 0.0
    decoder_weights_per_cycle: PositiveFloat | None = None

    @property
    def reads_values(self) -> bool:
        """Whether the size of the stream depends on the values of the weights."""
        return self.encoding in ("entropy", "dictionary", "zero_run")


class Energy(BaseModel):
    """Energy per event.

    Attributes:
        mac_pj: Of a multiply-accumulate, by widths "activation x weight" such as ``8x4``; an
            operator takes the narrowest entry that holds both of its widths, or the widest.
        on_chip_pj_per_byte: Of a read or write of an on-chip buffer.
        dram_pj_per_byte: Of a byte over the memory port.
        static_w: Drawn while the device runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mac_pj: Annotated[
        dict[Annotated[str, Field(pattern=r"^[1-9][0-9]?x[1-9][0-9]?$")], PositiveFloat],
        Field(min_length=1),
    ]
    on_chip_pj_per_byte: NotNegative
    dram_pj_per_byte: NotNegative
    static_w: NotNegative = 0.0

    def __hash__(self) -> int:
        rates = (self.on_chip_pj_per_byte, self.dram_pj_per_byte, self.static_w)
        return hash((tuple(sorted(self.mac_pj.items())), *rates))

    def mac_energy_pj(self, activation_bits: int, weight_bits: int) -> float:
        """Energy of a multiply-accumulate of these widths."""
        entries = _by_width(tuple(self.mac_pj.items()))
        for _, a, w, pj in entries:
            if a >= activation_bits and w >= weight_bits:
                return pj
        return entries[-1][3]


@lru_cache(maxsize=256)
def _by_width(table: tuple[tuple[str, float], ...]) -> tuple[tuple[int, int, int, float], ...]:
    """(bits of both, of the activation, of the weight, picojoules), the narrowest first."""
    found = []
    for key, pj in table:
        a, w = map(int, key.split("x"))
        found.append((a * w, a, w, pj))
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device that a graph can be costed on.

    Attributes:
        name: Name of the target.
        family: The cost model, a file of ``hardware/models``.
        description: What the device is, in a line.
        source: Where the numbers come from, in a line; ``sources`` has it number by number.
        clock_hz: Clock that cycles are counted at.
        dram_bytes_per_s: Peak of the memory, over all ports.
        dram_efficiency_share: Share of that peak that is reached in the mean: the one calibrated
            number of the memory.
        element_operations_per_s: Arithmetic outside the array (element-wise, pooling, softmax).
        activation_bits: The only width of activations that the device has; None: the graph's.
        weight_stream: How weights come from memory.
        energy: Energy per event; None if not known.
        part: Programmable device that the design is on, a name of ``hardware/parts``; empty for
            none.
        on_chip_bytes: Memory that activations can stay in between operators; 0 for none.
        rank_multiple: Ranks of a decomposition fill the device when they are multiples of this.
        kinds: Kinds of work that the cost model covers without an assumption.
        fused_activations: Activation functions and requantisation run while results are written.
        model_error: Stated error of the cost model, as a share; None if not known.
        model_error_source: How that error was found, or why there is none.
        parameters: The family's own numbers.
        operator_overhead_s: Added to every operator that takes time, for what a run of one costs
            beside the work (set-up, interrupts, a driver).
        sources: Source per number, by its path in the file.
    """

    name: str
    family: str
    description: str
    source: str
    clock_hz: float
    dram_bytes_per_s: float
    element_operations_per_s: float
    dram_efficiency_share: float
    activation_bits: int | None
    weight_stream: WeightStream
    energy: Energy | None
    part: str
    on_chip_bytes: int
    rank_multiple: int
    kinds: tuple[str, ...]
    fused_activations: bool
    model_error: float | None
    model_error_source: str
    parameters: BaseModel
    operator_overhead_s: float = 0.0
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """Computed once: costs are looked up by target hundreds of times a report."""
        if not self._hash:
            numbers = (self.clock_hz, self.dram_bytes_per_s, self.dram_efficiency_share)
            value = hash((self.name, self.family, *numbers, self.parameters)) or 1
            object.__setattr__(self, "_hash", value)
        return self._hash

    @property
    def dram_bytes_per_cycle(self) -> float:
        """What the memory gives in the mean in a cycle of ``clock_hz``."""
        return self.dram_bytes_per_s * self.dram_efficiency_share / self.clock_hz

    @property
    def fixed_weight_bits(self) -> int | None:
        """The width that weights are moved at whatever theirs is in the file, if there is one."""
        stream = self.weight_stream
        return stream.weight_bits if stream.encoding == "fixed" else None


class TargetFile(BaseModel):
    """The common part of a target file; ``parameters`` is checked by the family."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Text
    family: Text
    description: Text
    source: Text
    clock_hz: PositiveFloat
    dram_bytes_per_s: PositiveFloat
    element_operations_per_s: PositiveFloat
    dram_efficiency_share: Share
    activation_bits: PositiveInt | None = None
    weight_stream: WeightStream
    energy: Energy | None = None
    part: str = ""
    on_chip_bytes: Annotated[int, Field(ge=0)] = 0
    rank_multiple: PositiveInt
    kinds: Annotated[list[Kind], Field(min_length=1)]
    fused_activations: bool
    model_error: PositiveFloat | None = None
    model_error_source: Text
    operator_overhead_s: NotNegative = 0.0
    parameters: dict[str, Any]
    sources: dict[str, Text]


def list_targets() -> tuple[str, ...]:
    """Names of the targets that ship with the package, sorted."""
    return tuple(sorted(path.stem for path in TARGET_FOLDER.glob("*.toml")))


def load_target(name_or_path: str | Path) -> Target:
    """The target of that name, or that of a file.

    Args:
        name_or_path: A name of `list_targets`, or the path of a TOML file.

    Raises:
        ConfigurationInvalid: No such target, or the file is wrong; every problem is named at once.
        InputOutputFailed: The file cannot be read.
    """
    text = str(name_or_path)
    if text in list_targets():
        return parse_target((TARGET_FOLDER / f"{text}.toml").read_bytes(), where=text)
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(list_targets())
        raise ConfigurationInvalid(
            f"no target {text!r}", hint=f"a path of a .toml file, or one of {known}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputOutputFailed(f"cannot read the target: {error.strerror}", where=text) from error
    return parse_target(content, where=text)


def parse_target(content: bytes, *, where: str) -> Target:
    """The target that a TOML file describes.

    Args:
        content: The file.
        where: Its name, for messages.

    Raises:
        ConfigurationInvalid: Not TOML in UTF-8, unknown or missing keys, numbers out of range, or
            numbers without a source; every problem is named at once.
    """
    target, problems = read_target(content, where=where)
    if target is None:
        raise ConfigurationInvalid(
            f"{len(problems)} errors: {'; '.join(problems)}" if problems[1:] else problems[0],
            where=where,
        )
    return target


def read_target(content: bytes, *, where: str) -> tuple[Target | None, tuple[str, ...]]:
    """The target that a TOML file describes, or None with every problem of the file.

    Raises:
        ConfigurationInvalid: Not TOML in UTF-8.
    """
    try:
        data = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationInvalid(f"not a TOML file: {error}", where=where) from error
    target, problems = from_document(data)
    problems += _source_problems(data)
    return (None if problems else target), tuple(problems)


def from_document(data: Mapping[str, Any]) -> tuple[Target | None, list[str]]:
    """The target of a parsed file, or None with its problems; sources are not looked at."""
    problems: list[str] = []
    common = _checked(TargetFile, data, "", problems)
    parameters = _family_parameters(data, problems)
    if common is None or parameters is None:
        return None, problems
    fields = {name: getattr(common, name) for name in type(common).model_fields}
    fields |= {
        "kinds": tuple(common.kinds),
        "parameters": parameters,
        "sources": tuple(sorted(common.sources.items())),
    }
    return Target(**fields), problems


def _family_parameters(data: Mapping[str, Any], problems: list[str]) -> BaseModel | None:
    """Parameters of the family, or None with the reason appended."""
    name, table = data.get("family"), data.get("parameters")
    if not isinstance(name, str) or not isinstance(table, dict):
        return None  # the common part says so
    try:
        family = family_named(name)
    except ConfigurationInvalid as error:
        problems.append(f"family: {error}")
        return None
    return _checked(family.parameters, table, "parameters.", problems)


def _checked(
    kind: type[Table], data: Mapping[str, Any], prefix: str, problems: list[str]
) -> Table | None:
    """The checked table, or None with every problem appended."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems += each_error(error, kind, prefix=prefix)
    return None


def _source_problems(data: Mapping[str, Any]) -> Iterator[str]:
    """Numbers without a source, and sources of numbers that are not there."""
    sources = data.get("sources")
    named = set(sources) if isinstance(sources, dict) else set()
    numbers = set(_numbers(data, ""))
    for path in sorted(numbers - named):
        yield f"sources: nothing for {path}"
    for path in sorted(named - numbers):
        yield f"sources: {path} is not a number of this file"


def _numbers(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Paths of all numbers of a table."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}"
