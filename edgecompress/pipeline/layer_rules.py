"""Which rule holds for a layer; the rooms below use the same."""

from __future__ import annotations

from edgecompress.core.layer_rules import PREFIX, check_rules, matches, rule_for

__all__ = ["PREFIX", "check_rules", "matches", "rule_for"]
