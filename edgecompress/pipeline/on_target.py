"""Accuracy on an accelerator: a network whose convolutions go through its datapath."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.errors import Unsupported
from edgecompress.core.report import OutputNoise, TargetAccuracy
from edgecompress.core.samples import Samples
from edgecompress.graph.integers import NamedLayer
from edgecompress.graph.model import Model
from edgecompress.graph.replaced import run_replaced
from edgecompress.graph.session import open_session, run_feeds
from edgecompress.hardware.simulator.layers import IntegerConv, exact_outputs
from edgecompress.hardware.simulator.wino_datapath import (
    Datapath,
    Scales,
    choose_scales,
    cut_offsets,
    truncated_conv,
)
from edgecompress.hardware.target import Target
from edgecompress.pipeline.array_codes import as_integer_layer
from edgecompress.pipeline.evaluate import fidelity
from edgecompress.pipeline.machines import machine_of, truncating_datapath
from edgecompress.pipeline.simulate import snr_db

SCALES = (
    "scale factors of the layers are chosen here, by their largest values and sums: those of the "
    "published host are not known"
)


def on_target(model: Model, target: Target, samples: Samples) -> TargetAccuracy:
    """What is left of a network's accuracy on an accelerator.

    Every convolution with integer weights runs through the datapath of the target, on the integers
    of the graph; what it loses goes on through the graph.

    Args:
        model: Loaded with ``normalize=False``; its file is what onnxruntime runs beside it.
        target: Of a family with a simulator.
        samples: Fitted to the model's inputs.

    Raises:
        Unsupported: The family has no simulator, or the graph no convolution that it computes.
    """
    machine_of(target)
    datapath = truncating_datapath(target)
    plain = _Convolver(datapath, corrected=False)
    ran = run_replaced(model, samples.feeds, plain.sums)
    if not ran.layers:
        reasons = "; ".join(dict.fromkeys(skip.reason for skip in ran.skips)) or "there is none"
        raise Unsupported(
            f"no convolution can be computed on {target.name}: {reasons}",
            where=model.file.path,
            hint="quantize a model with convolutions first; simulate runs matrix products",
        )
    session = open_session(Path(model.file.path), optimize=False)
    reference = run_feeds(session, samples.feeds)
    corrected = None
    if datapath is not None:
        again = run_replaced(model, samples.feeds, _Convolver(datapath, corrected=True).sums)
        corrected = fidelity(reference, again.outputs, samples)
    names = [value.name or "" for value in model.ir.graph.outputs]
    return TargetAccuracy(
        target=target.name,
        truncates=datapath is not None,
        layers=ran.layers,
        fidelity=fidelity(reference, ran.outputs, samples),
        outputs=tuple(
            OutputNoise(name=name, snr_db=_noise(reference, ran.outputs, place))
            for place, name in enumerate(names)
        ),
        corrected=corrected,
        skips=ran.skips,
        assumed="" if datapath is None else SCALES,
    )


class _Convolver:
    """Computes the convolutions of a run; scales and offsets are those of a layer's first feed."""

    def __init__(self, datapath: Datapath | None, *, corrected: bool) -> None:
        self._datapath = datapath
        self._corrected = corrected
        self._chosen: dict[str, tuple[Scales, FloatArray]] = {}

    def sums(self, found: NamedLayer) -> FloatArray | Array:
        """The sums of a layer, in the unit of its exact ones."""
        layer = as_integer_layer(found)
        if not isinstance(layer, IntegerConv):
            raise TypeError(f"{found.name} is not a convolution")
        if self._datapath is None:
            return exact_outputs(layer)
        if found.name not in self._chosen:
            self._chosen[found.name] = self._choose(layer, self._datapath)
        scales, offsets = self._chosen[found.name]
        steps: FloatArray = truncated_conv(layer, self._datapath, scales) - offsets
        return steps * scales.unit

    def _choose(self, layer: IntegerConv, datapath: Datapath) -> tuple[Scales, FloatArray]:
        scales = choose_scales(layer, datapath)
        if not self._corrected:
            return scales, np.zeros((1, 1, 1))
        return scales, cut_offsets(layer, datapath, scales)[:, None, None]


def _noise(
    reference: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]], place: int
) -> float:
    """Signal to noise of one output over all feeds."""
    truth, got = (
        np.concatenate([np.asarray(feed[place], np.float64).reshape(-1) for feed in outputs])
        for outputs in (reference, found)
    )
    return snr_db(truth, got)
