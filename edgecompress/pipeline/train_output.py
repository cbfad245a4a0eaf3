"""What comes out of a training run: the verified file, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.core.arrays import Array
from edgecompress.core.errors import VerificationFailed
from edgecompress.core.report import FileFact
from edgecompress.core.scratch import temporary_folder
from edgecompress.core.training_report import ExportCheck, TrainingScore
from edgecompress.graph.model import load_model
from edgecompress.graph.save import save_model, write_atomically
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.graph.verify import WEIGHTS_ONLY, verify_file
from edgecompress.pipeline.scores import Differences
from edgecompress.pipeline.train_lesson import Lesson
from edgecompress.pipeline.train_request import TrainRequest
from edgecompress.pipeline.train_subject import Subject

if TYPE_CHECKING:
    from edgecompress.training.progress import TrainingResult


def write_output(
    request: TrainRequest, subject: Subject, lesson: Lesson
) -> tuple[FileFact, ExportCheck]:
    """Export, verify under another name, and only then write.

    Raises:
        Unsupported: The network cannot be exported.
        VerificationFailed: The file is not what was trained; nothing is at the final name.
        InputOutputFailed: It cannot be written.
    """
    from edgecompress.training.assemble import exported

    request.progress("exporting", 0, 0)
    examples = lesson.examples
    content, expected = exported(subject.network, examples, where=subject.name)
    with temporary_folder() as folder:
        raw, trial = folder / "exported.onnx", folder / "model.onnx"
        write_atomically(raw, content)
        model = load_model(raw)
        save_model(model, trial)
        verification = verify_file(trial, (examples,))
        (found,) = run_feeds(open_session(trial, optimize=True), (examples,))
        check = _compare(expected, found[0], verification.optimized_relative_l2)
        written = save_model(model, request.output)
    return written, check


def _compare(expected: Array, found: Array, optimized: float) -> ExportCheck:
    """What the file gives against what the network gave.

    Raises:
        VerificationFailed: They differ by more than rounding.
    """
    differences = Differences()
    differences.add([expected], [found])
    if not differences.relative_l2 <= WEIGHTS_ONLY.most:
        raise VerificationFailed(
            f"the exported graph differs from the network by {differences.relative_l2:.2g}; "
            f"rounding explains {WEIGHTS_ONLY.most:g}"
        )
    return ExportCheck(
        checker=True,
        relative_l2=differences.relative_l2,
        optimized_relative_l2=optimized,
        top1_agreement=differences.top1_agreement,
        samples=len(expected),
    )


def measure(
    request: TrainRequest,
    subject: Subject,
    result: TrainingResult,
    held: int,
    tested: Lesson | None,
) -> tuple[TrainingScore, ...]:
    """Held-back samples as the loop judged them, test samples by the network and by the file."""
    from edgecompress.training.assemble import loss_and_score, run_network

    scores: list[TrainingScore] = []
    kept = result.history[result.best_epoch - 1] if result.history else None
    if kept is not None and kept.score is not None:
        scores.append(
            TrainingScore(
                data="held back",
                network="trained",
                metric=result.score_name,
                value=kept.score,
                samples=held,
            )
        )
    if tested is None:
        return tuple(scores)
    request.progress("measuring on the test data", 0, 0)
    outputs = {
        "trained": run_network(subject.network, tested.inputs),
        "written": _run_file(request.output, tested),
    }
    for name, found in outputs.items():
        loss, score, metric = loss_and_score(found, tested.targets, tested.task)
        count = len(tested.targets)
        scores += [
            TrainingScore(data="test", network=name, metric=metric, value=score, samples=count),
            TrainingScore(data="test", network=name, metric="loss", value=loss, samples=count),
        ]
    return tuple(scores)


def training_samples(lesson: Lesson, request: TrainRequest) -> int:
    """How many samples are learned from; the rest is held back."""
    from edgecompress.training.batches import hold_back

    _, held = hold_back(lesson.data(), request.options.validation, request.options.seed)
    return lesson.count - len(held)


def _run_file(path: Path, lesson: Lesson) -> list[Array]:
    from edgecompress.training.assemble import RUN_AT_ONCE

    session = open_session(path, optimize=True)
    found: list[Array] = []
    for start in range(0, len(lesson.targets), RUN_AT_ONCE):
        feed = {
            name: array[start : start + RUN_AT_ONCE]
            for name, array in zip(lesson.names, lesson.inputs, strict=True)
        }
        found.append(run_feeds(session, (feed,))[0][0])
    return found
