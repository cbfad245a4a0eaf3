"""The use cases of the command line that are about devices, as functions.

Everything heavy is imported inside; importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecompress.core.arrays import Shape
    from edgecompress.core.exploration import SweepReport
    from edgecompress.core.report import (
        LatencyReport,
    )
    from edgecompress.core.rtl import RtlReport
    from edgecompress.core.simulation import SimulationReport
    from edgecompress.core.training_step import TrainingStepOptions, TrainingStepReport
    from edgecompress.core.work import AssumedBits
    from edgecompress.pipeline.request import Progress


def estimate_latency(
    model: str | Path,
    targets: Sequence[str],
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    assumed_bits: AssumedBits | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
) -> tuple[LatencyReport, ...]:
    """Predicted latency of the graph as it is written, one report per target.

    Args:
        model: ONNX or PyTorch file.
        targets: Names or paths.
        input_shapes: For inputs whose shape is open beyond the batch axis.
        assumed_bits: Widths that floats are taken to have; None: as the graph has them.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
    """
    from edgecompress.hardware.target import load_target
    from edgecompress.pipeline import estimate
    from edgecompress.pipeline.source import as_written, torch_reading

    reading = torch_reading(input_shapes, factory=torch_factory, trust_input=trust_input)
    asked = estimate.Reading(input_shapes=input_shapes, assumed_bits=assumed_bits)
    devices = [load_target(target) for target in targets]
    with as_written(model, reading, {}) as (graph, file):
        reports = estimate.estimate_latencies(graph, devices, asked)
    return tuple(replace(report, model=file) for report in reports)


def sweep_latency(  # noqa: PLR0913 - all but three by name
    model: str | Path,
    targets: Sequence[str],
    sweep: str,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    assumed_bits: AssumedBits | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
) -> SweepReport:
    """Predicted latency over one number of the targets.

    Args:
        model: ONNX or PyTorch file.
        targets: Names or paths.
        sweep: ``NAME=VALUES`` such as ``dram.bandwidth=1:20:16``.
        input_shapes: For inputs whose shape is open beyond the batch axis.
        assumed_bits: Widths that floats are taken to have; None: as the graph has them.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
    """
    from edgecompress.hardware.target import load_target
    from edgecompress.pipeline.estimate import Reading
    from edgecompress.pipeline.source import as_written, torch_reading
    from edgecompress.pipeline.sweep import sweep as sweep_over

    reading = torch_reading(input_shapes, factory=torch_factory, trust_input=trust_input)
    asked = Reading(input_shapes=input_shapes, assumed_bits=assumed_bits)
    devices = [load_target(target) for target in targets]
    with as_written(model, reading, {}) as (graph, file):
        return replace(sweep_over(graph, devices, sweep, asked), model=file)


def estimate_training_step(  # noqa: PLR0913 - all but three by name
    model: str | Path,
    targets: Sequence[str],
    options: TrainingStepOptions | None = None,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    assumed_bits: AssumedBits | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
) -> tuple[TrainingStepReport, ...]:
    """What one step of training the graph takes, one report per target.

    Args:
        model: ONNX or PyTorch file; the batch size of its input is that of the step.
        targets: Names or paths.
        options: Optimiser and widths; by default plain gradient descent with 16-bit gradients.
        input_shapes: For inputs whose shape is open; an open batch axis is 1.
        assumed_bits: Widths that floats are taken to have; None: as the graph has them.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
    """
    from edgecompress.core.training_step import TrainingStepOptions
    from edgecompress.hardware.target import load_target
    from edgecompress.pipeline import training_step
    from edgecompress.pipeline.estimate import Reading
    from edgecompress.pipeline.source import as_written, torch_reading

    reading = torch_reading(input_shapes, factory=torch_factory, trust_input=trust_input)
    asked = options or TrainingStepOptions()
    how = Reading(input_shapes=input_shapes, assumed_bits=assumed_bits)
    devices = [load_target(target) for target in targets]
    with as_written(model, reading, {}) as (graph, file):
        reports = [
            training_step.estimate_training_step(graph, device, asked, how) for device in devices
        ]
    return tuple(replace(report, model=file) for report in reports)


def simulate(  # noqa: PLR0913 - all but two by name
    model: str | Path,
    target: str,
    *,
    data: str | None = None,
    layers: Sequence[str] = (),
    samples: int = 1,
    rows: int | None = None,
    seed: int = 0,
    preprocess: str | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
    progress: Progress | None = None,
) -> SimulationReport:
    """Layers of a quantized network on a simulated array, against onnxruntime and the cost model.

    Args:
        model: ONNX or PyTorch file.
        target: Name or path.
        data: As for ``--data``; None for random numbers.
        layers: Names of the nodes; empty for all.
        samples: Inputs to take.
        rows: Pixels or rows of each layer, of its first image; 0 for all, None for a few.
        seed: Of random inputs, and of the draw from ``data``.
        preprocess: As for ``--preprocess``.
        input_shapes: For inputs whose shape is open.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
        progress: Called layer by layer.
    """
    from edgecompress.hardware.target import load_target
    from edgecompress.pipeline import simulate as simulation
    from edgecompress.pipeline.data import RANDOM, load_samples
    from edgecompress.pipeline.preprocess import parse_preprocess
    from edgecompress.pipeline.request import silent
    from edgecompress.pipeline.source import as_written, torch_reading

    device = load_target(target)
    steps = parse_preprocess(preprocess)
    options = simulation.SimulateOptions(
        layers=tuple(layers), rows=simulation.ROWS if rows is None else rows
    )
    shapes = input_shapes or {}
    reading = torch_reading(shapes, factory=torch_factory, trust_input=trust_input)
    spec = f"{RANDOM}{seed}" if data is None else data
    with as_written(model, reading, shapes) as (graph, file):
        drawn = load_samples(spec, graph, preprocess=steps, limit=samples, seed=seed)
        report = simulation.simulate(graph, device, drawn, options, progress=progress or silent)
    return replace(report, model=file)


def rtl(  # noqa: PLR0913 - all but two by name
    target: str,
    output: str | Path,
    *,
    model: str | Path | None = None,
    settings: Sequence[str] = (),
    layer: str = "",
    data: str | None = None,
    pixels: int | None = None,
    seed: int = 0,
    simulator: str | None = None,
    synthesize: bool = False,
    force: bool = False,
    preprocess: str | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
    progress: Progress | None = None,
) -> RtlReport:
    """Verilog of a target's array in a folder, with a test bench from a layer or random codes.

    Args:
        target: Name or path.
        output: Folder; made if it is missing.
        model: Quantized ONNX or PyTorch file; None for random operands.
        settings: Other numbers of the target, ``NAME=VALUE``.
        layer: Name of the node; empty for the first that the design can run.
        data: As for ``--data``; None for random numbers.
        pixels: Pixels or rows of the layer; 0 for all, None for a few.
        seed: Of random operands or inputs.
        simulator: ``icarus`` or ``verilator`` to run the test bench; None not to.
        synthesize: Count resources with Yosys.
        force: Write into a folder that has files.
        preprocess: As for ``--preprocess``.
        input_shapes: For inputs whose shape is open.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
        progress: Called step by step.
    """
    from edgecompress.hardware.target import load_target
    from edgecompress.pipeline import rtl as generation
    from edgecompress.pipeline.data import RANDOM, load_samples
    from edgecompress.pipeline.preprocess import parse_preprocess
    from edgecompress.pipeline.request import silent
    from edgecompress.pipeline.source import as_written, torch_reading

    device = generation.varied(load_target(target), settings)
    options = generation.RtlOptions(
        layer=layer,
        rows=generation.ROWS if pixels is None else pixels,
        seed=seed,
        simulator=generation.simulator_named(simulator),
        synthesize=synthesize,
        force=force,
    )
    told = progress or silent
    if model is None:
        return generation.generate(device, None, Path(output), options, progress=told)
    shapes = input_shapes or {}
    reading = torch_reading(shapes, factory=torch_factory, trust_input=trust_input)
    spec = f"{RANDOM}{seed}" if data is None else data
    steps = parse_preprocess(preprocess)
    with as_written(model, reading, shapes) as (graph, file):
        drawn = load_samples(spec, graph, preprocess=steps, limit=1, seed=seed)
        report = generation.generate(device, (graph, drawn), Path(output), options, progress=told)
    return replace(report, model=file)
