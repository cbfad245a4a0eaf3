"""One run of `compress`, `decompose` or `quantize`: from a file to a verified file and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgecompress.core.errors import (
    Unsupported,
    UsageError,
    VerificationFailed,
)
from edgecompress.core.layers import Layer
from edgecompress.core.options import Gates, QuantizeOptions
from edgecompress.core.plan import Plan
from edgecompress.core.preprocess import Preprocess
from edgecompress.core.report import (
    CompressionReport,
    Fidelity,
    FileFact,
    LatencyReport,
    Verification,
)
from edgecompress.core.samples import Samples
from edgecompress.core.scratch import temporary_folder
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.graph.verify import verify_file
from edgecompress.hardware.target import Target, load_target
from edgecompress.pipeline.data import load_samples
from edgecompress.pipeline.estimate import estimate_latency
from edgecompress.pipeline.evaluate import compare_files
from edgecompress.pipeline.gates import check_compression, check_gates
from edgecompress.pipeline.heal import admit
from edgecompress.pipeline.outputs import check_output, external_data
from edgecompress.pipeline.plan_file import load_plan
from edgecompress.pipeline.preprocess import parse_preprocess
from edgecompress.pipeline.quantize import EXACT
from edgecompress.pipeline.replay import check_data, check_model, follow
from edgecompress.pipeline.request import CompressRequest
from edgecompress.pipeline.source import TORCH_SUFFIXES, as_onnx, named_file, torch_reading
from edgecompress.pipeline.transform import Outcome, first_reasons, transform
from edgecompress.pipeline.versions import versions

VERIFY_SAMPLES = 16

LARGE_ERROR = 0.5
"""Relative error of the outputs from which the report says so in its warnings."""


def run_compress(request: CompressRequest) -> tuple[CompressionReport, Plan]:
    """Compress one file.

    Returns:
        The report and the plan. The output file is at its name, verified. Gates that are not met
        are in the report; the caller decides what that means.

    Raises:
        EdgeCompressError: Of the class that says what went wrong; then nothing is written.
    """
    check_output(
        request.output,
        inputs=(
            request.model,
            request.data,
            request.test_data,
            request.plan,
            *request.targets,
            *external_data((request.model,), written=(request.output,)),
        ),
        force=request.force,
    )
    replayed = load_plan(request.plan) if request.plan else None
    if replayed is not None:
        request = follow(request, replayed)
    targets = tuple(load_target(name) for name in request.targets)
    reading = torch_reading(
        request.input_shapes, factory=request.torch_factory, trust_input=request.trust_input
    )
    request.progress("reading the model", 0, 0)
    with as_onnx(request.model, reading) as source:
        model = load_model(source, input_shapes=request.input_shapes)
        file = named_file(request.model, source, model.file)
        if replayed is not None:
            check_model(replayed, file)
        _check_something(model)
        before = _latencies(source, targets, request)
        preprocess = parse_preprocess(request.preprocess)
        samples = _load(request, model, request.data, preprocess, request.calibration)
        test = _load(request, model, request.test_data, preprocess, None) or samples
        _check_gates_possible(request, test)
        if replayed is not None:
            check_data(replayed, samples)
        patient = admit(request, model, replayed)
        outcome = transform(request, model, samples, targets, replayed, patient)
        output, verification = _write(request, model, source, test)
        after = _latencies(request.output, targets, request)
    report = CompressionReport(
        command=request.command,
        input=file,
        output=output,
        layers=outcome.results,
        skips=outcome.skips,
        parameters_before=sum(layer.parameters for layer in outcome.before),
        parameters_after=sum(layer.parameters for layer in outcome.after),
        macs_before=_total_macs(outcome.before),
        macs_after=_total_macs(outcome.after),
        verification=verification,
        latency_before=before,
        latency_after=after,
        healing=outcome.healing,
        warnings=_warnings(model, (samples, test), outcome, verification.fidelity),
        versions=versions(*_packages(request, outcome)),
        settings=dict(request.settings),
        seed=request.seed,
    )
    plan = _plan(request, file, outcome, samples)
    return replace(report, gates=check_compression(request.gates, report)), plan


def _packages(request: CompressRequest, outcome: Outcome) -> tuple[str, ...]:
    """What the result depends on besides what every result does."""
    used = outcome.healing is not None or request.model.suffix.lower() in TORCH_SUFFIXES
    return ("torch",) if used else ()


def _check_something(model: Model) -> None:
    found = model.find_layers()
    if not found.layers:
        raise Unsupported(
            "there is nothing to compress", where=model.file.path, hint=first_reasons(found.skips)
        )


def _load(
    request: CompressRequest,
    model: Model,
    spec: str | None,
    preprocess: Preprocess | None,
    limit: int | None,
) -> Samples | None:
    if spec is None:
        return None
    request.progress(f"reading {spec}", 0, 0)
    return load_samples(spec, model, preprocess=preprocess, limit=limit, seed=request.seed)


def _check_gates_possible(request: CompressRequest, test: Samples | None) -> None:
    """Say at once, not after the work, that a limit cannot be checked."""
    gates = request.gates
    if gates.max_latency_s is not None and not request.targets:
        raise UsageError("--max-latency needs a --target")
    if gates.max_drop is not None and test is None:
        raise UsageError("--max-drop needs data", hint="give --data or --test-data")
    if gates.min_accuracy is not None and (test is None or test.labels is None):
        raise UsageError("--min-accuracy needs data with labels", hint="give them with --test-data")


def _write(
    request: CompressRequest, model: Model, source: Path, test: Samples | None
) -> tuple[FileFact, Verification]:
    """Pack, verify under another name, and only then write."""
    options = request.quantize
    keep_names = options is not None and options.keep_names
    if options is not None:
        pack(model, activations=options.activations is not None, keep_names=keep_names)
    test = test or load_samples(f"random:{request.seed}", model, limit=VERIFY_SAMPLES)
    request.progress("verifying", 0, 0)
    with temporary_folder() as folder:
        trial = folder / "model.onnx"
        save_model(model, trial, keep_names=keep_names)
        try:
            verification = verify_file(trial, test.feeds, reference=source)
        except VerificationFailed:
            _check_runs(source, test)
            raise
        fidelity = compare_files(source, trial, test)
        _check_measured(request.gates, fidelity)
    written = save_model(model, request.output, keep_names=keep_names)
    return written, replace(verification, fidelity=fidelity)


def _check_measured(gates: Gates, fidelity: Fidelity) -> None:
    """Refuse a limit on what the model's outputs do not show, before anything is written."""
    check_gates(Gates(max_drop=gates.max_drop, min_accuracy=gates.min_accuracy), fidelity=fidelity)


