"""One run of `compress`, `decompose` or `quantize`: from a file to a verified file and a report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import (
    ConfigurationInvalid,
    InputOutputFailed,
    Unsupported,
    UsageError,
    VerificationFailed,
)
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.options import DecomposeOptions, Gates, QuantizeOptions
from edgecompress.core.plan import LayerPlan, Plan
from edgecompress.core.preprocess import Preprocess
from edgecompress.core.report import (
    CompressionReport,
    FileFact,
    LatencyReport,
    LayerResult,
    Verification,
)
from edgecompress.core.samples import Samples
from edgecompress.graph.hashing import file_fact
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import save_model
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.graph.verify import verify_file
from edgecompress.hardware.target import Target, load_target
from edgecompress.pipeline.data import load_samples
from edgecompress.pipeline.decompose import Pricing, apply_plan, decompose
from edgecompress.pipeline.estimate import estimate_latency, price_stages
from edgecompress.pipeline.evaluate import compare_files
from edgecompress.pipeline.gates import check_compression
from edgecompress.pipeline.outcome import merge_results
from edgecompress.pipeline.plan_file import load_plan
from edgecompress.pipeline.preprocess import parse_preprocess
from edgecompress.pipeline.quantize import quantize
from edgecompress.pipeline.replay import quantize_options
from edgecompress.pipeline.source import as_onnx
from edgecompress.pipeline.versions import versions

VERIFY_SAMPLES = 16

Progress = Callable[[str, int, int], None]
"""Called with a phase in words, steps done, and steps in all (0: unknown)."""


def silent(phase: str, done: int, total: int) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressRequest:
    """What one run is asked to do.

    Attributes:
        command: ``compress``, ``decompose`` or ``quantize``.
        model, output: Files; the output must not be the input.
        decompose, quantize: Options of the steps; None leaves a step out.
        data: Calibration data, a specification for `load_samples`; None for data-free.
        calibration: At most this many calibration samples.
        test_data: Data for the accuracy before and after; None uses the calibration data.
        preprocess: As in `parse_preprocess`; None for none.
        targets: Names or paths; the first one prices ranks.
        gates: Limits.
        input_shapes: Shapes for inputs whose shape is open.
        torch_factory: ``module:function`` that builds the network of a state dict.
        trust_input: Allow inputs that can run code.
        plan: Plan file to replay, or None to decide.
        seed: Seed of everything random.
        force: Overwrite an output that exists.
        progress: Receiver of progress.
    """

    command: str
    model: Path
    output: Path
    decompose: DecomposeOptions | None
    quantize: QuantizeOptions | None
    data: str | None = None
    calibration: int = 1024
    test_data: str | None = None
    preprocess: str | None = None
    targets: tuple[str, ...] = ()
    gates: Gates = field(default_factory=Gates)
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    torch_factory: str | None = None
    trust_input: bool = False
    plan: Path | None = None
    seed: int = 0
    force: bool = False
    progress: Progress = silent
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the two steps did to the model."""

    plans: tuple[LayerPlan, ...]
    results: tuple[LayerResult, ...]
    skips: tuple[Skip, ...]
    before: tuple[Layer, ...]
    after: tuple[Layer, ...]


def run_compress(request: CompressRequest) -> tuple[CompressionReport, Plan]:
    """Compress one file.

    Returns:
        The report and the plan. The output file is at its name, verified. Gates that are not met
        are in the report; the caller decides what that means.

    Raises:
        EdgeCompressError: Of the class that says what went wrong; then nothing is written.
    """
    _check_output(request)
    replayed = load_plan(request.plan) if request.plan else None
    if replayed is not None:
        request = _follow(request, replayed)
    targets = tuple(load_target(name) for name in request.targets)
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as folder:
        request.progress("reading the model", 0, 0)
        source = _as_onnx(request, Path(folder))
        model = load_model(source, input_shapes=request.input_shapes)
        _check_something(model)
        before = _latencies(source, targets, request)
        preprocess = parse_preprocess(request.preprocess)
        samples = _load(request, model, request.data, preprocess, request.calibration)
        test = _load(request, model, request.test_data, preprocess, None) or samples
        _check_gates_possible(request, test)
        if replayed is not None:
            _check_data(replayed, samples)
        outcome = _transform(request, model, samples, targets, replayed)
        output, verification = _write(request, model, source, test)
        after = _latencies(request.output, targets, request)
    report = CompressionReport(
        command=request.command,
        input=file_fact(request.model),
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
        warnings=_warnings(model, (samples, test)),
        versions=versions(),
        settings=dict(request.settings),
        seed=request.seed,
    )
    plan = _plan(request, outcome, samples)
    return replace(report, gates=check_compression(request.gates, report)), plan


def _follow(request: CompressRequest, plan: Plan) -> CompressRequest:
    """The request with everything that a plan decides taken from the plan."""
    found = file_fact(request.model).sha256
    if found != plan.input_sha256:
        raise ConfigurationInvalid(
            f"the plan was made for a model with sha256 {plan.input_sha256[:12]}..., "
            f"not for this one ({found[:12]}...)",
            where=str(request.plan),
        )
    steps = {layer.step for layer in plan.layers}
    return replace(
        request,
        decompose=DecomposeOptions(seed=plan.seed) if "decompose" in steps else None,
        quantize=quantize_options(plan) if "quantize" in steps else None,
        calibration=plan.calibration,
        preprocess=plan.preprocess or None,
        seed=plan.seed,
    )


