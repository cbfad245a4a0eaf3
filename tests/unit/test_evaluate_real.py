"""Trained networks on their data: the loader and the scores against published accuracies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecompress.core.preprocess import read_preprocess
from edgecompress.graph.model import load_model
from edgecompress.pipeline.data import load_samples
from edgecompress.pipeline.evaluate import evaluate

FOLDER = os.environ.get("EDGECOMPRESS_DATA")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="EDGECOMPRESS_DATA is not set")
IMAGENET = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc"


@pytest.mark.parametrize(
    ("model", "data", "preprocess", "accuracy"),
    [
        ("resnet20_cifar10.onnx", "cifar10_test1k.npz", IMAGENET, 0.915),
        ("resnet20_cifar10_fp16.onnx", "cifar10_test1k.npz", IMAGENET, 0.916),
        (
            "fashion_cnn_alt.onnx",
            "fashion_mnist/t10k-images-idx3-ubyte.gz",
            "scale=1/255,mean=0.5,std=0.5",
            0.883,
        ),
        (
            "fashion_mlp.onnx",
            "fashion_mnist/t10k-images-idx3-ubyte.gz",
            "scale=1/255",
            0.8515,
        ),
        ("mnist_cntk_op8.onnx", "mnist/t10k-images-idx3-ubyte.gz", None, 0.9891),
        ("mlperf_kws_dscnn_int8qdq.onnx", "mlperf_kws_mfcc_a.npz", None, 0.898),
    ],
)
def test_accuracy(model: str, data: str, preprocess: str | None, accuracy: float) -> None:
    """Truth: measured with a separate script, not with this package."""
    network = load_model(Path(str(FOLDER)) / "models" / model, normalize=False)
    samples = load_samples(
        str(Path(str(FOLDER)) / "datasets" / data),
        network,
        preprocess=read_preprocess(preprocess) if preprocess else None,
    )
    one_image = 1 / samples.count
    assert evaluate(network, None, samples).accuracy == pytest.approx(accuracy, abs=1.5 * one_image)
