"""Memory of a training step without back-propagation: predicted from shapes, and measured."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn

from edgecompress.training.memory import (
    MakeOptimizer,
    StepMemory,
    fixed_bytes,
    peak_of,
    profiler,
    size_bytes,
    state_bytes,
)
from edgecompress.training.output_losses import OutputLoss, output_loss
from edgecompress.training.subspace_newton import SubspaceNewton, system_sums
from edgecompress.training.tasks import Task, objective
from edgecompress.training.zeroth_order import ZerothOrder

FORWARD_BEGINS = "edgecompress: forward begins"
FORWARD_ENDS = "edgecompress: forward ends"
DOUBLE_BYTES = 8
SMALLEST_PROBLEM = 25
"""Of the divide-and-conquer solver. Source: SMLSIZ of LAPACK's reference implementation."""

Blind = SubspaceNewton | ZerothOrder
Forward = Callable[[], Tensor]
Around = Callable[[Forward], Tensor]
"""Runs a forward pass, and takes note when it begins and ends."""


def predict_blind_memory(
    network: nn.Module, batch: tuple[Tensor, ...], task: Task, optimizer: MakeOptimizer
) -> StepMemory:
    """Memory of a step from the shapes of everything in it; nothing is allocated.

    The forward pass runs on tensors without storage. What the optimiser keeps while it runs, and
    makes of the outputs, is a closed form of the sizes of parameters and outputs.

    Args:
        network: On any device, the one without storage included; it is not changed.
        batch: Inputs and the target, of the right shapes and types.
        task: Its loss is the one that is trained for.
        optimizer: Makes a `SubspaceNewton` or `ZerothOrder`.

    Raises:
        NotImplementedError: An operator's output size depends on values.
    """
    shadow = copy.deepcopy(network).to("meta")
    shadow.train()
    *inputs, target = (item.to("meta") for item in batch)
    updater = _blind(optimizer(shadow.parameters()))
    trained = [p for group in updater.param_groups for p in group["params"]]

    def forward() -> Tensor:
        found: Tensor = shadow(*inputs)
        return found

    def loss() -> Tensor:
        return objective(task).loss(forward(), target)

    with torch.no_grad():
        if isinstance(updater, SubspaceNewton):
            passed, found = peak_of(forward)
            copies, outputs, peak = _subspace(
                updater, trained, passed, found, output_loss(task, target)
            )
        else:
            passed, _ = peak_of(loss)
            copies, outputs, peak = _perturbed(updater, trained, passed)
    state = size_bytes(trained) * len(_state_names(updater))
    parameters, buffers = size_bytes(shadow.parameters()), size_bytes(shadow.buffers())
    return StepMemory(
        parameter_bytes=parameters,
        buffer_bytes=buffers,
        gradient_bytes=0,
        state_bytes=state,
        activation_bytes=passed,
        copy_bytes=copies,
        output_bytes=outputs,
        peak_bytes=peak + parameters + buffers + state,
    )


def measure_blind_memory(
    network: nn.Module, batch: tuple[Tensor, ...], task: Task, optimizer: MakeOptimizer
) -> StepMemory:
    """Memory of a step as the allocator saw it.

    Args:
        network: On the CPU or a CUDA device. A copy is trained; it is not changed.
        batch: On the same device.
        task: Its loss is the one that is trained for.
        optimizer: Makes a `SubspaceNewton` or `ZerothOrder`.
    """
    trained = copy.deepcopy(network)
    trained.train()
    updater = _blind(optimizer(trained.parameters()))
    with_state(updater)
    *inputs, target = batch
    judge = objective(task)

    def step(around: Around) -> None:
        if isinstance(updater, SubspaceNewton):
            updater.step(lambda: around(lambda: trained(*inputs)), output_loss(task, target))
        else:
            updater.step(lambda: around(lambda: judge.loss(trained(*inputs), target)))

    with torch.no_grad():
        trained(*inputs)
        measured = _on_cuda(step, target.device) if target.is_cuda else _on_cpu(step)
    begun, first, peak = measured
    copies, seen = begun[:2]
    return StepMemory(
        parameter_bytes=size_bytes(trained.parameters()),
        buffer_bytes=size_bytes(trained.buffers()),
        gradient_bytes=0,
        state_bytes=state_bytes(updater),
        activation_bytes=first - copies,
        copy_bytes=copies,
        output_bytes=seen - copies,
        peak_bytes=peak + fixed_bytes(trained, updater),
    )


