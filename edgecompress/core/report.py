"""Report data: plain numbers in SI base units; only renderers round and scale."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecompress.core.healing import Healing
from edgecompress.core.layers import Skip
from edgecompress.core.work import Cost, EnergySplit

COMPRESSION_SCHEMA = "edgecompress.compression-report/1"
LATENCY_SCHEMA = "edgecompress.latency-report/1"
EVALUATION_SCHEMA = "edgecompress.evaluation-report/1"
INSPECTION_SCHEMA = "edgecompress.inspection-report/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFact:
    """A file that was read or written.

    Attributes:
        path: As given.
        sha256: Of the file and its external data.
        size_bytes: External data included.
    """

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """One layer before and after.

    Attributes:
        name: Layer name.
        action: ``decomposed``, ``quantized``, ``decomposed+quantized`` or ``kept``.
        format, ranks: Of the decomposition; empty if none.
        grid, method: Of the quantization; empty if none. Method ``exact``: packed as it was.
        parameters_before, parameters_after: Weights.
        macs_before, macs_after: None where a shape is open.
        storage_bits_after: Weights as stored.
        relative_error: Of the layer's output against the float layer's, L2, on calibration
            data; of its weights without data; None when kept.
        reason: Why it was kept or changed from what was asked; empty otherwise.
    """

    name: str
    action: str
    format: str = ""
    ranks: tuple[int, ...] = ()
    grid: str = ""
    method: str = ""
    parameters_before: int
    parameters_after: int
    macs_before: int | None = None
    macs_after: int | None = None
    storage_bits_after: int
    relative_error: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How close a model is to its reference on the same inputs.

    Attributes:
        samples: Number of inputs.
        relative_l2: |a - b| / |b| over all outputs and samples.
        sqnr_db: -20 log10 of it.
        top1_agreement: Share of samples whose largest output is at the same place; None where
            the first output is not a score vector.
        accuracy, reference_accuracy: On labels; None without labels.
        source: What the data were, in words.
    """

    samples: int
    relative_l2: float
    sqnr_db: float
    top1_agreement: float | None
    accuracy: float | None = None
    reference_accuracy: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNoise:
    """One output of a graph.

    Attributes:
        name: Of the output.
        snr_db: Signal to noise, 10 log10 of energies.
    """

    name: str
    snr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetAccuracy:
    """A network computed by the datapath of an accelerator, beside onnxruntime on the same file.

    Attributes:
        target: Target name.
        truncates: The datapath does not give exact sums.
        layers: Names of the convolutions that it computed; the rest is onnxruntime's.
        fidelity: Against onnxruntime; its ``accuracy`` is that on the accelerator.
        outputs: Noise of each output.
        corrected: The same where the host takes the mean of what rounding costs, measured on the
            first samples, out of the biases; None where nothing is rounded.
        skips: Convolutions that it did not compute, with reasons.
        assumed: What was assumed about the datapath; empty if nothing.
    """

    target: str
    truncates: bool
    layers: tuple[str, ...]
    fidelity: Fidelity
    outputs: tuple[OutputNoise, ...]
    corrected: Fidelity | None = None
    skips: tuple[Skip, ...] = ()
    assumed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Checks on the written file.

    Attributes:
        checker: onnx.checker passed.
        optimized_relative_l2: Optimised against unoptimised onnxruntime.
        optimized_top1_agreement: Likewise; None where there is no score vector.
        samples: Inputs used.
        fidelity: Against the input model.
    """

    checker: bool
    optimized_relative_l2: float
    optimized_top1_agreement: float | None
    samples: int
    fidelity: Fidelity | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """A limit and what was found.

    Attributes:
        name: Name of the option.
        limit, value: In ``unit``.
        unit: ``bytes``, ``s``, ``share`` or ``assumptions``.
        met: Whether the limit holds.
    """

    name: str
    limit: float
    value: float
    unit: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Latency if the memory gave another share of its peak.

    Attributes:
        factor: Times the target's efficiency of the memory; the product is at most 1.
        latency_s: With that.
    """

    factor: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoredLayer:
    """A layer that was decomposed, beside what it was.

    Attributes:
        name: Name of the layer.
        operators: Convolutions and matrix products that it became.
        dense_s: Predicted time of the layer in one operator, at the width of its factors' weights;
            None where the chain stands for no single operator.
        memory_s: Of the chain, every intermediate through memory.
        fused_s: Of the chain with the intermediates that fit kept on chip; None if none fits.
        kept_bytes: On-chip memory that those take.
        fused: Whether the latency of the report has them on chip.
    """

    name: str
    operators: int
    dense_s: float | None
    memory_s: float
    fused_s: float | None
    kept_bytes: float
    fused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyReport:
    """Predicted latency of one graph on one target.

    Attributes:
        model: The file.
        target: Target name.
        target_source: Where the target's numbers come from.
        model_error: The target's stated error of this cost model, relative; None if unknown.
        model_error_source: How that error was found.
        latency_s: One inference (one batch of the graph's batch size over its images).
        throughput_per_s: Inferences a second.
        total_cycles: At the target's clock.
        energy_pj: None if the target has no energy numbers.
        energy: The same by cause.
        macs: Of the graph.
        moved_bytes: Over the memory port, weights and activations.
        bound_s: No mapping of these operators on this target takes less.
        sensitivity: Latency at other efficiencies of the memory.
        peak_activation_bytes: Activations alive at the same time at most, at the target's widths.
        peak_operator: The operator where that is.
        live_bytes: Activations alive while each operator runs, as long as ``costs``.
        on_chip_bytes: What the target has for activations; 0 if they are in memory.
        factored: Layers that were decomposed.
        resources: DSP blocks (``dsp``), block memories (``bram18``) and look-up tables (``lut``) of
            a design on a programmable device; empty for a fixed chip.
        part: The device that the design is on; empty for none.
        costs: One per operator, in graph order.
        op_types: Operator type per cost.
        assumptions: Every assumption once, in words; ``--strict`` counts them.
        notes: What follows from the device or was asked for, in words.
    """

    model: FileFact
    target: str
    target_source: str
    model_error: float | None
    model_error_source: str
    latency_s: float
    throughput_per_s: float
    total_cycles: float
    energy_pj: float | None
    energy: EnergySplit | None = None
    macs: int
    moved_bytes: float = 0.0
    bound_s: float = 0.0
    sensitivity: tuple[Sensitivity, ...] = ()
    peak_activation_bytes: float = 0.0
    peak_operator: str = ""
    live_bytes: tuple[float, ...] = ()
    on_chip_bytes: int = 0
    factored: tuple[FactoredLayer, ...] = ()
    resources: dict[str, int] = field(default_factory=dict)
    part: str = ""
    costs: tuple[Cost, ...]
    op_types: tuple[str, ...]
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionReport:
    """What a decompose, quantize or compress run did.

    Attributes:
        command: ``decompose``, ``quantize`` or ``compress``.
        input, output: The files; output is None after a dry run.
        layers: Every layer.
        skips: Everything that is left as it is, with reasons.
        parameters_before, parameters_after, macs_before, macs_after: Totals.
        verification: None after a dry run.
        latency_before, latency_after: On the targets, same order; empty without a target.
        healing: None where the decomposed graph was not trained.
        gates: All gates that were set.
        warnings: In words.
        versions: Of this tool and what it ran on.
        settings: What was asked, resolved, as text by option.
        seed: Seed of everything random.
    """

    command: str
    input: FileFact
    output: FileFact | None
    layers: tuple[LayerResult, ...]
    skips: tuple[Skip, ...]
    parameters_before: int
    parameters_after: int
    macs_before: int | None
    macs_after: int | None
    verification: Verification | None
    latency_before: tuple[LatencyReport, ...] = ()
    latency_after: tuple[LatencyReport, ...] = ()
    healing: Healing | None = None
    gates: tuple[GateResult, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """One model on data, or two side by side.

    Attributes:
        model, reference: The files; reference is None for one model.
        samples: Number of samples.
        data_source: What the data were.
        accuracy, reference_accuracy: On labels; None without labels.
        fidelity: Against the reference; None for one model.
        latency_ratio: Median time of the model over the reference in onnxruntime, one thread,
            interleaved in one process; None for one model.
        latency_s, reference_latency_s: Medians behind the ratio, of one batch.
        gates: All gates that were set.
        warnings: What looks off about the data, in words.
        on_target: The model as an accelerator computes it; None if none was asked.
    """

    model: FileFact
    reference: FileFact | None
    samples: int
    data_source: str
    accuracy: float | None
    reference_accuracy: float | None
    fidelity: Fidelity | None
    latency_ratio: float | None
    latency_s: float | None
    reference_latency_s: float | None
    gates: tuple[GateResult, ...] = ()
    warnings: tuple[str, ...] = ()
    on_target: TargetAccuracy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFact:
    """One layer as found in a model.

    Attributes:
        name, kind: Layer name; ``Conv``, ``MatMul``, ``Embedding``, ``Recurrent``.
        weight_shape: Canonical order.
        input_shape, output_shape: None where open.
        macs: None where a shape is open.
        parameters: Weights.
        weight_bits: Width of a code (32 for float).
        storage_bits: All weights as stored.
        note: Why it cannot be compressed, or empty.
    """

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    macs: int | None
    parameters: int
    weight_bits: int
    storage_bits: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionReport:
    """What is in a model.

    Attributes:
        model: The file.
        opset, ir_version: Of the file.
        producer: As the file says.
        inputs, outputs: name -> "dtype[shape]".
        nodes: Operators by type, most frequent first.
        layers: All layers with weights.
        skips: Weights outside layers, control flow, and so on.
        parameters: All float weights in the file.
        macs: Sum over layers; None where a shape is open.
    """

    model: FileFact
    opset: int
    ir_version: int
    producer: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    nodes: dict[str, int]
    layers: tuple[LayerFact, ...]
    skips: tuple[Skip, ...]
    parameters: int
    macs: int | None
