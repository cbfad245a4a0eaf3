"""Real networks in packed form: bytes, what onnxruntime makes of them, and their outputs.

Codes are rounded to nearest; how good the codes are is tested elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle import relative_l2
from quantized_models import optimized_operators, packed, run
from tolerance import (
    OPTIMIZED_INT8_RELATIVE_L2,
    OPTIMIZED_INT8_TOP1_AGREEMENT,
    OPTIMIZED_WEIGHTS_ONLY_RELATIVE_L2,
)

from edgecompress.core.grids import GRIDS, Grid
from edgecompress.core.tensors import Affine
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.pack import why_not_pack

Feed = dict[str, np.ndarray]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def _nearest(weight: np.ndarray, grid: Grid) -> Affine:
    axes = tuple(range(1, weight.ndim))
    step = np.abs(weight).max(axes, keepdims=True) / grid.largest
    step = np.where(step > 0, step, 1.0).astype(np.float32)
    ratio = weight / step
    codes = 2 * np.floor(ratio / 2) + 1 if grid.spacing == 2 else np.rint(ratio)
    return Affine(np.clip(codes, -grid.largest, grid.largest).astype(np.int8), step, grid)


def _quantized(path: Path, grid: str) -> Model:
    model = load_model(path)
    for layer in model.find_layers().layers:
        weight = np.asarray(layer.stage.weight.to_dense(), np.float64)
        affine = _nearest(weight, GRIDS[grid])
        if weight.ndim != 3 and not why_not_pack(affine):
            model.replace(layer, [replace(layer.stage, weight=affine)], layer.bias)
    return model


def _images(data_dir: Path, name: str, count: int) -> Feed:
    with np.load(data_dir / "datasets" / name) as file:
        pixels = next(file[key] for key in file.files if file[key].ndim == 4)[:count]
    values = (pixels / 255 - MEAN) / STD
    return {"input": np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)}


def _ranges(model: Model, feed: Feed) -> dict[str, tuple[float, float]]:
    """All but one in 10^5 values on either side."""
    proto = model.to_proto()
    names = [name for node in proto.graph.node for name in node.output if name]
    del proto.graph.output[:]
    for name in names:
        proto.graph.output.add().name = name
    values = [*zip(names, run(proto.SerializeToString(), feed), strict=True), *feed.items()]
    return {
        name: (float(np.quantile(array, 1e-5)), float(np.quantile(array, 1 - 1e-5)))
        for name, array in values
        if array.dtype == np.float32 and array.size
    }


@pytest.mark.parametrize(
    ("grid", "ratio"), [("ternary", 15.0), ("2", 11.0), ("3", 8.5), ("4", 6.8), ("8", 3.8)]
)
def test_resnet20_weights_only(data_dir: Path, tmp_path: Path, grid: str, ratio: float) -> None:
    path = data_dir / "models" / "resnet20_cifar10.onnx"
    model = _quantized(path, grid)
    data = packed(model, keep_names=False)
    assert path.stat().st_size / len(data) >= ratio
    feed = _images(data_dir, "cifar10_test1k.npz", 32)
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_WEIGHTS_ONLY_RELATIVE_L2
    exact = run(model.to_proto().SerializeToString(), feed)[0]
    assert relative_l2(plain, exact) <= OPTIMIZED_WEIGHTS_ONLY_RELATIVE_L2
    left = optimized_operators(data, tmp_path)
    assert left["Conv"] == 19
    assert not {"Split", "Gather", "Cast", "Mul", "BitwiseOr"} & set(left)


@pytest.mark.parametrize("grid", ["ternary", "4"])
def test_resnet20_with_8_bit_activations(data_dir: Path, tmp_path: Path, grid: str) -> None:
    path = data_dir / "models" / "resnet20_cifar10.onnx"
    model = _quantized(path, grid)
    model.activation_ranges.update(_ranges(model, _images(data_dir, "cifar10_calib5k.npz", 128)))
    data = packed(model, activations=True, keep_names=False)
    left = optimized_operators(data, tmp_path)
    assert left["QLinearConv"] == 19
    assert left["QLinearAdd"] == 9
    assert left["Conv"] == left["Relu"] == 0
    feed = _images(data_dir, "cifar10_test1k.npz", 400)
    plain, fused = run(data, feed)[0], run(data, feed, optimize=True)[0]
    assert relative_l2(fused, plain) <= OPTIMIZED_INT8_RELATIVE_L2
    same = (fused.argmax(axis=1) == plain.argmax(axis=1)).mean()
    assert same >= OPTIMIZED_INT8_TOP1_AGREEMENT


WEIGHTS_ONLY = [
    "dtln_1",
    "fashion_cnn_alt",
    "fashion_mlp",
    "fastestdet",
    "mlperf_ad_autoencoder",
    "mlperf_kws_dscnn",
    "mnist_cntk_op8",
    "stories260k",
    "ultraface_rfb320",
    "vittrack",
]


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_other_networks_compute_what_codes_times_scale_does(data_dir: Path, name: str) -> None:
    path = data_dir / "models" / f"{name}.onnx"
    model = _quantized(path, "3")
    assert model.quantized
    rng = np.random.default_rng(0)
    feed = {}
    for spec in model.inputs():
        shape = [8 if size is None else size for size in spec.shape]
        integers = spec.dtype.kind == "i"
        values = rng.integers(0, 100, shape) if integers else rng.standard_normal(shape)
        feed[spec.name] = values.astype(spec.dtype)
    data = packed(model, keep_names=False)
    expected = run(model.to_proto().SerializeToString(), feed)
    for optimize in (False, True):
        for found, exact in zip(run(data, feed, optimize=optimize), expected, strict=True):
            assert relative_l2(found, exact) <= OPTIMIZED_WEIGHTS_ONLY_RELATIVE_L2
