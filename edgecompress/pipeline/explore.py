"""Design-space exploration: the configurations of a family of accelerators under limits.

Every configuration that can be built and fits is priced on every network; what no other beats in
time, in each resource and in energy at once is the front.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import Unsupported, UsageError
from edgecompress.core.exploration import Axis, ExplorationReport
from edgecompress.core.report import FileFact
from edgecompress.core.work import AssumedBits, WeightValues
from edgecompress.graph.model import load_model
from edgecompress.graph.work import derive_work
from edgecompress.graph.work_shapes import is_batch_assumed
from edgecompress.hardware.cost import weight_values
from edgecompress.hardware.families import family_named
from edgecompress.hardware.parts import Part, list_parts, load_part
from edgecompress.hardware.target import Target, load_target
from edgecompress.hardware.target_text import target_document
from edgecompress.pipeline.estimate import BATCH, ENERGY, assumes_energy
from edgecompress.pipeline.explore_defaults import default_axes, finer_paths
from edgecompress.pipeline.explore_pricing import Network, Pricer
from edgecompress.pipeline.explore_ranges import is_whole_range, read_axis
from edgecompress.pipeline.explore_refine import Refinement, priced, priced_row
from edgecompress.pipeline.explore_search import Search
from edgecompress.pipeline.explore_space import Candidate, Limits, Space, part_limits
from edgecompress.pipeline.explore_state import Chunk, Row, State, exploration_key
from edgecompress.pipeline.request import Progress, silent
from edgecompress.pipeline.source import as_onnx, named_file, torch_reading
from edgecompress.pipeline.versions import versions

MOST_POINTS = 200_000
CHUNK_POINTS = 1024
REFINED_POINTS = 500
FOUND = "{done:,} of at most {total:,} points are in {path}: going on from there"
KEPT = "{done:,} of at most {total:,} points are kept in {path}: the same command goes on"
NOT_KEPT = "nothing is kept of {done:,} of at most {total:,} points: with --state FILE it would be"
_LARGEST_GRID = 2**62
_READ_VALUES = ("weight_stream.encoding", "parameters.skips_zero_weights")


def _untold(sentence: str) -> None:
    """Sentences that go nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreRequest:
    """What is explored.

    Attributes:
        models: The networks, ONNX or PyTorch files.
        target: Name or path of the base.
        part: Name or path of the programmable device; None for that of the target, if any.
        vary: ``NAME=VALUES`` each; what the family varies by default where empty.
        limits: Over those of the part.
        objective: The time of one inference, or one over the inferences a second.
        networks: The mean of the networks' times over the base's, or the worst of them.
        weights: Of each network in the mean; equal where empty.
        points: At most this many of the grid, drawn at random; None: all, up to `MOST_POINTS`.
        refined: At most this many points between those of the grid, near the best; None:
            `REFINED_POINTS`, but no more than of the grid.
        seed: Of the order and the sample.
        state: File to keep what is done in.
        input_shapes: For inputs whose shape is open.
        assumed_bits: Widths that floats are taken to have; None: as the graph has them.
        torch_factory, trust_input: For PyTorch files, see `CompressRequest`.
        progress: Receiver of progress.
        tell: Receiver of sentences about the state file.
    """

    models: tuple[str, ...]
    target: str
    part: str | None = None
    vary: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    objective: Literal["latency", "throughput"] = "latency"
    networks: Literal["mean", "worst"] = "mean"
    weights: tuple[float, ...] = ()
    points: int | None = None
    refined: int | None = None
    seed: int = 0
    state: Path | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    assumed_bits: AssumedBits | None = None
    torch_factory: str | None = None
    trust_input: bool = False
    progress: Progress = silent
    tell: Callable[[str], None] = _untold


def explore(request: ExploreRequest) -> tuple[ExplorationReport, Space]:
    """The report, and the space that a point of it can be made a target of.

    Raises:
        UsageError: Options that do not fit together, or a range that cannot be read.
        Unsupported: Nothing to vary, or resources are limited and the family has no estimate.
        ConfigurationInvalid: The target, the part or the state file is wrong.
    """
    base = load_target(request.target)
    weights = _weights(request)
    axes = _axes(request, base)
    part = _part(request, base)
    space = Space(base, axes, part_limits(part, request.limits))
    networks, files, assumed = _networks(request, _wanted(base, axes))
    pricer = Pricer(networks)
    order = _order(space.size, request)
    state = State(request.state, _key(request, space, files))
    search = Search(
        space=space,
        part=part.name if part else "",
        files=files,
        weights=weights,
        objective=request.objective,
        networks=request.networks,
        seed=request.seed,
        layer_shapes=len(pricer.shapes),
        base_row=_base_row(space, pricer),
        assumptions=(*assumed, *((ENERGY,) if assumes_energy(base) else ())),
    )
    refinement = Refinement(
        space, search, pricer, _finer(request, axes), order if len(order) < space.size else None
    )
    refined = _looked(request, order, state, refinement, (space, pricer))
    return search.report([*state.chunks, refined], len(order), refinement.looked_at), space


def _looked(
    request: ExploreRequest,
    order: Sequence[int],
    state: State,
    refinement: Refinement,
    told: tuple[Space, Pricer],
) -> Chunk:
    """Look at the grid, what is there of it in the state left out, then beside it."""
    most = min(len(order), REFINED_POINTS) if request.refined is None else request.refined
    total = len(order) + most

    def done() -> int:
        return min(len(state.chunks) * CHUNK_POINTS, len(order)) + len(state.beside)

    if request.state is not None and done():
        request.tell(FOUND.format(done=done(), total=total, path=request.state))
    text = NOT_KEPT if request.state is None else KEPT
    try:
        for chunk in _undone(order, state):
            request.progress("exploring", len(state.chunks) * CHUNK_POINTS, len(order))
            state.add(_look_at(chunk, *told))
        request.progress("refining", 0, most)
        found = refinement.run(state, most, lambda n: request.progress("refining", n, most))
        text = ""
        return found
    finally:
        if text:  # stopped, by the user or by an error
            request.tell(text.format(done=done(), total=total, path=request.state))


