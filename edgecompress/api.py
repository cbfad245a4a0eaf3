"""The public functions: one per use case, all on files.

They raise subclasses of `EdgeCompressError`; a limit that is not met is in the report
(``report.gates``) and raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

if TYPE_CHECKING:
    from edgecompress.core.arrays import Shape
    from edgecompress.core.options import DecomposeOptions, Gates, HealOptions, QuantizeOptions
    from edgecompress.core.plan import Plan
    from edgecompress.core.recipe_train import Choice
    from edgecompress.core.report import (
        CompressionReport,
        EvaluationReport,
        InspectionReport,
    )
    from edgecompress.core.training import TrainOptions
    from edgecompress.core.training_report import TrainingReport
    from edgecompress.graph.model import Model
    from edgecompress.pipeline.request import Progress
    from edgecompress.training.progress import TrainingProgress


class RunSettings(TypedDict, total=False):
    """Settings of a run, all optional; see `CompressRequest` for what they mean."""

    heal: HealOptions | None
    data: str | None
    calibration: int
    test_data: str | None
    preprocess: str | None
    targets: tuple[str, ...]
    gates: Gates
    input_shapes: Mapping[str, Shape]
    torch_factory: str | None
    trust_input: bool
    plan: Path | None
    seed: int
    force: bool
    progress: Progress


def load(path: str | Path, *, input_shapes: Mapping[str, Shape] | None = None) -> Model:
    """Read an ONNX file in the form that is compressed: opset 21 or later, BatchNorm folded."""
    from edgecompress.graph.model import load_model

    return load_model(path, input_shapes=input_shapes or {})


def compress(
    model: str | Path,
    output: str | Path,
    *,
    decompose: DecomposeOptions | None,
    quantize: QuantizeOptions | None,
    **settings: Unpack[RunSettings],
) -> CompressionReport:
    """Decompose, quantize and verify; None leaves a step out."""
    return _run("compress", model, output, decompose, quantize, settings)[0]


def decompose(
    model: str | Path,
    output: str | Path,
    options: DecomposeOptions,
    **settings: Unpack[RunSettings],
) -> CompressionReport:
    """Replace layers by products of smaller ones."""
    return _run("decompose", model, output, options, None, settings)[0]


def quantize(
    model: str | Path,
    output: str | Path,
    options: QuantizeOptions,
    **settings: Unpack[RunSettings],
) -> CompressionReport:
    """Store weights in few bits."""
    return _run("quantize", model, output, None, options, settings)[0]


def plan(
    model: str | Path,
    *,
    decompose: DecomposeOptions | None,
    quantize: QuantizeOptions | None,
    **settings: Unpack[RunSettings],
) -> Plan:
    """What `compress` would do, layer by layer. It is decided by doing it, and takes as long."""
    from edgecompress.core.scratch import temporary_folder

    with temporary_folder() as folder:
        output = folder / "model.onnx"
        return _run("compress", model, output, decompose, quantize, settings)[1]


def evaluate(  # noqa: PLR0913 - all but two by name
    model: str | Path,
    data: str,
    *,
    reference: str | Path | None = None,
    target: str | None = None,
    preprocess: str | None = None,
    limit: int | None = None,
    gates: Gates | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
) -> EvaluationReport:
    """Accuracy on labelled data; with a reference also fidelity and the ratio of the times.

    Args:
        model: ONNX or PyTorch file.
        data: As for ``--data``.
        reference: File to compare with.
        target: Name or path of an accelerator: the model is run as that computes it, too.
        preprocess: As for ``--preprocess``.
        limit: At most this many samples.
        gates: Limits.
        input_shapes: For inputs whose shape is open.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
    """
    from edgecompress.hardware.target import load_target
    from edgecompress.pipeline import evaluate as evaluation
    from edgecompress.pipeline.data import load_samples
    from edgecompress.pipeline.on_target import on_target
    from edgecompress.pipeline.preprocess import parse_preprocess
    from edgecompress.pipeline.source import as_written, torch_reading

    device = None if target is None else load_target(target)
    steps = parse_preprocess(preprocess)
    shapes = input_shapes or {}
    reading = torch_reading(shapes, factory=torch_factory, trust_input=trust_input)
    with ExitStack() as stack:
        measured, file = stack.enter_context(as_written(model, reading, shapes))
        other, other_file = (
            (None, None)
            if reference is None
            else stack.enter_context(as_written(reference, reading, shapes))
        )
        samples = load_samples(data, measured, preprocess=steps, limit=limit)
        report = evaluation.evaluate(measured, other, samples, gates=gates)
        there = None if device is None else on_target(measured, device, samples)
    return replace(
        report, model=file, reference=other_file, warnings=samples.warnings, on_target=there
    )


def inspect(
    model: str | Path,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    torch_factory: str | None = None,
    trust_input: bool = False,
) -> InspectionReport:
    """Layers with shapes, multiply-accumulates, bytes and bits, as the file has them.

    Args:
        model: ONNX or PyTorch file.
        input_shapes: For inputs whose shape is open.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
    """
    from edgecompress.pipeline import inspect as inspection
    from edgecompress.pipeline.source import as_written, torch_reading

    reading = torch_reading(input_shapes, factory=torch_factory, trust_input=trust_input)
    with as_written(model, reading, input_shapes or {}) as (graph, file):
        return replace(inspection.inspect(graph), model=file)


class TrainSettings(TypedDict, total=False):
    """Settings of a training run, all optional; see `TrainRequest` for what they mean."""

    arch: str | None
    choices: Mapping[str, Choice]
    torch_factory: str | None
    trust_input: bool
    start: Path | None
    test_data: str | None
    preprocess: str | None
    input_shapes: Mapping[str, Shape]
    options: TrainOptions
    gates: Gates
    device: str | None
    checkpoint: Path | None
    resume: bool
    shard: bool
    force: bool
    progress: Progress
    on_training: Callable[[TrainingProgress], None]


def train(
    data: str,
    output: str | Path,
    *,
    target_params: str | None = None,
    **settings: Unpack[TrainSettings],
) -> TrainingReport | None:
    """Train a network of tensor factors and write it as ONNX.

    Args:
        data: Samples to learn from, as for ``--data``.
        output: ONNX file to write.
        target_params: What may remain of the parameters: ``30x``, ``3%``, ``13500``.
        settings: See `TrainRequest`.

    Returns:
        The report; None in all processes of ``torchrun`` but the first.
    """
    from edgecompress.core.errors import UsageError
    from edgecompress.core.quantities import read_budget
    from edgecompress.pipeline.train import run_train
    from edgecompress.pipeline.train_request import TrainRequest

    try:
        budget = None if target_params is None else read_budget("params", target_params)
    except ValueError as problem:
        raise UsageError(str(problem), where="target_params") from None
    return run_train(TrainRequest(data=data, output=Path(output), target_params=budget, **settings))


def _run(
    command: str,
    model: str | Path,
    output: str | Path,
    decomposition: DecomposeOptions | None,
    quantization: QuantizeOptions | None,
    settings: RunSettings,
) -> tuple[CompressionReport, Plan]:
    from edgecompress.pipeline.compress import run_compress
    from edgecompress.pipeline.request import CompressRequest

    return run_compress(
        CompressRequest(
            command=command,
            model=Path(model),
            output=Path(output),
            decompose=decomposition,
            quantize=quantization,
            **settings,
        )
    )
