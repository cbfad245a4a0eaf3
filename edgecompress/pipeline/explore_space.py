"""The configurations of an exploration: the grid of the axes, without what cannot be built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgecompress.core.errors import ConfigurationInvalid, Unsupported
from edgecompress.core.exploration import Axis, Value
from edgecompress.hardware.families import family_named
from edgecompress.hardware.parts import Part
from edgecompress.hardware.resources import Resources
from edgecompress.hardware.target import Target
from edgecompress.hardware.target_text import Variants, numbers_of
from edgecompress.pipeline.explore_buffers import why_too_small
from edgecompress.pipeline.explore_defaults import (
    Followed,
    followed_numbers,
    memory_ports,
)

NO_RESOURCES = "the cost model of family {family} gives no resources, so no part can limit it"
SLOWER_MEMORY = "the memory of the part gives less than the target's: its peak counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a configuration may take; None is without limit.

    Attributes:
        dsp, bram18, lut: Resources.
        memory_ports, memory_port_bits: Number and width of the ports to the memory.
        dram_bytes_per_s: Peak of the memory: a target whose peak is higher gets this one.
    """

    dsp: int | None = None
    bram18: int | None = None
    lut: int | None = None
    memory_ports: int | None = None
    memory_port_bits: int | None = None
    dram_bytes_per_s: float | None = None

    @property
    def limits_resources(self) -> bool:
        """Whether an estimate of the resources is needed."""
        return not (self.dsp is self.bram18 is self.lut is None)

    def as_numbers(self) -> dict[str, float]:
        """Those that are set, by name."""
        named = {name: getattr(self, name) for name in type(self).__slots__}
        return {name: value for name, value in named.items() if value is not None}

    def too_much(self, used: Resources) -> str | None:
        """The first resource of which there is not enough."""
        for name in ("dsp", "bram18", "lut"):
            limit = getattr(self, name)
            if limit is not None and getattr(used, name) > limit:
                return f"more than {limit:,} {name.upper()}"
        return None


def part_limits(part: Part | None, own: Limits) -> Limits:
    """Limits of a part; where both say something the user's own counts."""
    if part is None:
        return own
    numbers = {
        "dsp": part.dsp,
        "bram18": part.bram18,
        "lut": part.lut,
        "memory_ports": part.memory_ports,
        "memory_port_bits": part.memory_port_bits,
        "dram_bytes_per_s": part.dram_bytes_per_s,
    }
    return Limits(**{**numbers, **own.as_numbers()})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration that can be built.

    Attributes:
        index: In the grid.
        target: With all numbers.
        resources: What it takes; None where the family has no estimate.
        common: The numbers outside the family's table, to tell apart what depends on them alone.
    """

    index: int
    target: Target
    resources: Resources | None
    common: tuple[tuple[str, Value], ...]


class Space:
    """All combinations of the axes of a base target under limits.

    Args:
        base: Has all other numbers.
        axes: What is varied.
        limits: What may be taken.

    Attributes:
        size: Points of the grid.
        beside: Points beside the grid that were looked at, numbered on from it.

    Raises:
        Unsupported: Resources are limited and the family has no estimate of them.
    """

    def __init__(self, base: Target, axes: Sequence[Axis], limits: Limits) -> None:
        self.base, self.axes, self.limits = base, tuple(axes), limits
        self.size = math.prod(len(axis.values) for axis in self.axes)
        self.beside: list[tuple[Value, ...]] = []
        self._numbers = numbers_of(base)
        self._variants = Variants(base)
        if limits.limits_resources and family_named(base.family).resources(base) is None:
            raise Unsupported(
                NO_RESOURCES.format(family=base.family),
                where=base.name,
                hint="leave out the part and the limits, or take a target of another family",
            )

    def values(self, index: int) -> dict[str, Value]:
        """The varied numbers of a point; in the grid the last axis changes fastest."""
        if index >= self.size:
            return self.named(self.beside[index - self.size])
        found: dict[str, Value] = {}
        for axis in reversed(self.axes):
            index, place = divmod(index, len(axis.values))
            found[axis.path] = axis.values[place]
        return {axis.path: found[axis.path] for axis in self.axes}

    def named(self, values: Sequence[Value]) -> dict[str, Value]:
        """Values of the axes by the paths of these."""
        return {axis.path: value for axis, value in zip(self.axes, values, strict=True)}

    def index(self, values: Sequence[Value]) -> int | None:
        """The point of the grid that has these values; None if none has."""
        found = 0
        for axis, value in zip(self.axes, values, strict=True):
            if value not in axis.values:
                return None
            found = found * len(axis.values) + axis.values.index(value)
        return found

    def candidate(self, index: int) -> Candidate | str:
        """The configuration at a point of the grid, or why there is none."""
        return self.settle(self.values(index), index)

    def settle(self, values: Mapping[str, Value], index: int = -1) -> Candidate | str:
        """The configuration with these numbers, or why there is none."""
        numbers = {**values, **{path: one.value for path, one in self.followed(values).items()}}
        now = {**self._numbers, **numbers}
        reason: str | None = self._ports(now) or why_too_small(now)
        if reason:
            return reason
        try:
            target = self._variants.build(numbers)
        except ConfigurationInvalid as error:
            return error.message
        resources = family_named(target.family).resources(target)
        if resources is not None:
            reason = self.limits.too_much(resources)
            if reason:
                return reason
        common = tuple(
            (path, value) for path, value in numbers.items() if not path.startswith("parameters.")
        )
        return Candidate(index=index, target=target, resources=resources, common=common)

    def followed(self, values: Mapping[str, Value]) -> dict[str, Followed]:
        """Numbers that follow from the varied ones and from the limits."""
        found = followed_numbers(values, self._numbers)
        limit, path = self.limits.dram_bytes_per_s, "dram_bytes_per_s"
        peak = found[path].value if path in found else values.get(path, self._numbers[path])
        if limit is not None and isinstance(peak, float) and peak > limit and path not in values:
            found[path] = Followed(limit, "explored: peak of the part's memory")
        return found

    def _ports(self, now: Mapping[str, Value]) -> str | None:
        ports = memory_ports(now)
        if ports is None:
            return None
        count, width_bytes = ports
        most, widest = self.limits.memory_ports, self.limits.memory_port_bits
        if most is not None and count > most:
            return f"more than {most} memory ports"
        if widest is not None and width_bytes * 8 > widest:
            return f"memory ports wider than {widest} bits"
        return None
