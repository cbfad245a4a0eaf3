"""JSON schemas of the documents that the commands write, from the dataclasses behind them."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pydantic import TypeAdapter

from edgecompress.core import (
    exploration,
    layers,
    options,
    plan,
    report,
    rtl,
    simulation,
    training_report,
    training_step,
    work,
)

SCHEMAS = {
    "compression-report": (report.COMPRESSION_SCHEMA, report.CompressionReport),
    "latency-report": (report.LATENCY_SCHEMA, report.LatencyReport),
    "training-step-report": (training_step.TRAINING_STEP_SCHEMA, training_step.TrainingStepReport),
    "training-report": (training_report.TRAINING_SCHEMA, training_report.TrainingReport),
    "evaluation-report": (report.EVALUATION_SCHEMA, report.EvaluationReport),
    "simulation-report": (simulation.SIMULATION_SCHEMA, simulation.SimulationReport),
    "rtl-report": (rtl.RTL_SCHEMA, rtl.RtlReport),
    "inspection-report": (report.INSPECTION_SCHEMA, report.InspectionReport),
    "exploration-report": (exploration.EXPLORATION_SCHEMA, exploration.ExplorationReport),
    "sweep-report": (exploration.SWEEP_SCHEMA, exploration.SweepReport),
    "target-check-report": (exploration.TARGET_CHECK_SCHEMA, exploration.TargetCheckReport),
    "calibration-report": (exploration.CALIBRATION_SCHEMA, exploration.CalibrationReport),
    "plan": (plan.PLAN_SCHEMA, plan.Plan),
}
PER_TARGET = {
    "latency-report": "Latency of one model on one target or more.",
    "training-step-report": "A training step of one model on one target or more.",
}
_ENTRY = re.compile(r"^([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)$")


def schema_text(name: str) -> str:
    """The schema file of that name."""
    identifier, kind = SCHEMAS[name]
    body = TypeAdapter(kind).json_schema(mode="serialization")
    definitions: dict[str, Any] = body.pop("$defs", {})
    if name in PER_TARGET:
        definitions[kind.__name__] = body
        gate = TypeAdapter(report.GateResult).json_schema(mode="serialization")
        definitions["GateResult"] = gate
        body = {
            "type": "object",
            "title": f"{kind.__name__}s",
            "description": PER_TARGET[name],
            "properties": {
                "reports": {"type": "array", "items": {"$ref": f"#/$defs/{kind.__name__}"}},
                "gates": {"type": "array", "items": {"$ref": "#/$defs/GateResult"}},
            },
        }
    for part in (body, *definitions.values()):
        _describe(part)
        part["required"] = list(part["properties"])
    body["properties"] = {"schema": {"const": identifier}, **body["properties"]}
    body["required"] = ["schema", *body["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identifier}
    ordered = {name: definitions[name] for name in sorted(definitions)}
    document = _nullable({**head, **body, "$defs": ordered})
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _describe(part: dict[str, Any]) -> None:
    """Descriptions from the docstring of the dataclass that the part was made from."""
    modules = (
        report,
        exploration,
        rtl,
        simulation,
        training_report,
        training_step,
        work,
        layers,
        options,
        plan,
    )
    kinds = [getattr(module, part["title"], None) for module in modules]
    kind = next((found for found in kinds if found is not None), None)
    if kind is None:
        return
    text = inspect.getdoc(kind) or ""
    part["description"] = text.splitlines()[0]
    for name, sentence in _attributes(text).items():
        if name in part["properties"]:
            part["properties"][name]["description"] = sentence
    for value in part["properties"].values():
        value.pop("title", None)
        value.pop("default", None)


def _attributes(text: str) -> dict[str, str]:
    """The section ``Attributes:`` of a docstring, name by name."""
    _, _, section = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(section).splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            found.update(dict.fromkeys(names, entry[2]))
        elif line.startswith(" "):
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        else:
            names = []
    return {name: sentence.replace("``", "`") for name, sentence in found.items()}


def _nullable(part: Any) -> Any:
    """The schema with null allowed for numbers: what is not finite is written as null."""
    if isinstance(part, dict):
        if part.get("type") == "number":
            return {**part, "type": ["number", "null"]}
        if {"type": "null"} in part.get("anyOf", ()):
            return part
        return {key: _nullable(value) for key, value in part.items()}
    return [_nullable(item) for item in part] if isinstance(part, list) else part
