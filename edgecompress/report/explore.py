"""The page of an exploration: what was searched, the front, and what each end of it is good for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecompress.core.exploration import Axis, DesignPoint, ExplorationReport, Value
from edgecompress.report import figures
from edgecompress.report.names import plain
from edgecompress.report.page import (
    Column,
    Fit,
    Page,
    Plot,
    Section,
    Series,
    Table,
    Tone,
    lines,
    page,
    table,
)
from edgecompress.report.shared import file_name
from edgecompress.report.sweep import shown, unit_of

_ROWS_SHOWN = 20
_SYSTOLIC = "systolic_"
_MOST_COLUMNS = 5
"""Of varied numbers; more of them stand in one column with their names."""
_SHORTER = (
    ("array_", ""),
    ("_buffer", ""),
    ("activation,", "act.,"),
    ("channels_per_element", "channels"),
    ("_pixels", ""),
    ("_images", ""),
    ("_lanes", ""),
)


def exploration_page(report: ExplorationReport) -> Page:
    """An exploration for people."""
    names = ", ".join(file_name(model) for model in report.models)
    return page(f"explore: {names} on {report.target}", _sections(report))


def _sections(report: ExplorationReport) -> Iterator[Section]:
    yield _searched(report)
    yield _axes(report)
    yield _dropped(report)
    yield _picks(report)
    yield _front(report)
    yield _scatter(report)
    yield lines("At the edge", report.edges, Tone.WARNING)
    yield lines("Assumed", report.assumptions)


def _searched(report: ExplorationReport) -> Table:
    limits = ", ".join(f"{name} {value:,.6g}" for name, value in report.limits.items())
    rows = [
        ("part", report.part or "none", limits),
        ("points", figures.count(report.grid_points), "combinations of what is varied"),
        ("tried", figures.count(report.tried_points), f"order by seed {report.seed}"),
        ("refined", figures.count(report.refined_points), "near the best, mostly between those"),
        ("feasible", figures.count(report.feasible_points), "can be built and fit the limits"),
        ("priced", figures.count(report.layer_configurations), _pairs(report)),
        ("front", figures.count(len(report.front)), "beaten by no other in everything"),
    ]
    columns = (Column(""), Column("", right=True), Column("", fit=Fit.WRAP))
    return table("Searched", columns, rows)


def _pairs(report: ExplorationReport) -> str:
    return f"layer configurations: {report.layer_shapes} different operators each"


def _axes(report: ExplorationReport) -> Table:
    columns = (Column("varied"), Column("below"), Column("over", fit=Fit.WRAP))
    rows = (
        (axis.path.removeprefix("parameters."), _short(axis.path), _over(axis))
        for axis in report.axes
    )
    return table("Varied", columns, rows)


def _over(axis: Axis) -> str:
    return ", ".join(shown(axis.path, value) for value in axis.values)


def _dropped(report: ExplorationReport) -> Table:
    columns = (Column("not priced because", fit=Fit.WRAP), Column("points", right=True))
    rows = ((one.reason, figures.count(one.points)) for one in report.dropped)
    return table("Dropped", columns, rows)


def _picks(report: ExplorationReport) -> Table:
    chosen = [(pick, point) for point in report.front for pick in point.picks]
    rows = [("base", report.base), *chosen]
    score = "the time of the base is 1; the score is the time over it"
    if len(report.models) > 1:
        score += f", the {report.networks} over the networks"
    return _points_table("Best for", report, rows, f"{score}, by {report.objective}")


def _front(report: ExplorationReport) -> Table:
    shown = _spread(report.front, _ROWS_SHOWN)
    rows = [(str(number), report.front[number]) for number in shown]
    hidden = len(report.front) - len(shown)
    notes = [f"{hidden:,} more points are in the JSON report"] if hidden else []
    same = [
        f"{_short(axis.path)}={_shown(axis.path, report.front[0].values[axis.path])}"
        for axis in report.axes
        if report.front and axis.path not in _telling(report)
    ]
    notes += [f"all with {' '.join(same)}"] if same else []
    return _points_table("Front", report, rows, "; ".join(notes))


def _points_table(
    title: str, report: ExplorationReport, rows: Sequence[tuple[str, DesignPoint]], note: str
) -> Table:
    known = report.base.dsp is not None
    energy = report.base.energy_pj is not None
    columns = [Column(""), Column("score", right=True), Column("latency", right=True)]
    columns += [Column(name, right=True) for name in ("DSP", "BRAM18", "LUT") if known]
    columns += [Column("energy", right=True)] if energy else []
    telling = _telling(report)
    apart = len(telling) <= _MOST_COLUMNS
    columns += (
        [Column(_short(path), right=True) for path in telling]
        if apart
        else [Column("with", fit=Fit.WRAP)]
    )
    cells = (
        (
            name,
            f"{point.score:.3f}",
            _latency(point),
            *((figures.count(point.dsp), figures.count(point.bram18)) if known else ()),
            *((figures.short_count(point.lut),) if known else ()),
            *((_energy(point),) if energy else ()),
            *(_values(telling, point) if apart else (" ".join(_named(telling, point)),)),
        )
        for name, point in rows
    )
    return table(title, columns, cells, note)


def _latency(point: DesignPoint) -> str:
    return " + ".join(figures.duration(seconds) for seconds in point.latency_s)


def _energy(point: DesignPoint) -> str:
    return figures.UNKNOWN if point.energy_pj is None else f"{point.energy_pj * 1e-9:.3g} mJ"


def _values(paths: Sequence[str], point: DesignPoint) -> list[str]:
    """What tells the point apart from others of the front; nothing for the base."""
    return [_shown(path, point.values[path]) if path in point.values else "" for path in paths]


def _named(paths: Sequence[str], point: DesignPoint) -> list[str]:
    values = zip(paths, _values(paths, point), strict=True)
    return [f"{_short(path)}={value}" for path, value in values if value]


def _telling(report: ExplorationReport) -> list[str]:
    """Numbers that are not the same on the whole front."""
    return [
        axis.path
        for axis in report.axes
        if len({point.values[axis.path] for point in report.front}) > 1
    ]


def _short(path: str) -> str:
    """Name of a number in a heading, with its unit where that is not the one of the file."""
    name = unit_of(path).label.removeprefix("parameters.")
    for long, short in _SHORTER:
        name = name.replace(long, short)
    return name


def _shown(path: str, value: Value) -> str:
    return shown(path, value).removeprefix(_SYSTOLIC if path == "family" else "")


def _spread(points: Sequence[DesignPoint], most: int) -> list[int]:
    """Places of at most so many points: those that are picked, and others evenly spread."""
    if len(points) <= most:
        return list(range(len(points)))
    picked = [place for place, point in enumerate(points) if point.picks]
    step = len(points) / most
    even = [int(place * step) for place in range(most)]
    return sorted(dict.fromkeys([*picked, *even][:most]))


def _scatter(report: ExplorationReport) -> Plot:
    """Score over the largest share of a resource: all points pale, the front in front."""
    known = [point for point in report.front if point.share is not None]
    best: list[DesignPoint] = []
    for point in sorted(known, key=lambda one: (one.share or 0.0, one.score)):
        if not best or point.score < best[-1].score:
            best.append(point)
    whole = report.part or ("the limits" if report.limits else report.target)
    return Plot(
        title="Time over resources",
        x_label=plain(f"largest share of {whole} that is taken, %"),
        y_label=f"{report.objective}: time over that of the base",
        series=(
            _series("tried", report.cloud_shares, report.cloud_scores, strong=False),
            Series(
                "best for its share",
                tuple(100 * (point.share or 0.0) for point in best),
                tuple(point.score for point in best),
            ),
            *_base_series(report.base),
        ),
        log_y=bool(known),
    )


def _base_series(base: DesignPoint) -> Iterator[Series]:
    if base.share is not None:
        yield Series("base", (100 * base.share,), (base.score,), line=False)


def _series(
    label: str, shares: Sequence[float], scores: Sequence[float], *, strong: bool
) -> Series:
    return Series(
        label, tuple(100 * share for share in shares), tuple(scores), line=False, strong=strong
    )
