"""The report of a training run: layers, memory, and which part saves what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from edgecompress.core.layers import Skip
from edgecompress.core.report import FileFact
from edgecompress.core.training import TrainOptions
from edgecompress.core.training_report import (
    DataFact,
    EpochRecord,
    ExportCheck,
    MemoryTable,
    TrainedLayer,
    TrainingReport,
    TrainingScore,
)
from edgecompress.pipeline.train_lesson import Lesson, guessed_score
from edgecompress.pipeline.train_memory import (
    FLOAT_BITS,
    memory_factors,
    memory_tables,
    step_batch,
    stored_bits,
    stored_rows,
)
from edgecompress.pipeline.train_request import TrainRequest
from edgecompress.pipeline.train_subject import Subject
from edgecompress.pipeline.training_data import Learnable, class_warnings
from edgecompress.pipeline.versions import versions

if TYPE_CHECKING:
    from edgecompress.training.factorized.folding import Folding
    from edgecompress.training.low_precision.storage import StoredBits
    from edgecompress.training.progress import TrainingResult


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """Everything that the report is made of.

    Attributes:
        subject: What was trained, in place.
        result: How it went.
        read, test: The samples as they were read.
        lesson: What was learned from and held back.
        learned: Samples that were learned from.
        target: Parameters that ranks were cut to; None: no target.
        output: The written file.
        check: Of the written file.
        scores: On held-back and test samples.
        start: File of weights that training began with.
        parameters_start: Of the whole network, before the first step.
        resumed_at: Epochs that the checkpoint had when this process began.
        elapsed_s: Of the whole command.
    """

    subject: Subject
    result: TrainingResult
    read: Learnable
    test: Learnable | None
    lesson: Lesson
    learned: int
    target: int | None
    output: FileFact
    check: ExportCheck
    scores: tuple[TrainingScore, ...]
    start: FileFact | None
    parameters_start: int
    resumed_at: int
    elapsed_s: float


def training_report(
    request: TrainRequest, trained: Trained, options: TrainOptions
) -> TrainingReport:
    """Everything that is known about the run.

    Args:
        request: What was asked.
        trained: What came of it.
        options: As they were carried out, the target in parameters among them.
    """
    from edgecompress.training.assemble import parameter_count

    subject, result, lesson = trained.subject, trained.result, trained.lesson
    layers = tuple(_layers(subject))
    dense = parameter_count(subject.dense)
    end = parameter_count(subject.network)
    stored = stored_bits(subject, lesson, options)
    bits = float(stored.parameter_bits) if stored else float(end * FLOAT_BITS)
    batch = step_batch(options, trained.learned)
    memory = memory_tables(
        subject, lesson, options, stored, learned=trained.learned, progress=request.progress
    )
    return TrainingReport(
        network=subject.name,
        task=lesson.task,
        start=trained.start,
        output=trained.output,
        data=_data(trained.read),
        test=_data(trained.test) if trained.test else None,
        training_samples=trained.learned,
        validation_samples=len(lesson.targets) - trained.learned,
        layers=layers,
        skips=tuple(_skips(subject)),
        parameters_dense=dense,
        parameters_start=trained.parameters_start,
        parameters_end=end,
        parameters_target=trained.target,
        storage_bits=bits,
        scores=trained.scores,
        batch=batch,
        memory=memory,
        factors=tuple(
            memory_factors(dense, trained.parameters_start, end, bits, _at(memory, batch))
        ),
        stored=tuple(stored_rows(stored)) if stored else (),
        history=result.history,
        score_name=result.score_name,
        best_epoch=result.best_epoch,
        epochs_asked=options.epochs,
        resumed_at=trained.resumed_at,
        check=trained.check,
        device=result.device,
        processes=result.processes,
        elapsed_s=trained.elapsed_s,
        warnings=tuple(_warnings(trained, options)),
        assumptions=tuple(_assumptions(request, options)),
        notes=tuple(_notes(result, options, stored)),
        versions=versions("torch"),
        settings={**_settings(request, options), **request.settings},
        seed=options.seed,
    )


def _data(read: Learnable) -> DataFact:
    samples = read.samples
    return DataFact(source=samples.source, sha256=samples.sha256, samples=samples.count)


def _layers(subject: Subject) -> Iterator[TrainedLayer]:
    from edgecompress.training.tensorize import TensorizedFact, factorizations

    now = dict(factorizations(subject.network))
    for fact in subject.made.layers:
        if isinstance(fact, TensorizedFact):
            factors = now[fact.name]
            yield TrainedLayer(
                name=fact.name,
                kind=fact.kind,
                format=fact.format,
                folding=_folding(fact.folding),
                ranks_start=fact.ranks,
                ranks_end=factors.ranks,
                parameters_dense=fact.dense_count,
                parameters_start=fact.count,
                parameters_end=factors.count,
            )
        else:
            yield TrainedLayer(
                name=fact.name,
                kind=fact.kind,
                parameters_dense=fact.dense_count,
                parameters_start=fact.dense_count,
                parameters_end=fact.dense_count,
                reason=fact.reason,
            )


def _folding(folding: Folding) -> str:
    """``16x32 by 28x28``, the kernel of a convolution after it."""
    sides = [folding.rows, folding.columns, *([folding.kernel] if folding.kernel else [])]
    return " by ".join("x".join(map(str, side)) for side in sides)


def _skips(subject: Subject) -> Iterator[Skip]:
    for fact in subject.made.layers:
        reason = getattr(fact, "reason", "")
        if reason:
            yield Skip(fact.name, reason, fact.dense_count)


def _at(memory: tuple[MemoryTable, ...], batch: int) -> MemoryTable | None:
    return next((one for one in memory if one.batch == batch), None)


def _warnings(trained: Trained, options: TrainOptions) -> Iterator[str]:
    yield from trained.read.samples.warnings
    if trained.read.labels is not None:
        yield from class_warnings(trained.read.labels, int(trained.read.labels.max()) + 1)
    if trained.test is not None:
        yield from trained.test.samples.warnings
    count = sum(parameter.numel() for parameter in trained.subject.network.parameters())
    if trained.target is not None and count > trained.target:
        yield f"{count:,} parameters are left; {trained.target:,} were asked for: more epochs help"
    if not trained.subject.made.tensorized and options.tensorize.format != "none":
        yield "no layer became factors: this is a dense network"
    if options.batch > trained.learned:
        yield (
            f"the batch of {options.batch:,} is larger than the {trained.learned:,} training "
            "samples: every step takes them all"
        )
    kept, said = tolerance_kept(trained.result.history, trained.result.best_epoch, options)
    if not kept:
        yield said
    yield from not_learned(trained.scores, trained.lesson, options)


def tolerance_kept(
    history: Sequence[EpochRecord], epoch: int, options: TrainOptions
) -> tuple[bool, str]:
    """Whether the loss after an epoch, from 1, is as near the least one as a tolerance asked, and
    both in words; true and nothing without a tolerance."""
    asked = None if options.adaptation is None else options.adaptation.loss_tolerance
    if asked is None or not 0 < epoch <= len(history):
        return True, ""
    held = history[epoch - 1].validation_loss is not None
    losses = [one.validation_loss if held else one.loss for one in history]
    least = min(loss for loss in losses if loss is not None)
    loss = losses[epoch - 1] or 0.0
    kept = loss <= least * (1 + asked)
    return kept, (
        f"the {'held-back' if held else 'training'} loss of the weights is {loss:.4g} and the "
        f"least of all epochs {least:.4g}: {'' if kept else 'not '}within {100 * asked:g} %"
    )


def not_learned(
    scores: Iterable[TrainingScore], lesson: Lesson, options: TrainOptions
) -> Iterator[str]:
    """A warning where held-back samples are judged no better than without looking at them."""
    from edgecompress.training.batches import hold_back

    for score in scores:
        if score.data != "held back":
            continue
        _, held = hold_back(lesson.data(), options.validation, options.seed)
        guessed = guessed_score(lesson.targets[held], lesson.task)
        if not score.value > guessed:
            yield (
                f"the network did not learn: its {score.metric} on held-back samples is "
                f"{_in_words(score.value, score.metric)}, and the same answer to all has "
                f"{_in_words(guessed, score.metric)}"
            )


def _in_words(value: float, metric: str) -> str:
    return f"{value:.1%}" if "accuracy" in metric else f"{value:.3g}"


def _assumptions(request: TrainRequest, options: TrainOptions) -> Iterator[str]:
    yield (
        "the dense network is the same one with its own weights: same optimizer and batch, float32"
    )
    if options.validation:
        share = f"{options.validation:.0%}"
        yield f"{share} of --data is held back to judge by; nothing is learned from it"
    if options.precision is not None:
        bits = options.precision.activation_bits
        yield f"activations in few bits: those that are kept in float32, at {bits} bits each"
    if request.start is None and options.tensorize.format == "auto":
        yield "formats are chosen by layer: see docs/train.md"


def _notes(
    result: TrainingResult, options: TrainOptions, stored: StoredBits | None
) -> Iterator[str]:
    from edgecompress.training.low_precision.storage import WIDER_CODES

    kept, said = tolerance_kept(result.history, result.best_epoch, options)
    if kept and said:
        yield said
    if options.precision is not None:
        yield (
            "numbers of few bits are simulated with the integers' exact values: memory measured "
            "here is that of float32"
        )
        yield "the written file holds the values of the few-bit factors as float32"
        yield (
            "the trained network is scored as it was trained, its activations rounded to "
            f"{options.precision.activation_bits} bits; the written file does not round them, so "
            "that its scores differ. Verification compares both without this rounding"
        )
    if stored is not None and any(part.name == WIDER_CODES for part in stored.parts):
        yield (
            "factors begin with wider codes and reach their own width while the network trains: "
            f"until then they take the bytes of '{WIDER_CODES}' as well"
        )
    if options.forward_only:
        yield (
            "there is no backward pass: no gradients, and no activations are kept; those accounted "
            "for are the most that one forward pass holds at once"
        )
    yield (
        "parameters are all numbers that training changes, biases and scales of normalizations "
        "among them; quantize and compress count the weights that they work on"
    )


def _settings(request: TrainRequest, options: TrainOptions) -> dict[str, str]:
    """Everything that was asked or assumed, by name."""
    texts = {
        "network": request.arch or request.torch_factory or "",
        "data": request.data,
        "test-data": request.test_data or "none",
    }
    texts |= {f"network.{name}": str(value) for name, value in request.choices.items()}
    if request.preprocess:
        texts["preprocess"] = request.preprocess
    if request.start:
        texts["from"] = str(request.start)
    for name, value in asdict(replace(options, learning_rate=options.rate)).items():
        match value:
            case dict():
                texts |= {f"{name}.{key}": _text(inner) for key, inner in value.items()}
            case _:
                texts[name] = _text(value)
    return texts


def _text(value: object) -> str:
    match value:
        case None:
            return "none"
        case float():
            return f"{value:g}"
        case tuple() | list():
            return ":".join(_text(item) for item in value) or "none"
        case dict():
            return " ".join(f"{key}={_text(item)}" for key, item in value.items() if item)
        case _:
            return str(value)
