"""Real models load, show their layers, and round-trip with equal outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecompress.core.stages import Conv, MatMul
from edgecompress.core.tensors import Dense
from edgecompress.graph.compare import Original
from edgecompress.graph.model import load_model
from edgecompress.graph.save import save_model

LAYERS = {
    "dtln_1.onnx": 5,
    "dtln_2.onnx": 7,
    "fashion_cnn_alt.onnx": 4,
    "fashion_mlp.onnx": 2,
    "fastestdet.onnx": 70,
    "mlperf_ad_autoencoder.onnx": 10,
    "mlperf_kws_dscnn.onnx": 10,
    "mlperf_kws_dscnn_int8qdq.onnx": 0,
    "mnist_cntk_op8.onnx": 3,
    "ppocr_ch_v1.1_det.onnx": 58,
    "resnet20_cifar10.onnx": 20,
    "resnet20_cifar10_bn_op11.onnx": 20,
    "resnet20_cifar10_dynamo_op20.onnx": 20,
    "resnet20_cifar10_fp16.onnx": 20,
    "shufflenet_v2_int8_qlinear.onnx": 0,
    "silero_vad.onnx": 0,
    "silero_vad_half.onnx": 6,
    "stories260k.onnx": 36,
    "superres_x3_op10.onnx": 4,
    "ultraface_rfb320.onnx": 52,
    "vdsr.onnx": 20,
    "vittrack.onnx": 35,
}
"""Counted in the files: Conv, ConvTranspose, Gemm and MatMul nodes with a constant, two for each
recurrent cell, one for each table; none in bodies, none quantized."""


@pytest.mark.parametrize("name", LAYERS)
def test_real_model_round_trips(data_dir: Path, tmp_path: Path, name: str) -> None:
    path = data_dir / "models" / name
    model = load_model(path)
    found = model.find_layers()
    assert len(found.layers) == LAYERS[name]
    assert found.layers or found.skips
    out = tmp_path / "out.onnx"
    fact = save_model(model, out)
    assert fact.size_bytes < path.stat().st_size
    onnx.checker.check_model(str(out))
    original = Original(onnx.load(path), {})
    assert not original.reason
    assert not original.difference(onnx.load(out))
    assert not any(note.startswith(("left as it is", "not compared")) for note in model.notes)


@pytest.mark.parametrize("name", ["resnet20_cifar10_bn_op11.onnx", "mlperf_kws_dscnn.onnx"])
def test_every_layer_can_become_a_full_rank_chain(data_dir: Path, name: str) -> None:
    path = data_dir / "models" / name
    model = load_model(path)
    for layer in model.find_layers().layers:
        stage = layer.stage
        outputs = layer.weight_shape[0]
        eye = np.eye(outputs, dtype=np.float32)
        last: Conv | MatMul
        if isinstance(stage, Conv):
            weight = Dense(eye.reshape(outputs, outputs, 1, 1))
            last = Conv(weight=weight, stride=(1, 1), pads=(0,) * 4, dilation=(1, 1))
        else:
            last = MatMul(weight=Dense(eye))
        model.replace(layer, [stage, last], layer.bias)
    original = Original(onnx.load(path), {})
    assert not original.difference(model.to_proto())


def test_resnet20_counts(data_dir: Path) -> None:
    """The published counts of ResNet-20: He et al. 2016, table 6, and 40.8 M multiply-adds."""
    layers = load_model(data_dir / "models" / "resnet20_cifar10.onnx").find_layers().layers
    assert sum(layer.parameters for layer in layers) == 268_336
    assert sum(layer.macs or 0 for layer in layers) == pytest.approx(40.55e6, rel=1e-3)
