"""``edgecompress estimate-latency``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run


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
    ),
    options.GATE_LATENCY,
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
    max_latency: str | None,
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
    from edgecompress import api
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.publish import check_report_files, publish
    from edgecompress.cli.reading import read_gates, read_input_shapes
    from edgecompress.core.options import Gates
    from edgecompress.pipeline.gates import check_gates
    from edgecompress.report.forms import Estimate

    set_up_logs(debug=run.debug)
    limits = read_gates({"max_latency": max_latency}, Gates())
    shapes = read_input_shapes(input_shapes)
    check_report_files(reports, others=(model, *targets))
    latencies = api.estimate_latency(
        model,
        targets,
        input_shapes=shapes,
        torch_factory=torch_factory,
        trust_input=trust_input,
    )
    slowest = max(latency.latency_s for latency in latencies)
    gates = check_gates(limits, latency_s=slowest)
    publish(Estimate(latencies, gates, per_layer), reports, output_format)
