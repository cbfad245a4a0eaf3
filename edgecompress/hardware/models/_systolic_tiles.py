"""What a matrix product takes on a systolic array, cut into tiles in one way or another.

Tiles go through `timeline.play`, loads and stores on one port.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

from edgecompress.hardware.models._systolic_mappings import (
    Array,
    Dataflow,
    Mapping,
    Product,
    mappings,
)
from edgecompress.hardware.timeline import Run, Tile, play, ratio_up

Parts = tuple[tuple[int, int], ...]
"""(how many, of which size)."""

SUM_BYTES = 4
WASTE = 1.25  # assumed: a quarter more traffic is not worth a better overlap of the ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A mapping and what it takes, in cycles and bytes.

    Attributes:
        mapping: The sizes.
        runs: Its tiles, for `timeline.play`.
        compute, load, store, decode, fill, total: Cycles, as in `Timeline`.
        weight_bytes, activation_bytes: Over the port.
        on_chip_bytes: Both halves of what is used of the buffers, and the accumulators.
        buffer_bytes: Read from and written to buffers and accumulators.
        fits: Whether one fold fits the buffers.
    """

    mapping: Mapping
    runs: tuple[Run, ...]
    compute: float
    load: float
    store: float
    decode: float
    fill: float
    total: float
    weight_bytes: float
    activation_bytes: float
    on_chip_bytes: float
    buffer_bytes: float
    fits: bool


@lru_cache(maxsize=4096)
def best_mapping(product: Product, array: Array, flow: Dataflow, port: float) -> Mapped:
    """The fastest mapping.

    Args:
        product: With at least one multiply-accumulate.
        array: What it runs on.
        flow: The dataflow.
        port: Bytes a cycle.
    """
    choices = [trial.at(port) for trial in _candidates(product, array, flow)]
    best: tuple[float, _Trial] | None = None
    for trial in sorted(choices, key=lambda trial: trial.bound):
        if best is not None and trial.bound >= best[0]:
            break
        total = play(trial.runs(), shared_port=True).total
        if best is None or total < best[0]:
            best = total, trial
    if best is None:
        raise ValueError("a product without any mapping")
    return best[1].mapped()


@lru_cache(maxsize=1024)
def _candidates(product: Product, array: Array, flow: Dataflow) -> tuple[_Trial, ...]:
    """The mappings that can be the fastest at some rate of the port."""
    choices = [_Trial(product, array, flow, 1.0, one) for one in mappings(product, array, flow)]
    fitting = [trial for trial in choices if trial.fits]
    # Without any that fits: what needs the least room, so that more room is never slower.
    fitting = fitting or [min(choices, key=lambda trial: trial.room)]
    return tuple(_efficient(fitting))


def _efficient(trials: Iterable[_Trial]) -> Iterator[_Trial]:
    """Those that do not load tensors again and again for a few cycles at the ends.

    Left out is what moves more than `WASTE` times the bytes of another that takes the array no
    longer. What is left does not depend on any rate.
    """
    least = math.inf
    for trial in sorted(trials, key=lambda one: (one.compute, one.moved)):
        least = min(least, trial.moved)
        if trial.moved <= WASTE * least:
            yield trial


def parts(total: int, size: int) -> Parts:
    """An axis in parts of a size, the rest last."""
    whole, rest = divmod(total, size)
    return tuple((n, s) for n, s in ((whole, size), (1, rest)) if n and s)


def _headed(axis: Parts) -> Parts:
    """The first part alone."""
    count, size = axis[0]
    return ((1, size), *(((count - 1, size),) if count > 1 else ()), *axis[1:])


