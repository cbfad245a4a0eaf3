"""Plan files: exact round trips, and nothing unknown is accepted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.grids import GRIDS
from edgecompress.core.layers import Skip
from edgecompress.core.options import Budget, HealOptions
from edgecompress.core.plan import HealPlan, LayerPlan, Plan
from edgecompress.pipeline.plan_file import load_plan, plan_from_json, plan_to_json

LAYERS = st.builds(
    LayerPlan,
    layer=st.text(min_size=1),
    step=st.sampled_from(["decompose", "quantize"]),
    format=st.text(),
    ranks=st.lists(st.integers(1, 10**6)).map(tuple),
    grid=st.sampled_from(["", *GRIDS]),
    method=st.text(),
    reason=st.text(),
)
POSITIVE = st.floats(1e-6, 100.0)
BUDGETS = st.builds(
    Budget,
    st.sampled_from(["params", "macs"]),
    ratio=st.none() | st.floats(0.01, 1.0),
    limit=st.none() | POSITIVE,
)
HEALS = st.builds(
    HealPlan,
    options=st.builds(
        HealOptions,
        epochs=st.integers(1, 100),
        slice_epochs=st.integers(0, 9),
        learning_rate=POSITIVE,
        batch=st.integers(1, 999),
        temperature=POSITIVE,
        held_back=st.floats(0.01, 0.99),
        samples=st.none() | st.integers(2, 10**6),
        augment=st.lists(st.sampled_from(["flip", "crop", "mix"]), max_size=3).map(tuple),
        budget=st.none() | BUDGETS,
        strength=POSITIVE,
        rank_multiple=st.integers(0, 64),
        seed=st.integers(0, 2**63),
    ),
    data_sha256=st.text(),
    made_with=st.text(),
    weights_sha256=st.text(),
)
PLANS = st.builds(
    Plan,
    input_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    data_sha256=st.text(),
    calibration=st.integers(1, 10**6),
    preprocess=st.text(),
    target=st.text(),
    seed=st.integers(0, 2**63),
    activations=st.sampled_from([None, 8]),
    per_channel=st.booleans(),
    keep_names=st.booleans(),
    layers=st.lists(LAYERS, max_size=3).map(tuple),
    skips=st.lists(st.builds(Skip, st.text(), st.text(), st.integers(0, 10**9)), max_size=3).map(
        tuple
    ),
    heal=st.none() | HEALS,
)
PLAN = Plan(
    input_sha256="ab" * 32,
    data_sha256="",
    calibration=256,
    preprocess="",
    target="systolic-ws-32",
    seed=0,
    activations=8,
    per_channel=True,
    keep_names=False,
    layers=(LayerPlan(layer="conv1", step="decompose", format="spatial", ranks=(16,)),),
    skips=(Skip("fc", "too small", 640),),
)


@given(PLANS)
def test_round_trip(plan: Plan) -> None:
    text = plan_to_json(plan)
    assert plan_from_json(text) == plan
    assert plan_to_json(plan_from_json(text)) == text
    assert text.isascii()


def changed(**keys: object) -> str:
    return json.dumps(json.loads(plan_to_json(PLAN)) | keys)


def without(key: str) -> str:
    document = json.loads(plan_to_json(PLAN))
    del document[key]
    return json.dumps(document)


LAYER = json.loads(plan_to_json(PLAN))["layers"][0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("[" * 100000, "not valid JSON"),
        ('{"seed": 1, "seed": 2}', "key 'seed' is given twice"),
        ("[]", "the schema is None, not 'edgecompress.plan/1'"),
        (changed(schema="edgecompress.plan/2"), "the schema is 'edgecompress.plan/2', not"),
        (changed(sede=1), "sede: unknown key; did you mean 'seed'?"),
        (without("seed"), "seed: missing"),
        (changed(seed="1"), "seed: should be a valid integer, not '1'"),
        (changed(activations=4), "activations: should be 8, not 4"),
        (
            changed(layers=[LAYER | {"rank": 1}]),
            "layers[0].rank: unknown key; did you mean 'ranks'",
        ),
        (changed(layers=[LAYER | {"ranks": [0]}]), "layers[0].ranks[0]: should be greater than"),
        (changed(layers=[LAYER | {"step": "prune"}]), "layers[0].step: should be 'decompose' or"),
        (changed(layers=[LAYER | {"grid": "5"}]), "layers[0].grid: unknown grid '5'"),
        (
            changed(skips=[{"layer": "a"}]),
            "2 errors: skips[0].reason: missing; skips[0].parameters",
        ),
    ],
)
def test_each_mistake_is_told(text: str, words: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        plan_from_json(text, where="plan.json")
    assert str(caught.value).startswith("plan.json: ")
    assert words in str(caught.value)


def test_files(tmp_path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(InputOutputFailed, match="cannot read the plan: No such file"):
        load_plan(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationInvalid, match="not UTF-8"):
        load_plan(path)
    path.write_text(plan_to_json(PLAN))
    assert load_plan(path) == PLAN
