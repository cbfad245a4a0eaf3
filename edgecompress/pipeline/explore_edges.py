"""Picks of an exploration that lie at the edge of what was varied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.core.exploration import Axis, DesignPoint, Value
from edgecompress.pipeline.explore_space import Candidate, Space

EDGE = "{picks}: {name} = {value:g} is at the edge of its range; widen it with --vary {name}=..."


def edges(front: Sequence[DesignPoint], space: Space) -> Iterator[str]:
    """A sentence for each number that a pick has at the edge of its range.

    Not where the next number beyond could not be built, or does not fit the limits: then it is not
    the range that ends there.
    """
    picked = [point for point in front if point.picks]
    for axis in space.axes:
        found: dict[float, list[str]] = {}
        for point in picked:
            value = point.values[axis.path]
            beyond = _beyond(axis, value)
            if beyond is None or isinstance(value, str):
                continue
            if isinstance(space.settle({**point.values, axis.path: beyond}), Candidate):
                found.setdefault(value, []).extend(point.picks)
        name = axis.path.removeprefix("parameters.")
        for value, picks in found.items():
            yield EDGE.format(picks=", ".join(picks), name=name, value=value)


def _beyond(axis: Axis, value: Value) -> Value | None:
    """A value outside the range next to this one; None inside, and where there is no range."""
    numbers = sorted(
        one for one in axis.values if isinstance(one, (int, float)) and not isinstance(one, bool)
    )
    if isinstance(value, (bool, str)) or len(numbers) < 2:
        return None
    if value == numbers[-1]:
        return numbers[-1] + (numbers[-1] - numbers[-2])
    if value != numbers[0]:
        return None
    below = value // 2 if isinstance(value, int) else value / 2
    return below if below > 0 else None
