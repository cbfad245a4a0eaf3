"""The recipe file: what the user asks for, in strict TOML."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.file_errors import describe_errors
from edgecompress.core.grids import GRIDS
from edgecompress.core.options import (
    DecomposeOptions,
    EnergyRank,
    FixedRanks,
    Gates,
    HealOptions,
    LayerRule,
    ParameterRatio,
    QuantizeOptions,
    RankRule,
    Tolerance,
)
from edgecompress.core.preprocess import Preprocess, read_preprocess
from edgecompress.core.quantities import read_budget, read_share, read_size, read_time
from edgecompress.core.recipe_fields import Name, Rank, Strict, Text
from edgecompress.core.recipe_heal import Heal
from edgecompress.core.recipe_train import KnownNetworks, Train, TrainRecipe

RECIPE_SCHEMA: Final = "edgecompress.recipe/1"
LARGEST_RECIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the user asked for; options of the command line override it.

    Attributes:
        decompose: None: do not decompose.
        quantize: None: do not quantize.
        heal: None: do not train what was decomposed.
        gates: Limits for pipelines.
        preprocess: From stored samples to the model's input; None: nothing.
        seed: Seed of everything random; also in the options.
        targets: Names or paths.
        train: How to train; of no effect on other commands.
    """

    decompose: DecomposeOptions | None = field(default_factory=DecomposeOptions)
    quantize: QuantizeOptions | None = field(default_factory=QuantizeOptions)
    heal: HealOptions | None = None
    gates: Gates = field(default_factory=Gates)
    preprocess: Preprocess | None = None
    seed: int = 0
    targets: tuple[str, ...] = ()
    train: TrainRecipe = field(default_factory=TrainRecipe)


def load_recipe(path: Path, networks: KnownNetworks | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: The file.
        networks: What ``[train]`` may name; None: that is not looked at.

    Raises:
        InputOutputFailed: The file cannot be read.
        ConfigurationInvalid: Not TOML, or not a recipe; all errors are in the message.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_RECIPE_BYTES + 1)
    except OSError as error:
        raise InputOutputFailed(
            f"cannot read the recipe: {error.strerror}", where=str(path)
        ) from error
    if len(content) > LARGEST_RECIPE_BYTES:
        raise ConfigurationInvalid("a recipe has at most 1 MiB", where=str(path))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationInvalid("the recipe is not UTF-8 text", where=str(path)) from None
    return parse_recipe(text, where=str(path), networks=networks)


