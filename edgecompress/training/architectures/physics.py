"""A small network of tanh layers: smooth, for regression and for differential equations."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.training.architectures import Architecture, SampleShape, classes_of, unfit


def build(
    sample: SampleShape, generator: torch.Generator, *, hidden: Shape = (64, 64)
) -> nn.Module:
    """Coordinates -> hidden layers with tanh between them -> one output per value.

    Args:
        sample: One floating vector; its ``classes`` are the values to predict.
        generator: Of the weights.
        hidden: Width of each hidden layer.

    Raises:
        ConfigurationInvalid: A width is out of range.
        DataInvalid: Not one floating vector, or no number of values.
    """
    fits = len(sample.inputs) == 1 and len(sample.inputs[0]) == 1
    if not fits or not sample.dtypes[0].startswith("float"):
        raise unfit(sample, "physics", "one vector of floating numbers")
    return tanh_network((sample.inputs[0][0], *hidden, classes_of(sample, "physics")), generator)


def tanh_network(widths: Shape, generator: torch.Generator) -> nn.Sequential:
    """Layers of these widths, the input's first; weights of variance 1 / inputs, biases zero.

    Raises:
        ConfigurationInvalid: A width is out of range.

    Source: LeCun et al. 1998, section 4.6 (variance that keeps tanh in its linear range).
    """
    if len(widths) < 2 or any(width < 1 for width in widths):
        raise ConfigurationInvalid(f"widths {list(widths)} must be at least 1", where="physics")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.normal_(0.0, inputs**-0.5, generator=generator)
            layer.bias.zero_()
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


ARCHITECTURE = Architecture(
    name="physics",
    build=build,
    tasks=("regression",),
    kinds=("vector",),
    choices=("hidden",),
)
