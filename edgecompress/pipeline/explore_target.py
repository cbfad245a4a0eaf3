"""A point of an exploration as a target of its own."""

from __future__ import annotations

from dataclasses import replace

from edgecompress.core.errors import UsageError
from edgecompress.core.exploration import DesignPoint, ExplorationReport, Value
from edgecompress.hardware.parts import list_parts
from edgecompress.hardware.target import Target
from edgecompress.pipeline.explore_space import Space

NOT_VALIDATED = (
    "not validated: explored from {base}, whose cost model holds only as far as its error is known"
)


def picked_point(report: ExplorationReport, pick: str) -> DesignPoint:
    """The point of the front that is the best for something.

    Raises:
        UsageError: Nothing fits the limits, or it cannot be judged on this family.
    """
    for point in report.front:
        if pick in point.picks:
            return point
    known = sorted({name for point in report.front for name in point.picks})
    raise UsageError(
        f"no point can be picked for {pick}" if known else "nothing fits: there is no target",
        where="--pick",
        hint=f"one of {', '.join(known)}" if known else "",
    )


def explored_target(
    report: ExplorationReport, space: Space, point: DesignPoint, name: str
) -> Target:
    """The target of a point: its varied numbers, those that follow, and the base's others.

    Args:
        report, space: Of the exploration.
        point: Of the front.
        name: Of the target.

    Raises:
        UsageError: The point is not one of this space.
    """
    found = space.settle(point.values)
    if isinstance(found, str):
        raise UsageError(f"not a configuration of this space: {found}")
    pick = f"best for {', '.join(point.picks)}" if point.picks else "on the front"
    count = f"{report.feasible_points:,} feasible points"
    sources = dict(space.base.sources)
    for axis in report.axes:
        if _has_source(point.values[axis.path]):
            sources[axis.path] = f"explored: {pick} of {count}, over {_range(axis.values)}"
    for path, one in space.followed(point.values).items():
        sources[path] = one.source
    sources.pop("model_error", None)
    base = space.base
    models = ", ".join(model.path.replace("\\", "/").rsplit("/", 1)[-1] for model in report.models)
    return replace(
        found.target,
        name=name,
        description=f"{base.name} explored for {models}: {_words(report, point)}"[:200],
        source=f"{base.name} ({base.source}); explored for {models}, {pick} of {count}",
        part=_named_part(report.part or base.part),
        model_error=None,
        model_error_source=NOT_VALIDATED.format(base=base.name),
        sources=tuple(sorted(sources.items())),
    )


def _named_part(name: str) -> str:
    """The part, if it ships with the package: a target file cannot name a file of one's own."""
    return name if name in list_parts() else ""


def _has_source(value: Value) -> bool:
    """Whether the target file has a source for it: numbers do, words and switches do not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _range(values: tuple[Value, ...]) -> str:
    if len(values) <= 4:
        return ", ".join(f"{value:g}" for value in values if not isinstance(value, str))
    numbers = [value for value in values if not isinstance(value, str)]
    return f"{len(values)} values from {min(numbers):g} to {max(numbers):g}"


def _words(report: ExplorationReport, point: DesignPoint) -> str:
    varied = [axis.path for axis in report.axes if len(axis.values) > 1]
    return ", ".join(f"{path.removeprefix('parameters.')} {point.values[path]}" for path in varied)
