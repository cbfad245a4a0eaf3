"""More pictures out of few: flipped, moved and mixed at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgecompress.core.errors import Unsupported
from edgecompress.core.options import Augmentation
from edgecompress.training.heal_data import TensorFeed

LARGEST_MOVE = 1 / 8
"""Of a picture's side. Source: 4 of 32 pixels, the padding and random crop of He et al. 2016
(arXiv:1512.03385) on CIFAR-10."""

PICTURE_CHANNELS = (1, 3)


class Augmenter:
    """What it takes to change pictures, and where their channels are.

    Args:
        kinds: What is done, in this order: ``flip``, ``crop``, ``mix``.
        example: One feed of the model.

    Raises:
        Unsupported: The model does not take pictures: one input of four axes with 1 or 3 channels.
    """

    def __init__(self, kinds: Sequence[Augmentation], example: TensorFeed) -> None:
        self._kinds = tuple(kind for kind in ("flip", "crop", "mix") if kind in kinds)
        self._name, first = next(iter(example.items()))
        self._channels_last = False
        if not self._kinds:
            return
        picture = first.ndim == 4 and first.is_floating_point() and len(example) == 1
        if not picture or not {first.shape[1], first.shape[3]} & set(PICTURE_CHANNELS):
            raise Unsupported(
                f"{', '.join(self._kinds)} is for pictures, and the model takes "
                + ", ".join(f"{name} {tuple(value.shape)}" for name, value in example.items())
            )
        self._channels_last = first.shape[1] not in PICTURE_CHANNELS

    def __call__(self, feed: TensorFeed, generator: torch.Generator) -> TensorFeed:
        """Another feed of the same shapes; the same one where nothing is to be done."""
        if not self._kinds:
            return feed
        x = feed[self._name]
        x = x.permute(0, 3, 1, 2) if self._channels_last else x
        for kind in self._kinds:
            match kind:
                case "flip":
                    x = _flipped(x, generator)
                case "crop":
                    x = _moved(x, generator)
                case "mix":
                    x = _mixed(x, generator)
        return {self._name: x.permute(0, 2, 3, 1) if self._channels_last else x}


def _flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every second picture, about, left for right."""
    turn = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(turn.view(-1, 1, 1, 1), x.flip(3), x)


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture moved on its own; what comes in repeats the edge, which is right whatever the
    pixels were scaled to."""
    height, width = x.shape[2:]
    down, right = (max(1, round(side * LARGEST_MOVE)) for side in (height, width))
    wide = pad(x, (right, right, down, down), mode="replicate")
    rows = torch.randint(0, 2 * down + 1, (len(x), 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * right + 1, (len(x), 1), generator=generator)
    columns = columns + torch.arange(width)
    picture = torch.arange(len(x)).view(-1, 1, 1)
    return wide.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def _mixed(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture with another one, in random parts.

    Source: Zhang et al. 2018 (arXiv:1710.09412); as data for distillation Beyer et al. 2022
    (arXiv:2106.05237).
    """
    part = torch.rand(len(x), generator=generator).view(-1, 1, 1, 1)
    other = torch.randperm(len(x), generator=generator)
    return torch.lerp(x[other], x, part.to(x.dtype))
