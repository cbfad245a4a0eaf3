"""``torchrun -m edgecompress train``: two processes do what one does, and one of them speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from edgecompress.cli.entry import main  # noqa: E402

ROOT = Path(__file__).parents[2]
EPOCHS = 4


@pytest.fixture(scope="module")
def lesson(sample_models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that both ways have in common; ranks have to fall to a third of the parameters."""
    folder = tmp_path_factory.mktemp("lesson")
    with np.load(sample_models / "digits_test.npz") as stored:
        np.savez(folder / "d.npz", image=stored["image"][:300], y=stored["labels"][:300])
    (folder / "r.toml").write_text("[train.network]\nhidden = [64]\n")
    asked = {
        "--arch": "mlp",
        "--data": str(folder / "d.npz"),
        "--recipe": str(folder / "r.toml"),
        "--epochs": str(EPOCHS),
        "--batch": "30",
        "--target-params": "3x",
        "--device": "cpu",
    }
    return ["train", *(part for pair in asked.items() for part in pair)]


def test_two_processes_write_what_one_writes(
    lesson: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    assert main([*lesson, "-o", str(one / "m.onnx"), "--report", str(one / "r.json")]) == 0
    alone = capsys.readouterr()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    output = ["-o", str(two / "m.onnx"), "--report", str(two / "r.json")]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "edgecompress", *lesson, *output],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]

    # One output, one report, no leftovers; one process has printed.
    assert sorted(path.name for path in two.iterdir()) == ["m.onnx", "r.json"]
    for out, err in ((alone.out, alone.err), (done.stdout, done.stderr)):
        assert out.count("train: mlp → m.onnx") == 1
        assert err.count(f"epoch {EPOCHS}/{EPOCHS}: ") == 1
        assert err.count("reading ") == 1

    first, second = (json.loads((folder / "r.json").read_text()) for folder in (one, two))
    assert (first["processes"], second["processes"]) == (1, 2)
    ranks = [[layer["ranks_end"] for layer in told["layers"]] for told in (first, second)]
    assert ranks[0] == ranks[1]
    assert any(layer["ranks_end"] != layer["ranks_start"] for layer in second["layers"])
    assert second["parameters_end"] <= second["parameters_target"]
    losses = [[epoch["loss"] for epoch in told["history"]] for told in (first, second)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    sessions = [
        ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
        for folder in (one, two)
    ]
    with np.load(lesson[lesson.index("--data") + 1]) as stored:
        scores = [session.run(None, {"input": stored["image"]})[0] for session in sessions]
    assert np.linalg.norm(scores[1] - scores[0]) <= 1e-2 * np.linalg.norm(scores[0])
