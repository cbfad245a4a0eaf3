"""What the user asked for, as plain data: the typed form of a recipe or of command-line options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class FixedRanks:
    """These ranks, one for each bond of the format (one value serves all bonds)."""

    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnergyRank:
    """The smallest ranks that keep this share of the energy (squared singular values), 0 to 1."""

    energy: float


@dataclass(frozen=True, slots=True)
class ParameterRatio:
    """Ranks that leave about this share of each layer's parameters, 0 to 1."""

    ratio: float


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget over all layers, spent where it hurts least.

    Attributes:
        kind: ``params``, ``macs`` or ``latency``.
        ratio: What may remain, as a share of the dense model, 0 to 1; None when ``limit`` is set.
        limit: Parameters, MACs, or seconds on the target; None when ``ratio`` is set.
    """

    kind: str
    ratio: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The least latency on the target, or multiply-accumulates, that keeps the model's outputs.

    Measured on calibration data that are held back from the fit; the rule for when nobody named
    a budget.

    Attributes:
        share: Where the output is a score vector, the largest score may be at another place for
            this share of the samples, and the relative L2 error of the scores may be ten times
            it (training images are calibration data too, and on them a network is so sure that
            places alone tell too little); where it is not, this is the relative L2 error. 0 to 1.
    """

    share: float = 0.01


RankRule = FixedRanks | EnergyRank | ParameterRatio | Budget | Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """Settings for the layers whose name matches; None leaves the common setting.

    Attributes:
        match: Exact name, a shell pattern with ``*`` ``?`` ``[``, or ``re:`` and a regular
            expression. The first rule that matches a layer is used.
        skip: Leave these layers as they are.
        bits: Grid name.
        format: Decomposition format, or ``none``.
        ranks: Ranks for the format.
    """

    match: str
    skip: bool = False
    bits: str | None = None
    format: str | None = None
    ranks: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecomposeOptions:
    """How to decompose.

    Attributes:
        format: ``auto`` (the best per layer), or a format's name.
        ranks: The rank rule.
        rank_multiple: Ranks are multiples of this; 0 follows the target.
        minimum_gain: A layer stays dense when its predicted gain is below this share.
        rules: Exceptions by layer, first match wins.
        seed: Seed of everything random.
    """

    format: str = "auto"
    ranks: RankRule = field(default_factory=Tolerance)
    rank_multiple: int = 0
    minimum_gain: float = 0.10
    rules: tuple[LayerRule, ...] = ()
    seed: int = 0


Augmentation = Literal["flip", "crop", "mix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealOptions:
    """How a decomposed graph is trained to give what the float model gives, without labels.

    Attributes:
        epochs: Passes over the data from end to end.
        slice_epochs: Passes before them in which each slice learns its own outputs; 0: none.
        learning_rate: Of Adam at the start of either part; it falls to zero along half a cosine.
        batch: Samples of a step.
        temperature: At which the score vectors of the two models are compared.
        held_back: Share of the data that judges and does not train, above 0 to below 1.
        samples: At most this many samples of the data; None: all.
        augment: What random pictures are made of the given ones: ``flip`` left for right, ``crop``
            after moving by up to an eighth, ``mix`` of two; the float model sees the same ones.
        budget: Parameters or multiply-accumulates that ranks fall to meanwhile; None: they stay.
        strength: Weight of the penalty on ranks, in units of 1/N, N training samples; only where
            there is a budget.
        rank_multiple: Ranks that fall are multiples of this; 0: as the decomposition chooses.
        seed: Of everything random.
    """

    epochs: int = 20
    slice_epochs: int = 1
    learning_rate: float = 1e-3
    batch: int = 64
    temperature: float = 4.0
    held_back: float = 0.1
    samples: int | None = None
    augment: tuple[Augmentation, ...] = ()
    budget: Budget | None = None
    strength: float = 0.03
    rank_multiple: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        bits: Grid name for all layers without a rule; ``auto``: 4 without data, else 4 too.
        method: ``hessian`` (falls back to ``l2`` where a layer has no data), ``l2`` or ``vecq``.
        per_channel: One scale per output channel, else one per tensor; None for the usual form of
            the method (see `scales_per_channel`).
        activations: 8 for 8-bit activations, None for weights only.
        keep_names: Keep the internal tensor names of the model in the written file.
        minimum_saving_bytes: A layer stays float when packing it would save fewer bytes.
        rules: Exceptions by layer, first match wins.
        seed: Seed of everything random.
    """

    bits: str = "4"
    method: str = "hessian"
    per_channel: bool | None = None
    activations: int | None = None
    keep_names: bool = False
    minimum_saving_bytes: int = 1
    rules: tuple[LayerRule, ...] = ()
    seed: int = 0

    @property
    def scales_per_channel(self) -> bool:
        """One scale per output channel: as asked, else for all methods but VecQ, which is defined
        with one per tensor."""
        return self.method != "vecq" if self.per_channel is None else self.per_channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Limits for pipelines; None is no limit.

    Attributes:
        max_size_bytes: Of the written model, external data included.
        max_latency_s: Predicted, on the target.
        max_drop: Accuracy (or top-1 agreement without labels) that may be lost, 0 to 1.
        min_accuracy: On labelled data, 0 to 1.
    """

    max_size_bytes: int | None = None
    max_latency_s: float | None = None
    max_drop: float | None = None
    min_accuracy: float | None = None
