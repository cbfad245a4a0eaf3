"""What every file of ``hardware/rtl`` that generates a design offers, and how their text looks."""

from __future__ import annotations

import importlib
import string
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from edgecompress.core.errors import ConfigurationInvalid, Unsupported
from edgecompress.core.version import __version__

if TYPE_CHECKING:
    import numpy as np

    from edgecompress.hardware.resources import Resources
    from edgecompress.hardware.rtl.bench import Bench
    from edgecompress.hardware.simulator.layers import IntegerLayer
    from edgecompress.hardware.target import Target

GENERATORS = {
    "systolic_os": "systolic_os",
    "systolic_ws": "systolic_ws",
    "ternary_engine": "ternary_engine",
    "winocnn": "winocnn_tile",
}
"""Family of a target -> file of ``hardware/rtl`` that generates it."""

FpgaFamily = Literal["xc7", "xcup"]
INTERFACE = (
    "start is taken while the design is idle, else ignored; sizes are at least 1 and stay until "
    "done, which is high for one cycle, when all results are out. Nothing can be stalled: memories "
    "answer every read in the cycle after it, and take every result."
)
"""For the head of a design that has its memories outside."""

RESET = (
    "reset is synchronous; one cycle ends whatever runs. State and valid signals have it, data, "
    "addresses and counters need none. No clock frequency is verified."
)
"""For the head of every design."""

ONE_FILE = "// All modules are in one file.\n/* verilator lint_off DECLFILENAME */\n"
"""Before the first module."""

MODULE_FOLDER = Path(__file__).parent / "modules"
LINE = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Generated Verilog of one accelerator.

    Attributes:
        top: Module name; the file is ``<top>.v``.
        text: Verilog-2005, all modules.
        dsp: Whether multipliers are meant for DSP blocks.
        settings: (parameter, value) of the top module, for the report.
        fpga: What it is synthesised for: the family that its resource model is fitted on.
            ``xc7``: the 7 series, ``xcup``: UltraScale+; the same six-input tables, but Yosys packs
            adders and registers into DSP blocks only for the former.
        left_out: What of the device is not part of the design.
    """

    top: str
    text: str
    dsp: bool
    settings: tuple[tuple[str, int], ...]
    fpga: FpgaFamily = "xc7"
    left_out: str = "memories and buses around the array are not part of the design"


class Generator(Protocol):
    """A family's generator: the ``RTL`` of its file."""

    def design(self, target: Target) -> Design:
        """The target's array with its control."""
        ...

    def why_not(self, target: Target, layer: IntegerLayer) -> str | None:
        """Why the design cannot run a layer, or None."""
        ...

    def bench(self, target: Target, layer: IntegerLayer) -> Bench:
        """The design with a test bench that runs ``layer`` and checks every output."""
        ...

    def random_layer(self, target: Target, generator: np.random.Generator) -> IntegerLayer:
        """A small layer with edges: one that leaves part of the array empty."""
        ...

    def predicted_cycles(self, target: Target, layer: IntegerLayer) -> int:
        """What the closed form says about ``layer``."""
        ...

    def predicted_resources(self, target: Target) -> Resources | None:
        """What the closed form says the generated design takes; None if there is none."""
        ...


def list_generators() -> tuple[str, ...]:
    """Families that Verilog can be generated for, sorted; nothing is imported."""
    folder = Path(__file__).parent
    return tuple(sorted(f for f, file in GENERATORS.items() if (folder / f"{file}.py").is_file()))


def generator_for(family: str) -> Generator:
    """The generator of a family.

    Raises:
        Unsupported: There is none.
    """
    if family not in list_generators():
        raise Unsupported(
            f"no Verilog is generated for the family {family!r}",
            hint=f"families with a generator: {', '.join(list_generators())}",
        )
    module = importlib.import_module(f"edgecompress.hardware.rtl.{GENERATORS[family]}")
    return cast(Generator, module.RTL)


def impossible(target: Target, reason: str, numbers: str) -> ConfigurationInvalid:
    """What is said of a target whose numbers no design has.

    Args:
        target: Whose.
        reason: In words.
        numbers: Names of those that can be changed.
    """
    return ConfigurationInvalid(
        f"no Verilog for {target.name}: {reason}", hint=f"{numbers} in the target, or with --set"
    )


def header(what: str, facts: Iterable[str]) -> str:
    """The comment at the head of a file: what it is, who made it, and its settings.

    Args:
        what: In a line.
        facts: More lines; long ones are wrapped.
    """
    lines = [what, f"Generated by edgecompress {__version__}; Verilog-2005, no vendor primitives."]
    for fact in facts:
        lines += textwrap.wrap(fact, LINE - 3)
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


class _Text(string.Template):
    """Text with ``@NAME`` to fill in; Verilog has its own use for dollar signs and braces."""

    delimiter = "@"
    idpattern = "[A-Z][A-Z0-9_]*"


def module_text(name: str, **values: object) -> str:
    """A file of ``rtl/modules`` with every ``@NAME`` replaced by its value.

    Raises:
        KeyError: A name without a value.
    """
    text = (MODULE_FOLDER / f"{name}.v").read_text(encoding="ascii")
    return _Text(text.replace("@(", "@@(")).substitute(values)
