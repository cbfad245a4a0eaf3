"""Networks to train from scratch, one a file; the file's name, ``-`` for ``_``, is the name.

Nothing is imported until an architecture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import ConfigurationInvalid, DataInvalid
from edgecompress.training.tasks import Task

Kind = Literal["picture", "vector", "tokens", "categories"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleShape:
    """What one sample looks like.

    Attributes:
        inputs: Shape of each input, without the batch axis.
        dtypes: Their NumPy type names (``float32``, ``int64`` ...).
        classes: Classes of a classification, or values to predict in a regression; None where
            neither is asked.
        vocabulary: Distinct tokens of a sequence; None where there is none.
        cardinalities: Rows of each table of categories; empty where there are none.
    """

    inputs: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    classes: int | None = None
    vocabulary: int | None = None
    cardinalities: Shape = ()

    def __post_init__(self) -> None:
        if not self.inputs or len(self.inputs) != len(self.dtypes):
            raise ValueError("one type for each input, and at least one input")

    @property
    def entries(self) -> int:
        """Numbers in the first input."""
        return prod(self.inputs[0])


Build = Callable[..., nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network that can be made for samples of a given shape.

    Attributes:
        name: As on the command line.
        build: ``build(sample, generator, **choices)``: a network with weights drawn from the
            generator, on the CPU; raises `DataInvalid` where the samples do not fit.
        tasks: What it can be trained for.
        kinds: Samples that it takes.
        choices: Names of the keyword arguments of ``build`` that a user may set.
    """

    name: str
    build: Build
    tasks: tuple[Task, ...]
    kinds: tuple[Kind, ...]
    choices: tuple[str, ...] = ()


def architecture_names() -> tuple[str, ...]:
    """Names in alphabetical order."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return tuple(sorted(file.stem.replace("_", "-") for file in files))


def load_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ConfigurationInvalid: There is none.
    """
    if name not in architecture_names():
        raise ConfigurationInvalid(
            f"unknown architecture {name!r}", hint=f"one of {', '.join(architecture_names())}"
        )
    module: Any = import_module(f"{__name__}.{name.replace('-', '_')}")
    found: Architecture = module.ARCHITECTURE
    return found


def picture_of(sample: SampleShape, name: str) -> tuple[int, int, int]:
    """Channels, height and width of a picture sample.

    A grey picture may be (height, width) or (height, width, 1): the order of its values is the
    same.

    Raises:
        DataInvalid: The sample is not one picture.
    """
    if len(sample.inputs) == 1 and sample.dtypes[0].startswith("float"):
        match sample.inputs[0]:
            case (height, width) | (height, width, 1):
                return 1, height, width
            case (channels, height, width):
                return channels, height, width
    raise unfit(sample, name, "one picture of shape (channels, height, width) or (height, width)")


def classes_of(sample: SampleShape, name: str) -> int:
    """Outputs of a classifier or regressor.

    Raises:
        DataInvalid: The sample says none.
    """
    if sample.classes is None or sample.classes < 1:
        raise DataInvalid(f"{name} needs the number of classes or of values to predict")
    return sample.classes


def unfit(sample: SampleShape, name: str, wanted: str) -> DataInvalid:
    """The error for samples that an architecture does not take."""
    seen = ", ".join(f"{list(shape)}" for shape in sample.inputs)
    return DataInvalid(
        f"{name} takes {wanted}; these samples are {seen}",
        hint=f"other architectures: {', '.join(architecture_names())}",
    )


class AsPicture(nn.Module):
    """Puts the channel axis of grey pictures where convolutions want it."""

    def __init__(self, picture: tuple[int, int, int]) -> None:
        super().__init__()
        self.picture = picture

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, channels, height, width)."""
        return x.reshape(-1, *self.picture)


@torch.no_grad()
def draw_weights(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw all weights of a network in place, in the order of its modules; returns it.

    Linear and convolution weights: normal with variance 2 / inputs; embeddings: variance 1 / width;
    biases zero; normalisations the identity.

    Source: He et al. 2015, equation 10 (rectifiers).
    """
    for module in network.modules():
        match module:
            case nn.Linear() | nn.Conv2d():
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            case nn.Embedding():
                module.weight.normal_(0.0, module.embedding_dim**-0.5, generator=generator)
            case nn.BatchNorm2d() | nn.LayerNorm():
                module.reset_parameters()
            case _:
                pass
    return network
