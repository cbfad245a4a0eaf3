"""Plots as SVG text that can stand inside a page: the same bytes for the same numbers.

matplotlib is imported when a plot is drawn. Its style attributes become presentation attributes,
so that a page whose policy forbids inline styles shows the plot as well.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any, cast

from edgecompress.report.names import elide, plain
from edgecompress.report.page import Plot, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_SETTINGS = {
    "svg.hashsalt": "edgecompress",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e7ec",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#667085",
    "axes.axisbelow": True,
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],
    "path.simplify": False,
}
_COLORS = ("#1f77b4", "#d95f02", "#2a8f5b", "#8e5bb5", "#a6761d", "#c2316b", "#4d4d4d")
_PALE = "#c4ccd6"
_SIZE_INCHES = (7.4, 4.2)
_LONGEST_LABEL = 60
_BEYOND_FONT = "\u0250"
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
_STYLE_ATTRIBUTE = re.compile(r' style="([^"]*)"')
_STYLE_ELEMENT = re.compile(r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL)
_NOTES = re.compile(r"\s*<metadata>.*?</metadata>|\s*<!--.*?-->", re.DOTALL)


def draw_svg(plot: Plot) -> str:
    """The plot as one ``svg`` element, without a date, scripts, styles or anything to load."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(cast(Any, _SETTINGS)):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        strong = 0
        for series in plot.series:
            _draw(axes, series, _COLORS[strong % len(_COLORS)] if series.strong else _PALE)
            strong += series.strong
        axes.set_xlabel(_label(plot.x_label))
        axes.set_ylabel(_label(plot.y_label))
        if plot.log_x:
            axes.set_xscale("log")
            _label_ratios(axes.xaxis)
        elif plot.whole_x:
            axes.locator_params(axis="x", integer=True)
        if plot.log_y:
            axes.set_yscale("log")
            _label_ratios(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        if any(_label(series.label) for series in plot.series):
            axes.legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return _embedded(buffer.getvalue(), plot.title)


def _label_ratios(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(text: str) -> str:
    """Text that the font has the letters of, short enough to leave room for the plot."""
    shown = elide(plain(text), _LONGEST_LABEL)
    return "".join(letter if letter < _BEYOND_FONT or letter == "…" else "?" for letter in shown)


def _draw(axes: Axes, series: Series, color: str) -> None:
    axes.plot(
        series.x,
        series.y,
        color=color,
        label=_label(series.label) or "_nolegend_",
        linestyle="-" if series.line else "none",
        linewidth=1.6,
        marker="o",
        markersize=4.0 if series.strong else 2.2,
        markeredgewidth=0,
        zorder=3 if series.strong else 2,
    )


def _embedded(document: str, title: str) -> str:
    """The element alone, styles as attributes, with a name for those who cannot see it."""
    start = document.index("<svg ")
    text = _NOTES.sub("", _STYLE_ELEMENT.sub("", document[start:]))
    text = _STYLE_ATTRIBUTE.sub(_attributes, text)
    label = f'role="img" stroke-linejoin="round" aria-label="{escape(title)}" '
    return "<svg " + label + text.removeprefix("<svg ").rstrip() + "\n"


def _attributes(match: re.Match[str]) -> str:
    """`` fill="none"`` from `` style="fill: none"``."""
    pairs = (part.partition(":") for part in match[1].split(";") if part.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in pairs)
