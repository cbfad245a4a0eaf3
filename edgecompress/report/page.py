"""What the renderers for people share: a report as titled tables, lists and bars of plain text.

Every string in a page has passed through `plain`, so a renderer only has to escape for its own
syntax.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from edgecompress.report.names import plain


class Fit(Enum):
    """What gives way when a column does not fit."""

    KEEP = "keep"
    ELIDE = "elide"
    WRAP = "wrap"


class Tone(Enum):
    """How a section should strike the reader."""

    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading; may be empty.
        right: Numbers are aligned right.
        fit: What gives way when the table is too wide.
    """

    title: str
    right: bool = False
    fit: Fit = Fit.KEEP


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        title: Heading of the section.
        columns: As many as every row has cells.
        rows: Plain text.
        note: A line below the table, or empty.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """A list of sentences.

    Attributes:
        title: Heading of the section.
        lines: Plain text, one sentence or more each.
        tone: How they should strike the reader.
    """

    title: str
    lines: tuple[str, ...]
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, or a pair.

    Attributes:
        name: What it stands for.
        value: Length, at least 0.
        label: The value as text.
        before: Length of the bar behind it; None if there is none.
    """

    name: str
    value: float
    label: str
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart; only renderers that can draw show it, its figures are in a table as well."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of a plot that belong together.

    Attributes:
        label: For the legend; may be empty.
        x, y: Equally many.
        line: Joined by a line; else dots.
        strong: In front; else pale, behind the others.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    line: bool = True
    strong: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing of numbers; only renderers that can draw show it, a table has the figures as well.

    Attributes:
        title: Heading of the section.
        x_label, y_label: What the axes stand for, with units.
        series: In the order of the legend.
        log_x, log_y: Logarithmic axes; all numbers on them are above 0.
        whole_x: The horizontal axis counts something: no fractions on it.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    whole_x: bool = False


Section = Table | Lines | Bars | Plot


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes:
        title: One line.
        sections: In reading order; empty ones have been left out.
    """

    title: str
    sections: tuple[Section, ...]


def table(
    title: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], note: str = ""
) -> Table:
    """A table whose cells are made plain."""
    clean = tuple(tuple(plain(cell) for cell in row) for row in rows)
    return Table(title, tuple(columns), clean, plain(note))


def lines(title: str, texts: Iterable[str], tone: Tone = Tone.PLAIN) -> Lines:
    """A list whose sentences are made plain, repeated ones shown once."""
    return Lines(title, tuple(dict.fromkeys(plain(text) for text in texts)), tone)


def page(title: str, sections: Iterable[Section]) -> Page:
    """A page without its empty sections."""
    return Page(plain(title), tuple(section for section in sections if not _empty(section)))


def _empty(section: Section) -> bool:
    match section:
        case Table(rows=rows):
            return not rows
        case Lines(lines=texts):
            return not texts
        case Bars(bars=bars):
            return not bars
        case Plot(series=series):
            return not any(one.x for one in series)
