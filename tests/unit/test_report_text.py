"""The text report: fits its width, shows what matters, and lets no name act."""

from __future__ import annotations

import re
from dataclasses import replace

import made_reports as made
import pytest
from hostile_names import HOSTILE_NAMES

from edgecompress.core.layers import Skip
from edgecompress.report.forms import Estimate, Report, render
from edgecompress.report.terminal import Terminal

LONG = "model.features.stage1.block0.conv1.weight_quantized_fused"


def all_reports(name: str) -> list[Report]:
    return [
        made.compression((name, name + "2"), (made.gate(met=False),)),
        made.estimate((made.gate(),), (name, "b")),
        made.evaluation((made.gate(),)),
        made.evaluation(reference=False, labels=False),
        made.inspection(name),
        made.simulation((name, name + "2"), agrees=False, snr_db=31.5),
    ]


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_the_terminal(index: int, width: int) -> None:
    text = render(all_reports(LONG)[index], "text", Terminal(width=width))
    assert max(len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("index", range(6))
def test_very_narrow_terminals_do_not_crash(index: int) -> None:
    text = render(all_reports(LONG)[index], "text", Terminal(width=20))
    assert max(len(line) for line in text.splitlines()) <= 20


def test_every_column_is_there_at_80() -> None:
    text = render(made.compression((LONG,)), "text")
    row = next(line for line in text.splitlines() if line.startswith("model.fea"))
    assert row.endswith("3.12 %")
    assert "fused" in row, "the end of a long name is kept"
    assert "tucker2 8x8, ternary" in row
    text = render(made.estimate(names=(LONG,)), "text")
    header = next(line for line in text.splitlines() if line.startswith("operator"))
    for title in ("cycles", "comp.", "load", "store", "fill", "bound", "util", "bytes"):
        assert title in header


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("index", range(6))
def test_no_name_acts(name: str, index: int) -> None:
    text = render(all_reports(name)[index], "text", Terminal(width=80))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u200b]", text)
    assert not re.search(r"(?m)^\s*::", text)
    assert "##[" not in text
    assert "##vso[" not in text


def test_markup_in_a_name_is_text() -> None:
    text = render(made.inspection("[/foo][bold]x"), "text")
    assert "[/foo][bold]x" in text


def test_colors_only_where_they_are_allowed() -> None:
    report = made.compression(gates=(made.gate(met=False),))
    assert "\x1b[" in render(report, "text", Terminal(color=True))
    assert "\x1b" not in render(report, "text", Terminal(color=False))


def test_ascii_only_where_nothing_else_can_be_shown() -> None:
    for report in all_reports("conv1"):
        assert render(report, "text", Terminal(unicode=False)).isascii()


def test_before_and_after_with_the_number_of_samples() -> None:
    text = render(made.compression(), "text")
    for piece in ("1.09 MB", "142 kB", "7.69x smaller", "92.10 %", "91.60 %", "-0.50 points"):
        assert piece in text
    assert "n = 1,000" in text
    assert "±10 %" in text
    assert "random data" in text


def test_a_reason_of_a_layer_is_told_once() -> None:
    """Both steps left the layer for the same reason, and one of them gave a second."""
    report = made.compression()
    first = replace(made.layer("cell"), reason="a recurrent cell; a recurrent cell is left")
    skips = (Skip("cell", "a recurrent cell", 64),)
    text = render(replace(report, layers=(first,), skips=skips), "text", Terminal(width=80))
    assert text.count("a recurrent cell") == 2
    assert text.count("a recurrent cell is left") == 1


def test_skips_are_grouped_by_reason() -> None:
    text = render(made.compression(), "text")
    assert text.count("grouped convolution") == 1
    assert "packing would cost bytes" in text


def test_many_operators_are_cut_to_the_slowest_unless_asked() -> None:
    names = tuple(f"op{index:02}" for index in range(15))
    latency = made.latency(names=names)
    short = render(Estimate((latency,), per_layer=False), "text")
    assert "the 10 slowest of 15" in short
    assert "op14" in short
    assert "op00" not in short
    everything = render(Estimate((latency,), per_layer=True), "text")
    assert all(name in everything for name in names)
