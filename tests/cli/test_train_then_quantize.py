"""Factors trained in few bits are packed as they were trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgecompress.cli.entry import main

ROUNDING = 1e-6
"""Relative; of float32 sums in another order."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 noisy pictures of four patterns, 16x16."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 4
    images = rng.normal(size=(4, 1, 16, 16))[labels] + 0.4 * rng.normal(size=(96, 1, 16, 16))
    path = tmp_path_factory.mktemp("pictures") / "data.npz"
    np.savez(path, images=images.astype(np.float32), labels=labels)
    return path


def run(*words: str | Path) -> None:
    assert main([*map(str, words), "--quiet"]) == 0


def trained(data: Path, folder: Path, *more: str) -> tuple[Path, dict]:
    """The written file and the report."""
    output, report = folder / "trained.onnx", folder / "trained.json"
    common = ("--data", data, "--epochs", "2", "--batch", "32", "--device", "cpu")
    fewer = ("--target-params", "8x")
    run("train", *common, *fewer, *more, "-o", output, "--report", report)
    return output, json.loads(report.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def products(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A network of matrices with factors of 4 bits."""
    folder = tmp_path_factory.mktemp("products")
    return trained(pictures, folder, "--arch", "mlp", "--precision", "4")


@pytest.fixture(scope="module")
def convolutions(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A network with convolutions and factors of 3 bits."""
    folder = tmp_path_factory.mktemp("convolutions")
    return trained(pictures, folder, "--arch", "lenet", "--precision", "3")


def quantized(model: Path, bits: int, folder: Path, *more: str | Path) -> tuple[Path, dict]:
    output, report = folder / "packed.onnx", folder / "packed.json"
    run("quantize", model, "--bits", str(bits), *more, "-o", output, "--report", report)
    return output, json.loads(report.read_text(encoding="utf-8"))


def outputs(model: Path, data: Path) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(data) as stored:
        (found,) = session.run(None, {session.get_inputs()[0].name: stored["images"]})
    return found


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(("kind", "bits"), [("products", 4), ("convolutions", 3)])
def test_packed_factors_are_the_trained_ones(
    pictures: Path, tmp_path: Path, kind: str, bits: int, request: pytest.FixtureRequest
) -> None:
    """Truth: onnxruntime on both files. The size: codes as counted, all else as it was, and what
    decodes them: a table, and a few nodes for each weight."""
    model, account = request.getfixturevalue(kind)
    packed, report = quantized(model, bits, tmp_path, "--data", pictures)
    assert error(outputs(packed, pictures), outputs(model, pictures)) <= ROUNDING
    done = [layer for layer in report["layers"] if layer["action"] == "quantized"]
    assert {layer["method"] for layer in done} == {"exact"}
    stored = {part["name"]: part for part in account["stored"]}
    covered = sum(layer["parameters_after"] for layer in done)
    assert covered >= 0.9 * stored["factor codes"]["numbers"]
    others = model.stat().st_size - 4 * covered
    decoder = 4000 + 250 * len(done)  # the tables of 3 bits: 256 bytes of 4 digits, 256 of 8
    assert packed.stat().st_size <= covered * bits / 8 + others + decoder


def test_eight_bit_activations_beside_trained_codes(
    pictures: Path, tmp_path: Path, convolutions: tuple[Path, dict]
) -> None:
    """Weights stay; what is left is the rounding of activations, which the command verifies."""
    model, _ = convolutions
    packed, report = quantized(model, 3, tmp_path, "--data", pictures, "--activations", "8")
    done = [layer for layer in report["layers"] if layer["action"] == "quantized"]
    assert {layer["method"] for layer in done} == {"exact"}
    assert ROUNDING < error(outputs(packed, pictures), outputs(model, pictures)) < 0.05


def test_a_plan_of_packed_codes_gives_the_same_file(
    tmp_path: Path, products: tuple[Path, dict]
) -> None:
    model, _ = products
    packed, _ = quantized(model, 4, tmp_path, "--save-plan", tmp_path / "plan.json")
    again = tmp_path / "again.onnx"
    run("quantize", model, "--plan", tmp_path / "plan.json", "-o", again)
    assert again.read_bytes() == packed.read_bytes()
