"""What a run ran on, for the report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from edgecompress import __version__

PACKAGES = ("numpy", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


def versions(*more: str) -> dict[str, str]:
    """Name -> version of this tool, Python, and the packages that results depend on.

    Args:
        more: Packages that this run used besides those that all use.
    """
    found = {"edgecompress": __version__, "python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
