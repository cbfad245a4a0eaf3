"""Time and energy of one operator on many systolic arrays, for explorations.

The same numbers as `_systolic.Systolic.price`. What a tiling takes does not depend on the sizes of
the buffers, only whether it fits them: tilings are worked out once for each shape of the array and
kept, so that arrays that differ in their buffers share them.

Source: `_systolic_mappings.mappings` and `_systolic_tiles.best_mapping`, of which this is the form
with memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import cast

import numpy as np

from edgecompress.core.arrays import FloatArray
from edgecompress.core.work import ElementWork, Work
from edgecompress.hardware.batch_energy import EnergyRates
from edgecompress.hardware.models._systolic import as_product, parameters_of
from edgecompress.hardware.models._systolic_mappings import (
    Array,
    Dataflow,
    Mapping,
    Product,
    _axes,
    _block,
    _grown,
)
from edgecompress.hardware.models._systolic_tiles import _efficient, _Trial
from edgecompress.hardware.target import Target
from edgecompress.hardware.timeline import play

_Sizes = tuple[int, int, int, bool]
"""Rows, columns and inner of a tile, and whether the loop over rows is the outer one."""


_BY_BOUND = attrgetter("bound")
MOST_ARRAYS = 512
"""Shapes of the array whose tilings of one product are kept at a time."""


class _Tiling:
    """One tiling; its time and the bytes in buffers are NaN until they are asked for."""

    __slots__ = (
        "activations",
        "bound",
        "buffered",
        "compute",
        "moved",
        "sizes",
        "total",
        "weights",
    )

    def __init__(self, sizes: _Sizes, trial: _Trial) -> None:
        self.sizes = sizes
        self.compute, self.moved, self.bound = trial.compute, trial.moved, trial.bound
        self.activations, self.weights = trial.tile_room
        self.total = self.buffered = math.nan


class _Tilings:
    """The tilings of a product on one shape of array at one rate of memory.

    Args:
        product: With at least one multiply-accumulate.
        array: Its buffers do not matter.
        flow: The dataflow.
        port: Bytes a cycle.
    """

    def __init__(self, product: Product, array: Array, flow: Dataflow, port: float) -> None:
        self._product, self._array, self._flow, self._port = product, array, flow, port
        self._row_axis, self._column_axis = _axes(product, array, flow)
        self._known: dict[_Sizes, _Tiling] = {}
        self._rows = self._fixed_sizes(rows=True)
        self._columns = self._fixed_sizes(rows=False)
        self._deep = self._deep_sizes()

    def fastest(
        self, activation_bytes: int, weight_bytes: int, largest: _OnProduct
    ) -> tuple[_Tiling, bool]:
        """The fastest tiling that fits such buffers, and whether there is one."""
        known = self._known
        tilings = [
            known.get(sizes) or self._tiling(sizes)
            for sizes in self._sizes(activation_bytes, weight_bytes, largest)
        ]
        fitting = [
            one
            for one in tilings
            if one.activations <= activation_bytes and one.weights <= weight_bytes
        ]
        fits = bool(fitting)
        if not fits:
            fitting = [min(tilings, key=lambda one: one.activations + one.weights)]
        best: _Tiling | None = None
        for one in sorted(_worth_playing(fitting), key=_BY_BOUND):
            if best is not None and one.bound >= best.total:
                break
            if math.isnan(one.total):
                trial = self._trial(one.sizes)
                one.total = play(trial.runs(), shared_port=True).total
                one.buffered = trial.buffer_bytes
            if best is None or one.total < best.total:
                best = one
        if best is None:
            raise ValueError("a product without any tiling")
        return best, fits

    def _tiling(self, sizes: _Sizes) -> _Tiling:
        """One that was not asked for before."""
        found = self._known[sizes] = _Tiling(sizes, self._trial(sizes))
        return found

    def _trial(self, sizes: _Sizes) -> _Trial:
        rows, columns, inner, rows_outer = sizes
        mapping = Mapping(
            rows=rows,
            columns=columns,
            inner=inner,
            block=_block(self._array, self._flow, rows, columns, deep=self._row_axis.deep),
            rows_outer=rows_outer,
        )
        return _Trial(self._product, self._array, self._flow, self._port, mapping)

    def _fixed_sizes(self, *, rows: bool) -> frozenset[int]:
        """Sizes that are tried whatever the buffers."""
        axis = self._row_axis if rows else self._column_axis
        return frozenset(axis.sizes(lambda _: False))

    def _deep_sizes(self) -> list[_Sizes]:
        """Tiles with a part of the inner axis."""
        if not self._row_axis.deep and self._flow.held != "sums":
            return []
        unit = self._array.height if self._flow.held != "sums" else 1
        rows, columns = self._row_axis.fold, self._column_axis.fold
        return [(rows, columns, k, False) for k in _grown(unit, self._product.inner - 1)]

    def _sizes(self, activation_bytes: int, weight_bytes: int, largest: _OnProduct) -> list[_Sizes]:
        """What is tried with such buffers, in the order of `mappings`."""
        product, found = self._product, []
        row_axis, column_axis = self._row_axis, self._column_axis
        more = column_axis._allowed_down(largest.columns(weight_bytes))
        for column in sorted({*self._columns, more} - {0}):
            most = row_axis._allowed_down(largest.rows(activation_bytes, column))
            for row in sorted({*self._rows, most} - {0}):
                split = row < product.rows
                if split and column < product.columns:
                    found.append((row, column, product.inner, False))
                found.append((row, column, product.inner, split))
        return found + self._deep


class _OnProduct:
    """All that is known of one product: its tilings by array, and the most that fits buffers."""

    def __init__(self, product: Product, flow: Dataflow) -> None:
        self._product, self._flow = product, flow
        self._rows: dict[tuple[int, int], int] = {}
        self._columns: dict[int, int] = {}
        self._tilings: dict[tuple[int, int, int, float], _Tilings] = {}

    def fastest(
        self, shape: tuple[int, int, int], port: float, rooms: tuple[int, int]
    ) -> tuple[_Tiling, bool]:
        """The fastest tiling, and whether the buffers hold one.

        Args:
            shape: Height and width of the array, and its sums below each column.
            port: Bytes a cycle.
            rooms: Bytes of one half of each buffer.
        """
        key = (*shape, port)
        found = self._tilings.get(key)
        if found is None:
            if len(self._tilings) >= MOST_ARRAYS:
                self._tilings.clear()
            height, width, depth = shape
            array = Array(
                height=height, width=width, depth=depth, activation_bytes=0, weight_bytes=0
            )
            found = self._tilings[key] = _Tilings(self._product, array, self._flow, port)
        return found.fastest(*rooms, self)

    def rows(self, room: int, columns: int) -> int:
        """Rows whose inputs and results in so many columns fit."""
        p, key = self._product, (room, columns)
        if key not in self._rows:
            self._rows[key] = _bisect(
                p.rows, lambda size: p.activation_room(size, columns, p.inner) <= room
            )
        return self._rows[key]

    def columns(self, room: int) -> int:
        """Columns whose weights fit."""
        p = self._product
        if room not in self._columns:
            self._columns[room] = _bisect(
                p.columns, lambda size: p.weight_room(size, p.inner) <= room
            )
        return self._columns[room]


def _bisect(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to ``most`` that fits; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _worth_playing(tilings: list[_Tiling]) -> Iterable[_Tiling]:
    """As `best_mapping` chooses, which looks at cycles and bytes alone."""
    return cast(Iterable[_Tiling], _efficient(cast(Iterable[_Trial], tilings)))


@lru_cache(maxsize=512)
def _on_product(product: Product, flow: Dataflow) -> _OnProduct:
    return _OnProduct(product, flow)


class SystolicBatch:
    """Arrays of one dataflow side by side.

    Args:
        flow: The dataflow.
        targets: All of its family.

    Attributes:
        overfull: The targets whose buffers did not hold the operands of one fold of an operator
            that was priced.
    """

    def __init__(self, flow: Dataflow, targets: Sequence[Target]) -> None:
        self._flow, self._targets = flow, tuple(targets)
        self.overfull = np.zeros(len(targets), dtype=bool)
        found = [parameters_of(target) for target in targets]
        self._rooms = [(p.activation_buffer_bytes, p.weight_buffer_bytes) for p in found]
        self._shapes = [(p.array_rows, p.array_columns, p.accumulator_words) for p in found]
        self._rates = EnergyRates(targets)

    def figures(self, work: Work) -> tuple[FloatArray, FloatArray]:
        """Time and energy of a convolution or a product; what is on chip has to be off it."""
        if isinstance(work.operator, ElementWork) or not work.operator.macs:
            return np.zeros(len(self._targets)), self._rates.nothing()
        seconds, moved, buffered = np.empty((3, len(self._targets)))
        products: dict[tuple[int | None, int], _OnProduct] = {}
        for place, target in enumerate(self._targets):
            widths = (target.activation_bits, id(target.weight_stream))
            known = products.get(widths)
            if known is None:
                known = _on_product(as_product(work, target).product, self._flow)
                products[widths] = known
            port = target.dram_bytes_per_cycle
            best, fits = known.fastest(self._shapes[place], port, self._rooms[place])
            self.overfull[place] |= not fits
            overhead = target.operator_overhead_s * target.clock_hz
            seconds[place] = (best.total + overhead) / target.clock_hz
            moved[place], buffered[place] = best.moved, best.buffered
        rates = self._rates
        spent = work.operator.macs * rates.multiplication_pj(work)
        spent += buffered * rates.on_chip_pj_per_byte + moved * rates.dram_pj_per_byte
        return seconds, np.asarray(spent + rates.static_w * 1e12 * seconds)
