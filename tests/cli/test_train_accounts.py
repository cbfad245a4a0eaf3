"""What ``train`` says of unusual data: few samples, huge labels, nothing to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecompress.cli.entry import main
from edgecompress.core.errors import ResourceLimit
from edgecompress.core.training import AdaptationOptions, TrainOptions
from edgecompress.core.training_report import EpochRecord
from edgecompress.pipeline.train_account import tolerance_kept
from edgecompress.pipeline.train_lesson import guessed_score
from edgecompress.training import assemble
from edgecompress.training.architectures import Architecture, SampleShape


def train(folder: Path, *more: str) -> int:
    common = ("--data", str(folder / "d.npz"), "-o", str(folder / "m.onnx"), "--device", "cpu")
    return main(["train", *common, "--report", str(folder / "r.json"), *more])


def store(folder: Path, labels: np.ndarray, features: int = 6) -> None:
    values = np.random.default_rng(0).normal(size=(len(labels), features)).astype(np.float32)
    np.savez(folder / "d.npz", x=values, y=labels)


def test_a_step_has_no_more_samples_than_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path, np.arange(30) % 2)
    assert train(tmp_path, "--arch", "mlp", "--epochs", "1", "--batch", "5000") == 0
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    learned = found["training_samples"]
    assert 0 < learned < 30
    assert found["batch"] == learned
    assert [memory["batch"] for memory in found["memory"]] == sorted({1, 16, learned})
    for row in (row for memory in found["memory"] for row in memory["rows"] if row["factor"]):
        measured = row["dense_measured_bytes"] / row["ours_measured_bytes"]
        assert row["factor"] == pytest.approx(measured)
    said = f"the batch of 5,000 is larger than the {learned} training samples"
    assert any(said in warning for warning in found["warnings"])
    assert "accounting for memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("optimizer", "copies", "moments"), [("zeroth-order", 1, 1), ("spsa", 3, 2)]
)
def test_a_step_without_back_propagation_is_accounted_for(
    tmp_path: Path, optimizer: str, copies: int, moments: int
) -> None:
    store(tmp_path, np.arange(30) % 2)
    more = ("--optimizer", optimizer, "--report", str(tmp_path / "r.txt"))
    assert train(tmp_path, "--arch", "mlp", "--epochs", "1", "--batch", "20", *more) == 0
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    learned = found["training_samples"]
    assert [memory["batch"] for memory in found["memory"]] == sorted({1, 16, 20, learned})
    for memory in found["memory"]:
        rows = {row["name"]: row for row in memory["rows"]}
        assert "gradients" not in rows
        for side, count in (
            ("dense", found["parameters_dense"]),
            ("ours", found["parameters_end"]),
        ):
            for kind in ("bytes", "measured_bytes"):
                sizes = {name: row[f"{side}_{kind}"] for name, row in rows.items()}
                # Float32, of as many numbers as there are parameters.
                assert sizes["perturbed copies"] == 4 * copies * count
                assert sizes["optimizer state"] == 4 * moments * count
                assert sizes["model"] == 4 * (1 + copies + moments) * count
                left = sizes["total"] - sizes["model"] - sizes["activations"]
                assert sizes["outputs"] == left
            assert rows["peak"][f"{side}_bytes"] == pytest.approx(
                rows["peak"][f"{side}_measured_bytes"], rel=0.05
            )
    text = (tmp_path / "r.txt").read_text(encoding="utf-8")
    assert "total: parameters, perturbed copies, optimizer state, outputs and the" in text
    assert "there is no backward pass" in text


def test_a_network_that_did_not_learn_is_reported(tmp_path: Path) -> None:
    store(tmp_path, np.arange(200) % 2)
    more = ("--arch", "mlp", "--epochs", "1", "--learning-rate", "1e-12", "--validation", "0.5")
    told = []
    for labels in (np.arange(200) % 2, np.arange(200) % 2):
        values = np.zeros((200, 6), np.float32)
        if told:
            values[:, 0] = 9.0 * (2 * labels - 1)
        np.savez(tmp_path / "d.npz", x=values, y=labels)
        rate = ("--learning-rate", "0.01", "--epochs", "8", "--batch", "20") if told else ()
        assert train(tmp_path, *more, *rate, "--force", "--quiet") == 0
        found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
        told.append([text for text in found["warnings"] if "did not learn" in text])
    # Inputs that are all the same: one answer, right for one of two balanced classes.
    assert len(told[0]) == 1
    assert (
        "accuracy on held-back samples is 50.0%, and the same answer to all has 50.0%" in told[0][0]
    )
    assert not told[1]


def epoch(number: int, validation_loss: float | None) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        loss=2.0 / number,
        validation_loss=validation_loss,
        score=None,
        learning_rate=0.1,
        parameters=10,
        ranks={},
        cuts=0,
        memory_bytes=1,
        elapsed_s=1.0,
    )


def test_a_tolerance_is_compared_with_the_least_loss() -> None:
    options = TrainOptions(adaptation=AdaptationOptions(loss_tolerance=0.1))
    history = [epoch(1, 1.0), epoch(2, 0.5), epoch(3, 0.54), epoch(4, 0.56)]
    kept, said = tolerance_kept(history, 3, options)  # 8 % above
    assert (kept, "0.54" in said, "within 10 %" in said) == (True, True, True)
    kept, said = tolerance_kept(history, 4, options)  # 12 % above
    assert (kept, "not within 10 %" in said) == (False, True)
    kept, said = tolerance_kept([epoch(1, None), epoch(2, None)], 1, options)  # 2 and 1
    assert (kept, "training loss" in said) == (False, True)
    assert tolerance_kept(history, 4, TrainOptions()) == (True, "")


def test_a_tolerance_is_reported(tmp_path: Path) -> None:
    store(tmp_path, np.arange(200) % 2)
    more = ("--arch", "mlp", "--epochs", "3", "--loss-tolerance", "500%")
    assert train(tmp_path, *more) == 2  # a share is at most 100 %
    assert train(tmp_path, *more[:-1], "90%") == 0
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    said = [text for text in (*found["notes"], *found["warnings"]) if "within 90 %" in text]
    assert len(said) == 1


def test_scores_of_one_answer_to_all() -> None:
    assert guessed_score(np.array([2, 2, 2, 0]), "classification") == 0.75
    assert guessed_score(np.array([[1, 1], [0, 3]]), "next-token") == 0.5
    assert guessed_score(np.array([0, 1]), "click") == 0.5
    assert guessed_score(np.array([0.1, 0.2]), "regression") == 0.0


def test_few_bits_explain_scores_wider_codes_and_buffers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(24, 12, 10)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=values, y=np.arange(24) % 2)
    recipe = tmp_path / "r.toml"
    recipe.write_text("[train.precision]\nfactor_bits = 4\nactivation_bits = 8\n")
    more = ("--epochs", "1", "--batch", "8", "--quiet", "--recipe", str(recipe))
    assert train(tmp_path, "--arch", "ds-cnn", *more) == 0
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    notes = " ".join(found["notes"])
    assert "its activations rounded to 8 bits; the written file does not round them" in notes
    assert "until then they take the bytes of 'wider codes of factors at first' as well" in notes
    assert "quantize and compress count the weights that they work on" in notes
    rows = {row["name"]: row for row in found["memory"][0]["rows"]}
    # Moving statistics stay float32, and are dense and trained the same.
    assert rows["buffers"]["stored_bytes"] == rows["buffers"]["dense_bytes"] > 0
    assert rows["parameters"]["dense_bytes"] == 4 * found["parameters_dense"]
    parts = ("parameters", "buffers", "gradients", "optimizer state")
    assert rows["model"]["dense_bytes"] == sum(rows[name]["dense_bytes"] for name in parts)


@pytest.mark.parametrize("architecture", ["mlp", "transformer"])
def test_huge_labels_are_refused_by_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    if architecture == "mlp":
        store(tmp_path, np.array([0, 1, 2_000_000_000, 1]))
        words = "numbers up to 2,000,000,000 name 2,000,000,001 classes; there are 4 of them"
    else:
        np.savez(tmp_path / "d.npz", x=np.array([[0, 1, 300_000], [1, 2, 0]]))
        words = "numbers up to 300,000 name 300,001 tokens"
    assert train(tmp_path, "--arch", architecture, "--epochs", "1", "--quiet") == 6
    said = capsys.readouterr().err
    assert words in said
    assert "from 0 without gaps" in said
    assert not (tmp_path / "m.onnx").exists()


def test_weights_beyond_memory_are_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def build(sample: SampleShape, generator: torch.Generator) -> torch.nn.Module:
        return torch.nn.Linear(1 << 30, 1 << 30)  # 4 EiB

    huge = Architecture(
        name="huge", build=build, tasks=("classification",), kinds=("vector",), choices=()
    )
    monkeypatch.setattr(assemble, "load_architecture", lambda name: huge)
    sample = SampleShape(inputs=((6,),), dtypes=("float32",), classes=1 << 30)
    with pytest.raises(ResourceLimit, match="huge with 1,073,741,824 outputs does not fit into"):
        assemble.architecture_network("huge", sample, {}, 0)
