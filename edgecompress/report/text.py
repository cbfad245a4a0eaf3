"""Reports for the terminal: readable at 80 columns, without colours and without a terminal."""

from __future__ import annotations

import io
from typing import assert_never

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from edgecompress.report.names import defuse, elide
from edgecompress.report.page import Bars, Column, Fit, Lines, Page, Plot, Table, Tone
from edgecompress.report.terminal import Terminal

_GAP = 2
_NARROWEST = 4
_STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARNING: "yellow", Tone.BAD: "red"}
_ASCII = str.maketrans(
    {"…": "~", "→": ">", "±": "~", "µ": "u", "×": "x", "•": "-", "─": "-", "╶": "-", "╴": "-"}
)


def render_text(page: Page, terminal: Terminal) -> str:
    """The page as lines of at most the terminal's width."""
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=terminal.width,
        force_terminal=terminal.color,
        color_system="standard" if terminal.color else None,
        no_color=not terminal.color,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    console.print(Text(page.title, style="bold"))
    for section in page.sections:
        match section:
            case Table():
                _print_table(console, section)
            case Lines():
                _print_lines(console, section)
            case Bars() | Plot():
                pass
            case _:
                assert_never(section)
    text = buffer.getvalue()
    text = "".join(line.rstrip(" ") + "\n" for line in text.splitlines())
    return defuse(text if terminal.unicode else text.translate(_ASCII))


def _print_table(console: Console, section: Table) -> None:
    console.print()
    console.print(Text(section.title, style="bold cyan"))
    titled = any(column.title for column in section.columns)
    gap, widths = _fit(section, console.width)
    grid = Grid(
        box=SIMPLE_HEAD if titled else None,
        show_header=titled,
        header_style="dim",
        padding=(0, gap - 1 if titled else gap, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for column, width in zip(section.columns, widths, strict=True):
        grid.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=column.fit is not Fit.WRAP,
            overflow="fold" if column.fit is Fit.WRAP else "crop",
            min_width=width if column.fit is Fit.KEEP else None,
            max_width=width,
        )
    for row in section.rows:
        cells = zip(row, section.columns, widths, strict=True)
        grid.add_row(*(_cell(cell, column, width) for cell, column, width in cells))
    console.print(grid)
    if section.note:
        console.print(Text(section.note, style="dim"))


def _cell(text: str, column: Column, width: int) -> Text:
    shown = elide(text, width) if column.fit is Fit.ELIDE else text
    return Text(shown, style=_STYLES[Tone.BAD] if text == "NOT MET" else "")


def _print_lines(console: Console, section: Lines) -> None:
    console.print()
    console.print(Text(section.title, style="bold cyan"))
    style = _STYLES[section.tone]
    for line in section.lines:
        item: RenderableType = Text(line, style=style, overflow="fold")
        console.print(Padding(item, (0, 0, 0, _GAP)))


def _fit(section: Table, width: int) -> tuple[int, list[int]]:
    """The gap between columns and a width for each, less than it needs where it can give way."""
    needed = [
        max(cell_len(text) for text in (column.title, *(row[index] for row in section.rows)))
        for index, column in enumerate(section.columns)
    ]
    gap = _GAP if sum(needed) + _GAP * (len(needed) - 1) <= width else 1
    flexible = [i for i, column in enumerate(section.columns) if column.fit is not Fit.KEEP]
    left = width - gap * (len(needed) - 1)
    left -= sum(size for index, size in enumerate(needed) if index not in flexible)
    result = list(needed)
    for taken, index in enumerate(sorted(flexible, key=lambda i: needed[i])):
        fair = max(_NARROWEST, left // (len(flexible) - taken))
        result[index] = min(needed[index], fair)
        left -= result[index]
    return gap, result
