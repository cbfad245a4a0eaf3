"""Decomposing small models: rules, reasons, budgets, and replaying a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from edgecompress.core.errors import ConfigurationInvalid, Unsupported, UsageError
from edgecompress.core.layers import Layer
from edgecompress.core.options import (
    Budget,
    DecomposeOptions,
    EnergyRank,
    FixedRanks,
    LayerRule,
    ParameterRatio,
    RankRule,
)
from edgecompress.core.plan import LayerPlan
from edgecompress.core.samples import Samples
from edgecompress.core.stages import Conv, Stage
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.save import save_model
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.pipeline.decompose import Pricing, apply_plan, decompose

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[n, 4, 8, 8] x) => (float[n, 12] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  ar = Relu (a)
  d = Conv <pads = [1, 1, 1, 1], group = 16> (ar, wd)
  c = Conv <pads = [1, 0, 1, 2], strides = [2, 2], dilations = [1, 1]> (d, w2, b2)
  cr = Relu (c)
  p = GlobalAveragePool (cr)
  f = Flatten (p)
  y = Gemm <transB = 1> (f, wf, bf)
}
"""
SHAPES = {
    "w1": (16, 4, 3, 3),
    "b1": (16,),
    "wd": (16, 1, 3, 3),
    "w2": (24, 16, 3, 3),
    "b2": (24,),
    "wf": (12, 24),
    "bf": (12,),
}
NAMES = ("first", "depthwise", "second", "last")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    weighted = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    for node, name in zip(weighted, NAMES, strict=True):
        node.name = name
    file = tmp_path_factory.mktemp("decompose") / "net.onnx"
    onnx.save(proto, file)
    return file


@pytest.fixture
def model(path: Path) -> Model:
    return load_model(path)


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.default_rng(1)
    feeds = tuple({"x": rng.normal(size=(16, 4, 8, 8)).astype(np.float32)} for _ in range(4))
    return Samples(feeds=feeds, labels=None, count=64, source="noise", sha256="")


def _options(ranks: RankRule, **settings: object) -> DecomposeOptions:
    base = DecomposeOptions(ranks=ranks, rank_multiple=1, minimum_gain=0.0)
    return replace(base, **settings)  # type: ignore[arg-type]


def _outputs(model: Model, samples: Samples) -> np.ndarray:
    session = open_session(model.to_proto(), optimize=False)
    return np.concatenate([outputs[0] for outputs in run_feeds(session, samples.feeds)])


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("name", ["spatial", "channel", "tucker2", "cp", "svd", "tt"])
@pytest.mark.parametrize("data", [True, False])
def test_full_ranks_keep_the_outputs(name: str, data: bool, model: Model, samples: Samples) -> None:
    reference = _outputs(model, samples)
    options = _options(FixedRanks((10_000,)), format=name, minimum_gain=-1e9)
    plans, _, _ = decompose(model, options, samples if data else None, None)
    assert plans
    assert _relative(_outputs(model, samples), reference) < 1e-4


def test_data_make_it_better(path: Path, samples: Samples) -> None:
    errors = []
    for given in (samples, None):
        model = load_model(path)
        reference = _outputs(model, samples)
        decompose(model, _options(FixedRanks((5,)), format="spatial"), given, None)
        errors.append(_relative(_outputs(model, samples), reference))
    assert errors[0] < 0.8 * errors[1], errors


@pytest.mark.parametrize(
    "ranks", [EnergyRank(0.8), ParameterRatio(0.5), Budget("macs", ratio=0.6), FixedRanks((4,))]
)
def test_results_count_what_is_in_the_graph(
    ranks: RankRule, model: Model, samples: Samples
) -> None:
    total = sum(layer.macs or 0 for layer in model.find_layers().layers)
    plans, results, skips = decompose(model, _options(ranks), samples, None)
    assert [result.name for result in results] == list(NAMES)
    layers = model.find_layers().layers
    assert sum(layer.parameters for layer in layers) == sum(r.parameters_after for r in results)
    macs = sum(layer.macs or 0 for layer in layers)
    assert macs == sum(result.macs_after or 0 for result in results)
    if isinstance(ranks, Budget):
        assert macs <= 0.6 * total
    if isinstance(ranks, ParameterRatio):
        changed = [result for result in results if result.action == "decomposed"]
        assert all(r.parameters_after <= 0.5 * r.parameters_before for r in changed)
    done = {plan.layer for plan in plans}
    assert done | {skip.layer for skip in skips} == set(NAMES)
    assert all(skip.reason for skip in skips)


