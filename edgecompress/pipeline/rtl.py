"""Verilog of a target's array with a test bench from a real layer, run and synthesised."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecompress.core.errors import InputOutputFailed, Unsupported, UsageError
from edgecompress.core.exploration import Value
from edgecompress.core.layers import Skip
from edgecompress.core.report import FileFact
from edgecompress.core.rtl import RtlReport, RtlResources, RtlRun
from edgecompress.core.samples import Samples
from edgecompress.graph.integers import NamedLayer, integer_layers
from edgecompress.graph.model import Model
from edgecompress.hardware.rtl.bench import Bench, Simulator, run_bench
from edgecompress.hardware.rtl.synthesis import synthesize
from edgecompress.hardware.rtl.verilog import Design, Generator, generator_for
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerLayer
from edgecompress.hardware.target import Target
from edgecompress.hardware.target_text import Variants
from edgecompress.pipeline.array_codes import as_array_layer, as_integer_layer
from edgecompress.pipeline.explore_ranges import read_axis
from edgecompress.pipeline.machines import truncating_datapath
from edgecompress.pipeline.request import Progress, silent
from edgecompress.pipeline.simulate import first_rows

ROWS = 64
"""Pixels or rows of a layer in the test bench unless asked otherwise."""

WIDE = (
    "the array takes weights of {made} bits, the layer has {needed}: --set"
    " weight_stream.weight_bits={needed} makes it as narrow"
)
ONE_LAYER = "the first layer that the design can run, as none was named"

QUANTIZE = "quantize the model first; inspect lists the layers"
"""Hint where no layer has integer codes."""

OTHER_DESIGN = (
    "--set changes a number of the target, such as accumulator_bits=24; targets show lists them"
)
"""Hint where layers have codes, and the design takes none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlOptions:
    """What is done with the design.

    Attributes:
        layer: Name of the node; empty for the first that the design can run.
        rows: Pixels or rows of the layer; 0 for all.
        seed: Of random operands.
        simulator: That runs the test bench; None for none.
        synthesize: Resources by Yosys.
        force: Write into a folder that has files already.
    """

    layer: str = ""
    rows: int = ROWS
    seed: int = 0
    simulator: Simulator | None = None
    synthesize: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operands:
    """What the test bench runs."""

    layer: IntegerLayer
    name: str
    source: str
    notes: tuple[str, ...] = ()


def simulator_named(name: str | None) -> Simulator | None:
    """The Verilog simulator of that name.

    Raises:
        UsageError: There is none.
    """
    match name:
        case None | "icarus" | "verilator":
            return name
        case _:
            raise UsageError(f"no simulator {name!r}", hint="icarus or verilator")


def varied(target: Target, settings: Sequence[str]) -> Target:
    """The target with other numbers.

    Args:
        target: What they are of.
        settings: ``NAME=VALUE``, as ``--sweep`` names numbers.

    Raises:
        UsageError: No such number, or more than one value.
        ConfigurationInvalid: A value that the family does not take.
    """
    values: dict[str, Value] = {}
    for text in settings:
        name, _, value = text.partition("=")
        path = name.removeprefix("parameters.")
        if isinstance(getattr(target.parameters, path, None), str):
            values[f"parameters.{path}"] = value
            continue
        axis = read_axis(text, target, "--set")
        if len(axis.values) != 1:
            raise UsageError(f"{text!r} has {len(axis.values)} values", where="--set")
        values[axis.path] = axis.values[0]
    return Variants(target).build(values) if values else target


def generate(
    target: Target,
    source: tuple[Model, Samples] | None,
    output: Path,
    options: RtlOptions,
    *,
    progress: Progress = silent,
) -> RtlReport:
    """Write the design, its test bench and its memories into a folder, and check them.

    Args:
        target: Of a family with a generator.
        source: A quantized graph and what it is fed with; None for random operands.
        output: Folder; made if it is missing.
        options: What is done.
        progress: Called step by step.

    Raises:
        Unsupported: No generator for the family, or no layer that the design can run.
        UsageError: The layer is not in the graph, or a layer without a graph.
        ConfigurationInvalid: A program that is needed is not installed.
        InputOutputFailed: A file cannot be written, or the folder is not empty.
    """
    generator = generator_for(target.family)
    operands = _operands(generator, target, source, options)
    progress("generating", 0, 0)
    design, bench = generator.design(target), generator.bench(target, operands.layer)
    files = _write(output, bench, force=options.force)
    predicted = generator.predicted_cycles(target, operands.layer)
    run = None
    if options.simulator:
        progress("simulating", 0, 0)
        run = _run(bench, options.simulator, predicted)
    synthesis = None
    if options.synthesize:
        progress("synthesising", 0, 0)
        found, resources = synthesize(design), generator.predicted_resources(target)
        synthesis = RtlResources(
            tool=found.tool,
            lut=found.lut,
            dsp=found.dsp,
            flip_flops=found.flip_flops,
            bram18=found.bram18,
            predicted_lut=resources.lut if resources else None,
            predicted_dsp=resources.dsp if resources else None,
        )
    return RtlReport(
        target=target.name,
        family=target.family,
        target_source=target.source,
        settings=dict(design.settings),
        files=files,
        model=source[0].file if source else None,
        layer=operands.name,
        operands=_words(operands.layer),
        data_source=operands.source,
        predicted_cycles=predicted,
        run=run,
        synthesis=synthesis,
        notes=tuple(
            note
            for note in (*operands.notes, _width(design, operands.layer), design.left_out)
            if note
        ),
    )


