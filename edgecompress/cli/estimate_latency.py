"""``edgecompress estimate-latency``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run
from edgecompress.cli.training_step import TRAINING_STEP

if TYPE_CHECKING:
    from edgecompress.core.arrays import Shape
    from edgecompress.core.training_step import Optimizer
    from edgecompress.core.work import AssumedBits


class Reading(TypedDict):
    """How the model is read, whatever is asked of it."""

    input_shapes: Mapping[str, Shape]
    assumed_bits: AssumedBits | None
    torch_factory: str | None
    trust_input: bool


@click.command("estimate-latency")
@options.apply(
    options.MODEL,
    (
        click.option(
            "--target",
            "targets",
            metavar="NAME|FILE",
            multiple=True,
            required=True,
            help="Device, by name (see targets list) or TOML file; repeatable.",
        ),
        click.option(
            "--per-layer",
            is_flag=True,
            help="All operators in graph order on stdout, not the slowest ten.",
        ),
        click.option(
            "--assume-bits",
            metavar="A/W",
            help="Take float activations as A bits and float weights as W, such as 8/4: what the "
            "file will have once it is quantized. Integers keep the width they have. The report "
            "names it; --strict does not count it.",
        ),
    ),
    (
        click.option(
            "--sweep",
            metavar="NAME=VALUES",
            help="Latency over a number of the targets instead: dram.bandwidth=1:20:16 (GB/s, 16 "
            "values), dram_bytes_per_s=1e9:20e9:16log (equal ratios), array_rows=8:64:8.",
        ),
    ),
    TRAINING_STEP,
    options.GATE_LATENCY,
    (
        click.option(
            "--strict",
            is_flag=True,
            help="Exit 3 if anything had to be assumed: an operator without an exact model, an "
            "open batch, activations that the device would have to narrow.",
        ),
    ),
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def estimate_latency(
    run: Run,
    /,
    *,
    model: str,
    targets: tuple[str, ...],
    per_layer: bool,
    assume_bits: str | None,
    sweep: str | None,
    training_step: bool,
    optimizer: Optimizer | None,
    gradient_bits: int | None,
    master_bits: int | None,
    max_latency: str | None,
    strict: bool,
    input_shapes: tuple[str, ...],
    torch_factory: str | None,
    trust_input: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Predict the latency of MODEL on one device or more, operator by operator.

    Bits and packing are read from the file, so a compressed model is costed as it is stored.

    \b
    edgecompress estimate-latency small.onnx --target winocnn-zcu102-w4 --max-latency 2ms
    """
    from edgecompress import device_api
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.publish import check_report_files, publish
    from edgecompress.cli.reading import read_assumed_bits, read_gates, read_input_shapes
    from edgecompress.cli.training_step import read_training_step
    from edgecompress.core.errors import UsageError
    from edgecompress.core.options import Gates
    from edgecompress.pipeline.gates import check_gates, strict_gate
    from edgecompress.report.forms import Estimate, TrainingSteps

    set_up_logs(debug=run.debug)
    limits = read_gates({"max_latency": max_latency}, Gates())
    shapes = read_input_shapes(input_shapes)
    bits = read_assumed_bits(assume_bits)
    step = read_training_step(training_step, optimizer, gradient_bits, master_bits)
    check_report_files(reports, others=targets, models=(model,))
    reading: Reading = {
        "input_shapes": shapes,
        "assumed_bits": bits,
        "torch_factory": torch_factory,
        "trust_input": trust_input,
    }
    if sweep is not None:
        if max_latency or strict or per_layer or step:
            raise UsageError("a sweep has no operators and no limits", where="--sweep")
        publish(device_api.sweep_latency(model, targets, sweep, **reading), reports, output_format)
        return
    if step is not None:
        if per_layer:
            raise UsageError("a training step is shown by phase", where="--per-layer")
        steps = device_api.estimate_training_step(model, targets, step, **reading)
        gates = check_gates(limits, latency_s=max(one.latency_s for one in steps))
        gates = (*gates, strict_gate(steps)) if strict else gates
        publish(TrainingSteps(steps, gates), reports, output_format)
        return
    latencies = device_api.estimate_latency(model, targets, **reading)
    gates = check_gates(limits, latency_s=max(one.latency_s for one in latencies))
    gates = (*gates, strict_gate(latencies)) if strict else gates
    publish(Estimate(latencies, gates, per_layer), reports, output_format)