@torch.no_grad()
def with_state(updater: Blind) -> None:
    """Give an optimiser the state that it has from its second step on, in place."""
    for group in updater.param_groups:
        for parameter in group["params"]:
            for name in _state_names(updater):
                updater.state[parameter][name] = torch.zeros_like(parameter)
    if isinstance(updater, ZerothOrder):
        updater.steps += 1


def _blind(updater: torch.optim.Optimizer) -> Blind:
    if not isinstance(updater, SubspaceNewton | ZerothOrder):
        raise TypeError(f"{type(updater).__name__} trains with back-propagation")
    return updater


def _state_names(updater: Blind) -> tuple[str, ...]:
    if isinstance(updater, SubspaceNewton):
        return ("last_step",)
    return {"sgd": (), "momentum": ("exp_avg",), "adam": ("exp_avg", "exp_avg_sq")}[
        updater.options.rule
    ]


def _subspace(
    updater: SubspaceNewton,
    trained: Sequence[Tensor],
    passed: int,
    found: Tensor,
    loss: OutputLoss,
) -> tuple[int, int, int]:
    """Bytes of copies, of outputs that are kept, and the most beside what is there all the time.

    Args:
        passed: The most that a forward pass takes.
        found: Its output.
    """
    whole, largest = size_bytes(trained), max(map(_bytes, trained))
    # Two tensors of a direction, as one is let go when the next is there; and a float64 copy of
    # one of the step before, whose norm is taken.
    pairs = [_bytes(one) + _bytes(other) for one, other in pairwise(trained)]
    drawn = max(largest, *pairs, DOUBLE_BYTES // trained[0].element_size() * largest)
    start = found.double()
    single = _bytes(start)
    count = updater.options.directions
    changes = start.expand(count, *start.shape).clone()
    system, _ = peak_of(lambda: system_sums(start, changes, loss))
    valued, _ = peak_of(lambda: loss.value(start))
    seen = (count + 1) * single
    sums = DOUBLE_BYTES * (count + 1) ** 2  # the system, and its solution
    passed = max(passed, _bytes(found) + single, drawn)
    return (
        whole,
        seen,
        max(
            whole + seen + max(passed, system),
            whole + single + sums + _solver_bytes(count),
            2 * whole + single + sums + max(passed, single + valued),
        ),
    )


def _solver_bytes(count: int) -> int:
    """Damped matrix, the solver's copy of it, and its workspace.

    Source: LAPACK's documentation of DGELSD, one right-hand side.
    """
    least = SMALLEST_PROBLEM + 1
    levels = max(0, int(log2(count / least)) + 1)
    work = count * (12 + 2 * SMALLEST_PROBLEM + 8 * levels + 1) + least**2
    return DOUBLE_BYTES * (2 * count**2 + 2 * count + work) + 4 * count * (3 * levels + 11)


def _perturbed(
    updater: ZerothOrder, trained: Sequence[Tensor], passed: int
) -> tuple[int, int, int]:
    """As `_subspace`: the estimate, the values before and the signs; no outputs are kept. An update
    by Adam takes three times the size of a parameter in the end."""
    whole, largest = size_bytes(trained), max(map(_bytes, trained))
    copies = whole + 2 * (largest if updater.options.per_factor else whole)
    return copies, 0, max(copies + passed, whole + 3 * largest)


def _bytes(tensor: Tensor) -> int:
    return size_bytes([tensor])


def _on_cpu(step: Callable[[Around], None]) -> tuple[list[int], int, int]:
    """Bytes when each pass began, the most within the first one, and the most ever."""

    def around(forward: Forward) -> Tensor:
        with torch.profiler.record_function(FORWARD_BEGINS):
            pass
        found = forward()
        with torch.profiler.record_function(FORWARD_ENDS):
            pass
        return found

    with warnings.catch_warnings(), profiler() as profile:
        warnings.simplefilter("ignore")
        step(around)
    begun: list[int] = []
    ended = False
    now = peak = first = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda item: int(item.start_ns())):
        match event.name():
            case "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
                first = first if ended or not begun else max(first, now)
            case name if name == FORWARD_BEGINS:
                begun.append(now)
            case name if name == FORWARD_ENDS:
                ended = True
    return begun, first, peak


def _on_cuda(step: Callable[[Around], None], device: torch.device) -> tuple[list[int], int, int]:
    """Bytes when each pass began, the most within the first one, and the most ever."""
    begun: list[int] = []
    peaks: list[int] = []

    def note() -> None:
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
        torch.cuda.reset_peak_memory_stats(device)

    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)

    def around(forward: Forward) -> Tensor:
        note()
        begun.append(torch.cuda.memory_allocated(device) - before)
        found = forward()
        note()
        return found

    step(around)
    note()
    return begun, peaks[1], max(peaks)
