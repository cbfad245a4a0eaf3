"""Reports as GitHub-flavoured Markdown, for step summaries and pull requests."""

from __future__ import annotations

import re
from typing import assert_never

from edgecompress.report.names import defuse
from edgecompress.report.page import Bars, Lines, Page, Plot, Table

_SPECIAL = re.compile(r"([\\`*_\[\]#+|~$])")
_ROWS_SHOWN = 1000
"""Rows of one table. Source: a GitHub step summary above 1024 KiB is dropped as a whole."""


def render_markdown(page: Page) -> str:
    """The page as Markdown; nothing in a name is read as markup or as HTML."""
    blocks = [f"# {_escape(page.title)}"]
    for section in page.sections:
        match section:
            case Table():
                blocks.append(_table(section))
            case Lines():
                items = "\n".join(f"- {_escape(line)}" for line in section.lines)
                blocks.append(f"## {_escape(section.title)}\n\n{items}")
            case Bars() | Plot():
                pass
            case _:
                assert_never(section)
    return defuse("\n\n".join(blocks) + "\n")


def _table(section: Table) -> str:
    rows = [
        _row([column.title for column in section.columns]),
        "|" + "|".join("---:" if column.right else "---" for column in section.columns) + "|",
        *(_row(row) for row in section.rows[:_ROWS_SHOWN]),
    ]
    text = f"## {_escape(section.title)}\n\n" + "\n".join(rows)
    hidden = len(section.rows) - _ROWS_SHOWN
    if hidden > 0:
        text += f"\n\n{hidden:,} more rows are in the JSON report."
    return f"{text}\n\n{_escape(section.note)}" if section.note else text


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(_escape(cell) or " " for cell in cells) + " |"


def _escape(text: str) -> str:
    """Characters with a meaning in Markdown as themselves, HTML as text."""
    html = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", html)
