"""Small networks and samples that training tests share."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgecompress.core.options import FixedRanks
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.batches import TrainingData
from edgecompress.training.tensorize import tensorize

FEATURES, CLASSES = 16, 4


def clusters(count: int = 240, seed: int = 0, dtype: type = np.float32) -> TrainingData:
    """Classes as noisy points around distant centres: any classifier that learns finds them."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(CLASSES, FEATURES))
    labels = np.arange(count) % CLASSES
    inputs = centres[labels] + 0.5 * generator.normal(size=(count, FEATURES))
    return TrainingData(inputs=(inputs.astype(dtype),), targets=labels, task="classification")


def dense_network(seed: int = 0, *, dropout: float = 0.0) -> nn.Sequential:
    """16 -> 32 -> 4."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Dropout of nothing would still draw a mask.
        mask = nn.Dropout(dropout) if dropout else nn.Identity()
        return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), mask, nn.Linear(32, CLASSES))


def tensor_train_network(seed: int = 0, *, dropout: float = 0.0, rank: int = 6) -> nn.Sequential:
    """The same with tensor trains."""
    network = dense_network(seed, dropout=dropout)
    options = TensorizeOptions(format="tt", ranks=FixedRanks((rank,)), minimum_saving=-10.0)
    tensorize(network, options, generator=torch.Generator().manual_seed(seed))
    return network


def bits_of(network: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer as bytes."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: t.detach().contiguous().numpy().tobytes() for name, t in tensors.items()}
