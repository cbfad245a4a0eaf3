"""The program: runs a command and turns what went wrong into a sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import click

from edgecompress import __version__
from edgecompress.cli.lazy import LazyGroup
from edgecompress.cli.streams import discard, open_missing_streams, say, say_raw
from edgecompress.core.errors import (
    EdgeCompressError,
    InputOutputFailed,
    ResourceLimit,
    UsageError,
)

COMMANDS = {
    "compress": (
        "edgecompress.cli.compress:compress",
        "Decompose, quantize, verify and report, in one go.",
    ),
    "decompose": (
        "edgecompress.cli.decompose:decompose",
        "Replace layers by products of smaller ones.",
    ),
    "quantize": (
        "edgecompress.cli.quantize:quantize",
        "Store weights in 8, 4, 3, 2 bits or as ternary.",
    ),
    "train": (
        "edgecompress.cli.train:train",
        "Train a network of tensor factors, and write it as ONNX.",
    ),
    "estimate-latency": (
        "edgecompress.cli.estimate_latency:estimate_latency",
        "Predict the latency of a model on a device.",
    ),
    "explore": (
        "edgecompress.cli.explore:explore",
        "Search the configurations of an accelerator for the best ones.",
    ),
    "simulate": (
        "edgecompress.cli.simulate:simulate",
        "Run a quantized model on the simulated array of a device.",
    ),
    "rtl": (
        "edgecompress.cli.rtl:rtl",
        "Generate Verilog of a device's array, with a test bench that checks itself.",
    ),
    "evaluate": (
        "edgecompress.cli.evaluate:evaluate",
        "Accuracy or fidelity on data, of one model or of two.",
    ),
    "inspect": ("edgecompress.cli.inspect:inspect", "Show what is in a model."),
    "targets": ("edgecompress.cli.targets:targets", "Devices that latency can be predicted for."),
    "schema": ("edgecompress.cli.schema:schema", "Print the JSON schema of a report."),
}
PROGRAM = "edgecompress"
BUG = 1


@dataclass(slots=True)
class Run:
    """What the options say about the run as a whole.

    Attributes:
        debug: Errors of the user keep their traceback as well.
        quiet: No progress.
    """

    debug: bool = False
    quiet: bool = False


class Interrupted(BaseException):
    """A signal asked the program to stop; unwinding removes temporary files.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def _program(context: click.Context) -> None:
    """Make neural networks small and fast for edge devices, and predict how fast they run there.

    stdout is the report; progress and errors go to stderr. Exit codes are in docs/exit-codes.md.
    """


program = LazyGroup(
    COMMANDS,
    name=PROGRAM,
    callback=_program,
    help=_program.__doc__,
    params=list(reversed(getattr(_program, "__click_params__", []))),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    open_missing_streams()
    run = Run()
    # Read when NumPy is loaded, later. Sums over threads round differently, so the written bytes
    # would depend on the number of cores; for our small products one thread is also faster.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        with _signals():
            program.main(args=arguments, prog_name=PROGRAM, standalone_mode=False, obj=run)
    except (SystemExit, Interrupted, Exception) as failure:  # noqa: BLE001 - nothing passes here
        return _exit_code(failure, run)
    return 0


def _exit_code(failure: BaseException, run: Run) -> int:
    """Say what went wrong, on stderr, and give the code for it."""
    code = BUG
    match failure:
        case SystemExit(__context__=BrokenPipeError()):
            discard(sys.stdout)
            code = 0
        case SystemExit(code=int(number)):
            code = number
        case Interrupted(number=number):
            say(f"interrupted by {failure}")
            code = 128 + number
        case click.ClickException():
            code = _report_usage(failure)
        case EdgeCompressError() | OSError() | MemoryError():
            if run.debug:
                _show_traceback(failure)
            code = _report_failure(_as_ours(failure))
        case _:
            kind = type(failure).__name__
            say(f"error: a bug in {PROGRAM} {__version__}: {kind}: {failure}")
            _show_traceback(failure)
    return code


@contextmanager
def _signals() -> Iterator[None]:
    """Turn signals into an exception; those that our parent ignores stay ignored."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    watched = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in watched}
    wanted = [number for number, handler in before.items() if handler != signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for other in wanted:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in wanted:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, before[number])


def _as_ours(failure: EdgeCompressError | OSError | MemoryError) -> EdgeCompressError:
    match failure:
        case EdgeCompressError():
            return failure
        case OSError():
            discard(sys.stdout)
            return InputOutputFailed(
                failure.strerror or str(failure) or type(failure).__name__,
                where=str(failure.filename or ""),
            )
        case MemoryError():
            return ResourceLimit("out of memory", hint=str(failure))


def _report_usage(failure: click.ClickException) -> int:
    if isinstance(failure, click.exceptions.NoArgsIsHelpError):
        say_raw(failure.format_message() + "\n")
        return failure.exit_code
    context = getattr(failure, "ctx", None)
    path = context.command_path if context else PROGRAM
    return _report_failure(
        UsageError(failure.format_message().rstrip("."), hint=f"see {path} --help")
    )


def _report_failure(failure: EdgeCompressError) -> int:
    place = f"{failure.where}: " if failure.where else ""
    say("error: " + "\n  ".join((place + failure.message).splitlines()))
    if failure.hint:
        say("hint: " + "\n  ".join(failure.hint.splitlines()))
    return failure.exit_code


def _show_traceback(failure: BaseException) -> None:
    import traceback

    say("".join(traceback.format_exception(failure)))
