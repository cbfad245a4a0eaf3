"""Train the sample networks and write them, with their data, beside this file.

    python sample_models/train.py            all networks, about two minutes on one core
    python sample_models/train.py --check    compare the files here with README.md, train nothing

The images are the 1,797 handwritten digits that come with scikit-learn (8 x 8 pixels, 17 grey
levels). A fixed permutation puts 500 of them aside for testing; no choice was made on them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).resolve().parent
SEED = 0
TEST_IMAGES = 500
CALIBRATION_IMAGES = 512
BATCH = 64
OPSET = 20
DATA_FILES = ("digits_calibration.npz", "digits_test.npz")
Images = NDArray[np.float32]
Labels = NDArray[np.int64]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Block(nn.Module):
    """Attention over tokens, then a two-layer network, both with a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm_attention(x)
        query, key, value = (self.split(f(y)) for f in (self.query, self.key, self.value))
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """Reads an image as eight rows of eight pixels."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(8, width) * 0.1)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(8 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.squeeze(1)) + self.position
        return self.head(self.norm(self.blocks(tokens)).flatten(1))


def convolution(inputs: int, outputs: int, kernel: int = 3, group: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=group, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def residual_network() -> nn.Module:
    return nn.Sequential(
        convolution(1, 32),
        convolution(32, 48),
        nn.MaxPool2d(2),
        Residual(48),
        Residual(48),
        nn.Flatten(),
        nn.Linear(48 * 4 * 4, 10),
    )


def separable_network() -> nn.Module:
    layers: list[nn.Module] = [convolution(1, 32)]
    for inputs, outputs in ((32, 48), (48, 64), (64, 64)):
        layers += [convolution(inputs, inputs, group=inputs), convolution(inputs, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "digits_cnn": (residual_network, 60, 2e-3),
    "digits_dscnn": (separable_network, 80, 4e-3),
    "digits_transformer": (Transformer, 150, 2e-3),
}
"""Name -> constructor, epochs, largest learning rate."""


def split_digits() -> tuple[Images, Labels, Images, Labels]:
    """Training images and labels, test images and labels; pixels from 0 to 1."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x = (digits.images[order, None] / 16).astype(np.float32)
    y = digits.target[order].astype(np.int64)
    return x[TEST_IMAGES:], y[TEST_IMAGES:], x[:TEST_IMAGES], y[:TEST_IMAGES]


def shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images, each moved by at most one pixel in each direction."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(x), 2), generator=generator)
    rows = moves[:, :1] + torch.arange(8)
    columns = moves[:, 1:] + torch.arange(8)
    index = torch.arange(len(x))[:, None, None]
    return padded[index, 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(name: str, x: Images, y: Labels) -> nn.Module:
    constructor, epochs, rate = NETWORKS[name]
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = constructor()
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss(network(shifted(images[rows], generator)), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def to_onnx(network: nn.Module) -> onnx.ModelProto:
    """The network with an open batch axis; nothing in it tells where it was written."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=["image"],
        output_names=["logits"],
        opset_version=OPSET,
        verbose=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        program.save(path, external_data=False)
        model = onnx.load(path)
    model.doc_string = ""
    model.producer_version = torch.__version__.split("+")[0]
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(model: onnx.ModelProto, x: Images, y: Labels) -> float:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": x})
    return float((scores.argmax(1) == y).mean())


def archive(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    """An npz file that depends on the arrays alone, not on the time of day."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as members:
        for name, array in arrays.items():
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.ascontiguousarray(array), version=(1, 0))
            members.writestr(zipfile.ZipInfo(f"{name}.npy"), raw.getvalue(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def rebuild() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x, y, test_x, test_y = split_digits()
    calibration = archive({"image": x[:CALIBRATION_IMAGES]})
    (HERE / DATA_FILES[0]).write_bytes(calibration)
    (HERE / DATA_FILES[1]).write_bytes(archive({"image": test_x, "labels": test_y}))
    for name in NETWORKS:
        network = train(name, x, y)
        model = to_onnx(network)
        parameters = sum(p.numel() for p in network.parameters())
        (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        measured = accuracy(model, test_x, test_y)
        print(f"{name}: {parameters:,} parameters, accuracy {measured:.3f} on {len(test_y)} images")
    for path in sorted([*HERE.glob("*.onnx"), *HERE.glob("*.npz")]):
        print(f"{path.name} {path.stat().st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}")


def differences() -> list[str]:
    """Every file here whose sha256 is not the one that README.md has for it."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"`([\w.]+\.(?:onnx|npz))`.*`([0-9a-f]{64})`", text))
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (*HERE.glob("*.onnx"), *HERE.glob("*.npz"))
    }
    return sorted(n for n in {*listed, *present} if listed.get(n) != present.get(n))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare files with README.md")
    if not parser.parse_args().check:
        rebuild()
    elif wrong := differences():
        sys.exit(f"not as README.md has it: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