def test_replaying_the_plan_gives_the_same_bytes(
    path: Path, samples: Samples, tmp_path: Path
) -> None:
    first, second = load_model(path), load_model(path)
    options = _options(Budget("macs", ratio=0.5), seed=3)
    plans, _, _ = decompose(first, options, samples, None)
    apply_plan(second, plans, samples, seed=3)
    save_model(first, tmp_path / "a.onnx")
    save_model(second, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_first_matching_rule_wins(model: Model) -> None:
    rules = (
        LayerRule(match="first", skip=True),
        LayerRule(match="re:sec.*", format="channel", ranks=(3,)),
        LayerRule(match="second", format="tucker2"),
        LayerRule(match="la*", format="none"),
    )
    options = _options(Budget("params", ratio=0.9), rules=rules)
    plans, results, _ = decompose(model, options, None, None)
    assert [(plan.layer, plan.format, plan.ranks) for plan in plans] == [
        ("second", "channel", (3,))
    ]
    reasons = {result.name: result.reason for result in results}
    assert reasons["first"] == reasons["last"] == "left out by a rule"
    assert "depthwise" in reasons["depthwise"]


def test_layer_that_gets_slower_on_the_target_stays_dense(model: Model, samples: Samples) -> None:
    def slow_chains(stages: Sequence[Stage], layer: Layer) -> float:
        """A device on which each convolution takes a second, and more than one 3 % more each."""
        kernels = [stage for stage in stages if isinstance(stage, Conv)]
        return float(len(kernels)) * 1.03 if kernels else 1e-3

    before = _outputs(model, samples)
    options = _options(Budget("macs", ratio=0.5), minimum_gain=0.1, format="spatial")
    plans, results, skips = decompose(
        model, options, samples, Pricing(target="npu", seconds=slow_chains)
    )
    assert plans == []
    reasons = {skip.layer: skip.reason for skip in skips}
    assert "would take 2.00x the time on npu" in reasons["first"]
    assert all(result.action == "kept" for result in results)
    np.testing.assert_array_equal(_outputs(model, samples), before)


def test_what_is_fast_but_wrong_stays_dense(model: Model, samples: Samples) -> None:
    def only_rank_one(stages: Sequence[Stage], layer: Layer) -> float:
        """A device on which a chain pays off at rank 1 only."""
        first = stages[0]
        small = isinstance(first, Conv) and first.weight.shape[0] == 1
        return 0.5 if len(stages) > 1 and small else 1.0

    options = _options(Budget("macs", ratio=0.5), minimum_gain=0.1, format="spatial")
    plans, _, skips = decompose(
        model, options, samples, Pricing(target="npu", seconds=only_rank_one)
    )
    assert plans == []
    assert any("of its output" in skip.reason for skip in skips)


def test_latency_budget_uses_predicted_time(model: Model) -> None:
    def by_weights(stages: Sequence[Stage], layer: Layer) -> float:
        """A device that only pays for weights."""
        return 1e-6 * sum(
            stage.weight.to_dense().size for stage in stages if hasattr(stage, "weight")
        )

    total = sum(layer.parameters for layer in model.find_layers().layers)
    pricing = Pricing(target="npu", seconds=by_weights)
    decompose(model, _options(Budget("latency", limit=1e-6 * 0.6 * total)), None, pricing)
    assert sum(layer.parameters for layer in model.find_layers().layers) <= 0.6 * total


def test_an_open_axis_that_the_weight_knows_is_no_obstacle(tmp_path: Path) -> None:
    """Shape inference often loses the features that enter a classifier; its weight has them."""
    graph = onnx.parser.parse_graph("g (float[n, k] x) => (float[n, 40] y) { y = MatMul(x, w) }")
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 4)) @ rng.standard_normal((4, 40))
    graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), "w"))
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    made.ir_version = 10
    onnx.save(made, tmp_path / "open.onnx")
    model = load_model(tmp_path / "open.onnx")
    assert model.find_layers().layers[0].input_shape == (None, 64)
    plans, _, _ = decompose(model, _options(Budget("macs", ratio=0.5)), None, None)
    assert [plan.step for plan in plans] == ["decompose"]


def test_tight_budget_falls_back_to_any_rank(model: Model) -> None:
    options = DecomposeOptions(ranks=Budget("params", ratio=0.2), minimum_gain=0.0)
    wide = replace(options, rank_multiple=16)
    with pytest.raises(Unsupported, match="set a smaller rank multiple"):
        decompose(model.clone(), wide, None, None)
    total = sum(layer.parameters for layer in model.find_layers().layers)
    decompose(model, options, None, None)
    assert sum(layer.parameters for layer in model.find_layers().layers) <= 0.2 * total


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (_options(Budget("latency", ratio=0.5)), UsageError, "latency budget needs a target"),
        (_options(Budget("macs", ratio=1.5)), UsageError, r"a budget of 1\.5"),
        (_options(Budget("macs", limit=10)), Unsupported, "cannot be met: the least is"),
        (_options(FixedRanks((2,)), format="svdd"), ConfigurationInvalid, "unknown format 'svdd'"),
        (
            _options(FixedRanks((2,)), rules=(LayerRule(match="nothing", skip=True),)),
            ConfigurationInvalid,
            "matches no layer",
        ),
        (
            _options(FixedRanks((2, 3, 4)), format="channel"),
            ConfigurationInvalid,
            "first: 3 ranks given, the format has 1",
        ),
    ],
)
def test_refusals(
    options: DecomposeOptions, error: type[Exception], message: str, model: Model
) -> None:
    with pytest.raises(error, match=message):
        decompose(model, options, None, None)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (("nothing", "svd", (2,)), "a layer 'nothing' that is not in the model"),
        (("depthwise", "spatial", (2,)), "depthwise: the plan says spatial: depthwise"),
        (("second", "channel", (900,)), r"second: the plan's ranks \(900,\) are not between"),
    ],
)
def test_plan_of_another_model(
    plan: tuple[str, str, tuple[int, ...]], message: str, model: Model
) -> None:
    layer, format_, ranks = plan
    step = LayerPlan(layer=layer, step="decompose", format=format_, ranks=ranks)
    with pytest.raises(ConfigurationInvalid, match=message):
        apply_plan(model, [step], None)
