"""Turn a plan back into options, so that a run repeats its decisions."""

from __future__ import annotations

import re

from edgecompress.core.options import LayerRule, QuantizeOptions
from edgecompress.core.plan import Plan


def quantize_options(plan: Plan) -> QuantizeOptions:
    """Options that give every layer the grid that the plan says, and leave all others alone.

    A layer's name in a plan is exact, whatever characters it has.
    """
    steps = [layer for layer in plan.layers if layer.step == "quantize"]
    rules = tuple(LayerRule(match=f"re:{re.escape(step.layer)}", bits=step.grid) for step in steps)
    methods = list(dict.fromkeys(step.method for step in steps))
    return QuantizeOptions(
        method="hessian" if "hessian" in methods else (methods or ["vecq"])[0],
        per_channel=plan.per_channel,
        activations=plan.activations,
        keep_names=plan.keep_names,
        rules=(*rules, LayerRule(match="*", skip=True)),
        seed=plan.seed,
    )
