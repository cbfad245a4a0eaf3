"""The sample models are what their README says, and compress as the project promises."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from oracle import run_unoptimized

from edgecompress.core.options import QuantizeOptions
from edgecompress.pipeline.compress import run_compress
from edgecompress.pipeline.request import CompressRequest

NAMES = ("digits_cnn", "digits_dscnn", "digits_transformer")
LARGEST_TOTAL_BYTES = 1_000_000


def accuracy(model: Path, folder: Path) -> tuple[float, int]:
    """Share of the test images that a file gets right, and their number; not by the package."""
    test = np.load(folder / "digits_test.npz")
    (scores,) = run_unoptimized(str(model), {"image": test["image"]})
    return float((scores.argmax(1) == test["labels"]).mean()), len(test["labels"])


@pytest.mark.parametrize("name", NAMES)
def test_readme_has_the_facts(name: str, sample_models: Path) -> None:
    text = (sample_models / "README.md").read_text(encoding="utf-8")
    path = sample_models / f"{name}.onnx"
    assert f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`" in text
    (row,) = re.findall(rf"^\| `{name}\.onnx` \|.*\| ([\d,]+) \| ([\d.]+) % \|$", text, re.M)
    weights, percent = int(row[0].replace(",", "")), float(row[1])
    measured, count = accuracy(path, sample_models)
    assert count == 500
    assert round(100 * measured, 1) == percent
    model = onnx.load(path)
    sizes = {c.name: int(np.prod(c.dims)) for c in model.graph.initializer}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert sum(sizes.get(node.input[1], 0) for node in layers) == weights


def test_data_files_are_disjoint(sample_models: Path) -> None:
    calibration = np.load(sample_models / "digits_calibration.npz")
    assert calibration.files == ["image"]
    test = np.load(sample_models / "digits_test.npz")
    seen = {image.tobytes() for image in calibration["image"]}
    assert not seen & {image.tobytes() for image in test["image"]}


def test_small_enough_to_commit(sample_models: Path) -> None:
    assert sum(p.stat().st_size for p in sample_models.iterdir()) < LARGEST_TOTAL_BYTES


def test_demo_network_is_eight_times_smaller_at_one_point(
    sample_models: Path, tmp_path: Path
) -> None:
    """The demo network has 100,000 weights, and 400 images score it."""
    network = sample_models / "digits_cnn.onnx"
    output = tmp_path / "small.onnx"
    run_compress(
        CompressRequest(
            command="compress",
            model=network,
            output=output,
            decompose=None,
            quantize=QuantizeOptions(bits="ternary"),
            data=str(sample_models / "digits_calibration.npz"),
        )
    )
    before, count = accuracy(network, sample_models)
    after, _ = accuracy(output, sample_models)
    assert count >= 400
    assert network.stat().st_size >= 8 * output.stat().st_size
    assert before - after <= 0.01
