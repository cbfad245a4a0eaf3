"""Sizes, times, shares, budgets and preprocessing as people write them."""

from __future__ import annotations

import pytest

from edgecompress.core.errors import UsageError
from edgecompress.core.options import Budget, Gates
from edgecompress.core.preprocess import read_preprocess
from edgecompress.core.quantities import read_budget, read_share, read_size, read_time
from edgecompress.core.report import Fidelity
from edgecompress.pipeline.gates import check_gates, parse_latency, parse_share, parse_size
from edgecompress.pipeline.preprocess import parse_preprocess


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("250KiB", 256000), ("100kB", 100000), ("1.5 MB", 1500000), ("2GiB", 2**31)],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("5ms", 0.005), ("1e2us", 1e-4), ("3µs", 3e-6), ("2 s", 2), ("7ns", 7e-9)]
)
def test_times(text: str, seconds: float) -> None:
    assert read_time(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "share"), [("0.5%", 0.005), ("0.005", 0.005), ("100%", 1), ("0", 0), ("1", 1)]
)
def test_shares(text: str, share: float) -> None:
    assert read_share(text) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "text", "budget"),
    [
        ("params", "50%", Budget("params", ratio=0.5)),
        ("macs", "0.3", Budget("macs", ratio=0.3)),
        ("macs", "1", Budget("macs", ratio=1.0)),
        ("macs", "40M", Budget("macs", limit=40e6)),
        ("params", "200000", Budget("params", limit=200000)),
        ("latency", "2ms", Budget("latency", limit=0.002)),
    ],
)
def test_budgets(kind: str, text: str, budget: Budget) -> None:
    assert read_budget(kind, text) == budget


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (parse_size, "250", "--max-size: '250': a unit is missing; units are B, kB, MB"),
        (parse_size, "250KB", "unknown unit 'KB'"),
        (parse_size, "250kib", "unknown unit 'kib'"),
        (parse_size, "-1KiB", "is not a size; write it as 250KiB"),
        (parse_size, "0kB", "is not a positive size"),
        (parse_size, "1e999kB", "is not a positive size"),
        (parse_size, "nan", "is not a size"),
        (parse_latency, "5", "--max-latency: '5': a unit is missing; units are s, ms, us"),
        (parse_latency, "5 min", "unknown unit 'min'"),
        (parse_latency, "", "is not a time; write it as 5ms"),
    ],
)
def test_mistakes(read, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", "--max-drop: '5' is not between 0 and 1 (0% and 100%)"),
        ("101%", "is not between 0 and 1"),
        ("half", "is not a share; write it as 0.5% or 0.005"),
        ("5ms", "is not a share"),
    ],
)
def test_shares_that_are_none(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_share(text, option="--max-drop")
    assert words in str(caught.value)


def test_budgets_that_are_none() -> None:
    for kind, text, words in (
        ("macs", "x", "neither a share"),
        ("macs", "0%", "leaves nothing"),
        ("latency", "5", "a unit is missing"),
        ("macs", "5ms", "unknown unit 'ms'"),
    ):
        with pytest.raises(ValueError, match=words):
            read_budget(kind, text)


def test_preprocess() -> None:
    full = read_preprocess("scale=1/255, mean=0.485:0.456:0.406, std=0.2:0.2:0.2, layout=nhwc")
    assert full.scale == pytest.approx(1 / 255)
    assert full.mean == (0.485, 0.456, 0.406)
    assert full.std == (0.2, 0.2, 0.2)
    assert full.layout == ("nhwc", "nchw")
    assert read_preprocess("layout=nchw").layout == ("nchw", "nhwc")
    assert read_preprocess("layout=nth->nht").layout == ("nth", "nht")
    assert read_preprocess("reshape=1:28:28").reshape == (1, 28, 28)
    assert parse_preprocess(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not of the form key=value"),
        ("scale", "'scale' is not of the form key=value"),
        ("scal=1", "unknown key 'scal'; keys are scale, mean, std, layout, reshape"),
        ("scale=1,scale=2", "scale is given twice"),
        ("scale=1/0", "scale=1/0: not a number or a fraction"),
        ("scale=inf", "scale=inf: not a finite number"),
        ("scale=0", "scale and std must not be 0"),
        ("std=1:0:1", "scale and std must not be 0"),
        ("mean=1:2,std=1:2:3", "mean has 2 values and std has 3"),
        ("layout=nhwc->nchx", "write the axes of the data and of the model"),
        ("layout=hwc->chw", "both sides start with the batch axis n"),
        ("layout=rgb", "write the axes of the data and of the model"),
        ("reshape=1:-1", "reshape=1:-1: write the sizes of one sample"),
    ],
)
def test_preprocess_mistakes(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_preprocess(text)
    assert str(caught.value).startswith("--preprocess: ")
    assert words in str(caught.value)


CLOSE = Fidelity(
    samples=10, relative_l2=0.1, sqnr_db=20, top1_agreement=0.97, accuracy=0.9,
    reference_accuracy=0.91,
)  # fmt: skip
UNLABELLED = Fidelity(samples=10, relative_l2=0.1, sqnr_db=20, top1_agreement=0.97)


def test_gates_are_held_against_what_was_found() -> None:
    gates = Gates(max_size_bytes=100, max_latency_s=0.01, max_drop=0.02, min_accuracy=0.95)
    results = check_gates(gates, size_bytes=100, latency_s=0.011, fidelity=CLOSE)
    assert [(r.name, r.met, r.unit) for r in results] == [
        ("max-size", True, "bytes"),
        ("max-latency", False, "s"),
        ("max-drop", True, "share"),
        ("min-accuracy", False, "share"),
    ]
    assert results[2].value == pytest.approx(0.01)
    (agreement,) = check_gates(Gates(max_drop=0.02), fidelity=UNLABELLED)
    assert agreement.value == pytest.approx(0.03)
    assert not agreement.met
    assert check_gates(Gates()) == ()


def test_a_drop_needs_scores() -> None:
    """A regression model was compared, but there is no largest score that could have changed."""
    compared = Fidelity(samples=9, relative_l2=0.1, sqnr_db=20.0, top1_agreement=None)
    with pytest.raises(UsageError, match=r"--max-drop is set.*needs a model that gives scores"):
        check_gates(Gates(max_drop=0.5), fidelity=compared)


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        (Gates(max_latency_s=1), "--max-latency is set, but nothing to check it on .*--target"),
        (Gates(min_accuracy=0.5), "--min-accuracy is set.*data with labels: --data"),
        (Gates(max_drop=0.5), "--max-drop is set.*data and a reference"),
        (Gates(max_size_bytes=5), "--max-size is set.*a written model"),
    ],
)
def test_a_gate_that_cannot_be_checked(gates: Gates, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_gates(gates)
