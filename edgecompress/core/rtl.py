"""What came out of generating, running and synthesising a design."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.report import FileFact

RTL_SCHEMA = "edgecompress.rtl-report/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlRun:
    """The test bench in a Verilog simulator.

    Attributes:
        simulator: Name of the program.
        passed: Every output is the exact sum.
        cycles: Counted by the test bench, from the first operand in to the last result out; None
            if it failed.
        cycles_agree: They are those of the cost model.
        failures: The first lines that say what was wrong; empty if it passed.
    """

    simulator: str
    passed: bool
    cycles: int | None
    cycles_agree: bool
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlResources:
    """What the design takes, without the memories around it.

    Attributes:
        tool: Program and version that counted.
        lut, dsp, flip_flops, bram18: Counted: look-up tables, DSP blocks, registers, memories.
        predicted_lut, predicted_dsp: By the closed form; None where there is none.
    """

    tool: str
    lut: int
    dsp: int
    flip_flops: int
    bram18: int
    predicted_lut: int | None
    predicted_dsp: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlReport:
    """Generated Verilog of one target, with its test bench.

    Attributes:
        target, family, target_source: The device.
        settings: Parameters of the top module.
        files: What was written.
        model: Where the operands are from; None if they are random.
        layer: Name of the layer, or empty.
        operands: What the test bench runs, in words.
        data_source: Where the operands come from, in words.
        predicted_cycles: Of the cost model, for what the test bench runs.
        run: None if it was not asked for.
        synthesis: None if it was not asked for.
        notes: In words.
    """

    target: str
    family: str
    target_source: str
    settings: dict[str, int]
    files: tuple[FileFact, ...]
    model: FileFact | None
    layer: str
    operands: str
    data_source: str
    predicted_cycles: int
    run: RtlRun | None
    synthesis: RtlResources | None
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """The test bench passed and counted the cycles of the cost model, if it was run."""
        return self.run is None or (self.run.passed and self.run.cycles_agree)