def _check_data(plan: Plan, samples: Samples | None) -> None:
    if (samples.sha256 if samples else "") == plan.data_sha256:
        return
    if not plan.data_sha256:
        raise ConfigurationInvalid("the plan was made without data", hint="leave --data out")
    raise ConfigurationInvalid(
        "the plan was made with other calibration data", hint="give the same --data as then"
    )


def _check_output(request: CompressRequest) -> None:
    """Refuse an output that cannot be, before any work is done."""
    path = request.output
    if not path.parent.is_dir():
        raise InputOutputFailed("the folder does not exist", where=str(path.parent))
    if not os.access(path.parent, os.W_OK):
        raise InputOutputFailed("the folder cannot be written", where=str(path.parent))
    if path.is_dir():
        raise InputOutputFailed("the output is a folder", where=str(path))
    if path.exists() and request.model.exists() and path.samefile(request.model):
        raise InputOutputFailed(
            "the output is the input, which is never overwritten", where=str(path)
        )
    if path.exists() and not request.force:
        raise InputOutputFailed("the output exists", where=str(path), hint="--force overwrites it")


def _as_onnx(request: CompressRequest, folder: Path) -> Path:
    shapes = list(request.input_shapes.values())
    return as_onnx(
        request.model,
        folder,
        factory=request.torch_factory,
        trust_input=request.trust_input,
        input_shape=shapes[0] if shapes else None,
    )


def _check_something(model: Model) -> None:
    found = model.find_layers()
    if not found.layers:
        raise Unsupported(
            "there is nothing to compress", where=model.file.path, hint=_first_reasons(found.skips)
        )


def _first_reasons(skips: Sequence[Skip]) -> str:
    reasons = list(dict.fromkeys(skip.reason for skip in skips))
    return "; ".join(reasons[:3]) or "no layer has constant float weights"


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
        raise UsageError("--max-drop needs data", hint="--data or --test-data")
    if gates.min_accuracy is not None and (test is None or test.labels is None):
        raise UsageError("--min-accuracy needs data with labels", hint="--test-data")


def _transform(
    request: CompressRequest,
    model: Model,
    samples: Samples | None,
    targets: Sequence[Target],
    replayed: Plan | None,
) -> _Outcome:
    before = model.find_layers().layers
    plans: list[LayerPlan] = []
    skips: list[Skip] = list(model.find_layers().skips)
    decomposed: list[LayerResult] = []
    quantized: list[LayerResult] = []
    if request.decompose is not None:
        request.progress("decomposing", 0, 0)
        pricing = _pricing(targets)
        step = (
            decompose(model, request.decompose, samples, pricing, request.progress)
            if replayed is None
            else apply_plan(model, replayed.layers, samples, seed=replayed.seed)
        )
        plans += step[0]
        decomposed += step[1]
        skips += step[2]
    if request.quantize is not None:
        request.progress("quantizing", 0, 0)
        step = quantize(model, request.quantize, samples, request.progress)
        plans += step[0]
        quantized += step[1]
        skips += step[2]
    results = merge_results(decomposed, quantized, model.origins)
    if all(result.action == "kept" for result in results):
        reasons = [Skip(r.name, r.reason) for r in results if r.reason] + skips
        raise Unsupported(
            "no layer would get smaller or faster",
            where=model.file.path,
            hint=_first_reasons(reasons),
        )
    after = model.find_layers().layers
    return _Outcome(tuple(plans), results, tuple(skips), before, after)


def _pricing(targets: Sequence[Target]) -> Pricing | None:
    if not targets:
        return None
    first = targets[0]
    return lambda stages, layer: price_stages(stages, layer, first)


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
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as folder:
        trial = Path(folder) / "model.onnx"
        save_model(model, trial, keep_names=keep_names)
        try:
            verification = verify_file(trial, test.feeds, reference=source)
        except VerificationFailed:
            _check_runs(source, test)
            raise
        fidelity = compare_files(source, trial, test)
    written = save_model(model, request.output, keep_names=keep_names)
    return written, replace(verification, fidelity=fidelity)


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
    return tuple(estimate_latency(model, target, request.input_shapes) for target in targets)


def _total_macs(layers: Sequence[Layer]) -> int | None:
    known = [layer.macs for layer in layers if layer.macs is not None]
    return sum(known) if len(known) == len(layers) else None


def _warnings(model: Model, data: Sequence[Samples | None]) -> tuple[str, ...]:
    said = [*model.notes]
    for samples in data:
        if samples is not None:
            said += samples.warnings
    if data[0] is None:
        said.append("no calibration data: weights were fitted on their own, not on what they do")
    return tuple(dict.fromkeys(said))


def _plan(request: CompressRequest, outcome: _Outcome, samples: Samples | None) -> Plan:
    quantized = request.quantize or QuantizeOptions()
    return Plan(
        input_sha256=file_fact(request.model).sha256,
        data_sha256=samples.sha256 if samples else "",
        calibration=request.calibration,
        preprocess=request.preprocess or "",
        target=request.targets[0] if request.targets else "",
        seed=request.seed,
        activations=quantized.activations,
        per_channel=quantized.per_channel,
        keep_names=quantized.keep_names,
        layers=outcome.plans,
        skips=outcome.skips,
    )
