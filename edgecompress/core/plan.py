"""What will be done, explicit per layer; written beside every output and replayable."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.core.layers import Skip
from edgecompress.core.options import HealOptions

PLAN_SCHEMA = "edgecompress.plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """What happens to one layer.

    Attributes:
        layer: Its name in the input model (for quantization after decomposition: in the
            decomposed model).
        step: ``decompose`` or ``quantize``.
        format: Decomposition format, or empty.
        ranks: Ranks of the format, one per bond.
        grid: Grid name, or empty.
        method: Quantizer name, or empty.
        reason: Why this and not what was asked; empty when it is what was asked.
    """

    layer: str
    step: str
    format: str = ""
    ranks: tuple[int, ...] = ()
    grid: str = ""
    method: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealPlan:
    """How the decomposed graph was healed.

    Attributes:
        options: As they were.
        data_sha256: Of the samples that it was healed on.
        made_with: Version, threads and processor that the bits of the result depend on.
        weights_sha256: Of all weights after it; another one after a replay is reported.
    """

    options: HealOptions
    data_sha256: str
    made_with: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All decisions for one model.

    Attributes:
        input_sha256: Of the model file that it was made for.
        data_sha256: Of the calibration data, or empty.
        calibration: Number of calibration samples that were asked for at most.
        preprocess: What the data went through, as on the command line, or empty.
        target: Target name, or empty.
        seed: Seed of everything random.
        activations: 8, or None for weights only.
        per_channel: One scale per output channel, else per tensor.
        keep_names: Keep internal tensor names.
        layers: In the order in which they are done.
        skips: What is left as it is, and why.
        heal: How the decomposed graph was healed; None: it was not.
    """

    input_sha256: str
    data_sha256: str
    calibration: int
    preprocess: str
    target: str
    seed: int
    activations: int | None
    per_channel: bool
    keep_names: bool
    layers: tuple[LayerPlan, ...]
    skips: tuple[Skip, ...]
    heal: HealPlan | None = None
