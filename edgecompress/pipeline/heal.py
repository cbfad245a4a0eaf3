"""`decompose --heal`: train the decomposed graph on the outputs of the float graph."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import ConfigurationInvalid, Unsupported, UsageError
from edgecompress.core.healing import Healing
from edgecompress.core.layers import Layer
from edgecompress.core.options import Budget, DecomposeOptions, HealOptions
from edgecompress.core.plan import HealPlan, Plan
from edgecompress.core.report import LayerResult
from edgecompress.core.samples import Samples
from edgecompress.graph.bonds import find_chains
from edgecompress.graph.model import Model
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.graph.slices import find_slices
from edgecompress.pipeline.candidates import rank_multiple
from edgecompress.pipeline.data import load_samples
from edgecompress.pipeline.preprocess import parse_preprocess
from edgecompress.pipeline.request import CompressRequest, Progress
from edgecompress.pipeline.scores import score_axis

if TYPE_CHECKING:
    from edgecompress.training.heal import Fall, Healed, Scores

SUMS_TO_ONE = 1e-3
"""How far the sum of probabilities is from one at most. Source: half precision has 11 bits."""

NOTHING = "not healed: no layer was decomposed"

NO_CHAIN = "no decomposed layer has ranks that can fall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What healing needs of the time before decomposition.

    Attributes:
        teacher: The float graph.
        samples: To heal on.
        options: How.
    """

    teacher: Model
    samples: Samples
    options: HealOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What came of it.

    Attributes:
        results: Of the layers, with what they are now.
        healing: For the report.
        plan: For the plan file.
    """

    results: tuple[LayerResult, ...]
    healing: Healing
    plan: HealPlan


def admit(request: CompressRequest, model: Model, replayed: Plan | None) -> Patient | None:
    """What is needed to heal a model, checked before it is decomposed; None if it is not asked.

    Raises:
        UsageError: Nothing is decomposed, there are no data, or the budget is one of latency.
        ConfigurationInvalid: torch is missing, or a plan was made with other data.
        Unsupported: The graph has operators that cannot be trained through.
        DataInvalid, InputOutputFailed: The data cannot be used.
    """
    options = request.heal
    if options is None:
        return None
    if request.decompose is None:
        raise UsageError("healing is for what was decomposed, and nothing is")
    if request.data is None:
        raise UsageError("healing needs data", hint="give --data; labels are not used")
    if options.budget is not None and options.budget.kind == "latency":
        raise UsageError("ranks fall to parameters or multiply-accumulates, not to a latency")
    from edgecompress.training.heal import check_operators

    check_operators(model)
    request.progress("reading data to heal on", 0, 0)
    samples = load_samples(
        request.data,
        model,
        preprocess=parse_preprocess(request.preprocess),
        limit=options.samples,
        seed=request.seed,
    )
    planned = replayed.heal if replayed is not None else None
    if planned is not None and planned.data_sha256 != samples.sha256:
        raise ConfigurationInvalid(
            "the plan was healed on other data", hint="give the same --data as then"
        )
    return Patient(teacher=model.clone(), samples=samples, options=options)


def treat(
    patient: Patient | None,
    model: Model,
    results: Sequence[LayerResult],
    progress: Progress,
    replayed: Plan | None,
) -> Treatment | None:
    """Heal a decomposed model, in place; None where that is not asked, or no layer was decomposed.

    Raises:
        Unsupported: Ranks cannot fall to the budget asked for, or pictures are asked for and the
            model takes none.
        DataInvalid: There is only one sample.
    """
    if patient is None:
        return None
    from edgecompress.training.heal import HealTask, heal, made_with
    from edgecompress.training.heal_data import rows_are_free

    changed = [result.name for result in results if result.action == "decomposed"]
    if not changed:
        model.notes.append(NOTHING)
        return None
    teacher, feeds, options = patient.teacher, patient.samples.feeds, patient.options
    layers = teacher.find_layers().layers
    names, scores = _outputs(teacher, patient.samples)
    task = HealTask(
        teacher=teacher,
        student=model,
        feeds=feeds,
        open_batch=rows_are_free([item.shape for item in teacher.inputs()], feeds),
        outputs=names,
        scores=scores,
        slices=find_slices(teacher, model, changed),
        layer_outputs={
            layer.name: teacher.output_name(layer) for layer in layers if layer.name in changed
        },
    )
    if options.budget is not None:
        task = replace(task, fall=_fall(teacher, model, changed, options))
    healed = heal(task, options, progress)
    plan = HealPlan(
        options=options,
        data_sha256=patient.samples.sha256,
        made_with=made_with(),
        weights_sha256=weights_sha256(model),
    )
    if replayed is not None and replayed.heal is not None:
        model.notes += _deviation(replayed.heal, plan)
    if healed.healing.note:
        model.notes.append(f"healing: {healed.healing.note}")
    return Treatment(results=_renewed(model, results, healed), healing=healed.healing, plan=plan)


def weights_sha256(model: Model) -> str:
    """SHA-256 of all initializers: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(model.ir.graph.initializers.items()):
        if value.const_value is not None:
            array = np.ascontiguousarray(value.const_value.numpy())
            digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _outputs(teacher: Model, samples: Samples) -> tuple[tuple[str, ...], Scores | None]:
    """Names of the float outputs, and how the first one holds scores.

    Raises:
        Unsupported: There is no float output.
    """
    from edgecompress.training.heal import Scores

    session = open_session(teacher.to_proto(), optimize=True)
    found = run_feeds(session, samples.feeds[:1])[0]
    pairs = [
        (item.name, value)
        for item, value in zip(teacher.outputs(), found, strict=True)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    ]
    if not pairs:
        raise Unsupported("healing needs a model with a float output", where=teacher.file.path)
    names = tuple(name for name, _ in pairs)
    first: Array = pairs[0][1]
    axis = score_axis(first) if names[0] == teacher.outputs()[0].name else None
    if axis is None:
        return names, None
    sums = first.sum(axis=axis, dtype=np.float64)
    probabilities = bool((first >= 0).all() and (np.abs(sums - 1) <= SUMS_TO_ONE).all())
    return names, Scores(axis, probabilities)


