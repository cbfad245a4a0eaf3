"""Quantize the weights of a model: which grid and method for each layer, then layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.errors import UsageError
from edgecompress.core.grids import GRIDS, Grid, grid_named
from edgecompress.core.layers import Layer, Skip
from edgecompress.core.options import QuantizeOptions
from edgecompress.core.plan import LayerPlan
from edgecompress.core.report import LayerResult
from edgecompress.core.samples import Feed, Samples
from edgecompress.core.stages import Conv, Embedding, MatMul, Recurrent, WeightStage
from edgecompress.core.tensors import Affine
from edgecompress.graph.pack import packed_bytes
from edgecompress.graph.stepper import Step, Stepper
from edgecompress.pipeline.activations import calibrate_activations
from edgecompress.pipeline.calibration import measure_moments
from edgecompress.pipeline.layer_rules import check_rules, rule_for
from edgecompress.pipeline.outcome import kept_result
from edgecompress.pipeline.weight_codes import exact_weight, fitted_weight, scale_shape
from edgecompress.quantizers import QUANTIZERS
from edgecompress.quantizers.base import Moments

if TYPE_CHECKING:
    from edgecompress.graph.model import Model

DEFAULT_GRID = "4"
DATA_FREE = "l2"
"""Method of layers that have no calibration data."""
EXACT = "exact"
"""What stands for a method where nothing is rounded."""
COARSE_LEVELS = 4
"""Grids with at most this many levels need calibration data to be of use."""
MOST_COLUMNS = 8192
"""Above this many weights a row the second moments would not fit into memory."""
MOST_BYTES = 1_500_000_000
"""Of activations held at once during calibration, about."""
MOST_MACS = 2e11
"""Multiply-accumulates of one pass over the calibration data, about: some tens of seconds."""

COARSE_WITHOUT_DATA = (
    "grids of 2 bits or less without calibration data usually destroy a network: check its accuracy"
)

NO_RANGES = "8-bit activations in matrix products only: those of convolutions need --data"

Outcome = tuple[list[LayerPlan], list[LayerResult], list[Skip]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What is done with one layer."""

    layer: Layer
    grid: Grid
    method: str
    reason: str = ""
    exact: Affine | None = None
    """The weight as it is, when it is on the grid already."""


