"""Two convolutions with pooling, and two fully connected layers."""

from __future__ import annotations

import torch
from torch import nn

from edgecompress.core.arrays import Shape
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

LEAST_SIDE = 16
"""Smallest picture that two 5x5 convolutions without padding and two poolings leave a value of."""


def build(
    sample: SampleShape, generator: torch.Generator, *, widths: Shape = (20, 50, 500)
) -> nn.Module:
    """A network of the LeNet-5 class: 431,080 parameters on 28x28 grey pictures of 10 classes.

    Args:
        sample: One picture.
        generator: Of the weights.
        widths: Channels of both convolutions, width of the hidden layer.

    Raises:
        ConfigurationInvalid: Not three widths of at least 1.
        DataInvalid: Not a picture, or too small a one.

    Source: LeCun et al. 1998, in the widths that papers on compression use.
    """
    if len(widths) != 3 or min(widths) < 1:
        raise ConfigurationInvalid(f"three widths of at least 1, not {list(widths)}", where="lenet")
    picture = picture_of(sample, "lenet")
    channels, height, width = picture
    if min(height, width) < LEAST_SIDE:
        raise unfit(sample, "lenet", f"pictures of at least {LEAST_SIDE}x{LEAST_SIDE}")
    first, second, hidden = widths
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    network = nn.Sequential(
        AsPicture(picture),
        nn.Conv2d(channels, first, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * rows * columns, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes_of(sample, "lenet")),
    )
    return draw_weights(network, generator)


ARCHITECTURE = Architecture(
    name="lenet",
    build=build,
    tasks=("classification", "regression"),
    kinds=("picture",),
    choices=("widths",),
)
