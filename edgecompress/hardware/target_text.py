"""Targets as nested tables, with some of their numbers changed, and as the text of a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.file_errors import each_error
from edgecompress.hardware.target import Target, TargetFile, from_document

Value = bool | int | float | str
_PARAMETERS = "parameters."


def target_document(target: Target) -> dict[str, Any]:
    """The tables of the file that gives this target; what has no value is left out."""
    found: dict[str, Any] = {}
    for name in TargetFile.model_fields:
        value = getattr(target, name)
        if name == "sources":
            value = dict(value)
        elif name == "kinds":
            value = list(value)
        elif hasattr(value, "model_dump"):
            value = value.model_dump(exclude_none=True)
        if value is not None:
            found[name] = value
    return found


def numbers_of(target: Target) -> dict[str, Value]:
    """Every number, switch and word of a target by its path in the file, defaults included."""
    return dict(_leaves(target_document(target), ""))


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for key, value in table.items():
        if isinstance(value, dict):
            if f"{prefix}{key}" != "sources":
                yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{key}", value


class Variants:
    """Targets that differ from one in some numbers, each checked like a file.

    Args:
        base: What they differ from.
    """

    def __init__(self, base: Target) -> None:
        self.base = base
        self._parameters = base.parameters.model_dump(exclude_none=True)
        self._common = lru_cache(maxsize=4096)(self._with_common)

    def build(self, values: Mapping[str, Value]) -> Target:
        """The base with some numbers replaced, by path.

        Raises:
            ConfigurationInvalid: A number that the target or its family does not take.
        """
        own = {path: value for path, value in values.items() if path.startswith(_PARAMETERS)}
        common = self._common(
            tuple((path, value) for path, value in values.items() if path not in own)
        )
        if not own:
            return common
        table = _changed(
            self._parameters, ((path.removeprefix(_PARAMETERS), own[path]) for path in own)
        )
        kind = type(common.parameters)
        try:
            return replace(common, parameters=kind.model_validate(table))
        except ValidationError as error:
            problems = each_error(error, kind, prefix=_PARAMETERS)
            raise ConfigurationInvalid("; ".join(problems), where=self.base.name) from error

    def _with_common(self, values: tuple[tuple[str, Value], ...]) -> Target:
        if not values:
            return self.base
        document = _changed(target_document(self.base), values)
        target, problems = from_document(document)
        if target is None:
            raise ConfigurationInvalid("; ".join(problems), where=self.base.name)
        return target


def _changed(table: dict[str, Any], values: Iterable[tuple[str, Value]]) -> dict[str, Any]:
    """A copy with the values at their paths, tables on the way copied as well."""
    result = dict(table)
    for path, value in values:
        *folders, name = path.split(".")
        inner = result
        for folder in folders:
            inner[folder] = dict(inner.get(folder, {}))
            inner = inner[folder]
        inner[name] = value
    return result


def target_text(target: Target, comment: str) -> str:
    """The file of a target, such that reading it gives the target again.

    A number that has no source is one that the file format has a default for; it is left out.

    Args:
        target: Any target.
        comment: First line of the file.
    """
    sources = dict(target.sources)
    lines = [f"# {' '.join(comment.split())}"]
    lines += _table_lines(target_document(target), "", sources)
    return "\n".join(lines) + "\n"


def _table_lines(table: Mapping[str, Any], prefix: str, sources: Mapping[str, str]) -> list[str]:
    """Values of a table, then the tables in it."""
    lines: list[str] = []
    inner: list[str] = []
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            content = _table_lines(value, f"{path}.", sources)
            if content:
                inner += ["", f"[{'.'.join(map(_key, path.split('.')))}]", *content]
        elif prefix == "sources." or not _is_number(value) or path in sources:
            lines.append(f"{_key(key)} = {_toml(value)}")
    return lines + inner


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else _toml(name)


def _toml(value: Any) -> str:
    """A value in TOML; its strings are JSON's but for one control character."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
