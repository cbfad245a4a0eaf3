"""The tables ``[train]`` of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgecompress.core.options import Budget, FixedRanks, LayerRule, ParameterRatio
from edgecompress.core.quantities import read_budget, read_share
from edgecompress.core.recipe_fields import Name, Rank, Strict, Text
from edgecompress.core.training import (
    AdaptationOptions,
    Inference,
    PrecisionOptions,
    Prior,
    Rounding,
    TensorizeOptions,
    TrainingOptimizer,
    TrainOptions,
)

Choice = int | float | bool | str | tuple[int, ...]
"""What an architecture can be told."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNetworks:
    """Which networks a recipe may name, so that a wrong name is told with all other errors.

    Attributes:
        names: Of the architectures.
        choices: Settings that an architecture takes, by its name.
        chosen: Name that goes over the recipe's; None: the recipe says which.
        settings_used: Whether ``[train.network]`` has any effect.
    """

    names: tuple[str, ...]
    choices: Callable[[str], tuple[str, ...]]
    chosen: str | None = None
    settings_used: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """What a recipe says about training.

    Attributes:
        arch: Name of an architecture; None: said on the command line.
        choices: Its own settings, such as ``hidden``, by name.
        options: All but what is only known with the network.
        target_params: What may remain of the network's parameters; None: no target.
    """

    arch: str | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)
    options: TrainOptions = field(default_factory=TrainOptions)
    target_params: Budget | None = None


class Tensorize(Strict):
    """``[train.tensorize]``."""

    format: Name = TensorizeOptions().format
    ranks: list[Rank] | None = Field(default=None, min_length=1)
    ratio: float | None = Field(default=None, gt=0, le=1)
    cores: int | None = Field(default=None, ge=2, le=12)
    minimum_saving: Share = TensorizeOptions().minimum_saving

    @model_validator(mode="after")
    def _one_rank_rule(self) -> Tensorize:
        if self.ranks is not None and self.ratio is not None:
            raise ValueError("give one of ranks and ratio, not 2")
        return self

    def to_options(self, rules: tuple[LayerRule, ...]) -> TensorizeOptions:
        """The options, with the rules of the recipe."""
        ranks: FixedRanks | ParameterRatio | None = None
        if self.ranks is not None:
            ranks = FixedRanks(tuple(self.ranks))
        elif self.ratio is not None:
            ranks = ParameterRatio(self.ratio)
        return TensorizeOptions(
            format=self.format,
            ranks=ranks,
            cores=self.cores,
            rules=rules,
            minimum_saving=self.minimum_saving,
        )


class Adaptation(Strict):
    """``[train.adaptation]``."""

    enabled: bool = True
    prior: Prior = AdaptationOptions().prior
    scale: Positive = AdaptationOptions().scale
    inference: Inference = AdaptationOptions().inference
    strength: Positive = AdaptationOptions().strength
    target_params: Text | None = None
    loss_tolerance: Text | None = None
    warm_up: list[Share] | None = Field(default=None, min_length=2, max_length=2)
    settle: Share | None = None
    balance_epochs: int = Field(default=AdaptationOptions().balance_epochs, ge=1)
    cut_at: float = Field(default=AdaptationOptions().cut_at, gt=0, lt=1)
    floor: int = Field(default=AdaptationOptions().floor, ge=1)

    @field_validator("target_params")
    @classmethod
    def _valid_budget(cls, text: str | None) -> str | None:
        if text is not None:
            read_budget("params", text)
        return text

    @field_validator("loss_tolerance")
    @classmethod
    def _valid_share(cls, text: str | None) -> str | None:
        if text is not None:
            read_share(text)
        return text

    @field_validator("warm_up")
    @classmethod
    def _rising(cls, shares: list[float] | None) -> list[float] | None:
        if shares is not None and shares[0] > shares[1]:
            raise ValueError("the first share is above the second")
        return shares

    @model_validator(mode="after")
    def _needed(self) -> Adaptation:
        if not self.enabled and (self.target_params or self.loss_tolerance):
            raise ValueError("a target has no effect: adaptation is off")
        if self.target_params and self.loss_tolerance:
            raise ValueError("give one of target_params and loss_tolerance, not 2")
        if self.target_params or self.loss_tolerance:  # else the run may still name a goal
            reason = self._to_options(1 if self.target_params else None).schedule.why_not
            if reason is not None:
                raise ValueError(reason)
        if "scale" in self.model_fields_set and self.prior != "half-cauchy":
            raise ValueError(f"scale has no effect: it is that of half-cauchy, not of {self.prior}")
        return self

    def to_options(self) -> AdaptationOptions | None:
        """The options without the target, which is only known with the network."""
        return self._to_options(None) if self.enabled else None

    def _to_options(self, target: int | None) -> AdaptationOptions:
        return AdaptationOptions(
            target_params=target,
            prior=self.prior,
            scale=self.scale,
            inference=self.inference,
            strength=self.strength,
            loss_tolerance=read_share(self.loss_tolerance) if self.loss_tolerance else None,
            warm_up=(self.warm_up[0], self.warm_up[1]) if self.warm_up else None,
            settle=self.settle,
            balance_epochs=self.balance_epochs,
            cut_at=self.cut_at,
            floor=self.floor,
        )


