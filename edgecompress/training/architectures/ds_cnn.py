"""Depthwise-separable convolutions for keyword spotting."""

from __future__ import annotations

import torch
from torch import nn

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

KERNEL = (10, 4)
BLOCKS = 4
PADDING = (5, 1)
"""Gives 25x5 values from 49x10, as "same" padding does. Source: Zhang et al. 2017, DS-CNN small."""


def build(
    sample: SampleShape,
    generator: torch.Generator,
    *,
    width: int = 64,
    dropout: tuple[float, float] = (0.2, 0.4),
) -> nn.Module:
    """DS-CNN: 23,180 parameters on 49x10 cepstral coefficients of 12 keywords.

    Args:
        sample: One picture of time by frequency.
        generator: Of the weights.
        width: Channels of all convolutions.
        dropout: Shares left out in training, after the first convolution and before the last
            layer.

    Raises:
        ConfigurationInvalid: Width or shares out of range.
        DataInvalid: Not a picture, or too small a one.

    Source: Zhang et al. 2017, and the keyword spotting benchmark of MLPerf Tiny (Banbury et al.
    2021), whose convolutions also have biases, which batch normalisation makes redundant.
    """
    if width < 1 or not all(0 <= share < 1 for share in dropout):
        raise ConfigurationInvalid(
            f"the width {width} is at least 1, and dropout {list(dropout)} from 0 to below 1",
            where="ds-cnn",
        )
    picture = picture_of(sample, "ds-cnn")
    if any(
        side + 2 * pad < kernel
        for side, pad, kernel in zip(picture[1:], PADDING, KERNEL, strict=True)
    ):
        raise unfit(sample, "ds-cnn", "time by frequency, such as 49x10,")
    layers: list[nn.Module] = [
        AsPicture(picture),
        nn.Conv2d(picture[0], width, KERNEL, 2, PADDING, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(dropout[0]),
    ]
    for _ in range(BLOCKS):
        layers += [
            nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    layers += [
        nn.Dropout(dropout[1]),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes_of(sample, "ds-cnn")),
    ]
    return draw_weights(nn.Sequential(*layers), generator)


ARCHITECTURE = Architecture(
    name="ds-cnn",
    build=build,
    tasks=("classification", "regression"),
    kinds=("picture",),
    choices=("width", "dropout"),
)