def parse_recipe(
    text: str, *, where: str = "recipe", networks: KnownNetworks | None = None
) -> Recipe:
    """Read the text of a recipe; arguments as for `load_recipe`.

    Raises:
        ConfigurationInvalid: Not TOML, or not a recipe; all errors are in the message.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationInvalid(f"not valid TOML: {error}", where=where) from None
    try:
        return _RecipeFile.model_validate(content, context=networks).to_recipe()
    except ValidationError as error:
        raise ConfigurationInvalid(describe_errors(error, _RecipeFile), where=where) from None


def _check_grid(bits: str | None, *extra: str) -> str | None:
    names = (*GRIDS, *extra)
    if bits is not None and bits not in names:
        raise ValueError(f"unknown grid {bits!r}; one of {', '.join(names)}")
    return bits


class _Rule(Strict):
    match: Name
    skip: bool = False
    bits: Text | None = None
    format: Name | None = None
    ranks: list[Rank] | None = Field(default=None, min_length=1)

    @field_validator("bits")
    @classmethod
    def _known_grid(cls, bits: str | None) -> str | None:
        return _check_grid(bits)

    @field_validator("match")
    @classmethod
    def _valid_expression(cls, match: str) -> str:
        if match.startswith("re:"):
            try:
                re.compile(match.removeprefix("re:"))
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return match

    def to_rule(self) -> LayerRule:
        return LayerRule(
            match=self.match,
            skip=self.skip,
            bits=self.bits,
            format=self.format,
            ranks=tuple(self.ranks) if self.ranks else None,
        )


class _Decompose(Strict):
    enabled: bool = True
    format: Name = "auto"
    ranks: list[Rank] | None = Field(default=None, min_length=1)
    energy: float | None = Field(default=None, gt=0, le=1)
    tolerance: float | None = Field(default=None, gt=0, le=1)
    ratio: float | None = Field(default=None, gt=0, le=1)
    target_params: Text | None = None
    target_macs: Text | None = None
    target_latency: Text | None = None
    rank_multiple: int = Field(default=0, ge=0)
    minimum_gain: float = Field(default=0.10, ge=0, lt=1)

    @field_validator("target_params", "target_macs", "target_latency")
    @classmethod
    def _valid_budget(cls, text: str | None, info: object) -> str | None:
        if text is not None:
            name: str = getattr(info, "field_name", "")
            read_budget(name.removeprefix("target_"), text)
        return text

    @model_validator(mode="after")
    def _one_rank_rule(self) -> _Decompose:
        names = (
            "ranks",
            "energy",
            "tolerance",
            "ratio",
            "target_params",
            "target_macs",
            "target_latency",
        )
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not {len(given)}")
        return self

    def rank_rule(self) -> RankRule:
        if self.ranks is not None:
            return FixedRanks(tuple(self.ranks))
        if self.energy is not None:
            return EnergyRank(self.energy)
        if self.tolerance is not None:
            return Tolerance(self.tolerance)
        if self.ratio is not None:
            return ParameterRatio(self.ratio)
        for kind in ("params", "macs", "latency"):
            text: str | None = getattr(self, f"target_{kind}")
            if text is not None:
                return read_budget(kind, text)
        return DecomposeOptions().ranks


class _Quantize(Strict):
    enabled: bool = True
    bits: Text = "4"
    method: Name = "hessian"
    per_channel: bool | None = None
    activations: Literal[8] | None = None
    keep_names: bool = False

    @field_validator("bits")
    @classmethod
    def _known_grid(cls, bits: str) -> str | None:
        return _check_grid(bits)


class _Gates(Strict):
    max_size: str | None = None
    max_latency: str | None = None
    max_drop: Text | None = None
    min_accuracy: Text | None = None

    @field_validator("max_size", "max_latency", "max_drop", "min_accuracy")
    @classmethod
    def _valid_limit(cls, text: str | None, info: object) -> str | None:
        readers = {"max_size": read_size, "max_latency": read_time}
        if text is not None:
            readers.get(getattr(info, "field_name", ""), read_share)(text)
        return text

    def to_gates(self) -> Gates:
        return Gates(
            max_size_bytes=read_size(self.max_size) if self.max_size else None,
            max_latency_s=read_time(self.max_latency) if self.max_latency else None,
            max_drop=read_share(self.max_drop) if self.max_drop else None,
            min_accuracy=read_share(self.min_accuracy) if self.min_accuracy else None,
        )


class _RecipeFile(Strict):
    schema_name: Literal["edgecompress.recipe/1"] = Field(default=RECIPE_SCHEMA, alias="schema")
    seed: int = Field(default=0, ge=0)
    targets: list[Name] = Field(default_factory=list)
    preprocess: str | None = None
    decompose: _Decompose = _Decompose()
    quantize: _Quantize = _Quantize()
    heal: Heal | None = None
    train: Train = Train()
    gates: _Gates = _Gates()
    rules: list[_Rule] = Field(default_factory=list)

    @field_validator("preprocess")
    @classmethod
    def _valid_preprocess(cls, text: str | None) -> str | None:
        if text is not None:
            read_preprocess(text)
        return text

    def to_recipe(self) -> Recipe:
        rules = tuple(rule.to_rule() for rule in self.rules)
        decompose = DecomposeOptions(
            format=self.decompose.format,
            ranks=self.decompose.rank_rule(),
            rank_multiple=self.decompose.rank_multiple,
            minimum_gain=self.decompose.minimum_gain,
            rules=rules,
            seed=self.seed,
        )
        quantize = QuantizeOptions(
            bits=self.quantize.bits,
            method=self.quantize.method,
            per_channel=self.quantize.per_channel,
            activations=self.quantize.activations,
            keep_names=self.quantize.keep_names,
            rules=rules,
            seed=self.seed,
        )
        multiple = self.decompose.rank_multiple
        heal = None if self.heal is None else self.heal.to_options(multiple, self.seed)
        return Recipe(
            decompose=decompose if self.decompose.enabled else None,
            quantize=quantize if self.quantize.enabled else None,
            heal=heal,
            gates=self.gates.to_gates(),
            preprocess=read_preprocess(self.preprocess) if self.preprocess else None,
            seed=self.seed,
            targets=tuple(self.targets),
            train=self.train.to_recipe(rules, self.seed),
        )
