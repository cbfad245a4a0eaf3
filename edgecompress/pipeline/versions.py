"""What a run ran on, for the report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from edgecompress import __version__

PACKAGES = ("numpy", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


def versions() -> dict[str, str]:
    """Name -> version of this tool, Python, and the packages that results depend on."""
    found = {"edgecompress": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