class _Trial:
    """One mapping of a product, worked out as far as it is asked.

    Attributes:
        mapping: The sizes.
        compute: Cycles of the array for all products.
        moved: Bytes over the port.
    """

    def __init__(
        self, product: Product, array: Array, flow: Dataflow, port: float, mapping: Mapping
    ) -> None:
        self._product, self._array, self._flow = product, array, flow
        self._port, self.mapping = port, mapping
        self._row_parts = parts(product.rows, mapping.rows)
        self._column_parts = parts(product.columns, mapping.columns)
        self._split = mapping.inner < product.inner
        self._passes = 1.0 if product.window is None else product.window.passes(mapping.rows)
        self._weights = product.weight_room(mapping.columns, mapping.inner)
        self._activations = product.activation_room(mapping.rows, mapping.columns, mapping.inner)
        self._counts = self._loads()
        self.compute = product.count * self._array_cycles(
            product.rows, product.inner, product.columns
        )
        self.moved = (
            product.input_bytes * self._counts[0]
            + product.weight_bytes * self._counts[1]
            + product.output_bytes
        )

    def at(self, port: float) -> _Trial:
        """The same with a port of another rate, in bytes a cycle."""
        other = copy(self)
        other._port = port
        return other

    @property
    def fits(self) -> bool:
        """Whether a tile fits the buffers."""
        array = self._array
        return self._activations <= array.activation_bytes and self._weights <= array.weight_bytes

    @property
    def tile_room(self) -> tuple[float, float]:
        """Bytes of a tile in the activation buffer and in the weight buffer."""
        return self._activations, self._weights

    @property
    def room(self) -> float:
        """Bytes of a tile in the buffers."""
        return self._activations + self._weights

    def _loads(self) -> tuple[float, float]:
        """How often all inputs and all weights are loaded."""
        rows = sum(count for count, _ in self._row_parts)
        columns = sum(count for count, _ in self._column_parts)
        if self._split:
            return columns * self._passes, float(rows * self._product.repeats)
        kept = 1 if columns == 1 else self._product.repeats
        if self.mapping.rows_outer:
            return self._passes, float(rows * kept if columns > 1 else 1)
        return (columns if rows > 1 else 1) * self._passes, float(kept)

    def _array_cycles(self, rows: int, inner: int, columns: int, *, last: bool = True) -> int:
        """Cycles of the array for one tile."""
        size = (self._array.height, self._array.width)
        match self._flow.held:
            case "sums":
                folds, each = self._flow.product_cycles(rows, inner, columns, *size)
                return folds * (each if last else inner)
            case "weights":
                streamed = parts(rows, self.mapping.block)
                every = [
                    (n, self._flow.product_cycles(m, inner, columns, *size)) for n, m in streamed
                ]
            case "inputs":
                streamed = parts(columns, self.mapping.block)
                every = [(n, self._flow.product_cycles(rows, inner, m, *size)) for n, m in streamed]
        return sum(count * folds * each for count, (folds, each) in every)

    @property
    def bound(self) -> float:
        """Cycles that this mapping does not go below."""
        decode = self._product.decode_cycles * self._counts[1]
        return max(self.compute, self.moved / self._port, decode)

    def runs(self) -> tuple[Run, ...]:
        """The tiles of all products."""
        p = self._product
        once = self._nest(weights_there=False)
        if p.repeats == 1 or self._split or sum(count for count, _ in self._column_parts) > 1:
            return ((p.count, once),)
        again = self._nest(weights_there=True)
        return ((p.count // p.repeats, ((1, once), (p.repeats - 1, again))),)

    def _nest(self, *, weights_there: bool) -> tuple[Run, ...]:
        """The tiles of one product."""
        rows_outer = self.mapping.rows_outer
        outer, inner = self._row_parts, self._column_parts
        if not rows_outer:
            outer, inner = inner, outer
        alone = sum(count for count, _ in inner) == 1
        found: list[Run] = []
        for place, (count, size) in enumerate(_headed(outer)):
            line: list[Run] = []
            for spot, (times, other) in enumerate(_headed(inner)):
                new_outer, new_inner = spot == 0 or self._split, place == 0 or not alone
                new_inner = new_inner or self._split
                rows, columns = (size, other) if rows_outer else (other, size)
                inputs, weights = (new_outer, new_inner) if rows_outer else (new_inner, new_outer)
                tiles = self._deep(rows, columns, inputs, weights and not weights_there)
                line.append((times, tiles))
            found.append((count, tuple(line)))
        return tuple(found)

    def _deep(self, rows: int, columns: int, inputs: bool, weights: bool) -> Tile | tuple[Run, ...]:
        """One tile, or its parts along the inner axis."""
        if not self._split:
            return self._tile(rows, columns, self._product.inner, inputs, weights, last=True)
        axis = parts(self._product.inner, self.mapping.inner)
        *before, (count, size) = axis
        found: list[Run] = [
            (n, self._tile(rows, columns, k, inputs, weights, last=False)) for n, k in before
        ]
        if count > 1:
            found.append((count - 1, self._tile(rows, columns, size, inputs, weights, last=False)))
        found.append((1, self._tile(rows, columns, size, inputs, weights, last=True)))
        return tuple(found)

    def _tile(
        self,
        rows: int,
        columns: int,
        inner: int,
        inputs: bool,
        weights: bool,
        *,
        last: bool,
    ) -> Tile:
        p = self._product
        input_share = rows * inner / (p.rows * p.inner * p.count) if inputs else 0.0
        weight_share = inner * columns * p.repeats / (p.inner * p.columns * p.count)
        weight_share = weight_share if weights else 0.0
        output_share = rows * columns / (p.rows * p.columns * p.count) if last else 0.0
        loaded = p.input_bytes * self._passes * input_share + p.weight_bytes * weight_share
        return Tile(
            load=loaded / self._port,
            compute=self._array_cycles(rows, inner, columns, last=last),
            store=p.output_bytes * output_share / self._port,
            decode=p.decode_cycles * weight_share,
        )

    def mapped(self) -> Mapped:
        """Everything about it."""
        p = self._product
        inputs, weights = self._counts
        runs = self.runs()
        played = play(runs, shared_port=True)
        input_bytes, weight_bytes = p.input_bytes * inputs, p.weight_bytes * weights
        deep = p.inner > self._array.height and self._flow.held != "sums"
        accumulators = self.mapping.block * self._array.width * SUM_BYTES if deep else 0
        return Mapped(
            mapping=self.mapping,
            runs=runs,
            compute=self.compute,
            load=(input_bytes + weight_bytes) / self._port,
            store=p.output_bytes / self._port,
            decode=p.decode_cycles * weights,
            fill=played.fill,
            total=played.total,
            weight_bytes=weight_bytes,
            activation_bytes=input_bytes + p.output_bytes,
            on_chip_bytes=2 * self.room + accumulators,
            buffer_bytes=self.buffer_bytes,
            fits=self.fits,
        )

    @property
    def buffer_bytes(self) -> float:
        """Every operand as often as it enters the array, sums as often as they are added up."""
        p, array = self._product, self._array
        size = (array.height, array.width)
        across, down = ratio_up(p.columns, size[1]), ratio_up(p.inner, size[0])
        match self._flow.held:
            case "weights":
                entering = (across, ratio_up(p.rows, self.mapping.block))
            case "inputs":
                entering = (ratio_up(p.columns, self.mapping.block), ratio_up(p.rows, size[1]))
            case "sums":
                entering, down = (across, ratio_up(p.rows, size[0])), 1
        read = p.rows * p.inner * entering[0] * p.activation_width
        read += p.inner * p.columns * entering[1] * p.weight_width
        added = p.rows * p.columns * SUM_BYTES * (2 * down - 1 if down > 1 else 0)
        written = 2 * p.rows * p.columns * p.activation_width
        inputs, weights = self._counts
        filled = p.input_bytes * inputs + p.weight_bytes * weights
        return p.count * (read + added + written) + filled


def each_tile(runs: Sequence[Run]) -> Iterator[Tile]:
    """The tiles one by one."""
    for count, what in runs:
        for _ in range(count):
            if isinstance(what, Tile):
                yield what
            else:
                yield from each_tile(what)
