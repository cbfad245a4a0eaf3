"""ResNet-20 on CIFAR-10: accuracy of all-layer quantization with the defaults.

One draw of the calibration images; the bars on the mean of three draws are those of
``benchmarks/quantization``. On 1,000 images two networks that disagree on 7 % of them differ by a
standard error of 0.8 points, which a single draw is given.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quantization.measure import NETWORKS, RESULTS, measure

BARS = {"4": 0.5, "3": 1.0, "2": 1.5, "ternary": 2.5}
"""Points lost at most, mean of three draws."""
ACTIVATIONS_BAR = 0.5
"""Points more that 8-bit activations may lose, mean of three draws."""
ONE_DRAW = 0.8


@pytest.mark.slow
@pytest.mark.parametrize("bits", BARS)
def test_points_lost(data_dir: Path, bits: str, full: bool) -> None:
    if not full and bits != "2":
        pytest.skip("not in the slice; --full runs it")
    data = NETWORKS["resnet20_cifar10"](data_dir / "datasets")
    path = data_dir / "models" / "resnet20_cifar10.onnx"
    entry = measure(path, data, bits, draw=0, count=1024 if full else 512)
    assert not entry["left_as_they_are"]
    assert entry["weights"]["points_lost"] <= BARS[bits] + ONE_DRAW
    more = entry["weights_and_activations"]["points_lost"] - entry["weights"]["points_lost"]
    assert more <= ACTIVATIONS_BAR + ONE_DRAW


@pytest.mark.parametrize("bits", BARS)
def test_committed_results_hold_the_bars(bits: str) -> None:
    entries = json.loads(RESULTS.read_text(encoding="utf-8"))["entries"]
    draws = [entries[f"resnet20_cifar10 {bits} draw {draw}"] for draw in range(3)]
    assert {entry["test_samples"] for entry in draws} == {1000}
    assert max(entry["calibration_samples"] for entry in draws) <= 1024
    weights = [entry["weights"]["points_lost"] for entry in draws]
    both = [entry["weights_and_activations"]["points_lost"] for entry in draws]
    assert np.mean(weights) <= BARS[bits]
    assert np.mean(both) - np.mean(weights) <= ACTIVATIONS_BAR
