"""The report of a training run: its page, its plots, its schema, and what is in its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import made_reports as made
import pytest
from hostile_names import HOSTILE_NAMES

import edgecompress.report
from edgecompress.cli.training_progress import fitted, time_left
from edgecompress.core.training_report import MemoryRow, MemoryTable
from edgecompress.pipeline.train_memory import memory_factors
from edgecompress.report.forms import page_of, render
from edgecompress.report.page import Plot

SCHEMA = Path(edgecompress.report.__file__).parent / "schemas" / "training-report.json"


def plots(report) -> dict[str, Plot]:
    return {s.title: s for s in page_of(report).sections if isinstance(s, Plot)}


@pytest.mark.parametrize(
    "report",
    [
        made.training(gates=(made.gate(),)),
        made.training(labels=False, precise=False),
        replace(made.training(), memory=(), history=(), stored=(), layers=()),
    ],
)
def test_documents_validate(report) -> None:
    document = json.loads(render(report, "json"))
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(document, published, cls=jsonschema.Draft202012Validator)
    assert document["schema"] == "edgecompress.training-report/1"
    assert list(document)[1:] == list(published["required"])[1:]
    for form in ("text", "markdown", "html"):
        assert "mlp → small.onnx" in render(report, form).replace("-&gt;", "→").replace("\\", "")


def test_text_is_readable_at_80_columns() -> None:
    text = render(made.training(gates=(made.gate(met=False),)), "text")
    assert max(map(len, text.splitlines())) <= 80
    # 407,050 / 13,400 = 30.376..., and 32 * 407,050 / (4.2 * 13,400) = 231.4...
    assert "30.4x fewer" in text
    assert "231x smaller" in text
    assert "20x16x8 → 3x16x8" in text
    assert "classification; 30 of 40 epochs" in text
    assert "10 more epochs are in the JSON report" in text
    assert "NOT MET" in text


def test_the_table_of_memory_is_that_of_the_batch() -> None:
    text = render(made.training(), "text")
    assert "Memory of a training step of 64 samples" in text
    assert "Memory of a training step of 16 samples" not in text
    over = text.split("Memory of a training step over the batch")[1].split("total:")[0]
    assert [line.split()[0] for line in over.splitlines()[3:] if line.strip()] == ["1", "16", "64"]


def test_plots_show_losses_ranks_and_memory() -> None:
    report = made.training()
    shown = plots(report)
    losses = {series.label: series for series in shown["Loss"].series}
    assert losses["training"].x == tuple(float(n) for n in range(1, 31))
    assert losses["validation"].y[0] == report.history[0].validation_loss
    ranks = shown["Ranks while it trained"].series
    assert [series.label for series in ranks] == ["1", "3"]
    # Ranks of the first epoch: 19, 16 and 8.
    assert ranks[0].y[0] == 43.0
    assert {s.label for s in shown["Parameters while it trained"].series} == {"trained", "target"}
    peak = shown["Peak memory of a training step over the batch"]
    assert peak.series[0].x == (1.0, 16.0, 64.0)


def test_the_same_report_is_the_same_page() -> None:
    assert render(made.training(), "html") == render(made.training(), "html")
    assert render(made.training(), "html").count("<svg ") == 4


def test_without_held_back_samples_there_is_no_empty_column() -> None:
    text = render(made.training(labels=False), "text")
    assert "validation" not in text.split("Epochs")[1].splitlines()[1]
    assert "validation" not in {s.label for s in plots(made.training(labels=False))["Loss"].series}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_stay_text(name: str) -> None:
    report = made.training(names=(name,))
    undrawn = replace(report, history=(), memory=())
    assert "<script" not in render(undrawn, "html")
    for line in render(report, "text").splitlines():
        assert not line.lstrip().startswith("::")
        assert line.isprintable() or not line


def test_hostile_names_in_plots_stay_text() -> None:
    page = render(made.training(names=("</svg><script>$x^{$",)), "html")
    assert page.count("<svg ") == 4
    assert "<script" not in page


def test_which_part_saves_what_multiplies_up() -> None:
    (table,) = (one for one in made.training().memory if one.batch == 16)
    parts = list(memory_factors(1000, 100, 50, 50 * 4.0, table))
    by_part = {one.part: one.factor for one in parts}
    assert by_part["tensor factors"] == 10
    assert by_part["ranks that fell"] == 2
    assert by_part["numbers of few bits"] == 8
    assert by_part["together"] == 160
    assert [one.of for one in parts if one.part == "a training step"] == [
        "parameters, gradients and optimizer state",
        "activations, batch 16",
        "all of these, batch 16",
    ]


def test_parts_that_save_nothing_are_not_listed() -> None:
    none: MemoryTable | None = None
    parts = [one.part for one in memory_factors(1000, 100, 100, 3200.0, none)]
    assert parts == ["tensor factors", "together"]


def test_progress_fits_beside_a_bar_at_80_columns() -> None:
    parts = ["1:02:03 left", "loss 0.412/0.398", "13.4k params", "ranks 2-16", "1.2 MB"]
    assert fitted(parts, 100) == ", ".join(parts)
    narrow = fitted(parts, 51)
    assert len(narrow) <= 51
    assert narrow == "1:02:03 0.412/0.398 13.4k params ranks 2-16 1.2 MB"
    assert fitted(parts, 21) == "1:02:03 0.412/0.398"
    assert time_left(59.6) == "1:00 left"
    assert time_left(3723) == "1:02:03 left"


def test_a_target_below_which_training_began_is_not_called_reached() -> None:
    report = made.training()
    assert "already" not in render(report, "text")
    below = replace(report, parameters_start=13_500)
    assert "already at the start" in render(below, "text")
    missed = replace(report, parameters_end=13_569, parameters_start=13_569)
    assert "not reached" in render(missed, "text")


def test_seconds_say_what_took_them() -> None:
    # 30 epochs of 2.5 s; the whole command took 81.3 s.
    words = " ".join(render(made.training(), "text").split())
    assert "30 of 40 epochs in 75.0 s on cpu; weights of epoch 27" in words
    assert "the whole command took 81.3 s" in words
    assert "time so far: since training began" in words
    resumed = " ".join(render(replace(made.training(), resumed_at=3), "text").split())
    assert "in 75.0 s, earlier parts included, on cpu" in resumed


def test_less_says_what_is_compared() -> None:
    narrow = " ".join(render(made.training(), "text").split())
    assert "less: dense over in few bits; of the peak" in narrow
    assert "the trained network, its activations not rounded, differ by" in narrow
    wide = " ".join(render(made.training(precise=False), "text").split())
    assert "less: dense over trained" in wide
    assert "less: dense over in few bits" not in wide


def test_buffers_are_named_where_there_are_some() -> None:
    rows = tuple(
        MemoryRow(name=name, dense_bytes=64.0, ours_bytes=16.0, factor=4.0)
        for name in ("parameters", "buffers", "model")
    )
    parts = list(memory_factors(100, 10, 10, 320.0, MemoryTable(batch=2, rows=rows)))
    assert parts[-1].of == "parameters, buffers, gradients and optimizer state"
