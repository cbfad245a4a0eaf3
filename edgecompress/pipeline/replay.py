"""Repeat the decisions of a plan."""

from __future__ import annotations

import re
from dataclasses import replace

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.options import DecomposeOptions, LayerRule, QuantizeOptions
from edgecompress.core.plan import Plan
from edgecompress.core.report import FileFact
from edgecompress.core.samples import Samples
from edgecompress.pipeline.quantize import EXACT
from edgecompress.pipeline.request import CompressRequest


def quantize_options(plan: Plan) -> QuantizeOptions:
    """Options that give every layer the grid that the plan says, and leave all others alone.

    A layer's name in a plan is exact, whatever characters it has. A layer that was packed as it is
    will be found to be on its grid again.
    """
    steps = [layer for layer in plan.layers if layer.step == "quantize"]
    rules = tuple(LayerRule(match=f"re:{re.escape(step.layer)}", bits=step.grid) for step in steps)
    methods = list(dict.fromkeys(step.method for step in steps if step.method != EXACT))
    return QuantizeOptions(
        method="hessian" if "hessian" in methods else (methods or ["l2"])[0],
        per_channel=plan.per_channel,
        activations=plan.activations,
        keep_names=plan.keep_names,
        rules=(*rules, LayerRule(match="*", skip=True)),
        seed=plan.seed,
    )


def follow(request: CompressRequest, plan: Plan) -> CompressRequest:
    """The request with everything that a plan decides taken from the plan."""
    steps = {layer.step for layer in plan.layers}
    return replace(
        request,
        decompose=DecomposeOptions(seed=plan.seed) if "decompose" in steps else None,
        quantize=quantize_options(plan) if "quantize" in steps else None,
        heal=plan.heal.options if plan.heal is not None else None,
        calibration=plan.calibration,
        preprocess=plan.preprocess or None,
        seed=plan.seed,
    )


def check_model(plan: Plan, file: FileFact) -> None:
    """Refuse a model other than the one that a plan was made for.

    Raises:
        ConfigurationInvalid: It is another one.
    """
    if file.sha256 != plan.input_sha256:
        raise ConfigurationInvalid(
            f"the plan was made for a model with sha256 {plan.input_sha256[:12]}..., "
            f"not for this one ({file.sha256[:12]}...)",
            where=file.path,
        )


def check_data(plan: Plan, samples: Samples | None) -> None:
    """Refuse calibration data other than those that a plan was made with.

    Raises:
        ConfigurationInvalid: They are others, or missing, or there were none.
    """
    if (samples.sha256 if samples else "") == plan.data_sha256:
        return
    if not plan.data_sha256:
        raise ConfigurationInvalid("the plan was made without data", hint="leave --data out")
    raise ConfigurationInvalid(
        "the plan was made with other calibration data", hint="give the same --data as then"
    )
