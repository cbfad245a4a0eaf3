"""Memory of a training step: predicted from shapes, and measured at the allocator."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Loss = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
"""The mean loss of a batch; called with the network and the batch's tensors."""

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

Result = TypeVar("Result")

FORWARD_DONE = "edgecompress: forward done"
BACKWARD_DONE = "edgecompress: backward done"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMemory:
    """What one training step holds, in bytes; the batch itself is not in it.

    Attributes:
        parameter_bytes: All parameters.
        buffer_bytes: What the network keeps without training it: moving statistics.
        gradient_bytes: Gradients after the backward pass.
        state_bytes: State of the optimiser.
        activation_bytes: What the forward pass leaves for the backward pass, the loss included;
            where there is no backward pass, the most that one forward pass holds at once.
        peak_bytes: The most at any time between the forward pass and the end of the update, with
            parameters, buffers and state.
        copy_bytes: Without a backward pass: copies, directions and estimates of the parameters'
            size that stay while forward passes run.
        output_bytes: Without a backward pass: outputs that are kept from all forward passes.
    """

    parameter_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    state_bytes: int
    activation_bytes: int
    peak_bytes: int
    copy_bytes: int = 0
    output_bytes: int = 0

    @property
    def model_bytes(self) -> int:
        """Parameters, buffers, gradients or copies, and optimiser state together."""
        kept = self.parameter_bytes + self.buffer_bytes
        return kept + self.gradient_bytes + self.copy_bytes + self.state_bytes


def predict_memory(
    network: nn.Module, batch: tuple[Tensor, ...], loss: Loss, optimizer: MakeOptimizer
) -> StepMemory:
    """Memory of a step from the shapes of everything in it; nothing is allocated.

    The step runs on tensors without storage: every operator says which shapes it makes, and
    autograd which of them it keeps. Left out is what a kernel uses inside and frees again.

    Args:
        network: On any device, the one without storage included; it is not changed.
        batch: Tensors of the right shapes and types; their values do not matter.
        loss: Runs the network on a batch.
        optimizer: Makes the optimiser for parameters.

    Raises:
        NotImplementedError: An operator's output size depends on values (a table read by distinct
            indices): only `measure_memory` can tell.
    """
    shadow = copy.deepcopy(network).to("meta")
    shadow.train()
    tensors = tuple(item.to("meta") for item in batch)
    updater = optimizer(shadow.parameters())
    in_place = _unfuse(updater)
    _one_step(shadow, tensors, loss, updater)  # makes the optimiser's state
    updater.zero_grad(set_to_none=True)
    books = _Books()
    with books:
        result = loss(shadow, tensors)
        kept = books.current()
        result.backward()  # type: ignore[no-untyped-call]
        del result
        gradients = books.current()
        if not in_place:
            updater.step()
    return StepMemory(
        parameter_bytes=size_bytes(shadow.parameters()),
        buffer_bytes=size_bytes(shadow.buffers()),
        gradient_bytes=gradients,
        state_bytes=state_bytes(updater),
        activation_bytes=kept,
        peak_bytes=books.peak + fixed_bytes(shadow, updater),
    )


def measure_memory(
    network: nn.Module, batch: tuple[Tensor, ...], loss: Loss, optimizer: MakeOptimizer
) -> StepMemory:
    """Memory of a step as the allocator saw it.

    Args:
        network: On the CPU or a CUDA device. A copy is trained for two steps; it is not changed.
        batch: On the same device.
        loss: Runs the network on a batch.
        optimizer: Makes the optimiser for parameters.
    """
    trained = copy.deepcopy(network)
    trained.train()
    updater = optimizer(trained.parameters())
    _one_step(trained, batch, loss, updater)
    updater.zero_grad(set_to_none=True)
    cuda = batch[0].is_cuda if batch else False
    measured = _on_cuda if cuda else _on_cpu
    kept, gradients, peak = measured(trained, batch, loss, updater)
    return StepMemory(
        parameter_bytes=size_bytes(trained.parameters()),
        buffer_bytes=size_bytes(trained.buffers()),
        gradient_bytes=gradients,
        state_bytes=state_bytes(updater),
        activation_bytes=kept,
        peak_bytes=peak + fixed_bytes(trained, updater),
    )


