"""Latency of one model over one number of a target."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.core.errors import ConfigurationInvalid, UsageError
from edgecompress.core.exploration import SweepReport, SweepSeries, Value
from edgecompress.graph.model import Model
from edgecompress.hardware.target import Target
from edgecompress.hardware.target_text import Variants, numbers_of
from edgecompress.pipeline.estimate import Reading, estimate_latencies
from edgecompress.pipeline.explore_ranges import read_axis


def sweep(model: Model, targets: Sequence[Target], asked: str, reading: Reading) -> SweepReport:
    """Latency on each target over the values of a number.

    Args:
        model: Loaded with ``normalize=False``.
        targets: At least one; all have the number.
        asked: ``NAME=VALUES`` as `read_axis` takes it.
        reading: How the graph is read.

    Raises:
        UsageError: A target has no such number, or the values cannot be read.
    """
    axes = [read_axis(asked, target, "--sweep") for target in targets]
    path, values = axes[0].path, axes[0].values
    if any(axis.path != path or axis.values != values for axis in axes):
        raise UsageError(f"{asked!r} is not the same on all targets", where="--sweep")
    series = tuple(_series(model, target, path, values, reading) for target in targets)
    return SweepReport(model=model.file, path=path, values=values, series=series)


def _series(
    model: Model, target: Target, path: str, values: Sequence[Value], reading: Reading
) -> SweepSeries:
    variants = Variants(target)
    built: list[Target | str] = []
    for value in values:
        try:
            built.append(variants.build({path: value}))
        except ConfigurationInvalid as error:
            built.append(error.message)
    taken = [one for one in built if isinstance(one, Target)]
    base, *priced = estimate_latencies(model, [target, *taken], reading)
    found = iter(priced)
    reports = [next(found) if isinstance(one, Target) else None for one in built]
    return SweepSeries(
        target=target.name,
        base_value=numbers_of(target)[path],
        base_latency_s=base.latency_s,
        latency_s=tuple(one.latency_s if one else None for one in reports),
        throughput_per_s=tuple(one.throughput_per_s if one else None for one in reports),
        energy_pj=tuple(one.energy_pj if one else None for one in reports),
        reasons=tuple(one if isinstance(one, str) else "" for one in built),
    )
