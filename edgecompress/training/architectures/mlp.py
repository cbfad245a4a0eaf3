"""Fully connected layers with rectifiers between them."""

from __future__ import annotations

import torch
from torch import nn

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.training.architectures import (
    Architecture,
    SampleShape,
    classes_of,
    draw_weights,
    unfit,
)


def build(
    sample: SampleShape,
    generator: torch.Generator,
    *,
    hidden: Shape = (512,),
    dropout: float = 0.0,
) -> nn.Module:
    """Flattened sample -> hidden layers -> one output per class.

    Args:
        sample: One floating input of any shape.
        generator: Of the weights.
        hidden: Width of each hidden layer.
        dropout: Share of hidden values that training leaves out, 0 to below 1.

    Raises:
        ConfigurationInvalid: Widths or share out of range.
        DataInvalid: More than one input, tokens, or no classes.
    """
    if len(sample.inputs) != 1 or not sample.dtypes[0].startswith("float"):
        raise unfit(sample, "mlp", "one input of floating numbers")
    if any(width < 1 for width in hidden) or not 0 <= dropout < 1:
        raise ConfigurationInvalid(
            f"hidden widths {list(hidden)} must be at least 1, and dropout {dropout} from 0 to "
            "below 1",
            where="mlp",
        )
    layers: list[nn.Module] = [nn.Flatten()]
    width = sample.entries
    for following in hidden:
        layers += [nn.Linear(width, following), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = following
    layers.append(nn.Linear(width, classes_of(sample, "mlp")))
    return draw_weights(nn.Sequential(*layers), generator)


ARCHITECTURE = Architecture(
    name="mlp",
    build=build,
    tasks=("classification", "regression"),
    kinds=("picture", "vector"),
    choices=("hidden", "dropout"),
)
