"""``edgecompress schema``."""

from __future__ import annotations

import click

SCHEMAS = (
    "compression-report",
    "latency-report",
    "training-step-report",
    "training-report",
    "evaluation-report",
    "inspection-report",
    "simulation-report",
    "rtl-report",
    "exploration-report",
    "sweep-report",
    "target-check-report",
    "calibration-report",
    "plan",
)


@click.command("schema")
@click.argument("name", type=click.Choice(SCHEMAS))
def schema(name: str) -> None:
    """Print the JSON schema of a report or a plan, by name."""
    from importlib import resources

    from edgecompress.cli.streams import write_report

    folder = resources.files("edgecompress.report") / "schemas"
    write_report((folder / f"{name}.json").read_text(encoding="utf-8"))
