"""Make neural networks small and fast for edge devices, and say how fast they will be there.

    import edgecompress as ec

    report = ec.quantize("model.onnx", "small.onnx", ec.QuantizeOptions(bits="3"), data="data.npz")
    latency = ec.estimate_latency("small.onnx", ["winocnn-zcu102-w4"])

Importing the package loads nothing; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgecompress.core.version import __version__ as __version__

if TYPE_CHECKING:
    from edgecompress.api import (
        compress,
        decompose,
        evaluate,
        inspect,
        load,
        plan,
        quantize,
        train,
    )
    from edgecompress.core.errors import EdgeCompressError
    from edgecompress.core.options import (
        DecomposeOptions,
        Gates,
        HealOptions,
        LayerRule,
        QuantizeOptions,
    )
    from edgecompress.device_api import (
        estimate_latency,
        estimate_training_step,
        rtl,
        simulate,
        sweep_latency,
    )

_HOMES = {
    "DecomposeOptions": "edgecompress.core.options",
    "EdgeCompressError": "edgecompress.core.errors",
    "Gates": "edgecompress.core.options",
    "HealOptions": "edgecompress.core.options",
    "LayerRule": "edgecompress.core.options",
    "QuantizeOptions": "edgecompress.core.options",
    "compress": "edgecompress.api",
    "decompose": "edgecompress.api",
    "estimate_latency": "edgecompress.device_api",
    "estimate_training_step": "edgecompress.device_api",
    "evaluate": "edgecompress.api",
    "inspect": "edgecompress.api",
    "load": "edgecompress.api",
    "plan": "edgecompress.api",
    "quantize": "edgecompress.api",
    "rtl": "edgecompress.device_api",
    "simulate": "edgecompress.device_api",
    "sweep_latency": "edgecompress.device_api",
    "train": "edgecompress.api",
}

__all__ = [
    "DecomposeOptions",
    "EdgeCompressError",
    "Gates",
    "HealOptions",
    "LayerRule",
    "QuantizeOptions",
    "__version__",
    "compress",
    "decompose",
    "estimate_latency",
    "estimate_training_step",
    "evaluate",
    "inspect",
    "load",
    "plan",
    "quantize",
    "rtl",
    "simulate",
    "sweep_latency",
    "train",
]


def __getattr__(name: str) -> object:
    """The public name, from the module that has it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
