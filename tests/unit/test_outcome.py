"""Joining the results of the two steps, and turning a plan back into options."""

from __future__ import annotations

import pytest

from edgecompress.core.options import Budget, EnergyRank
from edgecompress.core.plan import LayerPlan, Plan
from edgecompress.core.report import LayerResult
from edgecompress.pipeline.layer_rules import rule_for
from edgecompress.pipeline.outcome import merge_results
from edgecompress.pipeline.replay import quantize_options
from edgecompress.pipeline.transform import missed_budget


def _result(name: str, action: str, bits: int, **more: object) -> LayerResult:
    fields: dict[str, object] = {
        "name": name,
        "action": action,
        "parameters_before": 10,
        "parameters_after": 10,
        "storage_bits_after": bits,
    }
    return LayerResult(**(fields | more))  # type: ignore[arg-type]


def test_factors_are_gathered_under_their_layer() -> None:
    decomposed = [
        _result("a", "decomposed", 320, format="spatial", ranks=(4,), relative_error=0.1),
        _result("b", "kept", 320, reason="depthwise"),
    ]
    quantized = [
        _result("a/0", "quantized", 20, grid="ternary", method="hessian", relative_error=0.3),
        _result("a/1", "quantized", 30, grid="4", method="hessian", relative_error=0.2),
        _result("b", "quantized", 40, grid="4", method="hessian", relative_error=0.05),
    ]
    first, second = merge_results(decomposed, quantized, {"a/0": "a", "a/1": "a"})
    assert (first.action, first.format, first.ranks) == ("decomposed+quantized", "spatial", (4,))
    assert (first.grid, first.method) == ("ternary+4", "hessian")
    assert first.storage_bits_after == 50
    assert first.relative_error == pytest.approx(0.2)
    assert (second.action, second.reason) == ("quantized", "depthwise")
    assert second.storage_bits_after == 40


def test_a_factor_that_stays_float_says_why() -> None:
    decomposed = [_result("a", "decomposed", 320)]
    quantized = [
        _result("a/0", "kept", 160, reason="too small"),
        _result("a/1", "quantized", 40, grid="4", method="hessian"),
    ]
    (merged,) = merge_results(decomposed, quantized, {"a/0": "a", "a/1": "a"})
    assert merged.storage_bits_after == 200
    assert merged.reason == "too small"


def test_one_step_alone_passes_through() -> None:
    only = [_result("a", "quantized", 5)]
    assert merge_results([], only, {}) == tuple(only)
    assert merge_results(only, [], {}) == tuple(only)


def test_a_plan_gives_each_layer_its_own_grid_and_skips_the_rest() -> None:
    names = ["conv[1]", "conv*"]
    plan = Plan(
        input_sha256="0" * 64,
        data_sha256="",
        calibration=256,
        preprocess="",
        target="",
        seed=3,
        activations=None,
        per_channel=True,
        keep_names=True,
        layers=(
            LayerPlan(layer="other", step="decompose", format="svd", ranks=(2,)),
            LayerPlan(layer=names[0], step="quantize", grid="ternary", method="vecq"),
            LayerPlan(layer=names[1], step="quantize", grid="8", method="vecq"),
        ),
        skips=(),
    )
    options = quantize_options(plan)
    grids = [rule_for([name], options.rules) for name in (*names, "conv1", "other")]
    assert [rule.bits if rule else None for rule in grids] == ["ternary", "8", None, None]
    assert [rule.skip if rule else None for rule in grids] == [False, False, True, True]
    assert (options.method, options.seed, options.keep_names) == ("vecq", 3, True)


def test_a_budget_that_is_out_of_reach_is_told() -> None:
    results = [
        _result("a", "decomposed", 320, parameters_after=5, macs_before=1000, macs_after=400),
        _result("b", "kept", 320, macs_before=1000, macs_after=1000),
    ]
    (said,) = missed_budget(Budget("macs", ratio=0.5), results)
    assert said.startswith("the budget was 1,000 multiply-accumulates, 1,400 are left")
    (said,) = missed_budget(Budget("params", limit=12), results)
    assert said.startswith("the budget was 12 parameters, 15 are left")
    assert missed_budget(Budget("macs", ratio=0.7), results) == []
    assert missed_budget(Budget("latency", ratio=0.1), results) == []
    assert missed_budget(EnergyRank(0.9), results) == []
