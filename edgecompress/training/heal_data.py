"""Unlabelled samples in batches: those to train on, and those held back to judge by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from edgecompress.core.errors import DataInvalid
from edgecompress.core.samples import Feed

TensorFeed = dict[str, Tensor]
"""One inference: a tensor per graph input."""


class HealData:
    """Samples of a model's inputs.

    Args:
        feeds: As for `Samples`.
        open_batch: Whether the samples of a feed are independent rows of every input, which may
            be put together in batches of any size; off, a feed stays as it is.
        held_back: Share that judges, above 0 to below 1; at least one sample or feed.
        batch: Samples of a step.
        generator: Draws which ones are held back.

    Raises:
        DataInvalid: There is only one sample (or feed, where these stay as they are).
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        *,
        open_batch: bool,
        held_back: float,
        batch: int,
        generator: torch.Generator,
    ) -> None:
        self._rows: TensorFeed | None = _stacked(feeds) if open_batch else None
        self._feeds: list[TensorFeed] = [] if open_batch else [_tensors(feed) for feed in feeds]
        rows = next(iter(self._rows.values())) if self._rows else None
        count = len(feeds) if rows is None else len(rows)
        if count < 2:
            raise DataInvalid(
                "healing holds back a part of the data, and there is only one "
                + ("sample" if open_batch else "batch"),
                hint="give more data",
            )
        self._rows_per_feed = 1 if open_batch else _rows(self._feeds[0])
        held = min(count - 1, max(1, round(count * held_back)))
        order = torch.randperm(count, generator=generator)
        self._held, self._training = order[:held].sort().values, order[held:].sort().values
        self._size = max(1, batch // self._rows_per_feed)

    @property
    def training(self) -> int:
        """Samples to train on."""
        return len(self._training) * self._rows_per_feed

    @property
    def held(self) -> int:
        """Samples held back."""
        return len(self._held) * self._rows_per_feed

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return max(1, len(self._training) // self._size)

    def passes(self, generator: torch.Generator) -> Iterator[list[TensorFeed]]:
        """One pass over the samples to train on in a random order: the feeds of each step.

        A last step with fewer samples than the others is left out.
        """
        order = self._training[torch.randperm(len(self._training), generator=generator)]
        for step in range(self.steps):
            yield self._taken(order[step * self._size : (step + 1) * self._size])

    def step(self, step: int) -> list[TensorFeed]:
        """The feeds of one step in stored order; the same ones each time."""
        return self._taken(self._training[step * self._size : (step + 1) * self._size])

    def held_feeds(self) -> Iterator[TensorFeed]:
        """The samples held back, always in the same order."""
        for start in range(0, len(self._held), self._size):
            yield from self._taken(self._held[start : start + self._size])

    def _taken(self, places: Tensor) -> list[TensorFeed]:
        if self._rows is not None:
            return [{name: values[places] for name, values in self._rows.items()}]
        return [self._feeds[int(place)] for place in places]


def rows_are_free(shapes: Sequence[Sequence[int | None]], feeds: Sequence[Feed]) -> bool:
    """Whether samples of different feeds may be put together: the first axis of every input is
    open, and all inputs of a feed have as many rows."""
    if not shapes or any(not shape or shape[0] is not None for shape in shapes):
        return False
    counts = [{len(values) for values in feed.values()} for feed in feeds]
    rests = [tuple(values.shape[1:] for values in feed.values()) for feed in feeds]
    return all(len(count) == 1 for count in counts) and len(set(rests)) == 1


def _stacked(feeds: Sequence[Feed]) -> TensorFeed:
    names = list(feeds[0])
    return {name: torch.from_numpy(np.concatenate([f[name] for f in feeds])) for name in names}


def _tensors(feed: Feed) -> TensorFeed:
    return {name: torch.from_numpy(np.array(values)) for name, values in feed.items()}


def _rows(feed: TensorFeed) -> int:
    first = next(iter(feed.values()), None)
    return len(first) if first is not None and first.ndim else 1
