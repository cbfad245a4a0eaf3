"""``edgecompress targets``."""

from __future__ import annotations

import click

from edgecompress.cli.lazy import LazyGroup

COMMANDS = {
    "list": ("edgecompress.cli.target_commands:list_command", "All targets that have a name."),
    "show": (
        "edgecompress.cli.target_commands:show_command",
        "One target as TOML, to read or to start one's own from.",
    ),
    "check": (
        "edgecompress.cli.target_commands:check_command",
        "Whether target files are valid, and what looks off.",
    ),
    "calibrate": (
        "edgecompress.cli.target_commands:calibrate_command",
        "Fit a target to measured times of layers.",
    ),
}


@click.pass_context
def _targets(context: click.Context) -> None:
    """Devices that latency can be predicted for, as numbers with units and sources."""


targets = LazyGroup(COMMANDS, name="targets", callback=_targets, help=_targets.__doc__)
