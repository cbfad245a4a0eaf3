"""From how many weights on a linear layer is faster in 8 bits: dynamic form over float.

python benchmarks/forms/linear_threshold.py

Ratio of times of a chain of 8 layers, one thread, interleaved in one process, median of 400.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.core.grids import GRIDS
from edgecompress.core.report import FileFact
from edgecompress.core.tensors import Affine
from edgecompress.graph import dynamic
from edgecompress.graph.model import Model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import serialized
from edgecompress.graph.session import open_session

LAYERS = 8


def chain(width: int, rows: int, *, activations: bool) -> bytes:
    rng = np.random.default_rng(0)
    nodes, quantized = [], {}
    for layer in range(LAYERS):
        codes = rng.choice(GRIDS["4"].codes, (width, width))
        scale = np.full((1, width), 0.1 / width**0.5, np.float32)
        quantized[f"w{layer}"] = Affine(codes, scale, GRIDS["4"])
        made = onnx.helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"])
        nodes.append(made)
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x0", 1, [rows, width])],
        [onnx.helper.make_tensor_value_info(f"x{LAYERS}", 1, [rows, width])],
        [onnx.numpy_helper.from_array(w.to_dense(), name) for name, w in quantized.items()],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    model = Model(ir.from_proto(proto), FileFact(path="", sha256="", size_bytes=0))
    model.quantized.update(quantized)
    pack(model, activations=activations, keep_names=False)
    return serialized(model)


def main() -> None:
    dynamic._SMALLEST = 0
    print("| weights of a layer | 1 row | 8 rows | 32 rows |")
    print("|---:|---:|---:|---:|")
    for width in (16, 32, 48, 64, 96, 128, 192, 256, 512):
        ratios = []
        for rows in (1, 8, 32):
            files = [chain(width, rows, activations=on) for on in (False, True)]
            sessions = [open_session(data, optimize=True) for data in files]
            feed = {"x0": np.random.default_rng(1).standard_normal((rows, width), np.float32)}
            times: list[list[float]] = [[], []]
            for _ in range(400):
                for session, spent in zip(sessions, times, strict=True):
                    start = time.perf_counter()
                    session.run(None, feed)
                    spent.append(time.perf_counter() - start)
            ratios.append(statistics.median(times[1]) / statistics.median(times[0]))
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {width * width} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
