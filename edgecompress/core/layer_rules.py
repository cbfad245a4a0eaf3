"""Which rule holds for a layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.options import LayerRule

PREFIX = "re:"


def rule_for(names: Sequence[str], rules: Sequence[LayerRule]) -> LayerRule | None:
    """The first rule that matches one of a layer's names, or None.

    Args:
        names: The layer's own, and that of the layer it was decomposed from.
        rules: In order.

    Raises:
        ConfigurationInvalid: A rule holds a wrong regular expression.
    """
    return next((r for r in rules if any(matches(r.match, name) for name in names)), None)


def matches(pattern: str, name: str) -> bool:
    """Whether a rule's pattern fits: ``re:`` and an expression, the exact name, or a shell pattern.

    Raises:
        ConfigurationInvalid: The regular expression is wrong.
    """
    if not pattern.startswith(PREFIX):
        return pattern == name or fnmatchcase(name, pattern)
    try:
        return re.fullmatch(pattern.removeprefix(PREFIX), name) is not None
    except re.error as error:
        raise ConfigurationInvalid(
            f"wrong regular expression {pattern!r}: {error}", hint="see the syntax of Python's re"
        ) from error


def check_rules(names: Iterable[str], rules: Sequence[LayerRule]) -> None:
    """Refuse a rule that matches no layer, because it is a misspelt name.

    Raises:
        ConfigurationInvalid: Names the rule and the layers there are.
    """
    known = list(dict.fromkeys(names))
    for rule in rules:
        if rule.match != "*" and not any(matches(rule.match, name) for name in known):
            shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise ConfigurationInvalid(
                f"the rule for {rule.match!r} matches no layer", hint=f"the layers are {shown}"
            )
