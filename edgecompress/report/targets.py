"""The list of targets."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgecompress.hardware.target import Target
from edgecompress.report import figures
from edgecompress.report.markdown import render_markdown
from edgecompress.report.page import Column, Fit, page, table
from edgecompress.report.terminal import Terminal
from edgecompress.report.text import render_text


def render_targets(targets: Sequence[Target], form: str, terminal: Terminal) -> str:
    """The targets as ``text``, ``markdown`` or ``json``."""
    if form == "json":
        facts = [
            {
                "name": target.name,
                "family": target.family,
                "description": target.description,
                "source": target.source,
                "clock_hz": target.clock_hz,
                "model_error": target.model_error,
            }
            for target in targets
        ]
        return json.dumps(facts, indent=2, allow_nan=False) + "\n"
    columns = (
        Column("name"),
        Column("clock", right=True),
        Column("error", right=True),
        Column("what it is", fit=Fit.WRAP),
    )
    rows = (
        (
            target.name,
            f"{target.clock_hz / 1e6:g} MHz",
            "unknown" if target.model_error is None else f"±{figures.share(target.model_error, 0)}",
            target.description,
        )
        for target in targets
    )
    note = "error: stated error of the cost model; targets show NAME has all numbers and sources"
    listing = page("Targets", (table("By name", columns, rows, note),))
    return render_markdown(listing) if form == "markdown" else render_text(listing, terminal)
