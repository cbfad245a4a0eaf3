"""Networks as tables of layers with made-up 8-bit weights, the same for every tool compared.

Nothing here needs edgecompress, so that it can be imported where another tool lives.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Layer:
    """One operator; sizes are those of its result.

    ``kind`` is ``input``, ``conv``, ``depthwise``, ``add``, ``maxpool``, ``avgpool`` or ``fc``;
    ``kernel`` and ``stride`` are (vertical, horizontal); padding keeps size / stride, rounded up.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    channels: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)


@dataclass
class Table:
    """Layers in the making; every method gives the name of its result."""

    layers: dict[str, Layer] = field(default_factory=dict)

    def start(self, channels: int, size: int) -> str:
        """The input of the network."""
        return self._put("input", (), (channels, size, size))

    def conv(
        self, source: str, channels: int, kernel: int | tuple[int, int], stride: int = 1
    ) -> str:
        """A convolution with bias and Relu."""
        return self._window("conv", source, channels, kernel, stride)

    def depthwise(self, source: str, kernel: int, stride: int = 1) -> str:
        """A depthwise convolution with bias and Relu."""
        return self._window("depthwise", source, self.layers[source].channels, kernel, stride)

    def maxpool(self, source: str, kernel: int, stride: int) -> str:
        """Maxima of windows."""
        return self._window("maxpool", source, self.layers[source].channels, kernel, stride)

    def avgpool(self, source: str) -> str:
        """The mean over the whole map."""
        before = self.layers[source]
        window = (before.height, before.width)
        return self._put("avgpool", (source,), (before.channels, 1, 1), window, window)

    def add(self, first: str, second: str) -> str:
        """A sum with Relu."""
        before = self.layers[first]
        size = (before.channels, before.height, before.width)
        return self._put("add", (first, second), size)

    def fc(self, source: str, channels: int) -> str:
        """A fully connected layer."""
        return self._put("fc", (source,), (channels, 1, 1))

    def _window(
        self, kind: str, source: str, channels: int, kernel: int | tuple[int, int], stride: int
    ) -> str:
        before = self.layers[source]
        window = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        size = (channels, -(-before.height // stride), -(-before.width // stride))
        return self._put(kind, (source,), size, window, (stride, stride))

    def _put(
        self,
        kind: str,
        inputs: tuple[str, ...],
        size: tuple[int, int, int],
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
    ) -> str:
        name = f"{kind}_{len(self.layers)}"
        self.layers[name] = Layer(name, kind, inputs, *size, kernel, stride)
        return name


def resnet18() -> Table:
    """ResNet-18 at 224 x 224. Source: He et al. 2016."""
    table = Table()
    value = table.maxpool(table.conv(table.start(3, 224), 64, 7, 2), 3, 2)
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and outputs > 64 else 1
            side = value if inputs == outputs else table.conv(value, outputs, 1, stride)
            inner = table.conv(table.conv(value, outputs, 3, stride), outputs, 3)
            value, inputs = table.add(inner, side), outputs
    table.fc(table.avgpool(value), 1000)
    return table


def mobilenet_v2() -> Table:
    """MobileNetV2 at 224 x 224: expansions, depthwise convolutions, linear bottlenecks, sums.

    Source: Sandler et al. 2018, table 2.
    """
    table = Table()
    value = table.conv(table.start(3, 224), 32, 3, 2)
    inputs = 32
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for expansion, outputs, count, first in (*rows, (6, 160, 3, 2), (6, 320, 1, 1)):
        for block in range(count):
            stride = first if block == 0 else 1
            wide = value if expansion == 1 else table.conv(value, inputs * expansion, 1)
            inner = table.conv(table.depthwise(wide, 3, stride), outputs, 1)
            value = table.add(inner, value) if stride == 1 and inputs == outputs else inner
            inputs = outputs
    table.fc(table.avgpool(table.conv(value, 1280, 1)), 1000)
    return table


def odd_shapes() -> Table:
    """A made-up network of what the other two do not have.

    Kernels of 5, 1 x 7 and 7 x 1, factor chains of low rank, channels that are no multiples of 16,
    sizes that are odd, a depthwise kernel of 5 and a wide fully connected layer.
    """
    table = Table()
    value = table.maxpool(table.conv(table.start(3, 150), 40, 5, 2), 2, 2)
    value = table.conv(table.conv(table.conv(value, 12, 1), 20, 3), 72, 1)
    value = table.conv(table.conv(value, 36, (7, 1)), 72, (1, 7))
    value = table.conv(table.depthwise(value, 5, 2), 200, 1)
    side = table.conv(table.conv(table.conv(value, 28, 1), 28, 3), 200, 1)
    value = table.conv(table.add(value, side), 136, 3, 2)
    value = table.conv(table.conv(value, 264, 3), 24, 1)
    table.fc(table.fc(table.avgpool(table.conv(value, 520, 3)), 2048), 10)
    return table


NETWORKS: dict[str, Callable[[], Table]] = {
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "odd_shapes": odd_shapes,
}

# What 8-bit codes a weight holds: every code alike, a bell, or so many levels alike.
WEIGHTS = ("uniform", "gaussian", "15_levels", "5_levels", "ternary")
_LEVELS = {"uniform": 255, "15_levels": 15, "5_levels": 5, "ternary": 3}
_SIGMA = 25.0


def weight_shape(table: Table, layer: Layer) -> tuple[int, int, int, int]:
    """(out, kernel height, kernel width, in per group); all zero where there is no weight."""
    if layer.kind not in ("conv", "depthwise", "fc"):
        return (0, 0, 0, 0)
    before = table.layers[layer.inputs[0]]
    if layer.kind == "fc":
        return (layer.channels, 1, 1, before.channels * before.height * before.width)
    return (layer.channels, *layer.kernel, 1 if layer.kind == "depthwise" else before.channels)


def weight_codes(table: Table, layer: Layer, values: str) -> Codes:
    """The 8-bit weight of a layer, seeded by its name; ``values`` is one of ``WEIGHTS``."""
    shape = weight_shape(table, layer)
    rng = np.random.default_rng(zlib.crc32(layer.name.encode()))
    if values == "gaussian":
        drawn = np.clip(np.rint(rng.normal(0.0, _SIGMA, shape)), -127, 127)
    else:
        half = _LEVELS[values] // 2
        drawn = rng.integers(-half, half, shape, endpoint=True)
    return drawn.astype(np.int8)


def histogram(codes: Codes) -> list[int]:
    """How often each of the codes that occur does."""
    counts = np.bincount(codes.ravel().view(np.uint8), minlength=256)
    return [int(count) for count in counts if count]


def entropy_bits(codes: Codes) -> float:
    """Shannon entropy of the codes."""
    shares = [count / codes.size for count in histogram(codes)]
    return -math.fsum(share * math.log2(share) for share in shares)
