"""Explorations: ranges, fronts, limits, resumption, and prices that are those of an estimate."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_json import validate

from edgecompress.api import decompose
from edgecompress.core.errors import ConfigurationInvalid, Unsupported, UsageError
from edgecompress.core.exploration import DesignPoint
from edgecompress.core.options import DecomposeOptions, FixedRanks
from edgecompress.core.work import ConvWork, MatMulWork, OperatorWork, Work
from edgecompress.graph.model import load_model
from edgecompress.graph.work import derive_work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.families import Batch, BatchFamily, family_named
from edgecompress.hardware.target import (
    TARGET_FOLDER,
    Target,
    list_targets,
    load_target,
    parse_target,
)
from edgecompress.hardware.target_text import Variants, numbers_of, target_text
from edgecompress.pipeline import explore as exploring
from edgecompress.pipeline import explore_refine as refining
from edgecompress.pipeline.check_target import check_target
from edgecompress.pipeline.estimate import estimate_latency
from edgecompress.pipeline.explore import ExploreRequest, explore
from edgecompress.pipeline.explore_buffers import small_buffers
from edgecompress.pipeline.explore_defaults import default_axes
from edgecompress.pipeline.explore_front import pareto_front, pick_rows
from edgecompress.pipeline.explore_pricing import Network, Pricer
from edgecompress.pipeline.explore_ranges import read_axis
from edgecompress.pipeline.explore_space import Limits
from edgecompress.pipeline.explore_state import State
from edgecompress.pipeline.explore_target import explored_target, picked_point
from edgecompress.report.forms import render

WINOCNN = "winocnn-zcu102-w6"
SMALL = ("omega_pixels=4,6", "array_rows=1,2,4", "array_columns=1:2", "batch_images=1,2")


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("array_rows=1:4", "parameters.array_rows", (1, 2, 3, 4)),
        ("parameters.array_rows=8:64:8", "parameters.array_rows", (8, 16, 24, 32, 40, 48, 56, 64)),
        ("array_rows=4,2,4", "parameters.array_rows", (4, 2)),
        ("array_rows=1:3:9", "parameters.array_rows", (1, 2, 3)),
        ("array_rows=1:16:5log", "parameters.array_rows", (1, 2, 4, 8, 16)),
        ("clock=100,250", "clock_hz", (100e6, 250e6)),
        ("dram.bandwidth=1:4:3log", "dram_bytes_per_s", (1e9, 2e9, 4e9)),
        ("dram_efficiency_share=0.5:1:3", "dram_efficiency_share", (0.5, 0.75, 1.0)),
        ("bound_rows_by_output=true,false", "parameters.bound_rows_by_output", (True, False)),
        ("weight_stream.encoding=fixed,entropy", "weight_stream.encoding", ("fixed", "entropy")),
    ],
)
def test_ranges(text: str, path: str, values: tuple[object, ...]) -> None:
    """Truth: by hand."""
    axis = read_axis(text, load_target(WINOCNN), "--vary")
    assert axis.path == path
    assert axis.values == pytest.approx(values) if path != "weight_stream.encoding" else values
    assert [type(value) for value in axis.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("array_rows", "not of the form NAME=VALUES"),
        ("array_rows=", "not of the form NAME=VALUES"),
        ("aray_rows=1:4", "did you mean 'parameters.array_rows'"),
        ("array_rows=4:1", "not a range FROM:TO"),
        ("array_rows=1:2:3:4", "not a range FROM:TO"),
        ("array_rows=1:8:1", "not a count of at least 2"),
        ("array_rows=1:8:2lin", "not a count of at least 2"),
        ("array_rows=1.5", "'1.5' is not a whole number"),
        ("array_rows=a:b", "'a' is not a number"),
        ("array_rows=1:1e9", "at most 10000"),
        ("array_rows=0:8:3log", "equal ratios need numbers above 0"),
        ("clock_hz=1e8:2e8", "needs a count"),
        ("clock_hz=nan", "not a finite number"),
        ("bound_rows_by_output=1", "neither true nor false"),
        ("bound_rows_by_output=0:1", "list the values"),
    ],
)
def test_ranges_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"^--vary: ") as caught:
        read_axis(text, load_target(WINOCNN), "--vary")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", list_targets())
def test_the_text_of_a_target_gives_the_target(name: str) -> None:
    target = load_target(name)
    again = parse_target(target_text(target, "a\ncomment").encode(), where=name)
    assert again == target
    assert again.sources == target.sources


def test_numbers_of_a_target_are_replaced_like_in_its_file() -> None:
    base = load_target(WINOCNN)
    built = Variants(base).build({"parameters.array_rows": 8, "clock_hz": 1e8})
    text = target_text(base, "x").replace("array_rows = 4", "array_rows = 8")
    text = text.replace(f"clock_hz = {base.clock_hz!r}", "clock_hz = 1e8")
    assert built == parse_target(text.encode(), where="x")
    for wrong in ({"parameters.array_rows": 0}, {"clock_hz": -1.0}, {"family": "vpu"}):
        with pytest.raises(ConfigurationInvalid, match=next(iter(wrong)).split(".")[-1]):
            Variants(base).build(wrong)


@given(
    rows=st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40),
)
def test_the_front_is_what_no_other_beats(rows: list[tuple[int, int, int]]) -> None:
    """Truth: the definition, pair by pair."""
    front = pareto_front(np.array(rows, dtype=float).reshape(-1, 3))
    found = [rows[place] for place in front]
    beaten = {
        row
        for row in rows
        for other in rows
        if other != row and all(a <= b for a, b in zip(other, row, strict=True))
    }
    assert found == sorted(set(rows) - beaten)
    assert all(rows.index(rows[place]) == place for place in front)


def test_a_large_front_is_found_in_blocks() -> None:
    """Truth: points of a falling line beat each other nowhere, the shifted ones are all beaten."""
    line = np.arange(1500.0)
    good = np.stack([line, line[::-1]], axis=1)
    assert sorted(pareto_front(np.concatenate([good + 0.5, good]))) == list(range(1500, 3000))


def test_picks() -> None:
    """Truth: by hand; the third is the smallest of those that are as fast as the base.

    Way of the second from the best to the worst of these three: ln(0.6 / 0.5) / ln(0.9 / 0.5) =
    0.31 of the scores and ln(0.5 / 0.4) / ln(0.8 / 0.4) = 0.32 of the shares: 0.45, the ends 1.
    """
    picks = pick_rows([0.5, 0.6, 0.9, 1.2], [0.8, 0.5, 0.4, 0.1], [3.0, 1.0, 2.0, 4.0])
    assert picks == {"latency": 0, "resources": 2, "energy": 1, "balanced": 1}
    assert pick_rows([2.0, 2.4, 3.0], [0.8, 0.5, 0.4], None)["balanced"] == 1
    assert pick_rows([2.0, 3.0], [0.0, 0.0], None)["balanced"] == 0
    assert pick_rows([2.0, 3.0], [0.8, 0.4], None)["resources"] == 1
    assert pick_rows([2.0, 3.0], None, None) == {"latency": 0}


def random_operator(rng: random.Random) -> OperatorWork:
    if rng.random() < 0.25:
        return MatMulWork(
            count=rng.randint(1, 9),
            rows=rng.randint(1, 400),
            inner=rng.randint(1, 900),
            columns=rng.randint(1, 900),
            constant=rng.random() < 0.5,
            weight_bits=8,
            activation_bits=8,
        )
    group, transposed = rng.choice((1, 1, 1, 2, 8)), rng.random() < 0.15
    stride = (rng.choice((1, 2)), rng.choice((1, 2)))
    height, width = rng.randint(1, 300), rng.randint(1, 300)
    grown = (height * stride[0], width * stride[1])
    kept = (max(1, height // stride[0]), max(1, width // stride[1]))
    out = grown if transposed else kept
    return ConvWork(
        batch=rng.randint(1, 3),
        in_channels=group * rng.randint(1, 300),
        out_channels=group * rng.randint(1, 300),
        in_height=height,
        in_width=width,
        out_height=out[0],
        out_width=out[1],
        kernel=(rng.choice((1, 2, 3, 5, 7)), rng.choice((1, 2, 3, 5, 7))),
        stride=stride,
        dilation=rng.choice(((1, 1), (1, 1), (2, 2), (1, 3))),
        pads=(rng.randint(0, 2),) * 4,
        group=group,
        transposed=transposed,
        weight_bits=8,
        activation_bits=8,
    )


def random_array(rng: random.Random) -> dict[str, Any]:
    omega, columns = rng.choice((4, 6)), rng.randint(1, 8)
    numbers = {
        "omega_pixels": omega,
        "array_rows": rng.choice((1, 2, 3, 4, 8, 16)),
        "array_columns": columns,
        "channels_per_element": rng.choice((1, 2, 3, 4, 8)),
        "batch_images": rng.choice((1, 2, 3)),
        "input_bank_words": rng.choice((256, 1024, 4096)),
        "input_bank_columns": rng.choice((8, 16, 32)),
        "weight_buffer_words": rng.choice((64, 512, 1024)),
        "output_buffer_words": rng.choice((8, 64, 512, 1024)),
        "weight_ports": rng.choice((2, 4)),
        "port_bytes_per_cycle": rng.choice((4, 8, 16)),
    }
    values: dict[str, Any] = {f"parameters.{name}": value for name, value in numbers.items()}
    return {
        **values,
        "dram_efficiency_share": rng.choice((0.8, 0.37)),
        "operator_overhead_s": rng.choice((0.0, 1e-6)),
        "weight_stream.weight_bits": rng.choice((7, 8, 16)),
    }


def check_figures(batch: Batch, work: Work, targets: list[Target]) -> None:
    wanted = [cost(work, target) for target in targets]
    seconds, picojoules = batch.figures(work)
    np.testing.assert_allclose(seconds, [one.latency_s for one in wanted], rtol=1e-12)
    energies = [np.nan if one.energy_pj is None else one.energy_pj for one in wanted]
    np.testing.assert_allclose(picojoules, energies, rtol=1e-9)
    assert not np.isnan(picojoules).all()


def without_energy(rng: random.Random, targets: list[Target]) -> list[Target]:
    """One in five states none, the others draw some power all the time or not."""
    found: list[Target] = []
    for target in targets:
        assert target.energy is not None
        static = target.energy.model_copy(update={"static_w": rng.choice((0.0, 1.5))})
        found.append(replace(target, energy=None if rng.random() < 0.2 else static))
    return found


def test_prices_side_by_side_are_those_one_by_one(full: bool) -> None:
    """Truth: `WinoCnn.price`, which is checked against the published design elsewhere."""
    size = 120 if full else 24
    for seed in range(8 if full else 1):
        rng = random.Random(seed)
        variants = Variants(load_target(WINOCNN))
        targets = without_energy(rng, [variants.build(random_array(rng)) for _ in range(size)])
        family = family_named("winocnn")
        assert isinstance(family, BatchFamily)
        batch = family.batch(targets)
        assert batch is not None
        for _ in range(size):
            operator = random_operator(rng)
            work = Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)
            check_figures(batch, work, targets)


@pytest.mark.parametrize("flow", ["ws", "os", "is"])
def test_systolic_prices_side_by_side_are_those_one_by_one(flow: str, full: bool) -> None:
    """Truth: `Systolic.price`, which is checked against a simulator elsewhere."""
    size = 40 if full else 12
    rng = random.Random(flow)
    base = load_target(f"systolic-{flow}-32")
    variants = Variants(base)
    targets = without_energy(rng, [variants.build(random_systolic(rng)) for _ in range(size)])
    family = family_named(base.family)
    assert isinstance(family, BatchFamily)
    batch = family.batch(targets)
    assert batch is not None
    for _ in range(size):
        operator = random_operator(rng)
        work = Work(name="n", op_type="X", operator=operator, input_bits=0, output_bits=0)
        check_figures(batch, work, targets)
        check_figures(batch, work, targets)


def random_systolic(rng: random.Random) -> dict[str, Any]:
    return {
        "parameters.array_rows": rng.choice((1, 4, 8, 13, 32)),
        "parameters.array_columns": rng.choice((1, 4, 8, 24, 32)),
        "parameters.activation_buffer_bytes": rng.choice((64, 1024, 32768, 262144)),
        "parameters.weight_buffer_bytes": rng.choice((64, 1024, 32768, 262144)),
        "parameters.accumulator_words": rng.choice((16, 256, 1024)),
        "dram_efficiency_share": rng.choice((0.9, 0.1)),
        "operator_overhead_s": rng.choice((0.0, 1e-6)),
        "weight_stream.weight_bits": rng.choice((4, 8)),
    }


def test_what_is_not_covered_side_by_side_says_so() -> None:
    base = load_target(WINOCNN)
    family = family_named("winocnn")
    assert isinstance(family, BatchFamily)
    strict = Variants(base).build({"parameters.bound_rows_by_output": True})
    assert family.batch([base, strict]) is None


def request(sample_models: Path, **changes: Any) -> ExploreRequest:
    asked: dict[str, Any] = {
        "models": (str(sample_models / "digits_cnn.onnx"),),
        "target": WINOCNN,
        "vary": SMALL,
        **changes,
    }
    return ExploreRequest(**asked)


def is_beaten(point: DesignPoint, others: list[DesignPoint]) -> bool:
    def figures(one: DesignPoint) -> tuple[float, ...]:
        return (one.score, one.dsp or 0, one.bram18 or 0, one.lut or 0, one.energy_pj or 0.0)

    return any(
        figures(other) != figures(point)
        and all(a <= b for a, b in zip(figures(other), figures(point), strict=True))
        for other in others
    )


@pytest.mark.parametrize("bound", ["false", "true"])
def test_the_points_are_those_of_estimates(bound: str, sample_models: Path) -> None:
    """Truth: every point of the grid as a target file through ``estimate-latency``."""
    vary = (*SMALL, f"bound_rows_by_output={bound}")
    report, space = explore(request(sample_models, vary=vary, part="xczu3eg"))
    model = load_model(sample_models / "digits_cnn.onnx", normalize=False)
    everything = []
    for index in range(space.size):
        values = space.values(index)
        candidate = Variants(space.base).build(
            values | {path: one.value for path, one in space.followed(values).items()}
        )
        used = family_named("winocnn").resources(candidate)
        assert used is not None
        if used.dsp > 360 or used.bram18 > 432 or used.lut > 70_560:
            continue
        estimate = estimate_latency(model, candidate)
        seconds = (estimate.latency_s,)
        point = replace(report.base, values=values, latency_s=seconds, picks=())
        everything.append(
            replace(
                point,
                score=estimate.latency_s / report.base.latency_s[0],
                throughput_per_s=(estimate.throughput_per_s,),
                dsp=used.dsp,
                bram18=used.bram18,
                lut=used.lut,
            )
        )
    assert report.feasible_points == len(everything) > 3
    known = {json.dumps(point.values): point for point in everything}
    for point in report.front:
        wanted = known[json.dumps(point.values)]
        assert point.score == pytest.approx(wanted.score, rel=1e-12)
        assert point.latency_s == pytest.approx(wanted.latency_s, rel=1e-12)
        assert point.throughput_per_s == pytest.approx(wanted.throughput_per_s, rel=1e-12)
        assert (point.dsp, point.bram18, point.lut) == (wanted.dsp, wanted.bram18, wanted.lut)
    slack = [replace(point, score=point.score * (1 + 1e-9)) for point in everything]
    assert not any(is_beaten(point, slack) for point in report.front)
    left = [point for point in everything if not is_beaten(point, everything)]
    assert len({point.score for point in left}) == len({point.score for point in report.front})
    base = estimate_latency(model, space.base)
    assert report.base.latency_s == pytest.approx((base.latency_s,))
    assert report.base.score == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_systolic_points_are_those_of_estimates(name: str, sample_models: Path) -> None:
    path = str(sample_models / f"{name}.onnx")
    vary = ("array_rows=8,32", "weight_buffer_bytes=16384,131072", "dram.bandwidth=2,12.8")
    report, space = explore(
        request(sample_models, models=(path,), target="systolic-os-32", vary=vary)
    )
    model = load_model(path, normalize=False)
    for point in report.front:
        target = explored_target(report, space, point, "x")
        estimate = estimate_latency(model, target)
        assert point.latency_s[0] == pytest.approx(estimate.latency_s, rel=1e-12)


def test_chains_stay_on_chip_as_in_an_estimate(sample_models: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "thin.onnx")
    ranks = DecomposeOptions(format="svd", ranks=FixedRanks((8,)))
    decompose(sample_models / "digits_transformer.onnx", path, ranks)
    vary = ("array_rows=8,32", "activation_buffer_bytes=1024,262144", "dram.bandwidth=0.1,12.8")
    report, space = explore(
        request(sample_models, models=(path,), target="systolic-ws-32", vary=vary)
    )
    model = load_model(path, normalize=False)
    chains = 0
    for index in range(space.size):
        candidate = space.candidate(index)
        assert not isinstance(candidate, str)
        estimate = estimate_latency(model, candidate.target)
        chains += sum(chain.fused for chain in estimate.factored)
        price = Pricer([Network(tuple(derive_work(model, {})))]).price([candidate])
        assert price.latency_s[0, 0] == pytest.approx(estimate.latency_s, rel=1e-12)
    assert chains > 0
    assert report.front


def test_dataflows_are_explored_together() -> None:
    axes = {axis.path: axis.values for axis in default_axes(load_target("systolic-ws-32"))}
    assert {"systolic_ws", "systolic_os"} <= set(axes["family"])
    assert "parameters.array_rows" in axes


def test_several_networks(sample_models: Path) -> None:
    """Truth: scores by hand from the latencies of each network alone."""
    names = ("digits_cnn", "digits_dscnn")
    paths = tuple(str(sample_models / f"{name}.onnx") for name in names)
    vary = ("array_rows=1,2,4",)
    alone = [explore(request(sample_models, models=(path,), vary=vary))[0] for path in paths]
    bases = [report.base.latency_s[0] for report in alone]

    def check(report: Any, joined: Any) -> None:
        for point in report.front:
            ratios = [a / b for a, b in zip(point.latency_s, bases, strict=True)]
            assert point.score == pytest.approx(joined(ratios))

    mean, _ = explore(request(sample_models, models=paths, vary=vary))
    check(mean, lambda ratios: sum(ratios) / 2)
    weighted, _ = explore(request(sample_models, models=paths, vary=vary, weights=(3.0, 1.0)))
    assert weighted.weights == (0.75, 0.25)
    check(weighted, lambda ratios: 0.75 * ratios[0] + 0.25 * ratios[1])
    worst, _ = explore(request(sample_models, models=paths, vary=vary, networks="worst"))
    check(worst, max)


def test_throughput_is_one_over_inferences_a_second(sample_models: Path) -> None:
    """Truth: the definition; the throughput itself is compared with that of an estimate above."""
    vary = ("batch_images=1,2", "array_rows=2,4")
    report, _ = explore(request(sample_models, vary=vary, objective="throughput"))
    for point in report.front:
        ratio = report.base.throughput_per_s[0] / point.throughput_per_s[0]
        assert point.score == pytest.approx(ratio)
    both = [point for point in report.front if point.values["parameters.batch_images"] == 2]
    assert all(point.throughput_per_s[0] > 1.2 / point.latency_s[0] for point in both)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": (1.0, 2.0)}, "2 weights for 1 networks"),
        ({"weights": (0.0,)}, "not all 0"),
        ({"weights": (1.0,), "networks": "worst"}, "mean of the networks only"),
        ({"vary": ("array_rows=1,2", "parameters.array_rows=4")}, "array_rows is varied twice"),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any], said: str, sample_models: Path) -> None:
    with pytest.raises(UsageError, match=said):
        explore(request(sample_models, **changes))


def test_a_family_without_resources_cannot_be_limited(sample_models: Path) -> None:
    vary = ("dram.bandwidth=1:8:4",)
    asked = {"target": "roofline-generic", "vary": vary}
    with pytest.raises(Unsupported, match="family roofline gives no resources"):
        explore(request(sample_models, part="xczu3eg", **asked))
    with pytest.raises(Unsupported, match="family roofline gives no resources"):
        explore(request(sample_models, limits=Limits(dsp=100), **asked))
    report, _ = explore(request(sample_models, **asked))
    assert [point.values["dram_bytes_per_s"] for point in report.front] == [8e9]
    assert any("no estimate of resources" in text for text in report.assumptions)
    with pytest.raises(Unsupported, match="nothing is known to vary of family roofline"):
        explore(request(sample_models, target="roofline-generic", vary=()))


def test_limits_and_what_they_drop(sample_models: Path) -> None:
    limits = Limits(dsp=500, lut=40_000)
    report, _ = explore(request(sample_models, part="xczu9eg", limits=limits))
    assert report.limits["dsp"] == 500
    assert report.limits["bram18"] == 1824
    assert all((point.dsp or 0) <= 500 and (point.lut or 0) <= 40_000 for point in report.front)
    assert report.tried_points == report.grid_points == 2 * 3 * 2 * 2
    assert sum(one.points for one in report.dropped) == report.grid_points - report.feasible_points
    assert any(one.reason == "more than 500 DSP" for one in report.dropped)
    assert any("does not fit the limits itself" in text for text in report.assumptions)
    ports, _ = explore(request(sample_models, limits=Limits(memory_ports=3)))
    assert [one.reason for one in ports.dropped] == ["more than 3 memory ports"]
    assert not ports.front


def test_a_slower_memory_counts(sample_models: Path) -> None:
    """The published ports want 13.7 GB/s; the memory of the part gives 4.264."""
    limits = Limits(memory_port_bits=128)
    report, space = explore(request(sample_models, part="xc7z020", limits=limits))
    assert any("its peak counts" in text for text in report.assumptions)
    target = explored_target(report, space, report.front[0], "x")
    assert target.dram_bytes_per_s == 4.264e9
    free, _ = explore(request(sample_models, limits=Limits(dsp=220, bram18=280, lut=53_200)))
    assert free.front[0].score < report.front[0].score


def test_the_peak_of_the_ports_follows_their_number_and_clock(sample_models: Path) -> None:
    """Truth: by hand; four ports of 16 bytes at 214.29 MHz are the base's 13.7 GB/s."""
    vary = ("port_bytes_per_cycle=8,16", "clock=100,200")
    report, space = explore(request(sample_models, vary=vary, limits=Limits(lut=400_000)))
    point = report.front[0]
    assert point.values == {"parameters.port_bytes_per_cycle": 16, "clock_hz": 200e6}
    target = explored_target(report, space, point, "x")
    assert target.dram_bytes_per_s == pytest.approx(4 * 16 * 200e6)
    assert "all ports at this clock" in dict(target.sources)["dram_bytes_per_s"]


