"""The ways to cut a matrix product into tiles for a systolic array.

A tile is a part of the rows, of the columns and, where the weights of one fold's columns do not fit
on chip, of the inner axis. The part of the outer loop stays on chip while the parts of the inner
loop pass; a loop of one part stays for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgecompress.hardware.timeline import aligned, ratio_up

Held = Literal["weights", "inputs", "sums"]


@dataclass(frozen=True, slots=True)
class Dataflow:
    """What stays in the elements, and what a product takes.

    Attributes:
        held: What stays while the rest moves.
        product_cycles: Folds of a product and cycles of each, from (rows, inner, columns, array
            rows, array columns).
    """

    held: Held
    product_cycles: Callable[[int, int, int, int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How the rows of a convolution's product overlap in the input.

    Attributes:
        channels: Of one group.
        in_height, in_width, out_height, out_width: Feature maps.
        stride: (vertical, horizontal).
        reach: Input rows and columns under the kernel.
    """

    channels: int
    in_height: int
    in_width: int
    out_height: int
    out_width: int
    stride: tuple[int, int]
    reach: tuple[int, int]

    def held_codes(self, rows: int) -> int:
        """Input codes that so many output pixels in a row need at the same time."""
        if rows < self.out_width:
            wide = min(self.in_width, (rows - 1) * self.stride[1] + self.reach[1])
            return self.channels * wide * min(self.in_height, self.reach[0])
        lines = ratio_up(rows, self.out_width)
        high = min((lines - 1) * self.stride[0] + self.reach[0], lines * self.in_height)
        return self.channels * self.in_width * high

    def passes(self, rows: int) -> float:
        """How often the input is read when it is read in parts of so many output pixels.

        Whole lines of pixels keep the input lines that the next part needs again; shorter parts
        read all lines under the kernel for every line of pixels.
        """
        if rows >= self.out_width:
            return 1.0
        return max(1.0, self.out_height * min(self.in_height, self.reach[0]) / self.in_height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """``count`` matrix products (rows x inner) (inner x columns).

    Attributes:
        image_rows: Rows of one image.
        input_bytes, weight_bytes, output_bytes: Over the port, each tensor of all products once.
        decode_cycles: Of the decoder for all weights once.
        input_width, weight_width, output_width: Bytes of an element in its buffer; 0 for what has
            its place on chip outside it.
        activation_width: Bytes of an activation.
        repeats: Products in a row that use the same weights.
        window: Where inputs of rows overlap; None where they do not.
    """

    count: int
    rows: int
    inner: int
    columns: int
    image_rows: int
    input_bytes: float
    weight_bytes: float
    output_bytes: float
    decode_cycles: float
    input_width: float
    weight_width: float
    output_width: float
    activation_width: float
    repeats: int = 1
    window: Window | None = None

    def weight_room(self, columns: int, inner: int) -> float:
        """Bytes that the weights of a part take in their buffer."""
        return inner * columns * self.weight_width

    def activation_room(self, rows: int, columns: int, inner: int) -> float:
        """Bytes that the inputs and outputs of a part take in their buffer."""
        codes: float = rows * inner
        if self.window is not None:
            codes = min(codes, self.window.held_codes(rows) * inner / self.inner)
        return codes * self.input_width + rows * columns * self.output_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """An array with its memories.

    Attributes:
        height, width: Processing elements.
        depth: Sums below each column.
        activation_bytes, weight_bytes: One half of each buffer.
    """

    height: int
    width: int
    depth: int
    activation_bytes: int
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Sizes of a tile and the order of tiles.

    Attributes:
        rows, columns, inner: Of a tile, but for the last along each axis.
        block: Operands that stream past what is held before something else is held; 0 where the
            sums are held.
        rows_outer: The loop over row parts is the outer one.
    """

    rows: int
    columns: int
    inner: int
    block: int
    rows_outer: bool


def mappings(product: Product, array: Array, flow: Dataflow) -> Iterator[Mapping]:
    """What is tried: one fold and its multiples by powers of 4, what just fits, and whole axes."""
    row_axis, column_axis = _axes(product, array, flow)
    for column in column_axis.sizes(
        lambda size: product.weight_room(size, product.inner) <= array.weight_bytes
    ):
        for row in row_axis.sizes(_rows_fit(product, array, column)):
            both = row < product.rows and column < product.columns
            for rows_outer in (False, True) if both else (row < product.rows,):
                yield Mapping(
                    rows=row,
                    columns=column,
                    inner=product.inner,
                    block=_block(array, flow, row, column, deep=row_axis.deep),
                    rows_outer=rows_outer,
                )
    if not row_axis.deep and flow.held != "sums":
        return
    row, column = row_axis.fold, column_axis.fold
    unit = array.height if flow.held != "sums" else 1
    for inner in _grown(unit, product.inner - 1):
        block = _block(array, flow, row, column, deep=row_axis.deep)
        yield Mapping(rows=row, columns=column, inner=inner, block=block, rows_outer=False)


def _rows_fit(product: Product, array: Array, columns: int) -> Callable[[int], bool]:
    """Whether so many rows, and their results in so many columns, fit the activation buffer."""
    room = array.activation_bytes
    return lambda size: product.activation_room(size, columns, product.inner) <= room


@dataclass(frozen=True, slots=True)
class _Axis:
    """Rows or columns of a product, as an array cuts them.

    Attributes:
        length: Of the axis.
        image: Of one image.
        unit: One side of the array, or the depth of the accumulators where the axis streams.
        streams: Parts below the unit are possible too.
        deep: The accumulators limit the parts that stream.
    """

    length: int
    image: int
    unit: int
    streams: bool
    deep: bool

    @property
    def fold(self) -> int:
        """The part whose sums can wait for the next part of the inner axis."""
        return min(self.length, self.unit)

    def sizes(self, fits: Callable[[int], bool]) -> tuple[int, ...]:
        """Parts to try; all but what is above the unit and not whole are multiples of it."""
        found = {self.length, self.fold, *_grown(self.unit, self.length)}
        if self.streams:
            found.update(_grown(1, min(self.unit, self.length)))
        found.add(self._allowed(self.image))
        found.add(self._allowed_down(self._largest(fits)))
        return tuple(sorted(size for size in found if size > 0))

    def _allowed(self, size: int) -> int:
        """The next part that is possible."""
        free = self.streams and (size <= self.unit or not self.deep)
        return size if free else min(self.length, aligned(size, self.unit))

    def _allowed_down(self, size: int) -> int:
        """The last part before it that is possible; 0 if there is none."""
        if size >= self.length or (self.streams and (size <= self.unit or not self.deep)):
            return size
        return size // self.unit * self.unit

    def _largest(self, fits: Callable[[int], bool]) -> int:
        """The largest part that fits, by bisection."""
        low, high = 0, self.length
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low


def _axes(product: Product, array: Array, flow: Dataflow) -> tuple[_Axis, _Axis]:
    """Rows and columns."""
    deep = product.inner > array.height
    sides = {
        "weights": (array.depth, array.width),
        "inputs": (array.width, array.depth),
        "sums": (array.height, array.width),
    }
    row, column = sides[flow.held]
    return (
        _Axis(product.rows, product.image_rows, row, flow.held == "weights", deep),
        _Axis(product.columns, product.columns, column, flow.held == "inputs", deep),
    )


def _grown(unit: int, most: int) -> tuple[int, ...]:
    """The unit and its multiples by 4, 16, ... that are not above ``most``."""
    found = []
    while unit <= most:
        found.append(unit)
        unit *= 4
    return tuple(found)


def _block(array: Array, flow: Dataflow, rows: int, columns: int, *, deep: bool) -> int:
    if flow.held == "sums":
        return 0
    length = rows if flow.held == "weights" else columns
    return min(length, array.depth) if deep else length
