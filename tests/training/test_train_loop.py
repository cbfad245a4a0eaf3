"""The training loop on problems whose outcome is known otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score
from torch import Tensor, nn
from training_cases import CLASSES, FEATURES, bits_of, clusters, dense_network, tensor_train_network

from edgecompress.core.errors import (
    ConfigurationInvalid,
    DataInvalid,
    EdgeCompressError,
    UsageError,
)
from edgecompress.core.training import AdaptationOptions, PrecisionOptions, TrainOptions
from edgecompress.training.adaptation.sampling import SampledCores
from edgecompress.training.batches import Batches, TrainingData, hold_back
from edgecompress.training.loop import train_network
from edgecompress.training.progress import RunOptions, TrainingDiverged, TrainingProgress
from edgecompress.training.schedule import parameter_groups, rate_at
from edgecompress.training.tasks import area_under_curve, objective
from edgecompress.training.tensorize import factorizations

CPU = RunOptions(device="cpu")
PLAIN = TrainOptions(adaptation=None, epochs=4, batch=32, learning_rate=1e-2)


def _regression(count: int = 60, dtype: type = np.float64) -> TrainingData:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(count, 5)).astype(dtype)
    y = (x @ generator.normal(size=5) + 0.1 * generator.normal(size=count)).astype(dtype)
    return TrainingData(inputs=(x,), targets=y, task="regression")


def test_gradient_descent_is_that_of_the_textbook() -> None:
    """Whole-batch descent on a linear model, beside the same in NumPy with its own gradient."""
    data = _regression()
    network = nn.Linear(5, 1).double()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
    options = replace(
        PLAIN, optimizer="sgd", epochs=25, batch=60, learning_rate=0.2, validation=0.0
    )
    result = train_network(network, data, options, run=CPU)

    x = np.hstack([data.inputs[0], np.ones((60, 1))])
    w = np.zeros(6)
    losses = []
    for step in range(25):
        error = x @ w - data.targets
        losses.append(float(np.mean(error**2)))
        w -= 0.2 * 0.5 * (1 + np.cos(np.pi * step / 25)) * 2 / 60 * x.T @ error
    found = np.append(network.weight.detach().numpy(), network.bias.detach().numpy())
    np.testing.assert_allclose(found, w, rtol=1e-10)
    np.testing.assert_allclose([fact.loss for fact in result.history], losses, rtol=1e-10)
    assert (result.steps, result.best_epoch, result.stopped) == (25, 25, None)


def test_rate_falls_along_half_a_cosine() -> None:
    assert rate_at(0.8, 0, 100) == 0.8
    assert rate_at(0.8, 50, 100) == pytest.approx(0.4)
    assert rate_at(0.8, 25, 100) == pytest.approx(0.4 * (1 + 2**-0.5))
    assert rate_at(0.8, 100, 100) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("make", [dense_network, tensor_train_network])
def test_same_seed_gives_same_bits(make: object) -> None:
    options = replace(PLAIN, adaptation=AdaptationOptions(strength=0.3))
    runs = []
    for seed in (0, 0, 1):
        network = make(dropout=0.2)  # type: ignore[operator]
        torch.manual_seed(1234 + len(runs))
        train_network(network, clusters(), replace(options, seed=seed), run=CPU)
        runs.append(bits_of(network))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_random_streams_of_the_caller_stay() -> None:
    torch.manual_seed(5)
    train_network(dense_network(dropout=0.5), clusters(), PLAIN, run=CPU)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "momentum", "sgd"])
def test_every_optimizer_learns(optimizer: str) -> None:
    rate = 0.1 if optimizer in ("momentum", "sgd") else 1e-2
    options = replace(PLAIN, optimizer=optimizer, epochs=12, learning_rate=rate)  # type: ignore[arg-type]
    result = train_network(tensor_train_network(), clusters(), options, run=CPU)
    assert result.history[-1].score is not None
    assert result.history[-1].score >= 0.9  # chance is 0.25


@pytest.mark.parametrize(
    ("optimizer", "precision", "share"),
    [
        ("zeroth-order", None, 0.1),
        ("zeroth-order", PrecisionOptions(wide_share=0.0), 0.3),
        ("spsa", None, 0.8),
    ],
)
def test_learns_without_any_backward(
    optimizer: str,
    precision: PrecisionOptions | None,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("backward was called")

    monkeypatch.setattr(Tensor, "backward", refuse)
    rate = 2e-2 if optimizer == "spsa" else None
    asked = replace(PLAIN, epochs=20, batch=64, learning_rate=rate, precision=precision)
    options = replace(asked, optimizer=optimizer)  # type: ignore[arg-type]
    result = train_network(tensor_train_network(), clusters(70), options, run=CPU)
    assert result.history[-1].loss < share * result.history[0].loss


def test_directions_are_no_more_than_the_samples_that_there_are_tell_apart() -> None:
    """Truth: a third of the 240 samples of a step, and two passes more."""
    network, passes = dense_network(), []
    network.register_forward_hook(lambda *_: passes.append(1))
    options = replace(PLAIN, optimizer="zeroth-order", learning_rate=None, validation=0.0)
    train_network(network, clusters(240), replace(options, epochs=1, batch=5000), run=CPU)
    assert len(passes) == 240 // 3 + 2


def test_prior_acts_without_any_backward() -> None:
    """The prior acts: at equal data its cost is less than where it has no weight."""

    def energy(strength: float) -> float:
        adaptation = AdaptationOptions(strength=strength, warm_up=(0.0, 0.0), cut_at=1e-6)
        options = replace(
            PLAIN, optimizer="zeroth-order", learning_rate=None, epochs=10, adaptation=adaptation
        )
        result = train_network(tensor_train_network(), clusters(), options, run=CPU)
        cores = [core for _, part in factorizations(result.network) for core in part.cores]
        return sum(float(core.detach().square().sum()) for core in cores)

    assert energy(3.0) < 0.8 * energy(1e-6)


@pytest.mark.parametrize(
    ("task", "outputs"), [("regression", 2), ("click", 1), ("next-token", None)]
)
def test_zeroth_order_knows_every_task(task: str, outputs: int | None) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(96, FEATURES)).astype(np.float32)
    network: nn.Module = dense_network()
    if task == "regression":
        y, network = np.tanh(x[:, :2]), nn.Linear(FEATURES, 2)
    elif task == "click":
        y, network = (x[:, 0] > 0).astype(np.float32), nn.Linear(FEATURES, 1)
    else:
        x = (np.arange(96)[:, None] + np.arange(6)) % 5
        y, network = (x + 1) % 5, nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
    data = TrainingData(inputs=(x,), targets=y, task=task)  # type: ignore[arg-type]
    options = replace(PLAIN, optimizer="zeroth-order", learning_rate=None, epochs=8)
    result = train_network(network, data, options, run=CPU)
    assert result.history[-1].loss < 0.5 * result.history[0].loss


def test_loss_of_an_epoch_counts_every_sample_once() -> None:
    """At a vanishing rate it is the loss of the untrained network, the smaller last batch and
    all; 50 samples in batches of 32."""
    data = clusters(50)
    network = dense_network().double()
    with torch.no_grad():
        logits = network(torch.from_numpy(data.inputs[0]).double())
        expected = nn.functional.cross_entropy(logits, torch.from_numpy(data.targets))
    options = replace(PLAIN, epochs=1, validation=0.0, optimizer="sgd", learning_rate=1e-300)
    result = train_network(network, data, options, run=CPU)
    assert result.history[0].loss == pytest.approx(float(expected), rel=1e-12)
    assert result.steps == 2


def test_ranks_fall_and_everything_follows() -> None:
    adaptation = AdaptationOptions(target_params=330, settle=0.5, warm_up=(0.0, 0.2))
    options = replace(PLAIN, adaptation=adaptation, epochs=16, patience=100)
    network = tensor_train_network()
    result = train_network(network, clusters(), options, run=CPU)
    counts = [fact.parameters for fact in result.history]
    assert counts[-1] <= 330 < counts[0]
    assert counts == sorted(counts, reverse=True)
    assert any(fact.cuts for fact in result.history)
    assert sum(p.numel() for p in result.network.parameters()) == counts[-1]
    assert len({tuple(f.ranks.items()) for f in result.history if f.epoch > 8}) == 1
    assert result.best_epoch >= 8  # weights from before the last cut would not fit
    assert (result.history[-1].score or 0) >= 0.9  # chance is 0.25


def test_bayesian_noise_is_gone_after_the_run() -> None:
    adaptation = AdaptationOptions(strength=0.3, inference="bayesian")
    network = tensor_train_network()
    before = sum(p.numel() for p in network.parameters())
    result = train_network(network, clusters(), replace(PLAIN, adaptation=adaptation), run=CPU)
    assert not any(isinstance(module, SampledCores) for module in result.network.modules())
    assert result.history[0].parameters <= before
    assert sum(p.numel() for p in network.parameters()) == result.history[-1].parameters


def test_patience_gives_back_the_best_weights() -> None:
    """Labels without meaning: validation gets worse while training gets better."""
    data = clusters(160)
    labels = np.random.default_rng(0).permutation(data.targets)
    data = TrainingData(inputs=data.inputs, targets=labels, task="classification")
    options = replace(PLAIN, epochs=60, validation=0.25, patience=3, learning_rate=3e-2)
    result = train_network(dense_network(), data, options, run=CPU)
    losses = [fact.validation_loss for fact in result.history]
    assert result.stopped == "patience"
    assert result.best_epoch == 1 + int(np.argmin(losses))  # type: ignore[arg-type]
    assert len(losses) == result.best_epoch + 3
    _, held = hold_back(data, 0.25, options.seed)
    with torch.no_grad():
        logits = result.network(torch.from_numpy(data.inputs[0][held]))
        again = nn.functional.cross_entropy(logits, torch.from_numpy(labels[held]))
    assert float(again) == pytest.approx(min(losses), rel=1e-5)  # type: ignore[type-var]
    assert not result.network.training


def test_held_back_samples_keep_the_shares_of_classes() -> None:
    labels = np.array([0] * 70 + [1] * 20 + [2] * 9 + [3])
    data = TrainingData(inputs=(np.zeros((100, 2)),), targets=labels, task="classification")
    rows, held = hold_back(data, 0.2, 0)
    assert rows is not None
    assert np.bincount(labels[held]).tolist() == [14, 4, 2]  # the single sample of 3 stays
    assert sorted([*rows, *held]) == list(range(100))
    assert not np.array_equal(held, hold_back(data, 0.2, 1)[1])
    assert np.array_equal(held, hold_back(data, 0.2, 0)[1])


def test_an_epoch_visits_every_sample_in_its_own_order() -> None:
    batches = Batches(clusters(50), None, dtype=torch.float32, device=torch.device("cpu"))
    first, second = batches.order(0, 0), batches.order(0, 1)
    assert sorted(first.tolist()) == list(range(50)) == sorted(second.tolist())
    assert not torch.equal(first, second)
    assert torch.equal(first, batches.order(0, 0))


def test_area_under_curve_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    scores = np.round(generator.normal(size=300) + labels, 1)  # with ties
    found = area_under_curve(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert area_under_curve(torch.zeros(4), torch.ones(4)) == 0.5


def test_score_of_a_regression_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=40)
    found = wanted + generator.normal(size=40)
    judge = objective("regression")
    halves = [
        judge.sums(torch.from_numpy(found[part])[:, None], torch.from_numpy(wanted[part]))
        for part in (slice(0, 15), slice(15, 40))
    ]
    score = judge.score(halves[0] + halves[1], None, None)
    assert score == pytest.approx(r2_score(wanted, found), abs=1e-12)


def test_ignored_tokens_count_neither_in_loss_nor_in_score() -> None:
    judge = objective("next-token")
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, -100], [4, -100, -100]])
    logs = logits.log_softmax(-1)
    expected = -(logs[0, 0, 1] + logs[0, 1, 2] + logs[1, 0, 4]) / 3
    torch.testing.assert_close(judge.loss(logits, targets), expected)
    assert judge.sums(logits, targets)[1] == 3
    assert judge.terms(targets).tolist() == [2, 1]  # type: ignore[union-attr]
    with pytest.raises(DataInvalid, match="no token that counts"):
        judge.terms(torch.full((1, 3), -100))


def test_clicks_and_tokens_train_through_the_loop() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 6)).astype(np.float32)
    clicks = (x[:, 0] - x[:, 1] > 0).astype(np.int64)
    data = TrainingData(inputs=(x,), targets=clicks, task="click")
    options = replace(PLAIN, epochs=8, learning_rate=0.1)
    result = train_network(nn.Linear(6, 1), data, options, run=CPU)
    assert result.score_name == "AUC"
    assert (result.history[-1].score or 0) > 0.99  # the truth is linear

    tokens = (np.arange(8) + generator.integers(0, 5, (200, 1))) % 5
    data = TrainingData(inputs=(tokens[:, :-1],), targets=tokens[:, 1:], task="next-token")
    network = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
    result = train_network(network, data, replace(options, epochs=10), run=CPU)
    assert result.history[-1].score == 1.0  # each token has one successor


def test_decay_is_for_dense_weights_only() -> None:
    network = nn.Sequential(*tensor_train_network(), nn.LayerNorm(CLASSES), nn.Linear(CLASSES, 2))
    decayed, *others = parameter_groups(network, 0.1)
    assert decayed["params"] == [network[5].weight]
    assert decayed["weight_decay"] == 0.1
    assert all(group["weight_decay"] == 0 for group in others)
    together = [p for group in (decayed, *others) for p in group["params"]]
    assert {id(p) for p in together} == {id(p) for p in network.parameters()}


def test_progress_counts_down_and_shows_what_is_live() -> None:
    told: list[TrainingProgress] = []
    run = RunOptions(device="cpu", on_progress=told.append, progress_s=0.0)
    network = tensor_train_network()
    result = train_network(network, clusters(), replace(PLAIN, batch=50), run=run)
    assert [(p.epoch, p.step) for p in told[:6]] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1)]
    assert told[-1].remaining_s == 0.0
    assert all(p.remaining_s > 0 for p in told[:-1])
    assert told[3].validation_loss is None
    assert told[4].validation_loss == result.history[0].validation_loss
    count = sum(p.numel() for p in network.parameters())
    assert {p.parameters for p in told} == {count}
    assert told[-1].ranks == {
        "0": network[0].factorization.ranks,
        "3": network[3].factorization.ranks,
    }
    # Weights, gradients, two moments of 4 bytes each, and a step count per parameter tensor.
    assert told[-1].memory_bytes == 16 * count + 4 * len(list(network.parameters()))


def test_stop_ends_the_run() -> None:
    asked = iter([False] * 8 + [True] * 99)
    run = RunOptions(device="cpu", stop=lambda: next(asked))
    result = train_network(dense_network(), clusters(), PLAIN, run=run)
    assert (result.steps, result.stopped) == (9, "asked")  # the ninth answer, 7 steps an epoch
    assert len(result.history) == 1


def test_divergence_is_an_error_with_a_way_out() -> None:
    options = replace(PLAIN, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(TrainingDiverged) as error:
        train_network(dense_network(), clusters(), options, run=CPU)
    assert "no longer finite in epoch 1, step" in str(error.value)
    assert "lower the learning rate (1e+30)" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"validation": 0.0, "patience": 2}, UsageError, "patience needs held-back samples"),
        ({"validation": 1.0}, UsageError, "from 0 to below 1, not 1"),
        ({"epochs": 0}, UsageError, "epochs and batch are at least 1"),
        ({"validation": 1e-4}, DataInvalid, "holding back 0.0001 of 240 samples leaves none"),
        (
            {"adaptation": AdaptationOptions(target_params=10)},
            ConfigurationInvalid,
            "10 parameters cannot be had",
        ),
        (
            {"optimizer": "zeroth-order", "precision": PrecisionOptions(master_bits=8)},
            UsageError,
            "keeps float masters",
        ),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    changes: dict[str, object], kind: type[EdgeCompressError], words: str
) -> None:
    with pytest.raises(kind) as error:
        train_network(tensor_train_network(), clusters(), replace(PLAIN, **changes), run=CPU)  # type: ignore[arg-type]
    assert words in str(error.value)


def test_misfits_of_data_and_network_are_refused() -> None:
    x = np.zeros((8, FEATURES), np.float32)
    with pytest.raises(DataInvalid, match=r"inputs of \[8\] samples for 7 targets"):
        TrainingData(inputs=(x,), targets=np.zeros(7, int), task="classification")
    with pytest.raises(DataInvalid, match="class numbers start at 0, not at -1"):
        TrainingData(inputs=(x,), targets=np.arange(8) - 1, task="classification")
    wrong = TrainingData(inputs=(x,), targets=np.zeros((8, 2), np.float32), task="regression")
    options = replace(PLAIN, validation=0.0)
    with pytest.raises(DataInvalid, match=r"output \(8, 4\) does not fit targets \(8, 2\)"):
        train_network(dense_network(), wrong, options, run=CPU)
    five = TrainingData(inputs=(x,), targets=np.arange(8) % 5, task="classification")
    with pytest.raises(DataInvalid, match="targets go up to 4, and the network has 4 outputs"):
        train_network(dense_network(), five, options, run=CPU)
    with pytest.raises(UsageError, match="unknown device 'warp'"):
        train_network(dense_network(), clusters(), PLAIN, run=RunOptions(device="warp"))
    with pytest.raises(UsageError, match="no checkpoint is named"):
        train_network(dense_network(), clusters(), PLAIN, run=RunOptions(resume=True))
    with pytest.raises(ConfigurationInvalid, match=r"weight: \(9, 9\) numbers are too many"):
        train_network(nn.Linear(9, 9, device="meta"), clusters(), PLAIN, run=CPU)
    frozen = dense_network().requires_grad_(False)
    with pytest.raises(ConfigurationInvalid, match="no parameters to train"):
        train_network(frozen, clusters(), PLAIN, run=CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_run_follows_the_cpu_run(tmp_path: Path) -> None:
    options = replace(PLAIN, adaptation=AdaptationOptions(strength=0.3))
    curves = []
    for device in ("cpu", "cuda"):
        run = RunOptions(device=device, checkpoint=tmp_path / device)
        result = train_network(tensor_train_network(), clusters(), options, run=run)
        curves.append([fact.loss for fact in result.history])
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-3)