def quantize(
    model: Model,
    options: QuantizeOptions,
    samples: Samples | None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Outcome:
    """Quantize weights, and calibrate activations if they are asked for, in place.

    Args:
        model: Its initializers get codes times scale, `Model.quantized` the codes.
        options: What is asked for.
        samples: Calibration data; None for methods that need none.
        progress: Called with a phase, layers done and layers in all.

    Returns:
        What was decided and what came out, layer by layer, and what was left as it is.

    Raises:
        UsageError: The options need data and there are none.
        ConfigurationInvalid: An unknown grid or method, or a rule that matches no layer.
        DataInvalid: Activations on the data are not finite.
    """
    layers = model.find_layers().layers
    origins = {layer.name: model.origins.get(layer.name, layer.name) for layer in layers}
    check_rules([*origins, *model.origins.values()], options.rules)
    choices, skips = _choose(layers, origins, options, samples)
    _check_data(layers, choices, options, samples)
    feeds = _affordable(model, layers, samples)
    total = len(choices)
    results: list[LayerResult] = []
    for choice, outcome in _run(model, choices, feeds, options):
        results.append(outcome)
        progress(f"quantizing {choice.layer.name}", len(results), total)
    kept = {skip.layer: skip.reason for skip in skips}
    results += [kept_result(layer, kept[layer.name]) for layer in layers if layer.name in kept]
    if options.activations is not None and samples is not None and choices:
        progress("calibrating activations", 0, 0)
        model.activation_ranges.update(calibrate_activations(model, samples))
    if options.activations is not None and samples is None:
        model.notes.append(NO_RANGES)
    fitted = [choice for choice in choices if choice.method != EXACT]
    if len(fitted) < len(choices):
        model.notes.append(_as_they_are(len(choices) - len(fitted), len(choices)))
    if samples is None and any(_is_coarse(choice.grid) for choice in fitted):
        model.notes.append(COARSE_WITHOUT_DATA)
    order = {layer.name: index for index, layer in enumerate(layers)}
    results.sort(key=lambda result: order[result.name])
    return [_plan(choice) for choice in choices], results, skips


def _check_data(
    layers: Sequence[Layer],
    choices: Sequence[_Choice],
    options: QuantizeOptions,
    samples: Samples | None,
) -> None:
    """Refuse what cannot work without data."""
    method = QUANTIZERS.get(options.method)
    if options.activations not in (None, 8):
        raise UsageError(f"activations of {options.activations} bits", hint="8, or leave it out")
    if samples is not None:
        return
    products = any(isinstance(layer.stage, MatMul) for layer in layers)
    if options.activations is not None and not products:
        raise UsageError(
            "8-bit activations of convolutions need calibration data",
            hint="give --data, or leave --activations out",
        )
    if choices and all(choice.exact is not None for choice in choices):
        return
    asked = [options.bits, *(rule.bits for rule in options.rules if rule.bits)]
    coarse = [bits for bits in asked if _is_coarse(grid_named(bits))]
    if coarse and method.needs_data:
        raise UsageError(
            f"the grid {coarse[0]} needs calibration data",
            hint="give --data; or ask for 3, 4 or 8 bits; or insist with --method l2",
        )


def _as_they_are(exact: int, total: int) -> str:
    every = "all" if exact == total else f"{exact} of {total}"
    return f"weights of {every} quantized layers were on a grid already: packed as they are"


def _is_coarse(grid: Grid) -> bool:
    return grid.levels <= COARSE_LEVELS


def _choose(
    layers: Iterable[Layer],
    origins: Mapping[str, str],
    options: QuantizeOptions,
    samples: Samples | None,
) -> tuple[list[_Choice], list[Skip]]:
    """Grid and method of each layer by the rules, and the layers that are left."""
    choices: list[_Choice] = []
    skips: list[Skip] = []
    for layer in layers:
        rule = rule_for((layer.name, origins[layer.name]), options.rules)
        if rule is not None and rule.skip:
            skips.append(Skip(layer.name, f"skipped by the rule {rule.match!r}", layer.parameters))
            continue
        bits = (rule and rule.bits) or options.bits
        grid = grid_named(bits)
        choice = _settle(layer, grid, options, samples)
        reason = _why_not_smaller(choice, options)
        if reason:
            skips.append(Skip(layer.name, reason, layer.parameters))
        else:
            choices.append(choice)
    return choices, skips


def _settle(layer: Layer, grid: Grid, options: QuantizeOptions, samples: Samples | None) -> _Choice:
    """The method of one layer, and a finer grid where the method cannot do with the asked one."""
    method = options.method
    exact = exact_weight(layer.stage, grid, per_channel=options.scales_per_channel)
    if not layer.stage.weight.to_dense().any():
        return _Choice(
            layer=layer,
            grid=GRIDS["ternary"],
            method=DATA_FREE,
            reason="all weights are zero",
            exact=exact,
        )
    if exact is not None:
        narrower = "" if exact.grid == grid else f"on the grid {exact.grid.name} already"
        return _Choice(layer=layer, grid=exact.grid, method=EXACT, reason=narrower, exact=exact)
    if not QUANTIZERS.get(method).needs_data:
        return _Choice(layer=layer, grid=grid, method=method)
    if samples is None:
        return _Choice(layer=layer, grid=grid, method=DATA_FREE, reason="quantized without data")
    match layer.stage:
        case Embedding():
            reason = "an embedding table is quantized without data"
        case Recurrent():
            reason = "a recurrent cell is quantized without data"
        case Conv() | MatMul() as stage if _row_length(stage) > MOST_COLUMNS:
            reason = f"rows of {_row_length(stage)} weights are quantized without data"
        case _:
            return _Choice(layer=layer, grid=grid, method=method)
    if _is_coarse(grid):
        reason = f"{reason}: {DEFAULT_GRID} bits instead of {grid.name}"
        grid = grid_named(DEFAULT_GRID)
    return _Choice(layer=layer, grid=grid, method=DATA_FREE, reason=reason)


def _row_length(stage: WeightStage) -> int:
    return int(np.prod(stage.weight.shape[1:], dtype=np.int64))


def _why_not_smaller(choice: _Choice, options: QuantizeOptions) -> str:
    """Why a layer is left float because packing it would cost bytes; empty if it saves some."""
    stage = choice.layer.stage
    values = stage.weight.to_dense()
    made = choice.exact
    if made is None:
        shape = scale_shape(stage, per_channel=options.scales_per_channel)
        codes = np.full(values.shape, choice.grid.largest, np.int8)
        made = Affine(codes, np.ones(shape, np.float32), choice.grid)
    packed = packed_bytes(made)
    if values.nbytes - packed >= options.minimum_saving_bytes:
        return ""
    return f"too small: packed it would take {packed} bytes, as it is {values.nbytes}"


def _affordable(
    model: Model, layers: Sequence[Layer], samples: Samples | None
) -> Sequence[Feed] | None:
    """As many feeds as can be run through the model in bounded time and memory."""
    if samples is None:
        return None
    largest = max((_activation_size(layer) for layer in layers), default=0)
    macs = sum(layer.macs or 0 for layer in layers)
    costs = [
        max(len(a) for a in feed.values() if a.ndim) if any(a.ndim for a in feed.values()) else 1
        for feed in samples.feeds
    ]
    spent = np.cumsum(costs)
    limit = min(MOST_BYTES / max(1, 16 * largest), MOST_MACS / max(1, macs))
    count = max(1, int(np.searchsorted(spent, limit, side="right")))
    if count < len(samples.feeds):
        model.notes.append(
            f"weights were calibrated on {spent[count - 1]} of {spent[-1]} samples, to bound time"
            " and memory"
        )
    return samples.feeds[:count]


def _activation_size(layer: Layer) -> int:
    """Elements of a layer's input and output for one sample; open axes count as one."""
    shapes = (layer.input_shape[1:], layer.output_shape[1:])
    return sum(int(np.prod([size or 1 for size in shape], dtype=np.int64)) for shape in shapes)


def _run(
    model: Model,
    choices: Sequence[_Choice],
    feeds: Sequence[Feed] | None,
    options: QuantizeOptions,
) -> Iterable[tuple[_Choice, LayerResult]]:
    """Quantize layer by layer, in place; on the data where a method uses them."""
    if not choices:
        return
    fitted = any(choice.exact is None for choice in choices)
    if feeds is None or not fitted or not QUANTIZERS.get(options.method).needs_data:
        for choice in choices:
            affine = _coded(choice, None, options)
            stage = replace(choice.layer.stage, weight=affine)
            model.replace(choice.layer, [stage], choice.layer.bias)
            yield choice, _result(choice, affine, _weight_error(choice.layer, affine))
        return
    by_name = {choice.layer.name: choice for choice in choices}
    rounded = False
    for step in Stepper(model, [choice.layer for choice in choices], feeds):
        choice = by_name[step.layer.name]
        rounded = rounded or choice.exact is None
        yield choice, _quantize_step(step, choice, options, rounded=rounded)


def _quantize_step(
    step: Step, choice: _Choice, options: QuantizeOptions, *, rounded: bool
) -> LayerResult:
    """One layer on its data, its bias corrected where it may be and anything was rounded so far."""
    layer = step.layer
    free_bias = rounded and not layer.frozen and not layer.shared
    moments = None
    if choice.exact is None and QUANTIZERS.get(choice.method).needs_data:
        rng = np.random.default_rng([options.seed, crc32(layer.name.encode())])
        moments = measure_moments(
            layer, step.inputs, step.reference_outputs, rng, centred=free_bias
        )
    if moments is None and choice.exact is None:
        choice = replace(choice, method=DATA_FREE)
    affine = _coded(choice, moments, options)
    stage = replace(layer.stage, weight=affine)
    if isinstance(layer.stage, Embedding | Recurrent):
        step.replace([stage], layer.bias)
        return _result(choice, affine, _weight_error(layer, affine))
    shift, error = compare_outputs(
        layer.stage, step.reference_outputs, step.outputs([stage], layer.bias), free_bias=free_bias
    )
    bias = layer.bias
    if free_bias:
        bias = shift if bias is None else bias.astype(np.float64) + shift
    step.replace([stage], bias)
    return _result(choice, affine, error)


def _coded(choice: _Choice, moments: Moments | None, options: QuantizeOptions) -> Affine:
    """The weight as it is, or as the method rounds it."""
    if choice.exact is not None:
        return choice.exact
    stage, per_channel = choice.layer.stage, options.scales_per_channel
    return fitted_weight(stage, choice.grid, choice.method, moments, per_channel=per_channel)


def compare_outputs(
    stage: WeightStage, reference: Sequence[Array], found: Sequence[Array], *, free_bias: bool
) -> tuple[FloatArray, float]:
    """The bias that is missing, and the relative error that is left.

    Args:
        stage: Of the layer.
        reference, found: Outputs, one array per feed, canonical layout.
        free_bias: The bias will be corrected, so its error does not count.

    Returns:
        (out,) float64, and the relative L2 error.
    """
    channel = 1 if isinstance(stage, Conv) else -1
    total, squares, power, count = 0.0, 0.0, 0.0, 0
    for wanted, given in zip(reference, found, strict=True):
        target = np.moveaxis(wanted, channel, -1).astype(np.float64)
        gap = target - np.moveaxis(given, channel, -1)
        axes = tuple(range(gap.ndim - 1))
        total = total + gap.sum(axis=axes)
        squares = squares + np.square(gap).sum(axis=axes)
        power += float(np.square(target).sum())
        count += gap.size // gap.shape[-1]
    shift = np.asarray(total) / max(count, 1)
    left = np.sum(squares) - (count * np.sum(np.square(shift)) if free_bias else 0.0)
    return shift, float(np.sqrt(max(left, 0.0) / power)) if power else 0.0


def _weight_error(layer: Layer, affine: Affine) -> float:
    """Relative L2 error of the weights."""
    values = layer.stage.weight.to_dense().astype(np.float64)
    size = float(np.linalg.norm(values))
    return float(np.linalg.norm(affine.to_dense() - values)) / size if size else 0.0


def _plan(choice: _Choice) -> LayerPlan:
    return LayerPlan(
        layer=choice.layer.name,
        step="quantize",
        grid=choice.grid.name,
        method=choice.method,
        reason=choice.reason,
    )


def _result(choice: _Choice, affine: Affine, error: float) -> LayerResult:
    layer = choice.layer
    return LayerResult(
        name=layer.name,
        action="quantized",
        grid=choice.grid.name,
        method=choice.method,
        parameters_before=layer.parameters,
        parameters_after=layer.parameters,
        macs_before=layer.macs,
        macs_after=layer.macs,
        storage_bits_after=affine.storage_bits,
        relative_error=error,
        reason=choice.reason,
    )
