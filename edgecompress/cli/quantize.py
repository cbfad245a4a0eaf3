"""``edgecompress quantize``."""

from __future__ import annotations

from typing import Any

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run
from edgecompress.cli.running import run_command


@click.command("quantize")
@options.apply(
    options.MODEL,
    options.OUTPUT,
    options.CALIBRATION,
    options.TARGETS,
    options.QUANTIZE,
    options.RULES,
    options.GATE_SIZE,
    options.GATE_LATENCY,
    options.GATE_ACCURACY,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def quantize(run: Run, /, **values: Any) -> None:
    """Store the weights of MODEL in few bits.

    Output runs in stock onnxruntime; weights are packed in the file and unpacked when it is
    loaded. Below 3 bits give --data: without it accuracy drops.

    \b
    edgecompress quantize model.onnx -o small.onnx --bits 3 --data calibration.npz
    """
    run_command("quantize", values, run)
