"""What was asked, and what was assumed where nothing was, as text for the report."""

from __future__ import annotations

from collections.abc import Mapping

from edgecompress.cli.asked import Asked, Settings
from edgecompress.cli.healing import describe_healing
from edgecompress.core.options import EnergyRank, FixedRanks, ParameterRatio, RankRule, Tolerance


def settings_as_text(settings: Settings, asked: Asked) -> Mapping[str, str]:
    """Everything that was asked or assumed, by name, for the report."""
    texts: dict[str, str] = {}
    if settings.decompose:
        texts["format"] = settings.decompose.format
        texts["ranks"] = _describe_ranks(settings.decompose.ranks)
        texts["rank-multiple"] = str(settings.decompose.rank_multiple or "of the target")
        texts["minimum-gain"] = f"{settings.decompose.minimum_gain:g}"
    if settings.heal:
        texts["heal"] = describe_healing(settings.heal)
    if settings.quantize:
        texts["bits"] = settings.quantize.bits
        texts["method"] = settings.quantize.method + ("" if asked.data else " (without data)")
        texts["scales"] = "per channel" if settings.quantize.scales_per_channel else "per tensor"
        texts["activations"] = str(settings.quantize.activations or "float")
    texts["data"] = asked.data or "none"
    texts["calibration"] = str(asked.calibration)
    for name in ("test_data", "recipe", "plan"):
        if getattr(asked, name):
            texts[name.replace("_", "-")] = str(getattr(asked, name))
    if settings.preprocess:
        texts["preprocess"] = settings.preprocess
    if asked.rules:
        texts["rules"] = " ".join(asked.rules)
    return texts


def _describe_ranks(rule: RankRule) -> str:
    match rule:
        case FixedRanks(ranks):
            return "fixed " + "x".join(map(str, ranks))
        case EnergyRank(energy):
            return f"energy {energy:g}"
        case ParameterRatio(ratio):
            return f"{ratio:g} of each layer's parameters"
        case Tolerance(share):
            return f"a tolerance of {share:g} on the outputs"
        case _:
            amount = f"{rule.ratio:g} of the" if rule.ratio is not None else f"{rule.limit:g}"
            return f"{amount} {rule.kind}"
