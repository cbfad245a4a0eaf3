"""``train`` from options to a verified graph that the other commands take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from interrupts import hear_interrupts

from edgecompress.cli.entry import main

ROOT = Path(__file__).resolve().parent.parent.parent
FACTORY = """
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
"""


@pytest.fixture(scope="module")
def digits(sample_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.npz with 400 labelled digits and test.npz with 100 others."""
    folder = tmp_path_factory.mktemp("digits")
    with np.load(sample_models / "digits_test.npz") as stored:
        images, labels = stored["image"], stored["labels"]
    np.savez(folder / "train.npz", image=images[:400], y=labels[:400])
    np.savez(folder / "test.npz", image=images[400:], y=labels[400:])
    return folder


def train(folder: Path, output: Path, *more: str | Path) -> int:
    common = ("--arch", "mlp", "--data", folder / "train.npz", "--batch", "32", "--device", "cpu")
    return main([str(part) for part in ("train", *common, "-o", output, "--quiet", *more)])


def report_of(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def accuracy(model: Path, data: Path) -> float:
    """Independently of the command: onnxruntime and NumPy."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(data) as stored:
        (scores,) = session.run(None, {session.get_inputs()[0].name: stored["image"]})
        return float((scores.argmax(1) == stored["y"]).mean())


def test_a_small_network_goes_through_the_other_commands(digits: Path, tmp_path: Path) -> None:
    model, reports = tmp_path / "m.onnx", [tmp_path / f"r{s}" for s in (".json", ".html", ".txt")]
    asked = [part for report in reports for part in ("--report", report)]
    more = ("--test-data", digits / "test.npz", "--epochs", "25", "--target-params", "12x")
    assert train(digits, model, *more, *asked) == 0
    found = report_of(reports[0])
    # 64*512 + 512 + 512*10 + 10 weights and biases; 38,410 / 12 = 3200.8.
    assert found["parameters_dense"] == 38_410
    assert found["parameters_target"] == 3_200
    assert found["parameters_end"] <= 3_200
    scores = {(s["data"], s["network"], s["metric"]): s["value"] for s in found["scores"]}
    assert scores["test", "written", "accuracy"] == accuracy(model, digits / "test.npz")
    assert scores["test", "written", "accuracy"] > 0.7
    assert found["check"]["relative_l2"] < 1e-5
    (memory,) = (one for one in found["memory"] if one["batch"] == 32)
    rows = {row["name"]: row for row in memory["rows"]}
    # Float32: four bytes a parameter, as many for its gradient, twice as many for Adam.
    assert rows["model"]["dense_bytes"] == 16 * 38_410
    assert rows["model"]["ours_bytes"] == 16 * found["parameters_end"]
    assert rows["gradients"]["ours_measured_bytes"] >= 4 * found["parameters_end"]
    assert len(found["history"]) == 25
    assert found["training_samples"] + found["validation_samples"] == 400
    assert main(["quantize", str(model), "-o", str(tmp_path / "q.onnx"), "--quiet"]) == 0
    assert main(["estimate-latency", str(model), "--target", "cortex-m7", "--quiet"]) == 0
    packed = tmp_path / "c.onnx"
    assert main(["compress", str(model), "-o", str(packed), "--bits", "8", "--quiet"]) == 0
    assert accuracy(packed, digits / "test.npz") == pytest.approx(
        scores["test", "written", "accuracy"], abs=0.03
    )


def test_few_bits_and_a_recipe(digits: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[train]\nepochs = 9\n[train.network]\nhidden = [32]\n[train.tensorize]\nformat = "tt"\n'
        "[train.precision]\nfactor_bits = 4\nstate_bits = 16\n"
        '[[rules]]\nmatch = "3"\nformat = "none"\n'
    )
    report = tmp_path / "r.json"
    more = ("--recipe", recipe, "--epochs", "2", "--report", report)
    assert train(digits, tmp_path / "m.onnx", *more) == 0
    found = report_of(report)
    assert [layer["format"] for layer in found["layers"]] == ["tt", ""]
    assert found["layers"][1]["reason"] == "the rule for '3' leaves it dense"
    # 64*32 + 32 + 32*10 + 10 parameters: the hidden layer is that of the recipe.
    assert found["parameters_dense"] == 2_410
    stored = {part["name"]: part for part in found["stored"]}
    assert stored["factor codes"]["bits"] == 4
    assert stored["gradients"]["bits"] == 16
    assert stored["optimiser state"]["bits"] == 16
    network = [part for part in found["stored"] if part["note"] == "of the network"]
    assert found["storage_bits"] == sum(part["numbers"] * part["bits"] for part in network)
    assert len(found["history"]) == 2


def test_a_resumed_run_writes_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    more = ("--epochs", "6", "--target-params", "12x", "--seed", "3", "--resume", "--force")
    whole, part, state = tmp_path / "whole.onnx", tmp_path / "part.onnx", tmp_path / "s.ckpt"
    assert train(digits, whole, *more, "--checkpoint", tmp_path / "w.ckpt") == 0
    command = [sys.executable, "-m", "edgecompress", "train", "--arch", "mlp", "--batch", "32"]
    command += ["--data", str(digits / "train.npz"), "-o", str(part), "--device", "cpu", *more]
    process = subprocess.Popen(
        [*command, "--checkpoint", str(state)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - no threads here
    )
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1].decode()
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 130, said
    assert not part.exists()
    assert f"{state} has the state of the run; --resume goes on from it" in said
    report = tmp_path / "r.json"
    assert train(digits, part, *more, "--checkpoint", state, "--report", report) == 0
    assert part.read_bytes() == whole.read_bytes()
    assert len(report_of(report)["history"]) == 6


def test_a_network_of_the_user_and_weights_to_begin_with(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    (tmp_path / "mine_of_train.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    base = ["train", "--model", "mine_of_train:network", "--data", str(digits / "train.npz")]
    base += ["-o", "m.onnx", "--quiet", "--epochs", "1", "--force"]
    assert main(base) == 11
    assert main([*base, "--trust-input"]) == 0
    import mine_of_train  # type: ignore[import-not-found]

    torch.save(mine_of_train.network().state_dict(), "w.pth")
    more = ["--trust-input", "--from", "w.pth", "--report", "r.json", "--fixed-ranks"]
    assert main([*base, *more]) == 0
    found = report_of(tmp_path / "r.json")
    assert found["start"]["path"] == "w.pth"
    assert found["network"] == "mine_of_train:network"


def test_tokens_without_labels_predict_the_next_one(tmp_path: Path) -> None:
    start = np.arange(60)[:, None] % 5
    np.savez(tmp_path / "tokens.npz", x=(start + np.arange(7)) % 5)
    recipe = tmp_path / "r.toml"
    recipe.write_text("[train.network]\nwidth = 16\ndepth = 1\nheads = 2\n")
    arguments = ["train", "--arch", "transformer", "--data", tmp_path / "tokens.npz", "--quiet"]
    arguments += ["--epochs", "12", "--batch", "8", "--recipe", recipe, "--device", "cpu"]
    arguments += ["-o", tmp_path / "m.onnx", "--report", tmp_path / "r.json"]
    assert main([str(part) for part in arguments]) == 0
    found = report_of(tmp_path / "r.json")
    assert found["task"] == "next-token"
    assert found["score_name"] == "token accuracy"
    # Every token follows from the one before it; guessing is right one time in five.
    assert found["history"][-1]["score"] > 0.6
    # The file that was learned from is calibration data of the graph as it is.
    quantize = ["quantize", tmp_path / "m.onnx", "--data", tmp_path / "tokens.npz", "--quiet"]
    assert main([str(part) for part in [*quantize, "-o", tmp_path / "q.onnx"]]) == 0


def test_a_recommender_is_compressed_on_its_data_and_on_none(tmp_path: Path) -> None:
    """Tables of 3 and 40 rows: random categories have to be in both; one score tells clicks."""
    rng = np.random.default_rng(0)
    categories = np.stack([rng.integers(0, 3, 400), rng.integers(0, 40, 400)], 1)
    categories[0] = (2, 39)
    clicks = categories[:, 0] == 1
    dense = rng.standard_normal((400, 4)).astype(np.float32)
    data = tmp_path / "clicks.npz"
    np.savez(data, dense=dense, categories=categories, y=clicks.astype(np.int64))
    recipe = tmp_path / "r.toml"
    recipe.write_text("[train.network]\nwidth = 8\nbottom = [16]\ntop = [32]\n")
    train = ["train", "--arch", "recommender", "--data", data, "--quiet", "--recipe", recipe]
    train += ["--epochs", "20", "--batch", "20", "--device", "cpu", "-o", tmp_path / "m.onnx"]
    assert main([str(part) for part in train]) == 0
    quantize = ["quantize", tmp_path / "m.onnx", "--quiet", "-o", tmp_path / "q.onnx"]
    assert main([str(part) for part in quantize]) == 0
    evaluate = ["evaluate", tmp_path / "q.onnx", "--reference", tmp_path / "m.onnx"]
    evaluate += ["--data", data, "--quiet", "--report", tmp_path / "e.json"]
    assert main([str(part) for part in [*quantize[:-1], tmp_path / "q8.onnx", "--data", data]]) == 0
    assert main([str(part) for part in evaluate]) == 0
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"dense": dense, "categories": categories})
    right = float(((logits > 0) == clicks).mean())
    assert report_of(tmp_path / "e.json")["reference_accuracy"] == pytest.approx(right, abs=1 / 400)
    assert right > max(clicks.mean(), 1 - clicks.mean())


def failing(
    capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path
) -> tuple[str, ...]:
    assert main([str(part) for part in ("train", "--quiet", *arguments)]) == code
    return tuple(capsys.readouterr().err.splitlines())


def test_what_cannot_be_learned_from_is_refused(
    digits: Path, sample_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("-o", tmp_path / "m.onnx")
    mlp, data = ("--arch", "mlp", *output), ("--data", digits / "train.npz")
    said = failing(capsys, 6, *mlp, "--data", sample_models / "digits_calibration.npz")
    assert "the samples have no labels, and a classifier learns from them" in said[0]
    said = failing(capsys, 6, *mlp, "--data", "random:0")
    assert "random:0 has no labels: nothing can be learned from it" in said[0]
    with np.load(digits / "train.npz") as stored:
        last = np.repeat(stored["image"][:20].transpose(0, 2, 3, 1), 3, axis=3)
        np.savez(tmp_path / "last.npz", x=np.kron(last, np.ones((1, 3, 3, 1))), y=stored["y"][:20])
        np.savez(tmp_path / "more.npz", x=stored["image"][:20], y=stored["y"][:20] + 5)
    said = failing(capsys, 6, "--arch", "lenet", *output, "--data", tmp_path / "last.npz")
    assert "pictures of shape (24, 24, 3) have their channels last" in said[0]
    assert said[1] == "hint: --preprocess layout=nhwc"
    said = failing(capsys, 6, *mlp, *data, "--test-data", tmp_path / "more.npz")
    assert "the test data have class 14; the training data end at 9" in said[0]
    said = failing(capsys, 2, *mlp, *data, "--target-params", "5")
    assert "5 parameters cannot be had" in said[0]
    assert said[0].startswith("error: --target-params: ")
    # 64*512 + 512 + 512*10 + 10 weights and biases.
    said = failing(capsys, 2, *mlp, *data, "--target-params", "40000")
    assert "40,000 parameters are no target: the dense network has 38,410" in said[0]
    said = failing(capsys, 2, *mlp, *data, "--device", "cuda:99")
    assert "no CUDA device 99" in said[0]
    assert said[1] == "hint: use --device cpu"
    said = failing(capsys, 7, *mlp, *data, "--rule", "none:skip")
    assert "the rule for 'none' matches no layer" in said[0]
    (tmp_path / "r.toml").write_text("[train.network]\nwidth = 3\n")
    said = failing(capsys, 7, *mlp, *data, "--recipe", tmp_path / "r.toml")
    assert "mlp has no setting 'width'" in said[0]
    said = failing(capsys, 2, *data, *output)
    assert "no network is named" in said[0]
    assert not (tmp_path / "m.onnx").exists()
    (tmp_path / "m.onnx").touch()
    assert "the output exists" in failing(capsys, 8, *mlp, *data)[0]


def test_gates_are_judged_at_the_end_and_progress_goes_to_stderr(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.onnx"
    arguments = ["train", "--arch", "mlp", "--data", digits / "train.npz", "--epochs", "2"]
    arguments += ["-o", model, "--device", "cpu", "--max-size", "1kB", "--min-accuracy", "99%"]
    assert main([str(part) for part in arguments]) == 3
    shown = capsys.readouterr()
    assert model.exists()
    assert shown.out.startswith("train: mlp → m.onnx")
    assert shown.out.count("NOT MET") == 2
    lines = shown.err.splitlines()
    assert lines[0].startswith("reading ")
    (last,) = (line for line in lines if line.startswith("epoch 2/2: "))
    assert "params, ranks" in last
    assert max(len(line) for line in lines if line.startswith("epoch")) <= 80
    assert lines[-1].startswith("error: gate not met: max-size is")
