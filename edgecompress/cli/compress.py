"""``edgecompress compress``."""

from __future__ import annotations

from typing import Any

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run
from edgecompress.cli.healing import HEAL
from edgecompress.cli.running import run_command

STEPS = (
    click.option("--decompose/--no-decompose", default=None, help="Default: decompose."),
    click.option("--quantize/--no-quantize", default=None, help="Default: quantize."),
)


@click.command("compress")
@options.apply(
    options.MODEL,
    options.OUTPUT,
    options.CALIBRATION,
    options.TARGETS,
    STEPS,
    options.DECOMPOSE,
    HEAL,
    options.QUANTIZE,
    options.RULES,
    options.GATE_SIZE,
    options.GATE_LATENCY,
    options.GATE_ACCURACY,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def compress(run: Run, /, **values: Any) -> None:
    """Decompose and quantize MODEL, verify the result, and report before and after.

    MODEL is an ONNX file, or a PyTorch file (see --model and --trust-input). Without --data the
    weights alone decide; with it, layers are refitted so that their outputs stay close.

    \b
    edgecompress compress model.onnx -o small.onnx --data calibration.npz
    edgecompress compress model.onnx -o small.onnx --bits ternary --activations 8 \\
        --data images/ --target winocnn-zcu102-w4 --max-drop 1%
    """
    run_command("compress", values, run)