def peak_of(run: Callable[[], Result]) -> tuple[int, Result]:
    """The most bytes that a function has at once, of what it makes itself; and its result."""
    books = _Books()
    with books:
        result = run()
    return books.peak, result


def _unfuse(updater: torch.optim.Optimizer) -> bool:
    """Whether updates are fused, which takes no memory; they do not run without storage, so they
    are switched off, in place."""
    fused = any(group.get("fused") for group in updater.param_groups)
    for group in updater.param_groups:
        if group.get("fused"):
            group["fused"] = False
    return fused


def _one_step(
    network: nn.Module, batch: tuple[Tensor, ...], loss: Loss, updater: torch.optim.Optimizer
) -> None:
    updater.zero_grad(set_to_none=True)
    loss(network, batch).backward()  # type: ignore[no-untyped-call]
    updater.step()


def _on_cpu(
    network: nn.Module, batch: tuple[Tensor, ...], loss: Loss, updater: torch.optim.Optimizer
) -> tuple[int, int, int]:
    """Bytes after the forward pass, after the backward pass, and the most ever."""
    with warnings.catch_warnings(), profiler() as profile:
        warnings.simplefilter("ignore")
        result = loss(network, batch)
        with torch.profiler.record_function(FORWARD_DONE):
            pass
        result.backward()  # type: ignore[no-untyped-call]
        del result
        with torch.profiler.record_function(BACKWARD_DONE):
            pass
        updater.step()
    now = peak = 0
    marks = {FORWARD_DONE: 0, BACKWARD_DONE: 0}
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda item: int(item.start_ns())):
        name = event.name()
        if name in marks:
            marks[name] = now
        elif name == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return marks[FORWARD_DONE], marks[BACKWARD_DONE], peak


@contextmanager
def profiler() -> Iterator[Any]:
    """Takes note of every allocation of the processor."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        yield profile


def _on_cuda(
    network: nn.Module, batch: tuple[Tensor, ...], loss: Loss, updater: torch.optim.Optimizer
) -> tuple[int, int, int]:
    """Bytes after the forward pass, after the backward pass, and the most ever."""
    device = batch[0].device
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = loss(network, batch)
    kept = torch.cuda.memory_allocated(device) - before
    result.backward()  # type: ignore[no-untyped-call]
    del result
    gradients = torch.cuda.memory_allocated(device) - before
    updater.step()
    return kept, gradients, torch.cuda.max_memory_allocated(device) - before


def fixed_bytes(network: nn.Module, updater: torch.optim.Optimizer) -> int:
    """What is there before and after a step."""
    kept = (*network.parameters(), *network.buffers())
    return size_bytes(kept) + state_bytes(updater)


def size_bytes(tensors: Iterable[Tensor]) -> int:
    """Of all of them."""
    return sum(item.numel() * item.element_size() for item in tensors)


def state_bytes(updater: torch.optim.Optimizer) -> int:
    """Everything with a value for each entry of a parameter; step counters are not memory."""
    return sum(
        value.numel() * value.element_size()
        for parameter, state in updater.state.items()
        for value in state.values()
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim()
    )


class _Books(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that were made inside and are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.now = 0
        self.peak = 0

    def current(self) -> int:
        """Bytes alive now."""
        for key, (storage, size_bytes) in list(self._alive.items()):
            if storage.expired():  # type: ignore[no-untyped-call]
                del self._alive[key]
                self.now -= size_bytes
        return self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and take note of what it made."""
        given = {_key(item) for item in tree_iter((args, kwargs)) if isinstance(item, Tensor)}
        result = func(*args, **(kwargs or {}))
        self.current()
        for item in tree_iter(result):
            if isinstance(item, Tensor) and _key(item) not in given | self._alive.keys():
                storage = item.untyped_storage()
                self._alive[_key(item)] = (_weak(storage), storage.nbytes())
                self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        return result


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _weak(storage: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]