def test_a_stopped_exploration_goes_on(
    sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploring, "CHUNK_POINTS", 5)
    whole, _ = explore(request(sample_models))
    state = tmp_path / "state.jsonl"
    looked_at: list[int] = []
    look_at = exploring._look_at

    def stop(indices: Any, space: Any, pricer: Any) -> Any:
        if len(indices) > 1:
            looked_at.extend(indices)
            if len(looked_at) == 15:
                raise KeyboardInterrupt
        return look_at(indices, space, pricer)

    monkeypatch.setattr(exploring, "_look_at", stop)
    with pytest.raises(KeyboardInterrupt):
        explore(request(sample_models, state=state))
    assert len(state.read_text().splitlines()) == 3
    with state.open("a") as file:
        file.write('{"rows": [[1.0, 2')
    report, _ = explore(request(sample_models, state=state))
    assert report == whole
    assert looked_at[10:15] == looked_at[15:20]
    assert len(looked_at) == 15 + 14
    again, _ = explore(request(sample_models, state=state, objective="throughput"))
    assert len(looked_at) == 15 + 14
    assert again.objective == "throughput"
    with pytest.raises(ConfigurationInvalid, match="the state of another exploration"):
        explore(request(sample_models, state=state, seed=1))
    state.write_text("{}\n")
    with pytest.raises(ConfigurationInvalid, match="not the state of an exploration"):
        explore(request(sample_models, state=state))


