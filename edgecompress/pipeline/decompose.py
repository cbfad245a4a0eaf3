"""Decompose the weights of a model: decide formats and ranks on the float model, then apply.

Deciding and applying are two walks. The second one knows nothing but the plan, so replaying a
plan gives the same bytes as the run that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.options import Budget, DecomposeOptions, EnergyRank, Tolerance
from edgecompress.core.plan import LayerPlan
from edgecompress.core.report import LayerResult
from edgecompress.core.samples import Samples
from edgecompress.formats import FORMATS
from edgecompress.formats.base import Moments, check_ranks, count_macs, count_parameters
from edgecompress.graph.stepper import Step, Stepper
from edgecompress.pipeline.budget import BudgetTooSmall, spend
from edgecompress.pipeline.candidates import (
    Candidate,
    Pricing,
    Survey,
    best_of,
    measured_loss,
    resolved,
    survey,
    why_dense,
)
from edgecompress.pipeline.layer_rules import check_rules
from edgecompress.pipeline.moments import feeds_in_memory, fitted_bias, gather_moments
from edgecompress.pipeline.outcome import kept_result
from edgecompress.pipeline.sensitivity import Probe, make_probe, sensitivities
from edgecompress.pipeline.tolerance import (
    budget_kind,
    keeps_outputs,
    smallest_budget,
    split,
    too_much,
)

if TYPE_CHECKING:
    from edgecompress.graph.model import Model

__all__ = ["Pricing", "apply_plan", "decompose"]

DENSE_IS_BEST = "stays dense: the budget is better spent on other layers"

DATA_FREE = EnergyRank(0.99)
"""Without data nothing tells what an error of a weight does, so next to none is allowed."""

FINER = "any rank: the budget cannot be met with ranks that fit the device's blocks"

Outcome = tuple[list[LayerPlan], list[LayerResult], list[Skip]]
Progress = Callable[[str, int, int], None]


def decompose(
    model: Model,
    options: DecomposeOptions,
    samples: Samples | None,
    pricing: Pricing | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Outcome:
    """Choose formats and ranks, and put the factors into the model, in place.

    Args:
        model: Float.
        options: What is asked for.
        samples: Calibration data for errors of outputs; None for errors of weights.
        pricing: Of the target; None counts multiply-accumulates.
        progress: Called with a phase, layers done and layers in all.

    Returns:
        What was decided and what came out, for every layer, and what was left as it is.

    Raises:
        ConfigurationInvalid: An unknown format, wrong ranks, or a rule that matches no layer.
        Unsupported: The budget cannot be met.
        DataInvalid: Activations on the data are not finite.
    """
    layers = model.find_layers().layers
    check_rules([layer.name for layer in layers], options.rules)
    if options.format not in ("auto", "none"):
        FORMATS.get(options.format)
    if isinstance(options.ranks, Tolerance) and samples is None:
        options = replace(options, ranks=DATA_FREE)
    try:
        chosen, surveys = _decide(model, layers, options, samples, (pricing, progress))
        note = ""
    except BudgetTooSmall:
        if options.rank_multiple:
            raise
        finer = replace(options, rank_multiple=1)
        chosen, surveys = _decide(model, layers, finer, samples, (pricing, progress))
        note = FINER
    plans = [
        LayerPlan(layer=name, step="decompose", format=pick.format, ranks=pick.ranks, reason=note)
        for name, pick in chosen.items()
    ]
    return apply_plan(
        model,
        plans,
        samples,
        seed=options.seed,
        reasons={each.layer.name: each.reason or DENSE_IS_BEST for each in surveys},
        progress=progress,
    )


def apply_plan(
    model: Model,
    plans: Sequence[LayerPlan],
    samples: Samples | None,
    *,
    seed: int = 0,
    reasons: dict[str, str] | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Outcome:
    """Decompose as a plan says, in place, without any search.

    With data each layer is fitted to the float model's outputs from the inputs that it gets in
    the model decomposed so far, so later layers make up for the errors of earlier ones.

    Args:
        model: Float.
        plans: Those with the step ``decompose`` are used.
        samples: Those that the plan was made with, for identical bytes.
        seed: That of the plan.
        reasons: Why layers without a plan stay dense, by name.
        progress: As for `decompose`.

    Raises:
        ConfigurationInvalid: A plan does not fit the model.
        DataInvalid: Activations on the data are not finite.
    """
    layers = model.find_layers().layers
    wanted = {plan.layer: plan for plan in plans if plan.step == "decompose"}
    _check_plan(wanted, layers)
    targets = [layer for layer in layers if layer.name in wanted]
    done: dict[str, LayerResult] = {}
    for count, (layer, step) in enumerate(_walk(model, targets, samples)):
        progress("decomposing", count, len(targets))
        done[layer.name] = _apply(model, layer, step, wanted[layer.name], seed)
    why = reasons or {}
    results = [
        done.get(layer.name) or kept_result(layer, why.get(layer.name, "")) for layer in layers
    ]
    skips = [
        Skip(layer.name, why[layer.name], layer.parameters)
        for layer in layers
        if layer.name not in wanted and why.get(layer.name)
    ]
    return list(wanted.values()), results, skips


def _decide(
    model: Model,
    layers: Sequence[Layer],
    options: DecomposeOptions,
    samples: Samples | None,
    aids: tuple[Pricing | None, Progress],
) -> tuple[dict[str, Candidate], list[Survey]]:
    """The chosen candidates by layer, and what all layers were offered; the model stays."""
    surveys, probes = _look(model, layers, options, samples, aids)
    pricing, progress = aids
    if isinstance(options.ranks, Budget | Tolerance):
        weights = sensitivities(model, probes, samples, progress) if samples and probes else {}
        if isinstance(options.ranks, Budget):
            return spend(surveys, weights, options, pricing), surveys
        if samples is not None:
            return _within(model, surveys, (weights, options, pricing), samples, options.ranks)
    best = {each.layer.name: best_of(each, options) for each in surveys}
    return {name: pick for name, pick in best.items() if pick is not None}, surveys


def _within(
    model: Model,
    surveys: list[Survey],
    terms: tuple[Mapping[str, float], DecomposeOptions, Pricing | None],
    samples: Samples,
    rule: Tolerance,
) -> tuple[dict[str, Candidate], list[Survey]]:
    """The candidates of the smallest budget that keeps the outputs within the tolerance."""
    weights, options, pricing = terms
    fit, held = split(samples)
    if not any(each.candidates for each in surveys):
        return {}, surveys

    def picks(budget: Budget) -> dict[str, Candidate]:
        return spend(surveys, weights, replace(options, ranks=budget), pricing)

    def is_kept(budget: Budget) -> bool:
        try:
            chosen = picks(budget)
        except BudgetTooSmall:
            return False
        twin = model.clone()
        plans = [
            LayerPlan(layer=name, step="decompose", format=pick.format, ranks=pick.ranks)
            for name, pick in chosen.items()
        ]
        apply_plan(twin, plans, fit, seed=options.seed)
        return keeps_outputs(model, twin, held, rule)

    layers = [each.layer for each in surveys]
    budget = smallest_budget(budget_kind(layers, by_target=pricing is not None), is_kept)
    if budget is not None:
        return picks(budget), surveys
    return {}, [replace(each, reason=each.reason or too_much(rule)) for each in surveys]


def _look(
    model: Model,
    layers: Sequence[Layer],
    options: DecomposeOptions,
    samples: Samples | None,
    aids: tuple[Pricing | None, Progress],
) -> tuple[list[Survey], dict[str, Probe]]:
    """Survey every layer on the float model; with data, one probe each for the sensitivities."""
    pricing, progress = aids
    own = {layer.name: resolved(layer, options) for layer in layers}
    open_layers = [layer for layer in layers if not why_dense(layer, own[layer.name])]
    surveys = {
        layer.name: survey(layer, own[layer.name], None, pricing)
        for layer in layers
        if why_dense(layer, own[layer.name])
    }
    probes = {}
    for count, (layer, step) in enumerate(_walk(model.clone(), open_layers, samples)):
        progress("choosing formats and ranks", count, len(open_layers))
        moments = _moments(layer, step, options.seed)
        found = survey(layer, own[layer.name], moments, pricing)
        surveys[layer.name] = found
        if moments is not None and len(found.candidates) > 1:
            probes[layer.name] = make_probe(found, moments)
    return [surveys[layer.name] for layer in layers], probes


def _walk(
    model: Model, layers: Sequence[Layer], samples: Samples | None
) -> Iterable[tuple[Layer, Step | None]]:
    """Layers in order, with the activations around each where there are data."""
    if samples is None or not layers:
        return [(layer, None) for layer in layers]
    feeds = feeds_in_memory(layers, samples.feeds)
    return ((step.layer, step) for step in Stepper(model, layers, feeds))


def _moments(layer: Layer, step: Step | None, seed: int) -> Moments | None:
    if step is None:
        return None
    return gather_moments(layer, step.inputs, step.reference_outputs, seed)


def _apply(
    model: Model, layer: Layer, step: Step | None, plan: LayerPlan, seed: int
) -> LayerResult:
    """Decompose one layer, in place."""
    form = FORMATS.get(plan.format)
    moments = _moments(layer, step, seed)
    stages = form.decompose(layer, plan.ranks, moments)
    weight = form.compose(layer, stages)
    bias = layer.bias if moments is None else fitted_bias(layer, weight, moments)
    if step is None:
        model.replace(layer, stages, bias)
    else:
        step.replace(stages, bias)
    after = count_parameters(stages)
    return LayerResult(
        name=layer.name,
        action="decomposed",
        format=plan.format,
        ranks=plan.ranks,
        parameters_before=layer.parameters,
        parameters_after=after,
        macs_before=layer.macs,
        macs_after=count_macs(stages, layer.input_shape),
        storage_bits_after=after * _weight_bits(layer),
        relative_error=measured_loss(layer, weight, moments) ** 0.5,
        reason=plan.reason,
    )


def _weight_bits(layer: Layer) -> int:
    return layer.stage.weight.to_dense().dtype.itemsize * 8


def _check_plan(plans: Mapping[str, LayerPlan], layers: Sequence[Layer]) -> None:
    """Refuse a plan that was not made for this model."""
    known = {layer.name: layer for layer in layers}
    for name, plan in plans.items():
        if name not in known:
            raise ConfigurationInvalid(f"the plan has a layer {name!r} that is not in the model")
        layer, form = known[name], FORMATS.get(plan.format)
        refusal = layer.frozen or ("its weight is shared" if layer.shared else form.why_not(layer))
        if refusal:
            raise ConfigurationInvalid(f"the plan says {plan.format}: {refusal}", where=name)
        try:
            check_ranks(plan.ranks, form.max_ranks(layer))
        except ValueError as error:
            raise ConfigurationInvalid(f"the plan's {error}", where=name) from error
