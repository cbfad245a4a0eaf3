"""Each slice of a decomposed graph learns what the same slice of the float graph gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgecompress.graph.slices import Slice
from edgecompress.training.heal_data import TensorFeed
from edgecompress.training.heal_loss import relative_error
from edgecompress.training.interpreter.interpreter import Interpreter


class SliceLoss:
    """How far the slices of the student are from those of the teacher on one feed.

    Args:
        slices: In order.
        student: The decomposed graph.
    """

    def __init__(self, slices: Sequence[Slice], student: Interpreter) -> None:
        self._slices = tuple(slices)
        self._student = student

    @property
    def wanted(self) -> tuple[str, ...]:
        """Values of the teacher that are needed."""
        return tuple(dict.fromkeys(name for one in self._slices for name in one.leaves))

    def __call__(self, feed: TensorFeed, teacher: Mapping[str, Tensor]) -> Tensor:
        """The squared relative errors of all slices, summed.

        A slice starts from what the student gives there, as a constant, so it makes up for the
        errors before it, and no gradient crosses a cut.

        Args:
            feed: Inputs of the graph.
            teacher: Its `wanted` values.
        """
        stream: dict[str, Tensor] = dict(feed)
        total = torch.zeros(())
        for one in self._slices:
            missing = [name for name in one.enters if name not in stream]
            if missing:
                with torch.no_grad():
                    stream.update(self._student(stream, missing))
            entering = {name: stream[name].detach() for name in one.enters}
            found = self._student(entering, one.leaves)
            for name, value in found.items():
                total = total + relative_error(teacher[name], value)
                stream[name] = value.detach()
        return total
