"""How much an error of each layer matters to the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.layers import Layer
from edgecompress.core.samples import Feed, Samples
from edgecompress.core.stages import Stage
from edgecompress.formats import FORMATS
from edgecompress.formats.base import Moments
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.pipeline.candidates import Survey, measured_loss
from edgecompress.pipeline.moments import fitted_bias

if TYPE_CHECKING:
    from edgecompress.graph.model import Model

SAMPLES = 128
"""Samples that the outputs are compared on. A choice, for speed; not tuned."""

MOST_MACS = 2e12
"""Multiply-accumulates that all comparisons may take; large models use fewer samples."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One layer, decomposed about half way.

    Attributes:
        layer: The layer.
        stages, bias: What to put in its place.
        loss: Squared relative error of its outputs with them.
    """

    layer: Layer
    stages: tuple[Stage, ...]
    bias: FloatArray
    loss: float


def make_probe(survey: Survey, moments: Moments) -> Probe:
    """The layer with its candidate of middle loss."""
    ordered = sorted(survey.candidates, key=lambda candidate: candidate.loss)
    middle = ordered[len(ordered) // 2]
    form = FORMATS.get(middle.format)
    stages = form.decompose(survey.layer, middle.ranks, moments)
    weight = form.compose(survey.layer, stages)
    return Probe(
        layer=survey.layer,
        stages=stages,
        bias=fitted_bias(survey.layer, weight, moments),
        loss=measured_loss(survey.layer, weight, moments),
    )


def sensitivities(
    model: Model, probes: Mapping[str, Probe], samples: Samples, progress: Progress
) -> dict[str, float]:
    """How much a squared relative error of each layer counts.

    Measured is the squared relative error of the model's outputs for each unit of a layer's own.

    Args:
        model: Float; not changed.
        probes: By layer.
        samples: Calibration data.
        progress: Called with a phase, layers done and layers in all.

    Returns:
        For each probe the square root of that, not negative. The root stands half way between the
        measured value and treating all layers alike: the refit of later layers takes back a part
        of what one layer alone does. Of the three the root is the one that was never bad, not
        always the best (docs/decomposition.md).
    """
    feeds = _few(samples, len(probes), sum(p.layer.macs or 0 for p in probes.values()))
    reference = run_feeds(open_session(model.to_proto(), optimize=True), feeds)
    found = {}
    for count, (name, probe) in enumerate(probes.items()):
        progress("measuring sensitivities", count, len(probes))
        twin = model.clone()
        twin.replace(probe.layer, probe.stages, probe.bias)
        outputs = run_feeds(open_session(twin.to_proto(), optimize=True), feeds)
        found[name] = float(np.sqrt(_difference(reference, outputs) / max(probe.loss, 1e-12)))
    return found


def _few(samples: Samples, runs: int, macs: int) -> Sequence[Feed]:
    """The first feeds, as many as have enough samples and do not take too long; at least one."""
    per_feed = max(1, samples.count // max(1, len(samples.feeds)))
    affordable = MOST_MACS / max(1, runs * macs)
    count = int(min(SAMPLES, affordable) // per_feed)
    return samples.feeds[: max(1, count)]


def _difference(reference: Sequence[Sequence[Array]], outputs: Sequence[Sequence[Array]]) -> float:
    """Squared relative error, averaged over the outputs that are floating-point tensors."""
    errors = []
    for place in range(len(reference[0])):
        wanted = [np.asarray(feed[place]) for feed in reference]
        given = [np.asarray(feed[place]) for feed in outputs]
        if wanted[0].dtype.kind != "f":
            continue
        pairs = list(zip(wanted, given, strict=True))
        if any(a.shape != b.shape for a, b in pairs):
            continue
        energy = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
        error = sum(float(np.square(b - a, dtype=np.float64).sum()) for a, b in pairs)
        errors.append(error / energy if energy > 0 else 0.0)
    return float(np.mean(errors)) if errors else 0.0
