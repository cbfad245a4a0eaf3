"""One ONNX file through ZigZag; runs where zigzag-dse is installed and needs nothing else.

    PYTHON_WITH_ZIGZAG benchmarks/latency/zigzag_run.py FILE.onnx

Prints one JSON object: cycles, energy, and the seconds it took on the 32 x 32 array that ZigZag
comes with ("tpu_like"), mapping by latency with six loops.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import zigzag
from zigzag.api import get_hardware_performance_zigzag


def run(path: str) -> dict[str, Any]:
    """ZigZag's figures of a network."""
    logging.disable(logging.INFO)
    inputs = Path(zigzag.__file__).parent / "inputs"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        energy, latency, _ = get_hardware_performance_zigzag(
            workload=path,
            accelerator=str(inputs / "hardware" / "tpu_like.yaml"),
            mapping=str(inputs / "mapping" / "tpu_like.yaml"),
            opt="latency",
            dump_folder=folder,
            pickle_filename=str(Path(folder) / "out.pickle"),
            lpf_limit=6,
        )[:3]
    return {
        "version": metadata.version("zigzag-dse"),
        "cycles": latency,
        "energy_pj": energy,
        "seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
