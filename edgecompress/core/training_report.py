"""What a training run gave, as plain data: numbers in SI base units, renderers round and scale."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecompress.core.layers import Skip
from edgecompress.core.report import FileFact, GateResult

TRAINING_SCHEMA = "edgecompress.training-report/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFact:
    """Samples that were read.

    Attributes:
        source: What they are, in words.
        sha256: Of the samples as read.
        samples: Their number.
    """

    source: str
    sha256: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedLayer:
    """One layer that can be tensorized, before and after.

    Attributes:
        name: In the network.
        kind: ``linear``, ``conv`` or ``embedding``.
        format: Of the factors; empty where the layer stayed dense.
        folding: Modes of the weight, as text; empty where the layer stayed dense.
        ranks_start, ranks_end: Of each bond.
        parameters_dense: Of the dense weight.
        parameters_start, parameters_end: Of the factors, or of the dense weight.
        reason: Why it stayed dense; empty otherwise.
    """

    name: str
    kind: str
    format: str = ""
    folding: str = ""
    ranks_start: tuple[int, ...] = ()
    ranks_end: tuple[int, ...] = ()
    parameters_dense: int
    parameters_start: int
    parameters_end: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingScore:
    """How good the trained network is on some data.

    Attributes:
        data: ``held back`` or ``test``.
        network: ``trained`` (in training's arithmetic) or ``written`` (the file in onnxruntime).
        metric: ``accuracy``, ``token accuracy``, ``AUC``, ``R2`` or ``loss``.
        value: Accuracies as shares of 1.
        samples: Number that it rests on.
    """

    data: str
    network: str
    metric: str
    value: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One pass over the training data.

    Attributes:
        epoch: From 1.
        loss: Mean over the epoch, penalty left out.
        validation_loss: At its end; None without held-back data.
        score: On the held-back data; None without them.
        learning_rate: Of its last step.
        parameters: Of the whole network at its end.
        ranks: At its end, by layer.
        cuts: Bonds whose rank changed.
        memory_bytes: Of parameters, gradients and optimiser state at its end; on a CUDA device
            the most that was allocated until then.
        elapsed_s: Since the run began, earlier parts of a resumed run included.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    score: float | None
    learning_rate: float
    parameters: int
    ranks: dict[str, tuple[int, ...]]
    cuts: int
    memory_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRow:
    """One kind of memory of a training step, in bytes.

    Attributes:
        name: ``parameters``, ``buffers`` (kept, not trained: moving statistics; left out where
            there are none), ``masters``, ``gradients``, ``optimizer state``, ``model`` (all of
            these), ``activations``, ``total`` (model and activations) or ``peak``. Without a
            backward pass ``perturbed copies`` (values before, signs, estimate) stand in the place
            of gradients, ``activations`` are the most that one forward pass holds at once, and
            ``outputs`` (kept from all forward passes) are part of the total.
        dense_bytes, ours_bytes: Predicted from shapes, dense network and trained one.
        dense_measured_bytes, ours_measured_bytes: As the allocator saw it; None if not measured.
        stored_bytes: Of ours at the widths that were asked for; None in float32.
        factor: How many times less ours takes: the dense network's bytes over ``stored_bytes``
            where there are such, else over ``ours_bytes``, by the measured sizes where both were
            measured; None where the dense network has none.
    """

    name: str
    dense_bytes: float
    ours_bytes: float
    dense_measured_bytes: float | None = None
    ours_measured_bytes: float | None = None
    stored_bytes: float | None = None
    factor: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTable:
    """Memory of one training step beside that of the dense network, trained the same way.

    Attributes:
        batch: Samples of the step.
        predicted: False where the sizes are measured because only a run can tell them.
        rows: By kind.
    """

    batch: int
    predicted: bool = True
    rows: tuple[MemoryRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFactor:
    """What one part of the method saves.

    Attributes:
        part: In words.
        factor: How many times less.
        of: What becomes smaller.
    """

    part: str
    factor: float
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNumbers:
    """Numbers that a device would store while it trains.

    Attributes:
        name: What they are.
        numbers: How many.
        bits: Of each.
        size_bytes: Of all, scales included.
        note: In words; may be empty.
    """

    name: str
    numbers: int
    bits: float
    size_bytes: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCheck:
    """The written file against the network that was trained.

    Attributes:
        checker: onnx.checker passed.
        relative_l2: Outputs in onnxruntime against those of the trained network.
        optimized_relative_l2: Optimised against unoptimised onnxruntime.
        top1_agreement: Share of samples whose largest output is at the same place; None where
            there is no score vector.
        samples: Inputs used.
    """

    checker: bool
    relative_l2: float
    optimized_relative_l2: float
    top1_agreement: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a training run did.

    Attributes:
        network: Name of the architecture, or the function that built the network.
        task: ``classification``, ``regression``, ``next-token`` or ``click``.
        start: File of weights that training began with; None: from scratch.
        output: The written graph.
        data, test: What was read; test is None without test data.
        training_samples, validation_samples: Of ``data``, learned from and held back.
        layers: Every layer that can be tensorized.
        skips: Parameters that were left as they are, with reasons.
        parameters_dense, parameters_start, parameters_end: Of the whole network.
        parameters_target: That the controller drove to; None if none.
        storage_bits: Of all parameters at the end, as a device would store them.
        scores: On held-back and on test data.
        batch: Samples of the largest step, over all processes: what was asked for, or all training
            samples where those are fewer.
        memory: For several batch sizes, ``batch`` among them.
        factors: What each part of the method saves.
        stored: What is stored at which width; empty in float32.
        history: By epoch, those of a resumed run included.
        score_name: What the scores in it are: ``accuracy``, ``AUC`` ...
        best_epoch: Whose weights were kept, from 1.
        epochs_asked: Fewer are in the history if patience ended the run.
        resumed_at: Epochs done when this process took over; 0 if it began.
        check: Of the written file.
        device: Where it was trained.
        processes: That trained together.
        elapsed_s: Of the whole command.
        gates: All gates that were set.
        warnings: What the user should know before trusting the figures.
        assumptions: What was taken for granted where nothing was asked.
        notes: What follows from what was asked.
        versions: Of this tool and what it ran on.
        settings: What was asked, resolved, as text by option.
        seed: Seed of everything random.
    """

    network: str
    task: str
    start: FileFact | None
    output: FileFact
    data: DataFact
    test: DataFact | None
    training_samples: int
    validation_samples: int
    layers: tuple[TrainedLayer, ...]
    skips: tuple[Skip, ...]
    parameters_dense: int
    parameters_start: int
    parameters_end: int
    parameters_target: int | None = None
    storage_bits: float
    scores: tuple[TrainingScore, ...]
    batch: int
    memory: tuple[MemoryTable, ...]
    factors: tuple[MemoryFactor, ...]
    stored: tuple[StoredNumbers, ...] = ()
    history: tuple[EpochRecord, ...]
    score_name: str
    best_epoch: int
    epochs_asked: int
    resumed_at: int = 0
    check: ExportCheck
    device: str
    processes: int = 1
    elapsed_s: float
    gates: tuple[GateResult, ...] = ()
    warnings: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    seed: int = 0
