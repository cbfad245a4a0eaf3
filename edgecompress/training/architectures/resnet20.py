"""The residual network of twenty layers for small pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.training.architectures import (
    Architecture,
    AsPicture,
    SampleShape,
    classes_of,
    draw_weights,
    picture_of,
    unfit,
)

LEAST_SIDE = 8
BLOCKS = 3
"""Of each of three stages: 6 * 3 + 2 = 20 layers. Source: He et al. 2016, section 4.2."""


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A).

    Source: He et al. 2016, section 4.2: where the shape changes, the shortcut takes every second
    pixel and fills new channels with zeros.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.stride = stride
        self.added = width - channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, width, h / stride, w / stride)."""
        y = functional.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            before = self.added // 2
            x = functional.pad(x, (0, 0, 0, 0, before, self.added - before))
        return functional.relu(y + x)


def build(sample: SampleShape, generator: torch.Generator, *, width: int = 16) -> nn.Module:
    """ResNet-20: 269,722 parameters on 32x32 colour pictures of 10 classes.

    Args:
        sample: One picture.
        generator: Of the weights.
        width: Channels of the first stage; the others have twice and four times as many.

    Raises:
        ConfigurationInvalid: The width is below 1.
        DataInvalid: Not a picture, or too small a one.

    Source: He et al. 2016, section 4.2.
    """
    if width < 1:
        raise ConfigurationInvalid(f"the width is at least 1, not {width}", where="resnet20")
    picture = picture_of(sample, "resnet20")
    if min(picture[1:]) < LEAST_SIDE:
        raise unfit(sample, "resnet20", f"pictures of at least {LEAST_SIDE}x{LEAST_SIDE}")
    blocks: list[nn.Module] = []
    channels = width
    for stage in range(3):
        for place in range(BLOCKS):
            stride = 2 if stage and not place else 1
            blocks.append(Block(channels, width << stage, stride))
            channels = width << stage
    network = nn.Sequential(
        AsPicture(picture),
        nn.Conv2d(picture[0], width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes_of(sample, "resnet20")),
    )
    return draw_weights(network, generator)


ARCHITECTURE = Architecture(
    name="resnet20",
    build=build,
    tasks=("classification", "regression"),
    kinds=("picture",),
    choices=("width",),
)
