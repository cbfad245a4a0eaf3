"""``edgecompress targets list`` and ``edgecompress targets show``."""

from __future__ import annotations

import click

from edgecompress.cli import options


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
