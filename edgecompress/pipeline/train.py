"""One run of `train`: from samples to a verified graph and a report."""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecompress.core.errors import ConfigurationInvalid, UsageError
from edgecompress.core.options import Gates
from edgecompress.core.training_report import TrainingReport
from edgecompress.graph.hashing import file_fact
from edgecompress.pipeline.gates import check_gates
from edgecompress.pipeline.outputs import check_checkpoint, check_output
from edgecompress.pipeline.preprocess import parse_preprocess
from edgecompress.pipeline.train_account import Trained, training_report
from edgecompress.pipeline.train_lesson import Lesson, read_lesson, read_test
from edgecompress.pipeline.train_output import measure, training_samples, write_output
from edgecompress.pipeline.train_request import TrainRequest
from edgecompress.pipeline.train_subject import make_subject

if TYPE_CHECKING:
    from edgecompress.training.tasks import Task


def run_train(request: TrainRequest) -> TrainingReport | None:
    """Train one network.

    Returns:
        The report; the output file is at its name, verified. None in all processes but the first.
        Gates that are not met are in the report; the caller decides what that means.

    Raises:
        EdgeCompressError: Of the class that says what went wrong; then nothing is written.
    """
    began = time.monotonic()
    _check_schedule(request)
    check_files(request)
    prepare_torch()
    from edgecompress.training.assemble import check_formats, parameter_count
    from edgecompress.training.distributed import find_device, is_first_process
    from edgecompress.training.loop import train_network
    from edgecompress.training.progress import RunOptions

    check_formats(request.options.tensorize)
    find_device(request.device, int(os.environ.get("WORLD_SIZE", "1")))
    resumed = _resumed(request)
    if resumed:
        request.progress(f"continuing after epoch {resumed} of {request.options.epochs}", 0, 0)
    preprocess = parse_preprocess(request.preprocess)
    read, lesson = read_lesson(request, preprocess)
    test, tested = read_test(request, read, lesson, preprocess)
    _check_gates_possible(request, lesson.task, tested)
    subject = make_subject(request, lesson)
    before = parameter_count(subject.network)
    options = request.options
    target = subject.target
    if options.adaptation is not None:
        adaptation = replace(options.adaptation, target_params=target).scheduled()
        options = replace(options, adaptation=adaptation)
    result = train_network(
        subject.network,
        lesson.data(),
        options,
        run=RunOptions(
            device=request.device,
            checkpoint=request.checkpoint,
            resume=request.resume,
            on_progress=request.on_training,
            shard=request.shard,
        ),
    )
    if not is_first_process():
        return None
    subject = replace(subject, network=result.network.cpu())
    output, check = write_output(request, subject, tested or lesson)
    learned = training_samples(lesson, request)
    trained = Trained(
        subject=subject,
        result=result,
        read=read,
        test=test,
        lesson=lesson,
        learned=learned,
        target=target,
        output=output,
        check=check,
        scores=measure(request, subject, result, lesson.count - learned, tested),
        start=file_fact(request.start) if request.start else None,
        parameters_start=before,
        resumed_at=resumed,
        elapsed_s=time.monotonic() - began,
    )
    request.progress("accounting for memory", 0, 0)
    return _judged(training_report(request, trained, options), request.gates)


def prepare_torch() -> None:
    """Make sure that PyTorch is there, before it is loaded, and that it will be quiet.

    Raises:
        ConfigurationInvalid: It is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationInvalid(
            "training needs torch, which is not installed",
            hint="pip install 'edgecompress[torch]'",
        )
    # Read when torch is loaded: its profiler, which measures memory, talks on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _check_schedule(request: TrainRequest) -> None:
    """Refuse shares of a recipe that leave ranks no time to fall under the goal of this run."""
    if request.options.adaptation is None:
        return
    target = None if request.target_params is None else 1
    reason = replace(request.options.adaptation, target_params=target).schedule.why_not
    if reason is not None:
        raise ConfigurationInvalid(
            reason,
            where="train.adaptation",
            hint="name warm_up and settle for the goal of this run",
        )


def _resumed(request: TrainRequest) -> int:
    """Epochs that the checkpoint has, if this run goes on from it."""
    from edgecompress.training.checkpoint import read_checkpoint

    if request.checkpoint is None or not request.resume:
        return 0
    state = read_checkpoint(request.checkpoint)
    return 0 if state is None else int(state["place"]["epoch"])


def check_files(request: TrainRequest) -> None:
    """Refuse what cannot be written, or would be lost, before any work is done.

    Raises:
        InputOutputFailed: With the reason.
    """
    inputs = (request.data, request.test_data, request.start, request.settings.get("recipe"))
    check_output(request.output, inputs=inputs, force=request.force)
    if request.checkpoint is not None:
        check_checkpoint(
            request.checkpoint,
            others=(*inputs, request.output),
            resume=request.resume,
            force=request.force,
        )


def _check_gates_possible(request: TrainRequest, task: Task, tested: Lesson | None) -> None:
    """Say at once, not after the work, that a limit cannot be checked."""
    if request.gates.min_accuracy is None:
        return
    if task not in ("classification", "next-token"):
        raise UsageError("--min-accuracy needs classes or tokens to be right about")
    if tested is None and not request.options.validation:
        raise UsageError("--min-accuracy needs --test-data, or --validation above 0")


def _judged(report: TrainingReport, gates: Gates) -> TrainingReport:
    """The report with its gates; accuracy is that of the written file if it was tested."""
    found = [score for score in report.scores if "accuracy" in score.metric]
    best = [score for score in found if score.network == "written"] or found
    accuracy = best[0].value if best else None
    return replace(
        report,
        gates=check_gates(
            Gates(max_size_bytes=gates.max_size_bytes, min_accuracy=gates.min_accuracy),
            size_bytes=report.output.size_bytes,
            accuracy=accuracy,
        ),
    )
