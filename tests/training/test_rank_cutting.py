"""Ranks leave cores, gradients, views and optimiser state together, and training goes on."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from edgecompress.training.adaptation.cutting import cut_bond, pool_moments
from edgecompress.training.adaptation.sampling import SampledCores
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.tt import TensorTrain

FOLDING = Folding(rows=(3, 2), columns=(4, 3))
KEPT = [0, 2, 3]
Make = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.01),
}


def made(seed: int = 0, dtype: torch.dtype = torch.float32) -> TensorTrain:
    train = TensorTrain(FOLDING, (3, 4, 2), dtype=dtype)
    train.reset(0.5, torch.Generator().manual_seed(seed))
    return train


def loss_of(train: TensorTrain) -> Tensor:
    x = torch.randn(16, 12, generator=torch.Generator().manual_seed(5), dtype=train.cores[0].dtype)
    return (train.multiply(x) - 1).square().mean()


def step(train: TensorTrain, optimizer: torch.optim.Optimizer) -> Tensor:
    loss = loss_of(train)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_cut_like_the_core_and_the_next_step_is_that_of_a_smaller_network(
    name: str,
) -> None:
    # Truth: a network and an optimiser built small by hand, slices taken here.
    train = made()
    optimizer = OPTIMIZERS[name](train.parameters())
    for _ in range(3):
        step(train, optimizer)
    small = TensorTrain(FOLDING, (3, 3, 2))
    places = {1: 2, 2: 0}  # core -> axis of the middle bond
    twin = OPTIMIZERS[name](small.parameters())
    for place, (core, target) in enumerate(zip(train.cores, small.cores, strict=True)):
        whole = core.detach().clone()
        target.data = (
            whole if place not in places else whole.index_select(places[place], torch.tensor(KEPT))
        )
        for key, value in optimizer.state[core].items():
            if isinstance(value, Tensor) and value.shape == whole.shape and place in places:
                twin.state[target][key] = value.index_select(places[place], torch.tensor(KEPT))
            else:
                twin.state[target][key] = value.clone() if isinstance(value, Tensor) else value
    identities = [id(core) for core in train.cores]
    cut_bond(train, 1, KEPT, optimizer)
    assert train.ranks == (3, 3, 2)
    assert [id(core) for core in train.cores] == identities
    for _ in range(3):
        step(train, optimizer)
        step(small, twin)
    for core, target in zip(train.cores, small.cores, strict=True):
        torch.testing.assert_close(core, target, rtol=0, atol=0)


def test_gradients_are_cut_along() -> None:
    train = made()
    loss_of(train).backward()
    gradient = train.cores[1].grad
    assert gradient is not None
    cut_bond(train, 1, KEPT)
    assert train.cores[1].grad is not None
    torch.testing.assert_close(train.cores[1].grad, gradient[:, :, KEPT], rtol=0, atol=0)


def test_a_loss_that_is_still_alive_does_not_stop_the_next_backward_pass() -> None:
    # Autograd remembers the shape a parameter had as long as a graph that used it lives.
    train = made()
    alive = sum(core.square().sum() for core in train.cores)
    assert isinstance(alive, Tensor)
    alive.backward()
    cut_bond(train, 1, KEPT)
    torch.stack([core.square().sum() for core in train.cores]).sum().backward()
    assert alive.grad_fn is not None
    for core in train.cores:
        assert core.grad is not None
        assert core.grad.shape == core.shape


def test_cutting_nothing_changes_nothing_and_unordered_or_empty_cuts_are_refused() -> None:
    train = made()
    optimizer = OPTIMIZERS["adam"](train.parameters())
    step(train, optimizer)
    before = [optimizer.state[core]["exp_avg"].clone() for core in train.cores]
    cut_bond(train, 1, [0, 1, 2, 3], optimizer)
    for core, moments in zip(train.cores, before, strict=True):
        torch.testing.assert_close(optimizer.state[core]["exp_avg"], moments, rtol=0, atol=0)
    with pytest.raises(ValueError, match="rise"):
        cut_bond(train, 1, [2, 0], optimizer)
    with pytest.raises(ValueError, match="at least one"):
        cut_bond(train, 1, [], optimizer)


def test_deviations_of_sampled_cores_are_cut_with_their_state() -> None:
    train = made()
    sampled = SampledCores(list(train.cores), TensorTrain.bonds(FOLDING))
    train.views.append(sampled)
    optimizer = OPTIMIZERS["adam"](train.parameters())
    step(train, optimizer)
    logs = sampled.log_sigma["2"]
    wanted = logs.detach()[KEPT], optimizer.state[logs]["exp_avg_sq"][KEPT]
    cut_bond(train, 1, KEPT, optimizer)
    torch.testing.assert_close(logs.detach(), wanted[0], rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state[logs]["exp_avg_sq"], wanted[1], rtol=0, atol=0)
    step(train, optimizer)


def test_pooled_moments_do_not_depend_on_the_gauge() -> None:
    train = made()
    optimizer = OPTIMIZERS["adam"](train.parameters())
    step(train, optimizer)
    core = train.cores[1]
    mean = optimizer.state[core]["exp_avg_sq"].mean().item()
    steps = optimizer.state[core]["step"].item()
    pool_moments(optimizer, train.parameters())
    assert not optimizer.state[core]["exp_avg"].any()
    assert optimizer.state[core]["exp_avg_sq"].flatten().tolist() == pytest.approx([mean] * 36)
    assert optimizer.state[core]["step"].item() == steps
    pool_moments(OPTIMIZERS["adam"](train.parameters()), train.parameters())  # no state yet
