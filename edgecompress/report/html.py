"""Reports as one HTML file: no scripts, nothing loaded, charts as inline SVG."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from edgecompress.report.names import elide
from edgecompress.report.page import Bar, Bars, Lines, Page, Plot, Table

_ROW = 22
_WIDEST_NAME = 250
_LETTER_WIDTH = 7.5
_CHART_WIDTH = 560
_LABEL_WIDTH = 90
_NAME_LETTERS = 36

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #d8dee6;
  --paper: #ffffff; --band: #f5f7fa; --bar: #1f77b4; --ghost: #c9d2dc; --good: #1a7f37;
  --warning: #9a6700; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #343b46;
  --paper: #14181f; --band: #1b212a; --bar: #5aa9e6; --ghost: #3b4552; --good: #4cc26a;
  --warning: #e0b040; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.45rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.right { text-align: right; white-space: nowrap; }
.keep { white-space: nowrap; }
.name { min-width: 11rem; }
tbody tr:nth-child(even) { background: var(--band); }
.note { color: var(--soft); margin: .4rem 0; }
li { overflow-wrap: anywhere; }
.good li { color: var(--good); } .warning li { color: var(--warning); } .bad { color: var(--bad); }
svg { max-width: 100%; min-width: 38rem; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .bar { fill: var(--bar); } svg .ghost { fill: var(--ghost); }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .8rem; }
  th, td { padding-right: .6rem; } .name { min-width: 8rem; } ul { padding-left: 1.4rem; } }
"""

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src '{{ style_hash }}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ page.title }}</h1>
{%- for kind, section in sections %}
<section>
<h2>{{ section.title }}</h2>
{%- if kind == "table" %}
<div class="scroll"><table>
{%- if section.columns | selectattr("title") | list %}
<thead><tr>{% for column in section.columns -%}
<th{% if column.right %} class="right"{% endif %}>{{ column.title }}</th>
{%- endfor %}</tr></thead>
{%- endif %}
<tbody>
{%- for row in section.rows %}
<tr>{% for cell in row -%}
<td class="{{ 'right' if section.columns[loop.index0].right else
 'name' if section.columns[loop.index0].fit.value != 'keep' else 'keep' }}
{{- ' bad' if cell == 'NOT MET' else '' }}">{{ cell }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- if section.note %}<p class="note">{{ section.note }}</p>{% endif %}
{%- elif kind == "lines" %}
<ul class="{{ section.tone.value }}">
{%- for line in section.lines %}
<li>{{ line }}</li>
{%- endfor %}
</ul>
{%- elif kind == "plot" %}
<div class="scroll">{{ section.svg }}</div>
{%- else %}
<div class="scroll"><svg viewBox="0 0 {{ section.width }} {{ section.height }}" \
width="{{ section.width }}" \
height="{{ section.height }}" role="img" aria-label="{{ section.title }}">
{%- for row in section.rows %}
<text x="{{ section.name_width - 8 }}" y="{{ row.top + 15 }}" \
text-anchor="end">{{ row.name }}</text>
{%- if row.ghost is not none %}
<rect class="ghost" x="{{ section.name_width }}" y="{{ row.top + 3 }}" width="{{ row.ghost }}" \
height="16"/>
{%- endif %}
<rect class="bar" x="{{ section.name_width }}" y="{{ row.top + 5 }}" width="{{ row.bar }}" \
height="12"/>
<text x="{{ row.label_at }}" y="{{ row.top + 15 }}">{{ row.label }}</text>
{%- endfor %}
</svg></div>
{%- endif %}
</section>
{%- endfor %}
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class _BarRow:
    name: str
    label: str
    top: int
    bar: float
    ghost: float | None
    label_at: float


@dataclass(frozen=True, slots=True)
class _Chart:
    title: str
    width: int
    height: int
    name_width: int
    rows: tuple[_BarRow, ...]


@dataclass(frozen=True, slots=True)
class _Drawing:
    title: str
    svg: Markup


def render_html(page: Page) -> str:
    """The page as one self-contained HTML document; every text in it is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return environment.from_string(_TEMPLATE).render(
        page=page,
        sections=[_section(section) for section in page.sections],
        style=Markup(_STYLE),
        style_hash=Markup(f"sha256-{digest}"),
    )


def _section(
    section: Table | Lines | Bars | Plot,
) -> tuple[str, Table | Lines | _Chart | _Drawing]:
    match section:
        case Table():
            return "table", section
        case Lines():
            return "lines", section
        case Bars():
            return "chart", _chart(section)
        case Plot():
            from edgecompress.report.plots import draw_svg

            return "plot", _Drawing(section.title, Markup(draw_svg(section)))


def _chart(section: Bars) -> _Chart:
    longest = max(max(bar.value, bar.before or 0.0) for bar in section.bars) or 1.0
    letters = max(len(elide(bar.name, _NAME_LETTERS)) for bar in section.bars)
    names = min(_WIDEST_NAME, round(letters * _LETTER_WIDTH) + 8)
    rows = tuple(_bar(bar, index, longest, names) for index, bar in enumerate(section.bars))
    width = names + _CHART_WIDTH + _LABEL_WIDTH
    return _Chart(section.title, width, _ROW * len(rows), names, rows)


def _bar(bar: Bar, index: int, longest: float, names: int) -> _BarRow:
    length = round(_CHART_WIDTH * bar.value / longest, 2)
    ghost = None if bar.before is None else round(_CHART_WIDTH * bar.before / longest, 2)
    return _BarRow(
        name=elide(bar.name, _NAME_LETTERS),
        label=bar.label,
        top=index * _ROW,
        bar=length,
        ghost=ghost,
        label_at=names + max(length, ghost or 0.0) + 6,
    )