def test_a_sample_of_a_large_grid(sample_models: Path) -> None:
    vary = ("array_rows=1:16", "array_columns=1:8", "weight_buffer_words=1:2000", "clock=1:500:400")
    report, space = explore(request(sample_models, vary=vary, points=40))
    assert report.grid_points == 16 * 8 * 2000 * 400
    assert report.tried_points == 40
    assert any("40 points of 102,400,000" in text for text in report.assumptions)
    again, _ = explore(request(sample_models, vary=vary, points=40))
    assert again == report
    other, _ = explore(request(sample_models, vary=vary, points=40, seed=1))
    assert other.front != report.front
    values = [space.values(index) for index in range(0, space.size, space.size // 7)]
    assert len({json.dumps(one) for one in values}) == len(values)


def test_the_target_of_a_point(sample_models: Path, tmp_path: Path) -> None:
    report, space = explore(request(sample_models, part="xczu3eg"))
    point = picked_point(report, "latency")
    assert point == report.front[0]
    target = explored_target(report, space, point, "mine")
    path = tmp_path / "mine.toml"
    path.write_text(target_text(target, "mine"))
    found = load_target(path)
    assert found == target
    sources = dict(found.sources)
    assert sources["parameters.array_rows"].startswith("explored: best for latency")
    assert sources["clock_hz"] == dict(space.base.sources)["clock_hz"]
    assert "model_error" not in sources
    assert found.part == "xczu3eg"
    assert "not validated" in found.model_error_source
    numbers = numbers_of(found)
    assert {path: numbers[path] for path in point.values} == point.values
    check = check_target(str(path))
    assert check.problems == ()
    assert check.sources["explored"] == 4
    model = load_model(sample_models / "digits_cnn.onnx", normalize=False)
    assert estimate_latency(model, found).latency_s == pytest.approx(point.latency_s[0])


def test_no_point_is_picked_for_an_energy_that_is_not_known(
    sample_models: Path, tmp_path: Path
) -> None:
    base = load_target(WINOCNN)
    kept = tuple(pair for pair in base.sources if not pair[0].startswith("energy."))
    path = tmp_path / "silent.toml"
    path.write_text(target_text(replace(base, energy=None, sources=kept), "no energy"))
    report, _ = explore(request(sample_models, target=str(path)))
    assert all(point.energy_pj is None for point in report.front)
    with pytest.raises(UsageError, match="no point can be picked for energy"):
        picked_point(report, "energy")


def test_reports(sample_models: Path) -> None:
    report, _ = explore(request(sample_models, part="xczu3eg"))
    document = validate(render(report, "json"), "exploration-report")
    assert len(document["front"]) == len(report.front)
    assert document["part"] == "xczu3eg"
    for form in ("text", "markdown"):
        text = render(report, form)
        assert "xczu3eg" in text
        assert "Best for" in text
    html = render(report, "html")
    assert html.count("<svg ") == 1
    assert " style=" not in html.split("</style>")[1]
    assert html == render(report, "html")


def test_every_combination_is_visited_once(sample_models: Path) -> None:
    _, space = explore(request(sample_models))
    found = {json.dumps(space.values(index)) for index in range(space.size)}
    wanted = itertools.product((4, 6), (1, 2, 4), (1, 2), (1, 2))
    paths = [f"parameters.{text.split('=')[0]}" for text in SMALL]
    assert found == {json.dumps(dict(zip(paths, one, strict=True))) for one in wanted}


def test_the_committed_rates() -> None:
    """At least 20,000 layer configurations a second on one core, for every family."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "latency"
    content = json.loads((folder / "results" / "explore.json").read_text())
    assert content["command"] == "python benchmarks/latency/explore.py"
    for row in content["results"]:
        assert row["layer_configurations_per_s"] >= 20_000
        rate = row["layer_configurations"] / row["seconds"]
        assert rate == pytest.approx(row["layer_configurations_per_s"], rel=0.03)


def small_array(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """An output-stationary array of 24 x 12, with other changes."""
    text = (TARGET_FOLDER / "systolic-os-32.toml").read_text()
    for before, after in (
        ("array_rows = 32", "array_rows = 24"),
        ("array_columns = 32", "array_columns = 12"),
        *changes,
    ):
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / "my.toml"
    path.write_text(text)
    return str(path)


def test_a_search_goes_between_the_points_of_its_grid(sample_models: Path, tmp_path: Path) -> None:
    """Truth: every shape of the array that fits the part, by `estimate_latency`.

    Of one buffer, so that all of them can be priced; 18 x 20 and 22 x 16 are not in the grid.
    """
    vary = ("array_rows=8:40:5", "array_columns=8:40:5")
    base = small_array(tmp_path, ("activation_buffer_bytes = 262144",) * 2)
    asked = {"target": base, "vary": vary, "part": "xczu3eg"}
    coarse, _ = explore(request(sample_models, refined=0, **asked))
    report, space = explore(request(sample_models, **asked, refined=200))
    model = load_model(sample_models / "digits_cnn.onnx", normalize=False)
    best = min(
        estimate_latency(model, candidate.target).latency_s
        for rows in range(8, 41)
        for columns in range(8, 41)
        if not isinstance(
            candidate := space.settle(
                {"parameters.array_rows": rows, "parameters.array_columns": columns}
            ),
            str,
        )
    )
    assert coarse.refined_points == 0
    assert 0 < report.refined_points <= 200
    assert report.front[0].latency_s[0] == pytest.approx(best)
    assert report.front[0].score < coarse.front[0].score
    looked_at = report.tried_points + report.refined_points
    assert report.feasible_points + sum(one.points for one in report.dropped) == looked_at
    point = report.front[0]
    found = explored_target(report, space, point, "x")
    assert estimate_latency(model, found).latency_s == pytest.approx(point.latency_s[0])
    lists, _ = explore(request(sample_models, **{**asked, "vary": ("array_rows=8,24,40",)}))
    assert lists.refined_points == 0


def test_a_search_beside_the_grid_goes_on(
    sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "ROUND_POINTS", 10)
    asked = {"target": small_array(tmp_path), "part": "xczu3eg", "refined": 60}
    asked["vary"] = ("array_rows=8:40:5", "array_columns=8:40:5")
    whole, _ = explore(request(sample_models, **asked))
    state, said = tmp_path / "state.jsonl", []
    add, rounds = State.add_beside, []

    def stop(self: State, points: Any, found: Any) -> None:
        add(self, points, found)
        rounds.append(points)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "add_beside", stop)
    with pytest.raises(KeyboardInterrupt):
        explore(request(sample_models, **asked, state=state, tell=said.append))
    done = 25 + len(rounds[0]) + len(rounds[1])
    assert said == [f"{done} of at most 85 points are kept in {state}: the same command goes on"]
    report, _ = explore(request(sample_models, **asked, state=state, tell=said.append))
    assert said[1:] == [f"{done} of at most 85 points are in {state}: going on from there"]
    assert report == whole
    priced_once = [point for points in rounds for point in points]
    assert len(set(priced_once)) == len(priced_once) == report.refined_points
    other, _ = explore(request(sample_models, **asked, state=state, objective="throughput"))
    fresh, _ = explore(request(sample_models, **asked, objective="throughput"))
    assert other == fresh


def test_a_pick_at_the_edge_of_its_range_is_named(sample_models: Path, tmp_path: Path) -> None:
    """Not where the limits end it: 16 x 12 take 192 blocks, the next, 20 x 12, 240."""
    asked = {"target": small_array(tmp_path), "vary": ("array_rows=4:16:4",)}
    report, _ = explore(request(sample_models, **asked))
    assert any(
        text.startswith("latency") and "array_rows = 16 is at the edge of its range" in text
        for text in report.edges
    )
    assert "widen it with --vary array_rows=" in render(report, "text").replace("\n  ", " ")
    limited, _ = explore(request(sample_models, **asked, limits=Limits(dsp=200)))
    assert limited.front[0].values == report.front[0].values == {"parameters.array_rows": 16}
    assert not any("array_rows = 16" in text for text in limited.edges)


def test_buffers_that_hold_no_operands_are_dropped(sample_models: Path, tmp_path: Path) -> None:
    """Truth: by hand; 24 x 12 results and a column of 24 inputs take 312 bytes."""
    vary = ("activation_buffer_bytes=311,65536",)
    report, _ = explore(request(sample_models, target=small_array(tmp_path), vary=vary))
    assert report.feasible_points == 1
    assert [(one.reason, one.points) for one in report.dropped] == [
        ("one half of the activation buffer does not hold what the array takes at once", 1)
    ]
    model = load_model(sample_models / "digits_cnn.onnx", normalize=False)
    just = load_target(small_array(tmp_path, ("bytes = 262144", "bytes = 312")))
    assumed = " ".join(one.assumed for one in estimate_latency(model, just).costs)
    kept, _ = explore(
        request(
            sample_models,
            target=small_array(tmp_path),
            vary=("activation_buffer_bytes=312,65536",),
        )
    )
    assert kept.feasible_points == (1 if "taken as if" in assumed else 2)


@pytest.mark.parametrize(
    ("name", "values", "needed"),
    [
        ("systolic-ws-32", {"weight_buffer_bytes": 1023}, 32 * 32),
        ("systolic-is-32", {"activation_buffer_bytes": 1023}, 32 * 32),
        ("systolic-os-32", {"weight_buffer_bytes": 31}, 32),
        ("bitserial-pynq-z1", {"weight_buffer_bytes": 8, "column_units": 8}, 8 * 256 // 8),
        ("tdla-z7020", {"weight_buffer_bytes": 8, "output_lanes": 16}, None),
    ],
)
def test_the_least_that_a_buffer_holds(
    name: str, values: dict[str, int], needed: int | None
) -> None:
    """Truth: by hand; a sound file has no such buffer."""
    base = load_target(name)
    assert not list(small_buffers(numbers_of(base)))
    changed = Variants(base).build({f"parameters.{path}": one for path, one in values.items()})
    [(path, least)] = small_buffers(numbers_of(changed))
    assert path == f"parameters.{next(iter(values))}"
    assert needed is None or least == needed
    enough = Variants(changed).build({path: least})
    assert not list(small_buffers(numbers_of(enough)))


def test_other_names_are_suggested_where_the_target_has_the_number() -> None:
    with pytest.raises(UsageError) as caught:
        read_axis("dram.bandwith=1:4:3", load_target(WINOCNN), "--sweep")
    assert "did you mean 'dram.bandwidth'" in str(caught.value)
