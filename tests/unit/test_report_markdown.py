"""The Markdown report: tables stay tables whatever a name contains."""

from __future__ import annotations

import re

import made_reports as made
import pytest
from hostile_names import HOSTILE_NAMES

from edgecompress.report.forms import Estimate, render


def cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row)[1:-1]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_rows_have_as_many_cells_as_the_header(name: str) -> None:
    text = render(made.compression((name,)), "markdown")
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or len(cells(line))
        assert len(cells(line)) == width, line


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_is_markup_or_html(name: str) -> None:
    text = render(made.inspection(name), "markdown")
    assert "<" not in text
    assert not re.search(r"(?<!\\)[`*]", text.replace("- ", ""))
    assert not re.search(r"(?m)^\s*::", text)
    assert "##[" not in text
    assert "##vso[" not in text


def test_figures_are_in_the_table() -> None:
    text = render(made.compression(gates=(made.gate(met=False),)), "markdown")
    assert "| file size | 1.09 MB | 142 kB | 7.69x smaller |" in text
    assert "| max-size | 100,000 bytes | 142,300 bytes | NOT MET |" in text


def test_stays_below_the_limit_of_a_step_summary() -> None:
    names = tuple(f"model.layer{index}.convolution.weight" for index in range(20_000))
    text = render(Estimate((made.latency(names=names),)), "markdown")
    assert len(text.encode()) < 900_000
    assert "more rows are in the JSON report" in text
