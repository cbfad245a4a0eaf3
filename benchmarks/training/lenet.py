"""A LeNet-class network on Fashion-MNIST: decomposed, healed on 60,000 images without labels.

    python -m benchmarks.training.lenet [--share 0.5] [--start 0.5] [--epochs N]

Two 5x5 convolutions and two linear layers, 10,000 test images. ``--start`` above ``--share``
decomposes to the former and lets ranks fall to the latter during healing. Writes
``results/lenet.json``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.training.fashion_images import read_split
from benchmarks.training.healing import Bench, heal_at_shares
from edgecompress.core.options import HealOptions

PREPROCESS = "scale=1/255,mean=0.5,std=0.5,reshape=1:28:28"


def load(folder: Path) -> Bench:
    """The model with its data."""
    images = folder / "datasets" / "fashion_mnist"
    test, labels = read_split(images, "t10k")
    return Bench(
        name="lenet",
        model=folder / "models" / "fashion_cnn_alt.onnx",
        images=read_split(images, "train")[0],
        preprocess=PREPROCESS,
        test_images=(test.reshape(-1, 1, 28, 28).astype(np.float32) / 255 - 0.5) / 0.5,
        test_labels=labels,
        input_name="input",
    )


if __name__ == "__main__":
    heal_at_shares(load, HealOptions(epochs=1))
