"""Small float models with quantized weights, as the quantizers leave them, for tests of packing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from edgecompress.core.grids import GRIDS
from edgecompress.core.report import FileFact
from edgecompress.core.tensors import Affine
from edgecompress.graph.model import Model
from edgecompress.graph.pack import pack
from edgecompress.graph.save import serialized


def affine(shape: tuple[int, ...], grid: str, axis: int = 0, seed: int = 0) -> Affine:
    """Random codes, all of the grid's among them, and a random scale for each entry of an axis."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(GRIDS[grid].codes, shape)
    edge = GRIDS[grid].codes[: codes.size]
    codes.reshape(-1)[: edge.size] = edge
    sizes = [size if place == axis else 1 for place, size in enumerate(shape)]
    scale = (rng.uniform(0.5, 1.0, sizes) / GRIDS[grid].largest).astype(np.float32)
    return Affine(codes, scale, GRIDS[grid])


def quantized_model(
    text: str,
    weights: Mapping[str, Affine],
    constants: Mapping[str, NDArray[np.generic]] | None = None,
    dtype: type[np.generic] = np.float32,
) -> Model:
    """The model of an ONNX text whose named weights are codes times scale."""
    header = '<ir_version: 10, opset_import: ["" : 21]>\n'
    proto = onnx.parser.parse_model(header + text)
    arrays = {name: tensor.to_dense().astype(dtype) for name, tensor in weights.items()}
    for name, array in (arrays | dict(constants or {})).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto, full_check=True)
    model = Model(ir.from_proto(proto), FileFact(path="", sha256="", size_bytes=0))
    model.quantized.update(weights)
    return model


def packed(model: Model, *, activations: bool = False, keep_names: bool = True) -> bytes:
    """The file of a packed clone, checked."""
    twin = model.clone()
    pack(twin, activations=activations, keep_names=keep_names)
    data = serialized(twin, keep_names=keep_names)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    return data


def run(
    data: bytes, feed: Mapping[str, NDArray[np.generic]], *, optimize: bool = False
) -> list[NDArray[np.generic]]:
    """Outputs by onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(feed))]


def optimized_operators(data: bytes, folder: Path) -> Counter[str]:
    """Operators that onnxruntime is left with after loading the file."""
    path = folder / "optimized.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return operators(path.read_bytes())


def operators(data: bytes) -> Counter[str]:
    """Operators of a file."""
    return Counter(node.op_type for node in onnx.load_from_string(data).graph.node)
