"""Accounts of a training step: memory beside the dense network's, and bits as stored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.core.training import TrainOptions
from edgecompress.training.batches import TrainingData
from edgecompress.training.forward_memory import (
    measure_blind_memory,
    predict_blind_memory,
    with_state,
)
from edgecompress.training.low_precision.apply import bake_precision
from edgecompress.training.low_precision.optimizer import PreciseOptimizer
from edgecompress.training.low_precision.storage import StoredBits, stored_bits
from edgecompress.training.memory import (
    MakeOptimizer,
    StepMemory,
    measure_memory,
    predict_memory,
)
from edgecompress.training.schedule import MOMENTUM, make_optimizer, subspace_newton
from edgecompress.training.subspace_newton import SubspaceNewton
from edgecompress.training.tasks import objective
from edgecompress.training.zeroth_order import ZerothOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAccount:
    """Memory of one step of the dense network and of ours, in float32.

    Attributes:
        batch: Samples.
        dense, ours: Predicted; None where only a measurement tells.
        dense_measured, ours_measured: At the allocator; None for a network without storage.
    """

    batch: int
    dense: StepMemory | None
    ours: StepMemory | None
    dense_measured: StepMemory | None
    ours_measured: StepMemory | None


def step_accounts(
    dense: nn.Module,
    ours: nn.Module,
    data: TrainingData,
    options: TrainOptions,
    batches: Collection[int],
    on_account: Callable[[int, int], None],
) -> tuple[StepAccount, ...]:
    """Memory of a step at several batch sizes.

    Args:
        dense, ours: Both are copied, the rounding of numbers taken off: widths are another account.
        data: Samples, repeated where they do not fill a batch.
        options: The optimiser.
        batches: Sizes.
        on_account: Told how many sizes are done, and of how many, before the first and after each.
    """
    pair = _in_float(dense), _in_float(ours)
    predicted_of, measured_of = _ways(data, options)
    accounts: list[StepAccount] = []
    on_account(0, len(batches))
    for size in batches:
        batch = _batch(data, size)
        predicted = [_predicted(network, batch, predicted_of) for network in pair]
        measured = [_measured(network, batch, measured_of) for network in pair]
        accounts.append(
            StepAccount(
                batch=size,
                dense=predicted[0],
                ours=predicted[1],
                dense_measured=measured[0],
                ours_measured=measured[1],
            )
        )
        on_account(len(accounts), len(batches))
    return tuple(accounts)


def stored_account(network: nn.Module, data: TrainingData, options: TrainOptions) -> StoredBits:
    """What is kept between steps, after one step of a copy."""
    trained = copy.deepcopy(network).cpu()
    trained.train()
    updater = make_optimizer(trained, options)
    if options.precision is not None and not options.forward_only:
        precise = PreciseOptimizer(updater, trained, options.precision, seed=options.seed)
        *given, wanted = _batch(data, 2)
        objective(data.task).loss(trained(*given), wanted).backward()  # type: ignore[no-untyped-call]
        precise.step()
        updater = precise
    if isinstance(updater, SubspaceNewton | ZerothOrder):
        with_state(updater)
        parts = stored_bits(trained, updater).parts
        return StoredBits(tuple(part for part in parts if "gradients" not in part.name))
    return stored_bits(trained, updater)


MemoryOf = Callable[[nn.Module, tuple[Tensor, ...]], StepMemory]


def _ways(data: TrainingData, options: TrainOptions) -> tuple[MemoryOf, MemoryOf]:
    """How a step is predicted, and how it is measured."""
    if options.forward_only:
        blind = _maker(options)
        return (
            lambda network, batch: predict_blind_memory(network, batch, data.task, blind),
            lambda network, batch: measure_blind_memory(network, batch, data.task, blind),
        )
    judge, maker = objective(data.task), _maker(options)

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return judge.loss(network(*batch[:-1]), batch[-1])

    return (
        lambda network, batch: predict_memory(network, batch, loss, maker),
        lambda network, batch: measure_memory(network, batch, loss, maker),
    )


def _predicted(
    network: nn.Module, batch: tuple[Tensor, ...], memory_of: MemoryOf
) -> StepMemory | None:
    try:
        return memory_of(network, batch)
    except NotImplementedError:
        return None


def _measured(
    network: nn.Module, batch: tuple[Tensor, ...], memory_of: MemoryOf
) -> StepMemory | None:
    if any(parameter.is_meta for parameter in network.parameters()):
        return None
    return memory_of(network, batch)


def _in_float(network: nn.Module) -> nn.Module:
    """A copy that computes in float32."""
    free = copy.deepcopy(network)
    bake_precision(free)
    return free


def _batch(data: TrainingData, size: int) -> tuple[Tensor, ...]:
    rows = np.arange(size) % data.count
    floating = data.task in ("regression", "click")
    wanted = torch.from_numpy(data.targets[rows]).to(torch.float32 if floating else torch.long)
    return (*(torch.from_numpy(array[rows]) for array in data.inputs), wanted)


def _maker(options: TrainOptions) -> MakeOptimizer:
    """The optimiser of the run for any parameters, not fused: nothing has storage in a forecast."""

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        rate = options.rate
        match options.optimizer:
            case "zeroth-order":
                return subspace_newton([{"params": list(parameters)}], options)
            case "spsa":
                return ZerothOrder(parameters, lr=rate)
            case "adamw":
                return torch.optim.AdamW(parameters, lr=rate, foreach=False)
            case "sgd":
                return torch.optim.SGD(parameters, lr=rate, foreach=False)
            case "momentum":
                return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, foreach=False)
            case _:
                return torch.optim.Adam(parameters, lr=rate, foreach=False)

    return make
