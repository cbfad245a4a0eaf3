"""Decompose and quantize one model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgecompress.core.errors import Unsupported
from edgecompress.core.healing import Healing
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.options import Budget, DecomposeOptions, RankRule, Tolerance
from edgecompress.core.plan import HealPlan, LayerPlan, Plan
from edgecompress.core.report import LayerResult
from edgecompress.core.samples import Samples
from edgecompress.graph.model import Model
from edgecompress.hardware.target import Target
from edgecompress.pipeline.decompose import Outcome as Decomposed
from edgecompress.pipeline.decompose import Pricing, apply_plan, decompose
from edgecompress.pipeline.heal import Patient, treat
from edgecompress.pipeline.outcome import merge_results
from edgecompress.pipeline.pricing import price_stages
from edgecompress.pipeline.quantize import quantize
from edgecompress.pipeline.request import CompressRequest

NOT_BLIND = "not decomposed: without data nothing tells what it costs; --data, or a rank rule"

ROUNDING = 0.01
"""A budget given as a share counts as met this close to it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the two steps did to the model."""

    plans: tuple[LayerPlan, ...]
    results: tuple[LayerResult, ...]
    skips: tuple[Skip, ...]
    before: tuple[Layer, ...]
    after: tuple[Layer, ...]
    healing: Healing | None = None
    heal_plan: HealPlan | None = None


def transform(
    request: CompressRequest,
    model: Model,
    samples: Samples | None,
    targets: Sequence[Target],
    replayed: Plan | None,
    patient: Patient | None,
) -> Outcome:
    """Decompose, heal, then quantize, in place, as asked or as a plan says.

    Raises:
        Unsupported: No layer would change.
    """
    found = model.find_layers()
    plans: list[LayerPlan] = []
    skips: list[Skip] = list(found.skips)
    decomposed: list[LayerResult] = []
    quantized: list[LayerResult] = []
    treated = None
    if request.decompose is not None:
        step = _decomposed(request, model, samples, targets, replayed)
        plans += step[0]
        skips += step[2]
        treated = treat(patient, model, step[1], request.progress, replayed)
        decomposed += treated.results if treated is not None else step[1]
    if request.quantize is not None:
        request.progress("quantizing", 0, 0)
        step = quantize(model, request.quantize, samples, request.progress)
        plans += step[0]
        quantized += step[1]
        skips += step[2]
    results = merge_results(decomposed, quantized, model.origins)
    if replayed is not None:
        skips = list(replayed.skips)
        results = _with_reasons(results, skips)
    if all(result.action == "kept" for result in results):
        reasons = [Skip(r.name, r.reason) for r in results if r.reason] + skips
        raise Unsupported(
            "no layer would get smaller or faster",
            where=model.file.path,
            hint=first_reasons(reasons),
        )
    after = model.find_layers().layers
    return Outcome(
        plans=tuple(plans),
        results=results,
        skips=tuple(skips),
        before=found.layers,
        after=after,
        healing=treated.healing if treated else None,
        heal_plan=treated.plan if treated else None,
    )


def _decomposed(
    request: CompressRequest,
    model: Model,
    samples: Samples | None,
    targets: Sequence[Target],
    replayed: Plan | None,
) -> Decomposed:
    """Decompose, in place, as asked or as a plan says."""
    request.progress("decomposing", 0, 0)
    if replayed is not None:
        return apply_plan(model, replayed.layers, samples, seed=replayed.seed)
    options = request.decompose or DecomposeOptions()
    if samples is None and request.command == "compress" and isinstance(options.ranks, Tolerance):
        model.notes.append(NOT_BLIND)
        return [], [], []
    done = decompose(model, options, samples, _pricing(targets), request.progress)
    model.notes += missed_budget(options.ranks, done[1])
    return done


def missed_budget(rule: RankRule, results: Sequence[LayerResult]) -> list[str]:
    """That a budget was asked for and more is left, in words; nothing if it is met.

    With a target only layers that get faster there are decomposed, so a budget of parameters or
    multiply-accumulates may be out of reach.
    """
    if not isinstance(rule, Budget) or rule.kind not in ("params", "macs"):
        return []
    if rule.kind == "params":
        before = sum(result.parameters_before for result in results)
        after = sum(result.parameters_after for result in results)
    else:
        before = sum(result.macs_before or 0 for result in results)
        after = sum(result.macs_after or 0 for result in results)
    limit = rule.limit if rule.limit is not None else (rule.ratio or 0.0) * before
    if after <= limit * (1 + ROUNDING):
        return []
    unit = {"params": "parameters", "macs": "multiply-accumulates"}[rule.kind]
    return [f"the budget was {limit:,.0f} {unit}, {after:,} are left: see what stays dense and why"]


def _with_reasons(results: Sequence[LayerResult], skips: Sequence[Skip]) -> tuple[LayerResult, ...]:
    """Results whose kept layers say why the plan kept them."""
    why = {skip.layer: skip.reason for skip in skips}
    return tuple(
        replace(result, reason=why.get(result.name, "")) if result.action == "kept" else result
        for result in results
    )


def _pricing(targets: Sequence[Target]) -> Pricing | None:
    if not targets:
        return None
    first = targets[0]
    return Pricing(
        target=first.name, seconds=lambda stages, layer: price_stages(stages, layer, first)
    )


def first_reasons(skips: Sequence[Skip]) -> str:
    """The first few reasons why layers are left, for a hint."""
    reasons = list(dict.fromkeys(skip.reason for skip in skips))
    return "; ".join(reasons[:3]) or "no layer has constant float weights"