def _check_runs(source: Path, test: Samples) -> None:
    """Refuse a model that does not run itself: what is made of it cannot be verified."""
    try:
        run_feeds(open_session(source, optimize=False), test.feeds[:1])
    except Unsupported as error:
        raise Unsupported(
            f"does not run itself, so a compressed form cannot be verified: {error.message}",
            where=str(source),
        ) from error


def _latencies(
    path: Path, targets: Sequence[Target], request: CompressRequest
) -> tuple[LatencyReport, ...]:
    if not targets:
        return ()
    model = load_model(path, normalize=False)
    named = request.output if path == request.output else request.model
    reports = (estimate_latency(model, target, request.input_shapes) for target in targets)
    return tuple(replace(one, model=replace(one.model, path=str(named))) for one in reports)


def _total_macs(layers: Sequence[Layer]) -> int | None:
    known = [layer.macs for layer in layers if layer.macs is not None]
    return sum(known) if len(known) == len(layers) else None


def _warnings(
    model: Model,
    data: Sequence[Samples | None],
    outcome: Outcome,
    fidelity: Fidelity | None,
) -> tuple[str, ...]:
    said = [*model.notes]
    if fidelity is not None and fidelity.relative_l2 >= LARGE_ERROR:
        said.append(
            f"THE OUTPUTS ARE FAR OFF: {fidelity.relative_l2:.0%} on {fidelity.source}; use more "
            "bits, calibration data, or --max-drop as a gate"
        )
    for samples in data:
        if samples is not None:
            said += samples.warnings
    if any(layer.macs is None for layer in model.find_layers().layers):
        said.append("multiply-accumulates are not counted: a shape is open, see --input-shape")
    fitted = any(r.action != "kept" and r.method != EXACT for r in outcome.results)
    if data[0] is None and fitted:
        said.append("no calibration data: weights were fitted on their own, not on what they do")
    return tuple(dict.fromkeys(said))


def _plan(
    request: CompressRequest, file: FileFact, outcome: Outcome, samples: Samples | None
) -> Plan:
    quantized = request.quantize or QuantizeOptions()
    return Plan(
        input_sha256=file.sha256,
        data_sha256=samples.sha256 if samples else "",
        calibration=request.calibration,
        preprocess=request.preprocess or "",
        target=request.targets[0] if request.targets else "",
        seed=request.seed,
        activations=quantized.activations,
        per_channel=quantized.scales_per_channel,
        keep_names=quantized.keep_names,
        layers=outcome.plans,
        skips=outcome.skips,
        heal=outcome.heal_plan,
    )
