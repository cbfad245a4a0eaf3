"""Plans as JSON files: what was decided, replayable to identical bytes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.file_errors import describe_errors
from edgecompress.core.grids import GRIDS
from edgecompress.core.layers import Skip
from edgecompress.core.options import Augmentation, Budget, HealOptions
from edgecompress.core.plan import PLAN_SCHEMA, HealPlan, LayerPlan, Plan

LARGEST_PLAN_BYTES = 64 << 20


def plan_to_json(plan: Plan) -> str:
    """The text of a plan file; the same plan always gives the same text."""
    document = {"schema": PLAN_SCHEMA, **asdict(plan)}
    return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def plan_from_json(text: str, *, where: str = "plan") -> Plan:
    """The plan in the text of a plan file.

    Raises:
        ConfigurationInvalid: Not JSON, another schema or version, an unknown or a missing key, or
            a value that no plan has; all errors are in the message.
    """
    try:
        document = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ConfigurationInvalid(f"not valid JSON: {error}", where=where) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != PLAN_SCHEMA:
        raise ConfigurationInvalid(
            f"the schema is {schema!r}, not {PLAN_SCHEMA!r}",
            where=where,
            hint="a plan is written beside every output, with the same version of the tool",
        )
    try:
        return _PlanFile.model_validate_json(text).to_plan()
    except ValidationError as error:
        raise ConfigurationInvalid(describe_errors(error, _PlanFile), where=where) from None


def load_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        InputOutputFailed: The file cannot be read.
        ConfigurationInvalid: Not a plan.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_PLAN_BYTES + 1)
    except OSError as error:
        message = f"cannot read the plan: {error.strerror}"
        raise InputOutputFailed(message, where=str(path)) from error
    if len(content) > LARGEST_PLAN_BYTES:
        raise ConfigurationInvalid("a plan has at most 64 MiB", where=str(path))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationInvalid("the plan is not UTF-8 text", where=str(path)) from None
    return plan_from_json(text, where=str(path))


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object as a dictionary; a key given twice would hide a value."""
    document: dict[str, object] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"key {key!r} is given twice")
        document[key] = value
    return document


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Skip(_Strict):
    layer: str
    reason: str
    parameters: int = Field(ge=0)


class _Layer(_Strict):
    layer: Annotated[str, Field(min_length=1)]
    step: Literal["decompose", "quantize"]
    format: str
    ranks: list[Annotated[int, Field(ge=1)]]
    grid: str
    method: str
    reason: str

    @field_validator("grid")
    @classmethod
    def _known_grid(cls, grid: str) -> str:
        if grid not in ("", *GRIDS):
            raise ValueError(f"unknown grid {grid!r}; one of {', '.join(GRIDS)}")
        return grid

    def to_plan(self) -> LayerPlan:
        return LayerPlan(
            layer=self.layer,
            step=self.step,
            format=self.format,
            ranks=tuple(self.ranks),
            grid=self.grid,
            method=self.method,
            reason=self.reason,
        )


class _Budget(_Strict):
    kind: Literal["params", "macs"]
    ratio: float | None = Field(gt=0, le=1)
    limit: float | None = Field(gt=0)


class _HealOptions(_Strict):
    epochs: int = Field(ge=1)
    slice_epochs: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    batch: int = Field(ge=1)
    temperature: float = Field(gt=0)
    held_back: float = Field(gt=0, lt=1)
    samples: int | None = Field(ge=2)
    augment: list[Augmentation]
    budget: _Budget | None
    strength: float = Field(ge=0)
    rank_multiple: int = Field(ge=0)
    seed: int = Field(ge=0)

    def to_options(self) -> HealOptions:
        budget = self.budget
        fields = {**dict(self), "augment": tuple(self.augment)}
        fields["budget"] = None if budget is None else Budget(**dict(budget))
        return HealOptions(**fields)


class _Heal(_Strict):
    options: _HealOptions
    data_sha256: str
    made_with: str
    weights_sha256: str

    def to_plan(self) -> HealPlan:
        return HealPlan(
            options=self.options.to_options(),
            data_sha256=self.data_sha256,
            made_with=self.made_with,
            weights_sha256=self.weights_sha256,
        )


class _PlanFile(_Strict):
    schema_name: str = Field(alias="schema")
    input_sha256: str
    data_sha256: str
    calibration: int = Field(ge=1)
    preprocess: str
    target: str
    seed: int = Field(ge=0)
    activations: Literal[8] | None
    per_channel: bool
    keep_names: bool
    layers: list[_Layer]
    skips: list[_Skip]
    heal: _Heal | None = None

    def to_plan(self) -> Plan:
        return Plan(
            input_sha256=self.input_sha256,
            data_sha256=self.data_sha256,
            calibration=self.calibration,
            preprocess=self.preprocess,
            target=self.target,
            seed=self.seed,
            activations=self.activations,
            per_channel=self.per_channel,
            keep_names=self.keep_names,
            layers=tuple(layer.to_plan() for layer in self.layers),
            skips=tuple(Skip(skip.layer, skip.reason, skip.parameters) for skip in self.skips),
            heal=None if self.heal is None else self.heal.to_plan(),
        )
