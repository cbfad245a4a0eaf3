"""What could be done with one layer: formats and ranks, what they cost, and what they lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import assert_never

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.layers import Layer
from edgecompress.core.options import (
    Budget,
    DecomposeOptions,
    EnergyRank,
    FixedRanks,
    ParameterRatio,
    Tolerance,
)
from edgecompress.core.stages import Conv, Stage
from edgecompress.formats import FORMATS
from edgecompress.formats.base import Format, Moments, count_macs, count_parameters
from edgecompress.pipeline.layer_rules import rule_for
from edgecompress.pipeline.moments import relative_error
from edgecompress.ranks._rounding import multiples, round_up
from edgecompress.ranks.energy import energy_ranks, lost_energy
from edgecompress.ranks.fixed import fixed_ranks
from edgecompress.ranks.ratio import ratio_ranks

MOST_RANKS = 24
"""Ranks tried for a bond, and half their square root each for a format with two."""

ANCHORS = 5
"""Ranks at which the loss of a layer is measured for one format."""

LEAST_LOSS = 1e-12
"""Losses below are roundings."""

MOST_LOSS = 0.2
"""Squared relative error of a layer above which being faster on a target is no reason to take it:
on a Winograd array only very small ranks are faster for some layers. A judgement, not tuned."""

WIDE_MULTIPLE, NARROW_MULTIPLE = 16, 8
"""Rank multiples from 64 channels on, and from 32 on; below, any rank. Source: onnxruntime's
blocked layout: with 32 channels, rank 20 took as long as 32 (docs/decomposition.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What stages cost on a device.

    Attributes:
        target: The device's name, for messages.
        seconds: Predicted time of some stages in a layer's place.
    """

    target: str
    seconds: Callable[[Sequence[Stage], Layer], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A format at some ranks for one layer.

    Attributes:
        format: Its name.
        ranks: One for each bond.
        stages: Shapes only.
        gain: Share of the layer's predicted time (or MACs, or weights) that it saves.
        loss: Estimated squared relative error of the layer.
    """

    format: str
    ranks: tuple[int, ...]
    stages: tuple[Stage, ...]
    gain: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What could be done with a layer.

    Attributes:
        layer: The layer.
        candidates: Those that gain enough; empty if there are none.
        reason: Why there are none, in words.
    """

    layer: Layer
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""


def resolved(layer: Layer, options: DecomposeOptions) -> DecomposeOptions:
    """The options with the layer's own rule worked in; a rule that skips gives format ``none``."""
    rule = rule_for((layer.name,), options.rules)
    if rule is None:
        return options
    return replace(
        options,
        format="none" if rule.skip else rule.format or options.format,
        ranks=FixedRanks(rule.ranks) if rule.ranks else options.ranks,
    )


def why_dense(layer: Layer, options: DecomposeOptions) -> str:
    """Why a layer stays dense whatever its numbers are; empty if it may be decomposed.

    Raises:
        ConfigurationInvalid: An unknown format.
    """
    if options.format == "none":
        return "left out by a rule"
    if layer.frozen or layer.shared:
        return layer.frozen or "its weight is shared with another layer"
    formats, refusals = _usable(layer, options.format)
    return "" if formats else refusals


def survey(
    layer: Layer,
    options: DecomposeOptions,
    moments: Moments | None,
    pricing: Pricing | None,
) -> Survey:
    """Formats and ranks for one layer.

    Args:
        layer: Any layer.
        options: As `resolved` gives them.
        moments: On calibration data; None for errors of weights.
        pricing: None counts multiply-accumulates.

    Raises:
        ConfigurationInvalid: The options name a format or ranks that do not exist.
    """
    reason = why_dense(layer, options)
    if reason:
        return Survey(layer=layer, reason=reason)
    formats, _ = _usable(layer, options.format)
    found = [c for f in formats for c in _of_format(layer, f, options, moments, pricing)]
    gaining = tuple(c for c in found if c.gain >= options.minimum_gain)
    indirect = isinstance(options.ranks, Budget) and options.ranks.kind != "latency"
    most = MOST_LOSS if pricing is not None and indirect else np.inf
    kept = tuple(c for c in gaining if c.loss <= most)
    if kept:
        return Survey(layer=layer, candidates=kept)
    if gaining and pricing is not None:
        least = min(c.loss for c in gaining) ** 0.5
        faster = f"what is faster on {pricing.target}"
        reason = f"stays dense: {faster} is wrong by {least:.0%} of its output"
        return Survey(layer=layer, reason=reason)
    if not found:
        return Survey(layer=layer, reason="stays dense: no rank of a usable format meets the rule")
    best = max(found, key=lambda candidate: candidate.gain)
    return Survey(layer=layer, reason=_too_little(best, pricing))


def best_of(survey: Survey, options: DecomposeOptions) -> Candidate | None:
    """The candidate of one layer on its own: the cheapest at an energy, else the least loss."""
    if isinstance(options.ranks, EnergyRank):
        return max(survey.candidates, key=lambda c: c.gain, default=None)
    return min(survey.candidates, key=lambda c: (c.loss, -c.gain), default=None)


def measured_loss(layer: Layer, weight: FloatArray, moments: Moments | None) -> float:
    """Squared relative error of a dense weight in a layer's place: of outputs, else of weights."""
    if moments is not None:
        return relative_error(weight, moments) ** 2
    dense = layer.stage.weight.to_dense().astype(np.float64)
    energy = float(np.square(dense).sum())
    return float(np.square(weight - dense).sum()) / energy if energy > 0 else 0.0


def rank_multiple(layer: Layer, options: DecomposeOptions) -> int:
    """What ranks of a layer are multiples of."""
    if options.rank_multiple:
        return options.rank_multiple
    groups = layer.stage.group if isinstance(layer.stage, Conv) else 1
    narrow = min(layer.weight_shape[0] // groups, layer.weight_shape[1])
    if narrow >= 4 * WIDE_MULTIPLE:
        return WIDE_MULTIPLE
    return NARROW_MULTIPLE if narrow >= 4 * NARROW_MULTIPLE else 1


def _usable(layer: Layer, wanted: str) -> tuple[list[Format], str]:
    """Formats that the layer can take, and why not the others."""
    names = FORMATS.names() if wanted == "auto" else (wanted,)
    formats = [FORMATS.get(name) for name in names]
    asked = [f for f in formats if f.automatic or wanted != "auto"]
    refusals = {f.name: f.why_not(layer) for f in asked}
    usable = [f for f in asked if refusals[f.name] is None]
    return usable, "; ".join(dict.fromkeys(text for text in refusals.values() if text))


def _of_format(
    layer: Layer,
    form: Format,
    options: DecomposeOptions,
    moments: Moments | None,
    pricing: Pricing | None,
) -> list[Candidate]:
    """Candidates of one format, with their gains and estimated losses."""
    ranks = _ranks(layer, form, options, moments)
    outlines = [form.outline(layer, each) for each in ranks]
    gains = [_gain(layer, outline, pricing) for outline in outlines]
    if max(gains, default=-1.0) < options.minimum_gain:
        losses = [1.0] * len(ranks)
    else:
        losses = _losses(layer, form, ranks, moments)
    return [
        Candidate(format=form.name, ranks=each, stages=outline, gain=gain, loss=loss)
        for each, outline, gain, loss in zip(ranks, outlines, gains, losses, strict=True)
    ]


def _ranks(
    layer: Layer, form: Format, options: DecomposeOptions, moments: Moments | None
) -> list[tuple[int, ...]]:
    """Ranks to look at under the rank rule."""
    largest, multiple = form.max_ranks(layer), rank_multiple(layer, options)
    match options.ranks:
        case FixedRanks(ranks):
            return [fixed_ranks(ranks, largest, layer.name)]
        case EnergyRank(energy):
            spectra = form.spectra(layer, moments)
            if not spectra:
                return []
            return [round_up(energy_ranks(spectra, energy), multiple, largest)]
        case ParameterRatio(ratio):
            found = ratio_ranks(
                largest, multiple, lambda r: form.parameters(layer, r), ratio * layer.parameters
            )
            return [] if found is None else [found]
        case Budget() | Tolerance():
            most = MOST_RANKS if len(largest) == 1 else max(4, MOST_RANKS // 3)
            axes = [_thinned(multiples(top, multiple), most) for top in largest]
            return list(product(*axes))
        case _:
            assert_never(options.ranks)


def _thinned(ranks: list[int], most: int) -> list[int]:
    """At most so many of the ranks, evenly spread, first and last included."""
    if len(ranks) <= most:
        return ranks
    places = np.linspace(0, len(ranks) - 1, most).round().astype(int)
    return [ranks[place] for place in places]


def _losses(
    layer: Layer, form: Format, ranks: list[tuple[int, ...]], moments: Moments | None
) -> list[float]:
    """Losses: measured at a few ranks; between them the energies that are cut give the shape."""
    if len(ranks) <= ANCHORS:
        return [_tried(layer, form, each, moments) for each in ranks]
    spectra = form.spectra(layer, moments)
    if spectra:
        shape = [lost_energy(spectra, each) for each in ranks]
    else:
        largest = form.max_ranks(layer)
        shape = [1.0 - prod(each) / (1 + prod(largest)) for each in ranks]
    cut = np.maximum(shape, LEAST_LOSS)
    order = np.argsort(cut, kind="stable")
    picked = order[np.linspace(0, len(order) - 1, ANCHORS).round().astype(int)]
    tried = [max(_tried(layer, form, ranks[place], moments), LEAST_LOSS) for place in picked]
    ratio = np.interp(np.log(cut), np.log(cut[picked]), np.log(tried) - np.log(cut[picked]))
    return [float(loss) for loss in cut * np.exp(ratio)]


def _tried(layer: Layer, form: Format, ranks: tuple[int, ...], moments: Moments | None) -> float:
    """Loss of a format at some ranks, by doing it."""
    stages = form.decompose(layer, ranks, moments)
    return measured_loss(layer, form.compose(layer, stages), moments)


def _gain(layer: Layer, stages: Sequence[Stage], pricing: Pricing | None) -> float:
    """Share of predicted time, else of MACs, else of weights, that the stages save."""
    if pricing is not None:
        before, after = (pricing.seconds(each, layer) for each in ([layer.stage], stages))
        return 1.0 - after / before if before > 0 else 0.0
    macs = count_macs(stages, layer.input_shape)
    if macs is not None and layer.macs:
        return 1.0 - macs / layer.macs
    return 1.0 - count_parameters(stages) / max(1, layer.parameters)


def _too_little(best: Candidate, pricing: Pricing | None) -> str:
    """Why the best candidate is not good enough."""
    ranks = ", ".join(map(str, best.ranks))
    what = f"the time on {pricing.target}" if pricing else "the multiply-accumulates"
    return f"stays dense: {best.format} rank {ranks} would take {1.0 - best.gain:.2f}x {what}"
