"""Training data as tensors, held-back samples, and the order in which a seed visits the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgecompress.core.arrays import Array
from edgecompress.core.errors import DataInvalid
from edgecompress.training.tasks import Task, objective

DEVICE_SHARE = 0.25
"""Data move to an accelerator as a whole if they fill no more than this share of its free memory;
else batch by batch. Source: a choice that leaves room for activations; no result depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingData:
    """Samples to train on.

    Attributes:
        inputs: Arrays with samples along the first axis; floating, or whole numbers for tokens and
            categories.
        targets: Class numbers (n,), tokens (n, length), values to predict, or clicks (0 or 1).
        task: What the targets mean.
    """

    inputs: tuple[Array, ...]
    targets: Array
    task: Task

    def __post_init__(self) -> None:
        count = len(self.targets)
        if not self.inputs or any(len(array) != count for array in self.inputs):
            sizes = [len(array) for array in self.inputs]
            raise DataInvalid(f"inputs of {sizes} samples for {count} targets")
        if not count:
            raise DataInvalid("no samples to train on")
        if self.task == "classification" and self.targets.min() < 0:
            raise DataInvalid(f"class numbers start at 0, not at {self.targets.min()}")

    @property
    def count(self) -> int:
        """Samples."""
        return len(self.targets)

    @property
    def classes(self) -> int:
        """Outputs that tell all classes or tokens apart; 0 where targets are values."""
        if self.task in ("regression", "click"):
            return 0
        return int(self.targets.max()) + 1

    def sha256(self) -> str:
        """Of all values, types and shapes."""
        digest = hashlib.sha256(self.task.encode())
        for array in (*self.inputs, self.targets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Batches:
    """Some of the samples, as tensors on one device.

    Args:
        data: All samples.
        rows: Which of them, in rising order; None: all.
        dtype: Of floating inputs and of values to predict.
        device: Where batches are wanted.
    """

    def __init__(
        self,
        data: TrainingData,
        rows: Array | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        taken = [*data.inputs, data.targets]
        if rows is not None:
            taken = [array[rows] for array in taken]
        floating_targets = data.task in ("regression", "click")
        tensors = [
            *(_as_tensor(array, dtype) for array in taken[:-1]),
            _as_target(taken[-1], dtype if floating_targets else torch.long),
        ]
        self.count = len(taken[-1])
        self.terms = objective(data.task).terms(tensors[-1])
        self.device = device
        size_bytes = sum(tensor.nbytes for tensor in tensors)
        self.resident = _fits(size_bytes, device)
        self.tensors = [tensor.to(device) for tensor in tensors] if self.resident else tensors

    def take(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs and targets of these rows, (k,) on the CPU."""
        if self.resident:
            rows = rows.to(self.device)
        found = [tensor.index_select(0, rows) for tensor in self.tensors]
        if not self.resident:
            found = [tensor.to(self.device, non_blocking=True) for tensor in found]
        return tuple(found[:-1]), found[-1]

    def weight(self, rows: Tensor) -> float:
        """Terms that these rows give to the mean loss; rows, where all give as many."""
        return float(len(rows) if self.terms is None else self.terms[rows].sum())

    def order(self, seed: int, epoch: int) -> Tensor:
        """The rows in the order of an epoch: depends on seed and epoch only."""
        generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
        return torch.randperm(self.count, generator=generator)

    def in_turn(self, batch: int) -> Iterator[Tensor]:
        """All rows in their own order."""
        return iter(torch.split(torch.arange(self.count), batch))


def hold_back(data: TrainingData, share: float, seed: int) -> tuple[Array | None, Array]:
    """Rows to train on and rows to judge by, each in rising order.

    Classes (and clicks) keep their shares in both parts, to within one sample each, and no class
    leaves the training part.

    Returns:
        (None, empty) where nothing is held back.
    """
    generator = np.random.default_rng(derived_seed(seed, "held back", 0))
    if not share:
        return None, np.zeros(0, dtype=np.int64)
    if data.task in ("classification", "click"):
        labels = data.targets.reshape(-1)
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    else:
        groups = [np.arange(data.count)]
    held = np.concatenate([_pick(group, share, generator) for group in groups])
    if not len(held):
        raise DataInvalid(
            f"holding back {share:g} of {data.count} samples leaves none to judge by",
            hint="give more data, or a larger --validation",
        )
    held.sort()
    return np.setdiff1d(np.arange(data.count), held, assume_unique=True), held


def derived_seed(seed: int, purpose: str, index: int) -> int:
    """A seed of 63 bits for one purpose; others are independent of it."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _pick(rows: Array, share: float, generator: np.random.Generator) -> Array:
    count = min(round(share * len(rows)), len(rows) - 1)
    return generator.permutation(rows)[:count]


def _as_tensor(array: Array, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if tensor.is_floating_point():
        return tensor.to(dtype)
    return tensor if tensor.dtype in (torch.int32, torch.int64) else tensor.long()


def _as_target(array: Array, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(dtype)


def _fits(size_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return size_bytes <= DEVICE_SHARE * free_bytes
