"""Programmable devices as numbers: what a design may take, one TOML file a part."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.file_errors import each_error
from edgecompress.hardware.resources import Resources

PART_FOLDER = Path(__file__).parent / "parts"

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A programmable device.

    Attributes:
        name: Name of the part.
        description: What it is, in a line.
        source: Where the numbers come from, in a line.
        dsp: DSP48 blocks.
        bram18: Block memories of 18 Kib.
        lut: Six-input look-up tables.
        memory_ports: Ports from the programmable logic to the memory.
        memory_port_bits: Width of one.
        dram_bytes_per_s: Peak of the memory behind them.
        sources: Source per number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Text
    description: Text
    source: Text
    dsp: PositiveInt
    bram18: PositiveInt
    lut: PositiveInt
    memory_ports: PositiveInt
    memory_port_bits: PositiveInt
    dram_bytes_per_s: PositiveFloat
    sources: dict[str, Text]

    @property
    def resources(self) -> Resources:
        """What there is of logic."""
        return Resources(dsp=self.dsp, bram18=self.bram18, lut=self.lut)


def list_parts() -> tuple[str, ...]:
    """Names of the parts that ship with the package, sorted."""
    return tuple(sorted(path.stem for path in PART_FOLDER.glob("*.toml")))


def load_part(name_or_path: str | Path) -> Part:
    """The part of that name, or that of a file.

    Args:
        name_or_path: A name of `list_parts`, or the path of a TOML file.

    Raises:
        ConfigurationInvalid: No such part, or the file is wrong; every problem is named at once.
        InputOutputFailed: The file cannot be read.
    """
    text = str(name_or_path)
    path = PART_FOLDER / f"{text}.toml" if text in list_parts() else Path(name_or_path)
    if not path.is_file():
        known = ", ".join(list_parts())
        raise ConfigurationInvalid(
            f"no part {text!r}", hint=f"a path of a .toml file, or one of {known}"
        )
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise InputOutputFailed(f"cannot read the part: {error.strerror}", where=text) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationInvalid(f"not a TOML file: {error}", where=text) from error
    return _checked(data, text)


def _checked(data: dict[str, Any], where: str) -> Part:
    try:
        part = Part.model_validate(data)
    except ValidationError as error:
        raise ConfigurationInvalid("; ".join(each_error(error, Part)), where=where) from error
    numbers = {name for name, value in data.items() if isinstance(value, (int, float))}
    problems = [f"sources: nothing for {name}" for name in sorted(numbers - set(part.sources))]
    problems += [
        f"sources: {name} is not a number of this file"
        for name in sorted(set(part.sources) - numbers)
    ]
    if problems:
        raise ConfigurationInvalid("; ".join(problems), where=where)
    return part
