"""Words for what pydantic finds wrong in a file that people write."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

_KIND = re.compile(r"^(Input|String|Value|List|Dictionary|Tuple|Data|Number|Decimal|Object) should")
"""How the messages of pydantic begin: what kind of value it is goes without saying."""

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


def describe_errors(error: ValidationError, model: type[BaseModel]) -> str:
    """All errors in one line, each with its field path; unknown keys get a suggestion."""
    found = each_error(error, model)
    if len(found) == 1:
        return found[0]
    return f"{len(found)} errors: " + "; ".join(found)


def each_error(error: ValidationError, model: type[BaseModel], *, prefix: str = "") -> list[str]:
    """A sentence for each error; ``prefix`` goes before its field path."""
    return [prefix + _describe(dict(item), model) for item in error.errors()]


def _describe(item: dict[str, Any], model: type[BaseModel]) -> str:
    path = _path(item["loc"])
    match item["type"]:
        case "extra_forbidden":
            names = _field_names(model, item["loc"][:-1])
            close = get_close_matches(str(item["loc"][-1]), names, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"keys are {', '.join(names)}"
            return f"{path}: unknown key; {advice}"
        case "missing":
            return f"{path}: missing"
        case "value_error":
            message = str(item["msg"]).removeprefix("Value error, ")
            return f"{path}: {message}" if path else message
        case "string_too_short" | "too_short":
            return f"{path}: should not be empty"
        case "string_pattern_mismatch":
            return f"{path}: {_shorten(repr(item['input']))} is not of the form expected"
        case _:
            message = _KIND.sub("should", str(item["msg"]))
            return f"{path}: {message}, not {_shorten(repr(item['input']))}"


def _path(location: tuple[int | str, ...]) -> str:
    """``rules[2].bits`` from ("rules", 2, "bits")."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _field_names(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys that are allowed at a place in a model made of nested models and lists of them."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_inside(model.model_fields[part].annotation)
            if inner is None:
                break
            model = inner
    return [item.alias or name for name, item in model.model_fields.items()]


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if hasattr(annotation, "model_fields"):
        return annotation  # type: ignore[no-any-return]
    for argument in getattr(annotation, "__args__", ()):
        inner = _model_inside(argument)
        if inner is not None:
            return inner
    return None


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
