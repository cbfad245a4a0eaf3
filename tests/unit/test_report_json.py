"""JSON reports validate against the published schemas and keep their numbers as they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import made_reports as made
import pytest
from hostile_names import HOSTILE_NAMES

import edgecompress.report
from edgecompress.core.layers import Skip
from edgecompress.core.plan import LayerPlan, Plan
from edgecompress.pipeline.plan_file import plan_to_json
from edgecompress.report.forms import Report, document_of, render

SCHEMAS = Path(edgecompress.report.__file__).parent / "schemas"


def strict(part: Any) -> Any:
    """The schema with no property allowed that it does not name."""
    if isinstance(part, dict):
        closed = {key: strict(value) for key, value in part.items()}
        return {**closed, "additionalProperties": False} if "required" in part else closed
    return [strict(item) for item in part] if isinstance(part, list) else part


def validate(text: str, schema: str) -> Any:
    document = json.loads(text)
    published = json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(document, strict(published), cls=jsonschema.Draft202012Validator)
    return document


REPORTS: list[tuple[Report, str]] = [
    (made.compression(gates=(made.gate(),)), "compression-report"),
    (made.compression(labels=False), "compression-report"),
    (replace(made.compression(), output=None, verification=None), "compression-report"),
    (made.estimate((made.gate(met=False),)), "latency-report"),
    (made.evaluation((made.gate(),)), "evaluation-report"),
    (made.evaluation(reference=False, labels=False), "evaluation-report"),
    (made.inspection(), "inspection-report"),
    (made.simulation(), "simulation-report"),
    (made.simulation(agrees=False, snr_db=31.5), "simulation-report"),
]


@pytest.mark.parametrize("index", range(len(REPORTS)))
def test_documents_validate(index: int) -> None:
    report, schema = REPORTS[index]
    document = validate(render(report, "json"), schema)
    assert document["schema"] == f"edgecompress.{schema}/1"


def test_the_schema_refuses_what_is_wrong() -> None:
    document = document_of(made.compression())
    document["layers"][0]["parameters_after"] = "832"
    with pytest.raises(jsonschema.ValidationError):
        validate(json.dumps(document), "compression-report")


def test_plans_validate() -> None:
    plan = Plan(
        input_sha256="0" * 64,
        data_sha256="",
        calibration=256,
        preprocess="",
        target="",
        seed=0,
        activations=None,
        per_channel=True,
        keep_names=False,
        layers=(LayerPlan(layer="a", step="decompose", format="svd", ranks=(4,)),),
        skips=(Skip("b", "grouped", 10),),
    )
    assert validate(plan_to_json(plan), "plan")["layers"][0]["ranks"] == [4]


def test_numbers_are_not_rounded() -> None:
    report = made.latency()
    document = json.loads(render(made.estimate(), "json"))
    assert document["reports"][1]["costs"][0]["latency_s"] == report.costs[0].latency_s


def test_what_is_not_finite_is_null() -> None:
    report = made.evaluation()
    assert report.fidelity is not None
    identical = replace(report, fidelity=replace(report.fidelity, sqnr_db=math.inf))
    document = validate(render(identical, "json"), "evaluation-report")
    assert document["fidelity"]["sqnr_db"] is None


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_kept_and_cannot_act(name: str) -> None:
    text = render(made.compression((name,)), "json")
    assert text.isascii()
    assert "##[" not in text
    assert "##vso[" not in text
    assert json.loads(text)["layers"][0]["name"] == name