def _finer(request: ExploreRequest, axes: Sequence[Axis]) -> frozenset[str]:
    """Numbers that take values between those of the grid: of ranges, and of the default axes."""
    if not request.vary:
        return finer_paths(axes)
    return frozenset(
        axis.path
        for axis, text in zip(axes, request.vary, strict=True)
        if is_whole_range(text, axis)
    )


def _weights(request: ExploreRequest) -> tuple[float, ...]:
    count = len(request.models)
    if not request.weights:
        return (1.0 / count,) * count
    if request.networks == "worst":
        raise UsageError("weights count in the mean of the networks only", where="--weight")
    if len(request.weights) != count:
        raise UsageError(f"{len(request.weights)} weights for {count} networks", where="--weight")
    if min(request.weights) < 0 or not 0 < math.fsum(request.weights) < math.inf:
        raise UsageError("weights are at least 0 and not all 0", where="--weight")
    total = math.fsum(request.weights)
    return tuple(weight / total for weight in request.weights)


def _axes(request: ExploreRequest, base: Target) -> tuple[Axis, ...]:
    axes = tuple(read_axis(text, base, "--vary") for text in request.vary) or default_axes(base)
    if not axes:
        raise Unsupported(
            f"nothing is known to vary of family {base.family}",
            where=base.name,
            hint="say what, with --vary NAME=VALUES",
        )
    twice = [path for path, count in Counter(axis.path for axis in axes).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is varied twice", where="--vary")
    return axes


def _part(request: ExploreRequest, base: Target) -> Part | None:
    """The part that was asked for, or the target's own where its family gives resources."""
    if request.part is not None:
        return load_part(request.part)
    if base.part in list_parts() and family_named(base.family).resources(base) is not None:
        return load_part(base.part)
    return None


def _wanted(base: Target, axes: Sequence[Axis]) -> WeightValues:
    """What prices read of the values of weights, on the base or where that is varied."""
    return "winograd" if any(axis.path in _READ_VALUES for axis in axes) else weight_values(base)


def _networks(
    request: ExploreRequest, wanted: WeightValues
) -> tuple[tuple[Network, ...], tuple[FileFact, ...], tuple[str, ...]]:
    """The networks' operators, their files, and what was assumed."""
    shapes = request.input_shapes
    reading = torch_reading(shapes, factory=request.torch_factory, trust_input=request.trust_input)
    networks, files, assumed = [], [], []
    for name in request.models:
        request.progress(f"reading {name}", 0, 0)
        with ExitStack() as stack:
            source = stack.enter_context(as_onnx(Path(name), reading))
            model = load_model(source, normalize=False, input_shapes=shapes)
            files.append(named_file(Path(name), source, model.file))
            works = derive_work(model, shapes, statistics=wanted, assumed=request.assumed_bits)
            networks.append(Network(works))
            if is_batch_assumed(model, shapes):
                assumed.append(BATCH)
    return tuple(networks), tuple(files), tuple(dict.fromkeys(assumed))


def _order(size: int, request: ExploreRequest) -> list[int]:
    """Points of the grid in the order in which they are looked at."""
    rng = np.random.default_rng(request.seed)
    most = min(size, MOST_POINTS if request.points is None else request.points)
    if size > _LARGEST_GRID:
        raise UsageError(f"{size:.3g} combinations", where="--vary", hint="vary less at once")
    if size <= 10 * MOST_POINTS:
        return [int(index) for index in rng.permutation(size)[:most]]
    drawn: dict[int, None] = {}
    while len(drawn) < most:
        drawn.update(dict.fromkeys(int(index) for index in rng.integers(size, size=most)))
    return list(drawn)[:most]


def _key(request: ExploreRequest, space: Space, files: Sequence[FileFact]) -> str:
    return exploration_key(
        {
            "models": [file.sha256 for file in files],
            "assumed_bits": asdict(request.assumed_bits) if request.assumed_bits else None,
            "input_shapes": {name: list(s) for name, s in request.input_shapes.items()},
            "target": target_document(space.base),
            "axes": [[axis.path, list(axis.values)] for axis in space.axes],
            "limits": space.limits.as_numbers(),
            "points": request.points,
            "seed": request.seed,
            "versions": {name: versions()[name] for name in ("edgecompress", "numpy")},
        }
    )


def _undone(order: Sequence[int], state: State) -> Iterator[Sequence[int]]:
    """What is left to do, chunk by chunk."""
    for start in range(len(state.chunks) * CHUNK_POINTS, len(order), CHUNK_POINTS):
        yield order[start : start + CHUNK_POINTS]


def _look_at(indices: Sequence[int], space: Space, pricer: Pricer) -> Chunk:
    """Drop what cannot be, price the rest."""
    found = priced([space.candidate(index) for index in indices], pricer)
    dropped = Counter(one for one in found if isinstance(one, str))
    return Chunk([one for one in found if not isinstance(one, str)], dict(dropped))


def _base_row(space: Space, pricer: Pricer) -> Row:
    """The base target itself, whether it fits the limits, and can be built, or not."""
    resources = family_named(space.base.family).resources(space.base)
    return priced_row(Candidate(index=0, target=space.base, resources=resources, common=()), pricer)
