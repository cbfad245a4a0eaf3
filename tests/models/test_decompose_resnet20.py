"""A real network loses little when half of its multiply-accumulates go, without fine-tuning."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgecompress.core.options import Budget, DecomposeOptions
from edgecompress.core.samples import Samples
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.save import save_model
from edgecompress.graph.session import open_session
from edgecompress.pipeline.decompose import apply_plan, decompose

DATA = os.environ.get("EDGECOMPRESS_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="EDGECOMPRESS_DATA is not set")

FLOAT_ACCURACY = 0.915
"""Measured with onnxruntime alone on the same 1,000 images."""


def _images(name: str, count: int) -> np.ndarray:
    stored = np.load(Path(DATA or "") / "datasets" / name)["x"][:count].astype(np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    return np.ascontiguousarray(((stored / 255 - mean) / deviation).transpose(0, 3, 1, 2))


@pytest.fixture(scope="module")
def samples() -> Samples:
    images = _images("cifar10_calib5k.npz", 256)
    feeds = tuple({"input": images[k : k + 64]} for k in range(0, 256, 64))
    return Samples(feeds=feeds, labels=None, count=256, source="CIFAR-10", sha256="")


def _accuracy(model: Model) -> float:
    images = _images("cifar10_test1k.npz", 1000)
    labels = np.load(Path(DATA or "") / "datasets" / "cifar10_test1k.npz")["y"]
    session = open_session(model.to_proto(), optimize=True)
    parts = [session.run(None, {"input": images[k : k + 250]})[0] for k in range(0, 1000, 250)]
    return float((np.concatenate(parts).argmax(1) == labels).mean())


def test_half_the_work_at_two_and_a_half_points(samples: Samples, tmp_path: Path) -> None:
    source = Path(DATA or "") / "models" / "resnet20_cifar10.onnx"
    model, twin = load_model(source), load_model(source)
    dense = sum(layer.macs or 0 for layer in model.find_layers().layers)
    options = DecomposeOptions(format="spatial", ranks=Budget("macs", ratio=0.5))
    plans, results, skips = decompose(model, options, samples, None)

    assert sum(layer.macs or 0 for layer in model.find_layers().layers) <= 0.5 * dense
    assert _accuracy(model) >= FLOAT_ACCURACY - 0.025
    wide = [
        p for p, r in zip(plans, [r for r in results if r.ranks], strict=True) if "layer3" in r.name
    ]
    assert all(rank % 16 == 0 for plan in wide[1:] for rank in plan.ranks)
    assert all(skip.reason for skip in skips)

    apply_plan(twin, plans, samples)
    save_model(model, tmp_path / "a.onnx")
    save_model(twin, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