def _fall(teacher: Model, model: Model, changed: Sequence[str], options: HealOptions) -> Fall:
    """Down to where a budget lets ranks fall.

    Raises:
        Unsupported: No ranks can fall, or a shape is open where multiply-accumulates count.
    """
    from edgecompress.training.heal import Fall

    budget = options.budget or Budget("macs", ratio=1.0)
    dense, parts = teacher.find_layers().layers, model.find_layers().layers
    choice = DecomposeOptions(rank_multiple=options.rank_multiple)
    total = sum(_cost(layer, budget) for layer in dense)
    chains = find_chains(
        model,
        changed,
        {layer.name: rank_multiple(layer, choice) for layer in dense},
        {layer.name: _cost(layer, budget) / max(1, layer.parameters) for layer in parts},
    )
    if not chains:
        raise Unsupported(NO_CHAIN, hint="leave the budget of healing out")
    inside = {chain.layer for chain in chains}
    outside = [part for part in parts if model.origins.get(part.name, part.name) not in inside]
    return Fall(
        chains=chains,
        fixed=sum(_cost(part, budget) for part in outside),
        limit=budget.limit if budget.limit is not None else (budget.ratio or 1.0) * total,
    )


def _cost(layer: Layer, budget: Budget) -> float:
    if budget.kind == "params":
        return float(layer.parameters)
    if layer.macs is None:
        raise Unsupported(
            "multiply-accumulates are not counted: a shape is open",
            where=layer.name,
            hint="give --input-shape",
        )
    return float(layer.macs)


def _renewed(
    model: Model, results: Sequence[LayerResult], healed: Healed
) -> tuple[LayerResult, ...]:
    """Results with the ranks, counts and errors of the healed layers."""
    parts: dict[str, list[Layer]] = {}
    for layer in model.find_layers().layers:
        parts.setdefault(model.origins.get(layer.name, layer.name), []).append(layer)
    return tuple(
        _renewed_one(result, parts.get(result.name, []), healed)
        if result.name in healed.errors and healed.changed
        else result
        for result in results
    )


def _renewed_one(result: LayerResult, parts: Sequence[Layer], healed: Healed) -> LayerResult:
    ranks: Mapping[str, tuple[int, ...]] = healed.ranks
    macs = [part.macs for part in parts if part.macs is not None]
    parameters = sum(part.parameters for part in parts)
    bits = result.storage_bits_after // max(1, result.parameters_after)
    return replace(
        result,
        ranks=ranks.get(result.name, result.ranks),
        parameters_after=parameters,
        macs_after=sum(macs) if len(macs) == len(parts) else None,
        storage_bits_after=parameters * bits,
        relative_error=healed.errors[result.name],
    )


def _deviation(planned: HealPlan, done: HealPlan) -> list[str]:
    """That a replay gave other weights than the run that it repeats, and what may be why."""
    if planned.weights_sha256 == done.weights_sha256:
        return []
    return [
        "healing did not give the same bits as the run that made the plan: "
        f"{planned.made_with} then, {done.made_with} now"
    ]