def _width(design: Design, layer: IntegerLayer) -> str:
    """That the array is wider than the layer needs, or empty."""
    made = dict(design.settings).get("WEIGHT_BITS", 0)
    return WIDE.format(made=made, needed=layer.weight_bits) if made > layer.weight_bits else ""


def _run(bench: Bench, simulator: Simulator, predicted: int) -> RtlRun:
    verdict = run_bench(bench, simulator=simulator)
    return RtlRun(
        simulator=simulator,
        passed=verdict.cycles is not None,
        cycles=verdict.cycles,
        cycles_agree=verdict.cycles == predicted,
        failures=() if verdict.cycles is not None else verdict.failures,
    )


def _operands(
    generator: Generator,
    target: Target,
    source: tuple[Model, Samples] | None,
    options: RtlOptions,
) -> _Operands:
    """The layer that was asked for, the first that can be run, or random codes."""
    if source is None:
        if options.layer:
            raise UsageError("a layer without a model", where="--layer")
        layer = generator.random_layer(target, np.random.default_rng(options.seed))
        return _Operands(layer=layer, name="", source=f"random codes, seed {options.seed}")
    model, samples = source
    reasons: list[str] = []
    hint = QUANTIZE
    names = (options.layer,) if options.layer else ()
    for found in integer_layers(model, samples.feeds, names=names):
        if isinstance(found, Skip):
            reasons.append(found.reason)
            continue
        whole, done = _codes(found, target)
        layer = first_rows(whole, options.rows) if options.rows else whole
        reason = generator.why_not(target, layer)
        if reason is None:
            notes = ("" if options.layer else ONE_LAYER, done)
            return _Operands(layer=layer, name=found.name, source=samples.source, notes=notes)
        reasons.append(reason)
        hint = OTHER_DESIGN
    raise Unsupported(
        f"no layer can run on {target.name}: {'; '.join(dict.fromkeys(reasons)) or 'none there'}",
        where=options.layer or model.file.path,
        hint=hint,
    )


def _codes(found: NamedLayer, target: Target) -> tuple[IntegerLayer, str]:
    """A layer with the codes that the array holds, and what was done to them.

    A datapath that truncates takes the weights whole.
    """
    if truncating_datapath(target) is not None:
        return as_integer_layer(found), ""
    on_array = as_array_layer(found, target)
    return on_array.layer, on_array.note


def _words(layer: IntegerLayer) -> str:
    """A layer as the test bench has it."""
    widths = f"{layer.input_bits}-bit activations, {layer.weight_bits}-bit weights"
    if isinstance(layer, IntegerConv):
        inputs = " x ".join(str(size) for size in layer.inputs.shape)
        weights = " x ".join(str(size) for size in layer.weights.shape)
        return f"convolution of {inputs} with {weights}, stride {layer.stride}; {widths}"
    rows, inner = layer.inputs.shape
    return f"product of {rows} x {inner} and {inner} x {layer.weights.shape[1]}; {widths}"


def _write(folder: Path, bench: Bench, *, force: bool) -> tuple[FileFact, ...]:
    """All files of a test bench into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise InputOutputFailed(
                "the folder is not empty", where=str(folder), hint="--force writes into it"
            )
        return tuple(_write_all(folder, bench.files))
    except OSError as error:
        raise InputOutputFailed(
            f"cannot be written: {error.strerror}", where=str(error.filename or folder)
        ) from error


def _write_all(folder: Path, files: Mapping[str, str]) -> list[FileFact]:
    facts = []
    for name, text in files.items():
        content = text.encode("ascii")
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}-", delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)
        os.replace(file.name, folder / name)
        facts.append(
            FileFact(
                path=str(folder / name),
                sha256=hashlib.sha256(content).hexdigest(),
                size_bytes=len(content),
            )
        )
    return facts
