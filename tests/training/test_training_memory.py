"""Memory of a training step, against hand counts and against the allocator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecompress.core.training import TrainOptions
from edgecompress.training.batches import TrainingData
from edgecompress.training.memory import StepMemory, measure_memory, predict_memory
from edgecompress.training.step_accounts import step_accounts

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
