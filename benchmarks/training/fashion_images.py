"""Fashion-MNIST, read from the folder that EDGECOMPRESS_DATA names."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "t10k"]
SPLITS: tuple[Split, Split] = ("train", "t10k")
Pictures = tuple[Tensor, Tensor]
"""Images as rows (n, 784) and labels (n,)."""


def find_folder() -> Path | None:
    """Folder of the four files; None, with the reason said, where they are not."""
    folder = Path(os.environ.get("EDGECOMPRESS_DATA", "data")) / "datasets" / "fashion_mnist"
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        return folder
    sys.stderr.write("skipped: EDGECOMPRESS_DATA names no folder with datasets/fashion_mnist\n")
    return None


def read_split(folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) and labels (n,): 60,000 to train, 10,000 to test."""

    def read(name: str, header: int) -> NDArray[np.uint8]:
        raw = gzip.decompress((folder / f"{split}-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(raw, np.uint8, offset=header)

    return read("images-idx3", 16).reshape(-1, 28, 28), read("labels-idx1", 8).astype(np.int64)


def normalised(folder: Path) -> tuple[Pictures, Pictures]:
    """Training and test set; mean and deviation of the training pixels become 0 and 1."""
    sets = [read_split(folder, split) for split in SPLITS]
    train, test = (torch.tensor(x.reshape(-1, 784).astype(np.float32)) for x, _ in sets)
    labels, test_labels = (torch.tensor(y) for _, y in sets)
    centre, spread = train.mean(), train.std()
    return ((train - centre) / spread, labels), ((test - centre) / spread, test_labels)


def hold_back(pictures: Pictures, count: int) -> tuple[Pictures, Pictures]:
    """All but the last ``count`` images, and those."""
    images, labels = pictures
    split = len(labels) - count
    return (images[:split], labels[:split]), (images[split:], labels[split:])
