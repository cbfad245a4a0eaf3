"""Memory of a training step, against hand counts and against the allocator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecompress.core.training import PrecisionOptions, TrainOptions
from edgecompress.training.batches import TrainingData
from edgecompress.training.forward_memory import measure_blind_memory, predict_blind_memory
from edgecompress.training.low_precision import apply_precision
from edgecompress.training.memory import StepMemory, measure_memory, predict_memory
from edgecompress.training.step_accounts import step_accounts, stored_account
from edgecompress.training.subspace_newton import SubspaceNewton, SubspaceOptions
from edgecompress.training.zeroth_order import ZerothOrder, ZerothOrderOptions

BATCH, INPUTS, HIDDEN, CLASSES = 8, 12, 20, 3
FLOAT_BYTES = 4


def _loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    return nn.functional.cross_entropy(network(batch[0]), batch[1])


def _adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, fused=True)


def _momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False)


def _plain(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, foreach=False)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def _batch() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, INPUTS), torch.zeros(BATCH, dtype=torch.long)


@pytest.mark.parametrize("memory_of", [predict_memory, measure_memory])
def test_perceptron_as_counted_by_hand(memory_of: object) -> None:
    found = memory_of(_mlp(), _batch(), _loss, _adam)  # type: ignore[operator]
    parameters = INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
    # Kept: the hidden layer after its ReLU, the log-probabilities, the loss and its weight sum.
    kept = BATCH * HIDDEN + BATCH * CLASSES + 2
    assert found.parameter_bytes == found.gradient_bytes == FLOAT_BYTES * parameters
    assert found.state_bytes == 2 * FLOAT_BYTES * parameters
    assert found.activation_bytes == FLOAT_BYTES * kept
    assert found.peak_bytes >= found.model_bytes


@pytest.mark.parametrize(
    ("optimizer", "copies"), [(_plain, 0), (_momentum, 1), (_adam, 2)], ids=["sgd", "mom", "adam"]
)
def test_state_is_what_the_optimizer_keeps(optimizer: object, copies: int) -> None:
    found = predict_memory(_mlp(), _batch(), _loss, optimizer)  # type: ignore[arg-type]
    assert found.state_bytes == copies * found.parameter_bytes


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
    )


def test_prediction_is_what_the_allocator_sees() -> None:
    batch = (torch.randn(4, 1, 12, 12), torch.zeros(4, dtype=torch.long))
    predicted = predict_memory(_convolutional(), batch, _loss, _adam)
    measured = measure_memory(_convolutional(), batch, _loss, _adam)
    assert predicted.activation_bytes == pytest.approx(measured.activation_bytes, rel=0.02)
    assert predicted.gradient_bytes == measured.gradient_bytes
    # A convolution's own scratch is the difference.
    assert measured.peak_bytes == pytest.approx(predicted.peak_bytes, rel=0.25)


def test_the_network_is_not_changed() -> None:
    network = _mlp()
    before = [item.detach().clone() for item in network.parameters()]
    predict_memory(network, _batch(), _loss, _adam)
    measure_memory(network, _batch(), _loss, _adam)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None


class _Distinct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(5, 2))

    def forward(self, rows: Tensor) -> Tensor:
        return self.table[torch.unique(rows)].sum(dim=0)


def test_a_size_that_depends_on_values_cannot_be_predicted() -> None:
    batch = (torch.zeros(4, dtype=torch.long),)

    def loss(network: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        return network(given[0]).sum()

    with pytest.raises(NotImplementedError):
        predict_memory(_Distinct(), batch, loss, _adam)
    assert isinstance(measure_memory(_Distinct(), batch, loss, _adam), StepMemory)


@pytest.mark.parametrize("memory_of", [predict_memory, measure_memory])
def test_moving_statistics_are_not_parameters(memory_of: object) -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batch = (torch.zeros(5, 6), torch.zeros(5, dtype=torch.long))
    found = memory_of(network, batch, _loss, _adam)  # type: ignore[operator]
    # By hand: 28 + 8 + 10 parameters; a mean and a variance of 4, and one 64-bit counter.
    assert found.parameter_bytes == FLOAT_BYTES * 46
    assert found.buffer_bytes == FLOAT_BYTES * 8 + 8
    assert found.model_bytes == FLOAT_BYTES * 46 * 4 + FLOAT_BYTES * 8 + 8


def test_accounts_say_how_far_they_are() -> None:
    network = nn.Linear(6, 2)
    data = TrainingData(
        inputs=(np.zeros((3, 6), np.float32),), targets=np.array([0, 1, 1]), task="classification"
    )
    told: list[tuple[int, int]] = []
    accounts = step_accounts(
        network, network, data, TrainOptions(), (1, 3), lambda *state: told.append(state)
    )
    assert [account.batch for account in accounts] == [1, 3]
    assert told == [(0, 2), (1, 2), (2, 2)]


DIRECTIONS = 5
PARAMETERS = INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES


def _subspace(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return SubspaceNewton(parameters, options=SubspaceOptions(directions=DIRECTIONS))


def _spsa(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return ZerothOrder(parameters, options=ZerothOrderOptions(directions=DIRECTIONS))


@pytest.mark.parametrize("memory_of", [predict_blind_memory, measure_blind_memory])
def test_a_subspace_step_as_counted_by_hand(memory_of: object) -> None:
    found = memory_of(_mlp(), _batch(), "classification", _subspace)  # type: ignore[operator]
    assert found.parameter_bytes == found.state_bytes == FLOAT_BYTES * PARAMETERS
    # The values to go back to; directions are drawn again each time.
    assert found.copy_bytes == FLOAT_BYTES * PARAMETERS
    # Those of the start and along each direction, in float64.
    assert found.output_bytes == 8 * (DIRECTIONS + 1) * BATCH * CLASSES
    assert found.gradient_bytes == 0
    # The hidden layer before and after its ReLU.
    assert found.activation_bytes == FLOAT_BYTES * 2 * BATCH * HIDDEN
    assert found.model_bytes == 3 * FLOAT_BYTES * PARAMETERS


@pytest.mark.parametrize("memory_of", [predict_blind_memory, measure_blind_memory])
def test_a_step_of_simultaneous_perturbation_as_counted_by_hand(memory_of: object) -> None:
    found = memory_of(_mlp(), _batch(), "classification", _spsa)  # type: ignore[operator]
    assert found.state_bytes == 2 * FLOAT_BYTES * PARAMETERS
    # Values to go back to, signs, the estimate.
    assert found.copy_bytes == 3 * FLOAT_BYTES * PARAMETERS
    assert found.output_bytes == found.gradient_bytes == 0
    assert found.activation_bytes == FLOAT_BYTES * 2 * BATCH * HIDDEN
    assert found.peak_bytes >= found.model_bytes


@pytest.mark.parametrize("optimizer", [_subspace, _spsa], ids=["subspace", "spsa"])
@pytest.mark.parametrize("samples", [1, 8, 300])
def test_a_blind_prediction_is_what_the_allocator_sees(optimizer: object, samples: int) -> None:
    network = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 6))
    if samples < 300:
        network = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 6))
    before = [item.detach().clone() for item in network.parameters()]
    batch = (torch.randn(samples, 40), torch.zeros(samples, dtype=torch.long))
    predicted = predict_blind_memory(network, batch, "classification", optimizer)  # type: ignore[arg-type]
    measured = measure_blind_memory(network, batch, "classification", optimizer)  # type: ignore[arg-type]
    for name in ("parameter", "buffer", "state", "copy", "output"):
        assert getattr(predicted, f"{name}_bytes") == getattr(measured, f"{name}_bytes"), name
    assert predicted.activation_bytes == pytest.approx(measured.activation_bytes, rel=0.02)
    assert predicted.peak_bytes == pytest.approx(measured.peak_bytes, rel=0.02)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_blind_step_needs_an_optimizer_without_gradients() -> None:
    with pytest.raises(TypeError, match="Adam trains with back-propagation"):
        predict_blind_memory(_mlp(), _batch(), "classification", _adam)


@pytest.mark.parametrize(("name", "copies"), [("zeroth-order", 1), ("spsa", 3)])
def test_accounts_of_training_without_back_propagation(name: str, copies: int) -> None:
    data = TrainingData(
        inputs=(np.zeros((3, 6), np.float32),),
        targets=np.zeros((3, 2), np.float32),
        task="regression",
    )
    options = TrainOptions(optimizer=name)  # type: ignore[arg-type]
    dense = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    (account,) = step_accounts(dense, nn.Linear(6, 2), data, options, (3,), lambda *_: None)
    for found, count in (
        (account.dense, 74),
        (account.dense_measured, 74),
        (account.ours, 14),
        (account.ours_measured, 14),
    ):
        assert found is not None
        assert found.copy_bytes == copies * FLOAT_BYTES * count


@pytest.mark.parametrize(("name", "moments"), [("zeroth-order", 1), ("spsa", 2)])
def test_no_gradients_are_stored_without_back_propagation(name: str, moments: int) -> None:
    data = TrainingData(
        inputs=(np.zeros((3, 6), np.float32),), targets=np.array([0, 1, 1]), task="classification"
    )
    options = TrainOptions(optimizer=name, precision=PrecisionOptions())  # type: ignore[arg-type]
    network = nn.Sequential(nn.Linear(6, 2))
    apply_precision(network, PrecisionOptions(), seed=0)
    parts = stored_account(network, data, options).parts
    assert not [part.name for part in parts if "gradients" in part.name]
    assert sum(part.count for part in parts if "state" in part.name) == moments * 14
