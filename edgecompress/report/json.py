"""Reports for machines: the report data as they are, in SI base units, with a schema name.

Every document validates against the schema of that name in ``schemas/``. A number that is not
finite (the signal-to-noise ratio of identical outputs) is ``null``, for JSON has no infinity.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgecompress.core.exploration import (
    CALIBRATION_SCHEMA,
    EXPLORATION_SCHEMA,
    SWEEP_SCHEMA,
    TARGET_CHECK_SCHEMA,
    CalibrationReport,
    ExplorationReport,
    SweepReport,
    TargetCheckReport,
)
from edgecompress.core.report import (
    COMPRESSION_SCHEMA,
    EVALUATION_SCHEMA,
    INSPECTION_SCHEMA,
    LATENCY_SCHEMA,
    CompressionReport,
    EvaluationReport,
    GateResult,
    InspectionReport,
    LatencyReport,
)
from edgecompress.core.rtl import RTL_SCHEMA, RtlReport
from edgecompress.core.simulation import SIMULATION_SCHEMA, SimulationReport
from edgecompress.core.training_report import TRAINING_SCHEMA, TrainingReport
from edgecompress.core.training_step import TRAINING_STEP_SCHEMA, TrainingStepReport


def compression_document(report: CompressionReport) -> dict[str, Any]:
    """A compression report as a JSON object."""
    return _document(COMPRESSION_SCHEMA, asdict(report))


def latency_document(
    reports: Sequence[LatencyReport], gates: Sequence[GateResult]
) -> dict[str, Any]:
    """Latency reports of one model, one per target, as a JSON object."""
    body = {"reports": [asdict(r) for r in reports], "gates": [asdict(gate) for gate in gates]}
    return _document(LATENCY_SCHEMA, body)


def evaluation_document(report: EvaluationReport) -> dict[str, Any]:
    """An evaluation as a JSON object."""
    return _document(EVALUATION_SCHEMA, asdict(report))


def inspection_document(report: InspectionReport) -> dict[str, Any]:
    """An inspection as a JSON object."""
    return _document(INSPECTION_SCHEMA, asdict(report))


def training_document(report: TrainingReport) -> dict[str, Any]:
    """A training run as a JSON object."""
    return _document(TRAINING_SCHEMA, asdict(report))


def simulation_document(report: SimulationReport) -> dict[str, Any]:
    """A simulation as a JSON object."""
    return _document(SIMULATION_SCHEMA, asdict(report))


def rtl_document(report: RtlReport) -> dict[str, Any]:
    """A generated design as a JSON object."""
    return _document(RTL_SCHEMA, asdict(report))


def training_step_document(
    reports: Sequence[TrainingStepReport], gates: Sequence[GateResult]
) -> dict[str, Any]:
    """Training steps of one model, one per target, as a JSON object."""
    body = {"reports": [asdict(r) for r in reports], "gates": [asdict(gate) for gate in gates]}
    return _document(TRAINING_STEP_SCHEMA, body)


def device_document(
    report: ExplorationReport | SweepReport | TargetCheckReport | CalibrationReport,
) -> dict[str, Any]:
    """A report about a device as a JSON object."""
    match report:
        case ExplorationReport():
            schema = EXPLORATION_SCHEMA
        case SweepReport():
            schema = SWEEP_SCHEMA
        case TargetCheckReport():
            schema = TARGET_CHECK_SCHEMA
        case CalibrationReport():
            schema = CALIBRATION_SCHEMA
    return _document(schema, asdict(report))


def render_json(document: Mapping[str, Any]) -> str:
    """The text of a document: ASCII, keys in the order of the schema, a newline at the end."""
    text = json.dumps(document, indent=2, allow_nan=False)
    return text.replace("##", "\\u0023#") + "\n"


def _document(schema: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": schema, **{key: _finite(value) for key, value in body.items()}}


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case str() | int() | None:
            return value
        case _:
            raise TypeError(f"{type(value).__name__} in a report")
