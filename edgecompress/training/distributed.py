"""Training in several processes: who they are, what each does, and how they stay equal.

Started by ``torchrun``; one process without it. Every process holds all samples, takes its share of
each batch and knows the whole batch, so shares of unequal size weigh what they should.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgecompress.core.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: This process, from 0.
        size: How many there are.
        device: Of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """Rows of a batch that this process takes; may be empty."""
        return torch.tensor_split(rows, self.size)[self.rank]

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; in place."""
        if self.size > 1:
            dist.all_reduce(sums)
        return sums

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in their order; counts may differ."""
        if self.size == 1:
            return rows
        counts = self.total(_at(self.rank, len(rows), self.size, rows.device)).tolist()
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def agree(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the first process's values, in place; shapes are the same everywhere.

        Tensors that are spread over the processes stay as they are.
        """
        if self.size == 1:
            return
        by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            if is_spread(tensor):
                continue
            by_kind.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for (_, place), group in by_kind.items():
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in group]).to(self.device)
            dist.broadcast(flat, src=0)
            _unflatten(flat.to(place), group)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Mean over the processes of gradients that nobody else averages, in place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            _unflatten(flat.div_(self.size), gradients)


def is_spread(tensor: Tensor) -> bool:
    """Whether a tensor's parts live in several processes (torch's ``DTensor``, told by what only it
    can do: its module takes seconds to import)."""
    return hasattr(tensor, "full_tensor")


def is_first_process() -> bool:
    """Whether this process is the one that writes, before any team is joined."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined_team(device: str | None) -> Iterator[Team]:
    """The team that ``torchrun`` started, or a team of one.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` ...; None: the accelerator if there is one. Under
            ``torchrun`` each process takes the accelerator of its local rank. Processors talk
            through gloo, CUDA devices through NCCL.

    Raises:
        UsageError: No such device, or more processes than accelerators.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = find_device(device, size)
    if size == 1 and not (dist.is_available() and dist.is_initialized()):
        yield Team(0, 1, place)
        return
    ours = not dist.is_initialized()
    if ours:
        if place.type == "cuda":
            torch.cuda.set_device(place)
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), place)
    finally:
        if ours:
            dist.destroy_process_group()


def in_parallel(network: nn.Module, team: Team) -> nn.Module:
    """The network to run batches through: its gradients are means over the processes.

    After parameters changed their shapes, wrap the network anew, and drop the old wrapper before:
    it expects gradients of the old shapes.
    """
    if team.size == 1 or not any(p.requires_grad for p in network.parameters()):
        return network
    ids = [team.device.index or 0] if team.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=ids)


def find_device(wanted: str | None, size: int) -> torch.device:
    """The device of this process, one of ``size``.

    Raises:
        UsageError: There is none of that name, or fewer than processes.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        place = torch.device(wanted or ("cuda" if available else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"unknown device {wanted!r}", hint="cpu or cuda") from error
    if place.type != "cuda":
        return place
    local = int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else place.index or 0
    if local >= available:
        fewer = ", or start as many processes as there are devices" if size > 1 else ""
        raise UsageError(
            f"no CUDA device {local}: there are {available}", hint=f"use --device cpu{fewer}"
        )
    return torch.device("cuda", local)


def _at(place: int, value: int, size: int, device: torch.device) -> Tensor:
    found = torch.zeros(size, dtype=torch.long, device=device)
    found[place] = value
    return found


@torch.no_grad()
def _unflatten(flat: Tensor, group: Sequence[Tensor]) -> None:
    start = 0
    for tensor in group:
        part = flat[start : start + tensor.numel()]
        tensor.copy_(part.reshape(tensor.shape))
        start += tensor.numel()
