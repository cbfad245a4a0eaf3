"""One decode for many weights or one for each: bytes, load time, peak memory of the process.

python benchmarks/forms/decode_layout.py [LAYERS [WIDTH]]

A network of LAYERS square linear layers with random ternary weights is written with different
limits on the codes of one decode; each file is loaded in a fresh process. Memory is counted over
that of the process before loading; runs are the median of three.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.grids import GRIDS
from edgecompress.core.report import FileFact
from edgecompress.core.tensors import Affine
from edgecompress.graph import packing_codec
from edgecompress.graph.model import Model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import serialized
from edgecompress.graph.session import open_session

LIMITS = {"one decode for each weight": 1, "2^22": 1 << 22, "2^24": 1 << 24, "all": 1 << 40}


def network(layers: int, width: int, *, activations: bool) -> bytes:
    rng = np.random.default_rng(0)
    nodes, quantized = [], {}
    for layer in range(layers):
        codes = rng.integers(-1, 2, (width, width)).astype(np.int8)
        scale = rng.uniform(0.01, 0.02, (1, width)).astype(np.float32)
        quantized[f"w{layer}"] = Affine(codes, scale, GRIDS["ternary"])
        nodes.append(onnx.helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]))
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x0", 1, [1, width])],
        [onnx.helper.make_tensor_value_info(f"x{layers}", 1, [1, width])],
        [
            onnx.numpy_helper.from_array(np.zeros(affine.shape, np.float32), name)
            for name, affine in quantized.items()
        ],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    model = Model(ir.from_proto(proto), FileFact(path="", sha256="", size_bytes=0))
    model.quantized.update(quantized)
    pack(model, activations=activations, keep_names=False)
    return serialized(model)


def load(path: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = memory("VmRSS")
    start = time.perf_counter()
    session = open_session(path, optimize=True)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, memory("VmHWM") - before, memory("VmRSS") - before]))
    del session


def memory(field: str) -> float:
    """MB, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main(layers: int = 3, width: int = 4096) -> None:
    print(f"{layers} layers {width} x {width}, ternary")
    print("| activations | decode | bytes | load s | peak MB | resident MB |")
    print("|---|---|---:|---:|---:|---:|")
    for activations in (False, True):
        for name, limit in LIMITS.items():
            packing_codec._DECODE_LIMIT = limit
            data = network(layers, width, activations=activations)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(data)
                command = [sys.executable, __file__, "--load", str(path)]
                runs = [
                    json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
                    for _ in range(3)
                ]
            seconds, peak, resident = sorted(runs)[1]
            kind = "8 bits" if activations else "float"
            print(
                f"| {kind} | {name} | {len(data)} | {seconds:.2f} | {peak:.0f} | {resident:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(sys.argv[2])
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
