"""``edgecompress targets list``, ``show``, ``check`` and ``calibrate``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run


@click.command("list")
@click.option(
    "--output-format",
    type=click.Choice(options.OUTPUT_FORMATS),
    default="text",
    show_default=True,
    help="Form of the list.",
)
def list_command(output_format: str) -> None:
    """All targets that have a name, with the stated error of their cost model."""
    from edgecompress.cli.streams import describe_stdout, write_report
    from edgecompress.hardware.target import list_targets, load_target
    from edgecompress.report.targets import render_targets

    targets = [load_target(name) for name in list_targets()]
    write_report(render_targets(targets, output_format, describe_stdout()))


@click.command("show")
@click.argument("name", metavar="NAME|FILE")
def show_command(name: str) -> None:
    """One target as TOML with units and sources, checked; a start for one's own."""
    from pathlib import Path

    from edgecompress.cli.streams import write_report
    from edgecompress.hardware.target import TARGET_FOLDER, list_targets, load_target

    load_target(name)
    path = TARGET_FOLDER / f"{name}.toml" if name in list_targets() else Path(name)
    write_report(path.read_text(encoding="utf-8"))


@click.command("check")
@options.apply(
    (
        click.argument("names", metavar="NAME|FILE...", nargs=-1, required=True),
        click.option(
            "--strict", is_flag=True, help="Exit 3 if something looks off in a valid file."
        ),
    ),
    options.REPORTING,
)
@click.pass_obj
def check_command(
    run: Run,
    /,
    *,
    names: tuple[str, ...],
    strict: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Whether target files are valid, where their numbers come from, and what looks off.

    Exit code 7 if one is invalid; every problem of every file is named first.

    \b
    edgecompress targets check my.toml
    """
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.publish import check_report_files, publish
    from edgecompress.core.errors import ConfigurationInvalid, GateNotMet
    from edgecompress.pipeline.check_target import check_targets

    set_up_logs(debug=run.debug)
    check_report_files(reports, others=names)
    report = check_targets(names)
    publish(report, reports, output_format)
    invalid = [check.file for check in report.targets if check.problems]
    if invalid:
        raise ConfigurationInvalid(f"invalid: {', '.join(invalid)}", hint="the report says why")
    odd = [check.file for check in report.targets if check.warnings]
    if strict and odd:
        raise GateNotMet(f"odd: {', '.join(odd)}", hint="the report says why")


@click.command("calibrate")
@options.apply(
    (
        click.argument("target", metavar="NAME|FILE"),
        click.option(
            "--measurements",
            metavar="CSV",
            required=True,
            help="Measured times: columns layer (node name) and seconds; rows of one layer are "
            "runs.",
        ),
        click.option(
            "--model", metavar="MODEL", required=True, help="The ONNX file that was measured."
        ),
        click.option("-o", "--output", metavar="FILE", help="Write the calibrated target here."),
        options.READING[0],
    ),
    options.REPORTING,
)
@click.pass_obj
def calibrate_command(
    run: Run,
    /,
    *,
    target: str,
    measurements: str,
    model: str,
    output: str | None,
    input_shapes: tuple[str, ...],
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Fit a target's memory efficiency and its overhead per operator to measured layer times.

    \b
    edgecompress targets calibrate my.toml --measurements times.csv --model small.onnx -o new.toml
    """
    from dataclasses import replace
    from pathlib import Path

    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.publish import check_report_files, check_writable, publish
    from edgecompress.cli.reading import read_input_shapes
    from edgecompress.graph.model import load_model
    from edgecompress.hardware.target import load_target
    from edgecompress.hardware.target_text import target_text
    from edgecompress.pipeline.calibrate import calibrate
    from edgecompress.report.files import write_text

    set_up_logs(debug=run.debug)
    inputs = (target, measurements)
    check_report_files(reports, others=(*inputs, output), models=(model,))
    if output:
        check_writable(output, others=inputs, models=(model,))
    shapes = read_input_shapes(input_shapes)
    base = load_target(target)
    graph = load_model(model, normalize=False, input_shapes=shapes)
    found, report = calibrate(graph, base, measurements, shapes)
    if output:
        named = replace(found, name=Path(output).stem)
        write_text(Path(output), target_text(named, f"{base.name}, calibrated"))
    publish(report, reports, output_format)
