"""The table ``[heal]`` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from edgecompress.core.options import Augmentation, HealOptions
from edgecompress.core.quantities import read_budget
from edgecompress.core.recipe_fields import Strict, Text

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Heal(Strict):
    """``[heal]``; without it nothing is healed."""

    enabled: bool = True
    epochs: int = Field(default=HealOptions().epochs, ge=1)
    slice_epochs: int = Field(default=HealOptions().slice_epochs, ge=0)
    learning_rate: float = Field(default=HealOptions().learning_rate, gt=0, le=1)
    batch: int = Field(default=HealOptions().batch, ge=1)
    temperature: Positive = HealOptions().temperature
    held_back: float = Field(default=HealOptions().held_back, gt=0, lt=1)
    samples: int | None = Field(default=None, ge=2)
    augment: list[Augmentation] = Field(default_factory=list)
    target_params: Text | None = None
    target_macs: Text | None = None
    strength: float = Field(default=HealOptions().strength, ge=0, allow_inf_nan=False)

    @field_validator("target_params", "target_macs")
    @classmethod
    def _valid_budget(cls, text: str | None, info: object) -> str | None:
        if text is not None:
            name: str = getattr(info, "field_name", "")
            read_budget(name.removeprefix("target_"), text)
        return text

    @model_validator(mode="after")
    def _one_budget(self) -> Heal:
        if self.target_params is not None and self.target_macs is not None:
            raise ValueError("give one of target_params and target_macs, not 2")
        return self

    def to_options(self, rank_multiple: int, seed: int) -> HealOptions | None:
        """What the table says; None where it is switched off."""
        if not self.enabled:
            return None
        budget = None
        if self.target_params is not None:
            budget = read_budget("params", self.target_params)
        if self.target_macs is not None:
            budget = read_budget("macs", self.target_macs)
        return HealOptions(
            epochs=self.epochs,
            slice_epochs=self.slice_epochs,
            learning_rate=self.learning_rate,
            batch=self.batch,
            temperature=self.temperature,
            held_back=self.held_back,
            samples=self.samples,
            augment=tuple(self.augment),
            budget=budget,
            strength=self.strength,
            rank_multiple=rank_multiple,
            seed=seed,
        )
