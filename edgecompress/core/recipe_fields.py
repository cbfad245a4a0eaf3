"""Field types that all tables of a recipe share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number_as_text(value: object) -> object:
    """Numbers are allowed where text is read; True and False are not numbers."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_number_as_text)]
Name = Annotated[str, Field(min_length=1)]
Rank = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A table in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
