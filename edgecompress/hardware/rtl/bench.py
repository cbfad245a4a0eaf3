"""Runs generated Verilog with its self-checking test bench in an open simulator.

A test bench loads operands and expected results from hex files with ``$readmemh``, counts clock
cycles from the first operand in to the last result out, compares every output, and the cycles with
those of the closed form. It prints ``PASS cycles=N`` and ends with ``$finish``, or ``FAIL ...``
lines and ends with a process code that is not 0; ``FAIL cycles=N, expected M`` where nothing else
is wrong.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgecompress.core.errors import ConfigurationInvalid, ResourceLimit

Simulator = Literal["icarus", "verilator"]

INSTALL = {
    "iverilog": "apt-get install iverilog",
    "vvp": "apt-get install iverilog",
    "verilator": "apt-get install verilator",
    "yosys": "apt-get install yosys",
}
"""Program -> how to get it on Debian and Ubuntu."""

PASSED = re.compile(r"^PASS cycles=(\d+)$", re.MULTILINE)
MISCOUNTED = re.compile(r"^FAIL cycles=(\d+), expected \d+$")
FAILED = re.compile(r"^FAIL.*$", re.MULTILINE)
KEPT_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A design, its test bench and the memories that it loads.

    Attributes:
        top: Module name of the test bench.
        sources: Verilog by file name (``.v``), the design and the test bench.
        memories: Contents by file name (``.hex``), as `hex_words` makes them.
    """

    top: str
    sources: Mapping[str, str]
    memories: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.sources, *self.memories):
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a plain file name")

    @property
    def files(self) -> dict[str, str]:
        """All files by name."""
        return {**self.sources, **self.memories}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a test bench found.

    Attributes:
        passed: Every output and the number of cycles were as expected.
        cycles: Counted by the test bench; None if an output was wrong, or it did not end.
        failures: The first lines that say what was wrong; empty if it passed.
    """

    passed: bool
    cycles: int | None
    failures: tuple[str, ...] = ()


def find_program(name: str) -> str:
    """Path of an installed program.

    Raises:
        ConfigurationInvalid: It is not installed; the hint says how to install it.
    """
    path = shutil.which(name)
    if path is None:
        raise ConfigurationInvalid(f"{name} is not installed", hint=INSTALL.get(name, ""))
    return path


def run_bench(
    bench: Bench, *, simulator: Simulator = "icarus", time_limit_s: float = 600.0
) -> Verdict:
    """Compile and run in a temporary folder.

    Args:
        bench: What to run.
        simulator: ``icarus`` (Verilog-2005), or ``verilator`` where it is installed.
        time_limit_s: For the simulation itself.

    Raises:
        ConfigurationInvalid: The simulator is not installed.
        ResourceLimit: It ran longer than ``time_limit_s``.
        RuntimeError: The Verilog does not compile, or the test bench ends without a verdict, or
            with a process code that contradicts it.
    """
    with tempfile.TemporaryDirectory(prefix="edgecompress-rtl-") as name:
        folder = Path(name)
        for file, text in bench.files.items():
            (folder / file).write_text(text, encoding="ascii")
        match simulator:
            case "icarus":
                command = _compile_icarus(bench, folder)
            case "verilator":
                command = _compile_verilator(bench, folder)
        done = _run(command, folder, time_limit_s)
        verdict = read_verdict(done.stdout or done.stderr)
        if verdict.passed == bool(done.returncode):
            raise RuntimeError(f"{verdict}, but the process code is {done.returncode}")
        return verdict


def _compile_icarus(bench: Bench, folder: Path) -> list[str]:
    """Compile with Icarus; returns the command that runs the result."""
    compiler, runner = find_program("iverilog"), find_program("vvp")
    options = ["-g2005", "-Wall", "-Wno-timescale", "-s", bench.top, "-o", "bench.vvp"]
    run_program([compiler, *options, *bench.sources], folder)
    return [runner, "-n", "bench.vvp"]


def _compile_verilator(bench: Bench, folder: Path) -> list[str]:
    """Compile with Verilator; returns the command that runs the result."""
    options = ["--binary", "--timing", "-Wno-fatal", "--top-module", bench.top, "-Mdir", "obj"]
    run_program([find_program("verilator"), *options, *bench.sources], folder)
    return [f"obj/V{bench.top}"]


def run_program(
    command: Sequence[str], folder: Path, time_limit_s: float = 600.0, text: str | None = None
) -> str:
    """What a program prints on stdout.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        time_limit_s: After which it is stopped.
        text: What it reads on stdin.

    Raises:
        ResourceLimit: It ran longer.
        RuntimeError: It failed; with what it said.
    """
    done = _run(command, folder, time_limit_s, text)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        name = Path(command[0]).name
        raise RuntimeError(f"{name} ended with {done.returncode}: {said[-2000:]}")
    return done.stdout


def _run(
    command: Sequence[str], folder: Path, time_limit_s: float, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """A program that has ended, whatever its process code."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        name = Path(command[0]).name
        raise ResourceLimit(
            f"{name} ran longer than {time_limit_s:g} s", hint="a smaller array or fewer rows"
        ) from error


def read_verdict(output: str) -> Verdict:
    """The verdict in what a test bench printed.

    Raises:
        RuntimeError: There is none.
    """
    failures = FAILED.findall(output)
    passed = PASSED.search(output)
    if not failures and passed is None:
        raise RuntimeError(f"the test bench gave no verdict: {output[-2000:]!r}")
    if failures:
        counted = MISCOUNTED.match(failures[0]) if len(failures) == 1 else None
        cycles = int(counted[1]) if counted else None
        return Verdict(passed=False, cycles=cycles, failures=tuple(failures[:KEPT_FAILURES]))
    return Verdict(passed=True, cycles=int(passed[1]) if passed else None)


def hex_words(values: Iterable[int] | npt.NDArray[np.int64], bits: int) -> str:
    """A memory file for ``$readmemh``: one word per line, negative ones in two's complement.

    Args:
        values: Of at most ``bits`` bits each, signed or unsigned.
        bits: Width of a word.

    Raises:
        ValueError: A value does not fit.
    """
    digits, modulus = -(-bits // 4), 1 << bits
    lines = []
    for value in values:
        number = int(value)
        if not -(modulus >> 1) <= number < modulus:
            raise ValueError(f"{number} does not fit in {bits} bits")
        lines.append(f"{number % modulus:0{digits}x}\n")
    return "".join(lines)


def packed_words(table: npt.NDArray[np.int64], bits: int) -> str:
    """A memory file of wide words: a row of ``table`` each, element 0 in the lowest bits.

    Args:
        table: (words, elements).
        bits: Width of an element.

    Raises:
        ValueError: An element does not fit.
    """
    modulus = 1 << bits
    if table.size and not (-(modulus >> 1) <= table.min() and table.max() < modulus):
        raise ValueError(f"{table.min()} to {table.max()} do not fit in {bits} bits")
    words = (
        sum((int(value) % modulus) << (place * bits) for place, value in enumerate(row))
        for row in table
    )
    return hex_words(words, bits * table.shape[1])
