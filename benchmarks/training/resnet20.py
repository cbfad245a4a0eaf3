"""ResNet-20 on CIFAR-10: decomposed, ranks adapted, healed on 12,500 images without labels.

    python -m benchmarks.training.resnet20 [--share 0.5] [--start 0.5] [--epochs N]

The 12,500 images are training images of CIFAR-10; the 1,000 test images are its first. ``--start``
above ``--share`` decomposes to the former and lets ranks fall to the latter during healing. Writes
``results/resnet20.json``. An epoch takes about 40 s on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.training.healing import Bench, heal_at_shares
from edgecompress.core.options import HealOptions

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
PREPROCESS = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc"


def load(folder: Path) -> Bench:
    """The model with its data."""
    sets = folder / "datasets"
    parts = [np.load(sets / f"cifar10_{name}.npz")["x"] for name in ("calib5k", "train7500")]
    test = np.load(sets / "cifar10_test1k.npz")
    return Bench(
        name="resnet20",
        model=folder / "models" / "resnet20_cifar10.onnx",
        images=np.concatenate(parts),
        preprocess=PREPROCESS,
        test_images=np.ascontiguousarray(
            ((test["x"].astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2)
        ),
        test_labels=test["y"],
        input_name="input",
    )


if __name__ == "__main__":
    heal_at_shares(load, HealOptions(epochs=20, augment=("flip", "crop")))