class Precision(Strict):
    """``[train.precision]``; without the table everything is float32."""

    factor_bits: int = Field(default=PrecisionOptions().factor_bits, ge=3, le=8)
    activation_bits: int = Field(default=PrecisionOptions().activation_bits, ge=4, le=16)
    gradient_bits: int = PrecisionOptions().gradient_bits
    master_bits: int = PrecisionOptions().master_bits
    state_bits: int = PrecisionOptions().state_bits
    rounding: Rounding = PrecisionOptions().rounding
    wide_share: Share = PrecisionOptions().wide_share

    @field_validator("gradient_bits")
    @classmethod
    def _known_gradients(cls, bits: int) -> int:
        if bits != 32 and not 8 <= bits <= 16:
            raise ValueError(f"{bits} is not 8 to 16, or 32")
        return bits

    @field_validator("master_bits")
    @classmethod
    def _known_masters(cls, bits: int) -> int:
        if bits not in (0, 32) and not 8 <= bits <= 16:
            raise ValueError(f"{bits} is not 0, 8 to 16, or 32")
        return bits

    @field_validator("state_bits")
    @classmethod
    def _known_state(cls, bits: int) -> int:
        if bits not in (16, 32):
            raise ValueError(f"{bits} is neither 16 nor 32")
        return bits

    def to_options(self) -> PrecisionOptions:
        """The options."""
        return PrecisionOptions(
            factor_bits=self.factor_bits,
            activation_bits=self.activation_bits,
            gradient_bits=self.gradient_bits,
            master_bits=self.master_bits,
            state_bits=self.state_bits,
            rounding=self.rounding,
            wide_share=self.wide_share,
        )


class Train(Strict):
    """``[train]``."""

    arch: Name | None = None
    epochs: int = Field(default=TrainOptions().epochs, ge=1)
    batch: int = Field(default=TrainOptions().batch, ge=1)
    learning_rate: Positive | None = None
    weight_decay: float = Field(default=TrainOptions().weight_decay, ge=0, allow_inf_nan=False)
    optimizer: TrainingOptimizer = TrainOptions().optimizer
    validation: float = Field(default=TrainOptions().validation, ge=0, lt=1)
    patience: int | None = Field(default=None, ge=1)
    network: dict[Name, int | float | bool | str | list[int]] = Field(default_factory=dict)
    tensorize: Tensorize = Tensorize()
    adaptation: Adaptation = Adaptation()
    precision: Precision | None = None

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, arch: str | None, info: ValidationInfo) -> str | None:
        known = info.context
        if isinstance(known, KnownNetworks) and arch is not None and arch not in known.names:
            close = get_close_matches(arch, known.names, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(known.names)}"
            raise ValueError(f"unknown architecture {arch!r}; {advice}")
        return arch

    @field_validator("network")
    @classmethod
    def _known_settings(cls, settings: dict[str, object], info: ValidationInfo) -> object:
        known = info.context
        if not (settings and isinstance(known, KnownNetworks) and known.settings_used):
            return settings
        arch = known.chosen or info.data.get("arch")
        if arch is None:
            return settings
        possible = known.choices(arch)
        wrong = [name for name in settings if name not in possible]
        if wrong:
            has = ", ".join(possible) or "none"
            raise ValueError(
                "; ".join(f"{arch} has no setting {name!r}" for name in wrong) + f" (it has {has})"
            )
        return settings

    def to_recipe(self, rules: tuple[LayerRule, ...], seed: int) -> TrainRecipe:
        """The options, with the rules and the seed of the recipe."""
        target = self.adaptation.target_params
        return TrainRecipe(
            arch=self.arch,
            choices={
                name: tuple(value) if isinstance(value, list) else value
                for name, value in self.network.items()
            },
            options=TrainOptions(
                tensorize=self.tensorize.to_options(rules),
                adaptation=self.adaptation.to_options(),
                precision=self.precision.to_options() if self.precision else None,
                optimizer=self.optimizer,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                epochs=self.epochs,
                batch=self.batch,
                validation=self.validation,
                patience=self.patience,
                seed=seed,
            ),
            target_params=read_budget("params", target) if target else None,
        )
