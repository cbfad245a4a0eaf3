"""Layers of a quantized network on a simulated array, with real integers.

Each convolution and matrix product is read from the graph with the codes that enter it, cut to a
few rows of pixels where the whole would take long, and run on the machine of the target's family.
What comes out is compared with onnxruntime's integer operator and with the cost model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecompress.core.arrays import Array
from edgecompress.core.errors import EdgeCompressError, Unsupported, UsageError
from edgecompress.core.layers import Skip
from edgecompress.core.samples import Samples
from edgecompress.core.simulation import SimulatedLayer, SimulationReport
from edgecompress.core.work import Work
from edgecompress.graph.integer_reference import onnxruntime_sums
from edgecompress.graph.integers import ConvGeometry, NamedLayer, integer_layers, node_name
from edgecompress.graph.model import Model
from edgecompress.graph.weight_statistics import statistics
from edgecompress.hardware.simulator.layers import IntegerConv, IntegerLayer, IntegerProduct
from edgecompress.hardware.target import Target
from edgecompress.pipeline.array_codes import WIDER, as_array_layer
from edgecompress.pipeline.machines import (
    Machine,
    machine_of,
    operator_of,
    truncated_sums,
    truncating_datapath,
)
from edgecompress.pipeline.request import Progress, silent

ROWS = 64
"""Pixels or rows of a layer that are simulated unless asked otherwise: a network of a few layers is
through in seconds, and every kind of fold and edge occurs."""

HERE = "inputs that the graph computes in floats were quantized to 8 bits by their range"
ALL_CYCLES = "cycles with the memory ports"
ARRAY_CYCLES = "cycles of the array, memory not counted"
TRUNCATED = (
    "results: transforms and sums without limits of width; SNR: the published widths and cuts, "
    "against the exact sums"
)
_SAME_CYCLES = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """What is simulated.

    Attributes:
        layers: Names of the nodes; empty for all.
        rows: Pixels or rows of each layer, of its first image; 0 for all of all images.
    """

    layers: tuple[str, ...] = ()
    rows: int = ROWS


def simulate(
    model: Model,
    target: Target,
    samples: Samples,
    options: SimulateOptions,
    *,
    progress: Progress = silent,
) -> SimulationReport:
    """Run the layers of a graph on the array of a target.

    Args:
        model: Loaded with ``normalize=False``.
        target: Of a family with a simulator.
        samples: What the layers are fed with.
        options: Which layers, how much of them.
        progress: Called layer by layer.

    Raises:
        Unsupported: The family has no simulator, or no layer can be simulated.
        UsageError: A layer is not in the graph.
    """
    machine = machine_of(target)
    _check_names(model, options.layers)
    layers: list[SimulatedLayer] = []
    skips: list[Skip] = []
    for found in integer_layers(model, samples.feeds, names=options.layers):
        if isinstance(found, Skip):
            skips.append(found)
            continue
        progress("simulating layers", len(layers) + len(skips), 0)
        try:
            layers.append(_simulated(found, machine, target, options.rows))
        except EdgeCompressError as error:
            skips.append(Skip(found.name, str(error), found.weights.size))
    if not layers:
        reasons = "; ".join(dict.fromkeys(skip.reason for skip in skips)) or "no such operator"
        raise Unsupported(
            f"no layer can be simulated on {target.name}: {reasons}",
            where=model.file.path,
            hint="quantize the model first",
        )
    return SimulationReport(
        model=model.file,
        target=target.name,
        family=target.family,
        target_source=target.source,
        samples=samples.count,
        data_source=samples.source,
        row_limit=options.rows,
        layers=tuple(layers),
        skips=tuple(skips),
        agrees=all(layer.cycles_agree and layer.outputs_agree for layer in layers),
        notes=tuple(_notes(layers, target)),
    )


def _check_names(model: Model, names: Sequence[str]) -> None:
    there = {node_name(node) for node in model.ir.graph}
    missing = [name for name in names if name not in there]
    if missing:
        raise UsageError(
            f"no layer {missing[0]!r} in the graph",
            where="--layer",
            hint="estimate-latency --per-layer lists the names",
        )


def _notes(layers: Sequence[SimulatedLayer], target: Target) -> list[str]:
    notes = [ALL_CYCLES if target.family == "winocnn" else ARRAY_CYCLES]
    if any(layer.input_quantized_here for layer in layers):
        notes.append(HERE)
    if any(layer.weight_bits > layer.stored_bits for layer in layers):
        notes.append(WIDER)
    if any(layer.snr_db is not None for layer in layers):
        notes.append(TRUNCATED)
    done = (part for layer in layers for part in layer.note.split("; ") if part)
    return [*notes, *dict.fromkeys(done)]


def _simulated(found: NamedLayer, machine: Machine, target: Target, limit: int) -> SimulatedLayer:
    on_array = as_array_layer(found, target)
    whole, slot = on_array.layer, target.weight_stream.weight_bits
    if whole.weight_bits > slot and truncating_datapath(target) is None:
        raise Unsupported(f"weights of {whole.weight_bits} bits on an array of {slot} bits")
    part = first_rows(whole, limit) if limit else whole
    ran = machine(target, _work(found, part), part)
    truth = onnxruntime_sums(replace(found, inputs=part.inputs, geometry=_geometry(part)))
    groups, rows, inner, columns = _product(part)
    cycles = ran.simulated.cycles
    return SimulatedLayer(
        name=found.name,
        op_type=found.op_type,
        groups=groups,
        rows=rows,
        inner=inner,
        columns=columns,
        all_rows=_product(whole)[1],
        input_bits=found.input_bits,
        weight_bits=part.weight_bits,
        stored_bits=found.stored_bits,
        input_quantized_here=found.quantized_here,
        multiplications=ran.simulated.multiplications,
        cycles=cycles,
        predicted_cycles=ran.predicted_cycles,
        cycles_agree=abs(cycles - ran.predicted_cycles) <= _SAME_CYCLES * cycles,
        outputs_agree=bool(np.array_equal(truth, on_array.restored(part, ran.simulated.outputs))),
        snr_db=_snr_db(found, target, part, truth),
        note="; ".join(text for text in (ran.note, on_array.note) if text),
    )


def _snr_db(found: NamedLayer, target: Target, part: IntegerLayer, truth: Array) -> float | None:
    """Of a datapath that truncates, which takes the weights whole; None where it is exact."""
    datapath = truncating_datapath(target)
    if datapath is None:
        return None
    whole = replace(part, weights=found.weights, weight_bits=found.weight_bits)
    return snr_db(truth, truncated_sums(whole, datapath))


def snr_db(truth: Array, found: Array) -> float:
    """Signal to noise of results against the exact ones; infinite where there is no error."""
    noise = float(np.sum((found - truth) ** 2.0))
    signal = float(np.sum(truth.astype(np.float64) ** 2))
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _work(found: NamedLayer, layer: IntegerLayer) -> Work:
    """The counts of a layer, with the statistics of its codes."""
    return Work(
        name=found.name,
        op_type=found.op_type,
        operator=operator_of(layer),
        input_bits=0,
        output_bits=0,
        weights=statistics(found.weights, layer.weight_bits),
    )


def _geometry(layer: IntegerLayer) -> ConvGeometry | None:
    if isinstance(layer, IntegerProduct):
        return None
    return ConvGeometry(
        stride=layer.stride, dilation=layer.dilation, pads=layer.pads, group=layer.group
    )


def _product(layer: IntegerLayer) -> tuple[int, int, int, int]:
    """Groups, rows, inner and columns of the products of a layer."""
    if isinstance(layer, IntegerProduct):
        return 1, layer.inputs.shape[0], layer.inputs.shape[1], layer.weights.shape[1]
    height, width = _out_size(layer)
    outputs, channels, kh, kw = layer.weights.shape
    rows = layer.inputs.shape[0] * height * width
    return layer.group, rows, channels * kh * kw, outputs // layer.group


def _out_size(layer: IntegerConv) -> tuple[int, int]:
    """Height and width of the results."""
    found = []
    for axis in range(2):
        room = layer.inputs.shape[2 + axis] + layer.pads[axis] + layer.pads[2 + axis]
        reach = (layer.weights.shape[2 + axis] - 1) * layer.dilation[axis] + 1
        found.append((room - reach) // layer.stride[axis] + 1)
    return found[0], found[1]


def first_rows(layer: IntegerLayer, limit: int) -> IntegerLayer:
    """The first pixels of the first image, whole lines where the limit has room for one."""
    if isinstance(layer, IntegerProduct):
        return replace(layer, inputs=layer.inputs[:limit])
    height, width = _out_size(layer)
    wanted = (max(1, min(height, limit // width)), min(width, limit))
    inputs = layer.inputs[:1]
    pads = list(layer.pads)
    for axis, (size, whole) in enumerate(zip(wanted, (height, width), strict=True)):
        if size == whole:
            continue
        reach = (layer.weights.shape[2 + axis] - 1) * layer.dilation[axis] + 1
        last = (size - 1) * layer.stride[axis] + reach - pads[axis]  # first code not needed
        there = inputs.shape[2 + axis]
        inputs = inputs[:, :, :last] if axis == 0 else inputs[:, :, :, :last]
        pads[2 + axis] = max(0, last - there)
    return replace(layer, inputs=inputs, pads=(pads[0], pads[1], pads[2], pads[3]))
