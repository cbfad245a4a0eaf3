"""``edgecompress decompose``."""

from __future__ import annotations

from typing import Any

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run
from edgecompress.cli.healing import HEAL
from edgecompress.cli.running import run_command


@click.command("decompose")
@options.apply(
    options.MODEL,
    options.OUTPUT,
    options.CALIBRATION,
    options.TARGETS,
    options.DECOMPOSE,
    HEAL,
    options.RULES,
    options.GATE_SIZE,
    options.GATE_LATENCY,
    options.GATE_ACCURACY,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def decompose(run: Run, /, **values: Any) -> None:
    """Replace layers of MODEL by chains of smaller ones.

    Say what may remain by one of --target-macs, --target-params, --target-latency, --param-ratio,
    --energy or --rank. The output is an ordinary ONNX graph in float. With --heal it is trained to
    give what MODEL gives, on data without labels.

    \b
    edgecompress decompose model.onnx -o small.onnx --target-macs 50% --data calibration.npz
    edgecompress decompose model.onnx -o small.onnx --target-macs 30% --data images.npz --heal
    """
    run_command("decompose", values, run)
