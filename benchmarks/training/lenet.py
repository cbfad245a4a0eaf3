"""A LeNet-class network on Fashion-MNIST: decomposed, healed on 60,000 images without labels.

    python -m benchmarks.training.lenet [--share 0.5] [--start 0.5] [--epochs N]

Two 5x5 convolutions and two linear layers, 10,000 test images. ``--start`` above ``--share``
decomposes to the former and lets ranks fall to the latter during healing. Writes
``results/lenet.json``.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.training.healing import Bench, data_folder, run, write
from edgecompress.core.options import HealOptions

BARS = {0.5: 1.0, 0.3: 2.0}
PREPROCESS = "scale=1/255,mean=0.5,std=0.5,reshape=1:28:28"


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, choices=sorted(BARS), nargs="*", default=[0.5, 0.3])
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        return
    images = folder / "datasets" / "fashion_mnist"
    test = _idx(images / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    bench = Bench(
        name="lenet",
        model=folder / "models" / "fashion_cnn_alt.onnx",
        images=_idx(images / "train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
        preprocess=PREPROCESS,
        test_images=(test.astype(np.float32) / 255 - 0.5) / 0.5,
        test_labels=_idx(images / "t10k-labels-idx1-ubyte.gz", 8),
        input_name="input",
        bars=BARS,
    )
    options = HealOptions(epochs=arguments.epochs, learning_rate=arguments.rate)
    for share in arguments.share:
        done = run(bench, share, max(share, arguments.start), options)
        write(bench, "python -m benchmarks.training.lenet", [done])


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


if __name__ == "__main__":
    main()
