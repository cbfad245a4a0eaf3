"""``edgecompress inspect``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run


@click.command("inspect")
@options.apply(options.MODEL, options.READING, options.REPORTING)
@click.pass_obj
def inspect(
    run: Run,
    /,
    *,
    model: str,
    input_shapes: tuple[str, ...],
    torch_factory: str | None,
    trust_input: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Layers of MODEL with shapes, multiply-accumulates, bytes and bits, as the file has them."""
    from edgecompress import api
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.publish import check_report_files, publish
    from edgecompress.cli.reading import read_input_shapes

    set_up_logs(debug=run.debug)
    shapes = read_input_shapes(input_shapes)
    check_report_files(reports, others=(), models=(model,))
    report = api.inspect(
        model, input_shapes=shapes, torch_factory=torch_factory, trust_input=trust_input
    )
    publish(report, reports, output_format)
