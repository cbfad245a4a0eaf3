"""A double-buffered device word by word: port, decoder and array with two sets of buffers.

`Nest` walks the loops over the parts of a product and keeps what is in the buffers, `run_layer`
lets the array work on each part, `run_tiles` moves the words.

Time advances to the next word that has arrived or left, the next weight that is decoded or the end
of what the array does; in between nothing changes. Times are fractions of a cycle, so that nothing
is rounded however odd the rate of the memory is. Reads come before writes on a shared port.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from edgecompress.hardware.simulator.layers import IntArray, IntegerProduct
from edgecompress.hardware.simulator.systolic import SumsInPlace, SystolicArray, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTile:
    """What one tile moves and computes.

    Attributes:
        load_bytes: Read over the port before it can be computed.
        decoded_weights: Weights that the decoder turns out before it can be computed.
        compute_cycles: Of the array.
        store_bytes: Written over the port after it has been computed.
    """

    load_bytes: Fraction
    decoded_weights: Fraction
    compute_cycles: int
    store_bytes: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the tiles run on.

    Attributes:
        bytes_per_cycle: Of a port, in the mean.
        word_bytes: Moved at once; the last word of a transfer may be shorter.
        shared_port: One port for both directions, else one for each.
        decoder_weights_per_cycle: None: the decoder is never waited for.
        buffer_bytes: Of one set of input and weight buffers; None: as large as needed.
        output_bytes: Of one set of output buffers; None: as large as needed.
    """

    bytes_per_cycle: Fraction
    word_bytes: int = 16
    shared_port: bool = True
    decoder_weights_per_cycle: Fraction | None = None
    buffer_bytes: Fraction | None = None
    output_bytes: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What happened.

    Attributes:
        cycles: From the first word read to the last word written.
        read_words, written_words: Over the port.
        array_cycles: In which the array worked.
        swaps: Of the buffers.
    """

    cycles: Fraction
    read_words: int
    written_words: int
    array_cycles: int
    swaps: int


class _Transfer:
    """Words of one tile that are still to be moved."""

    def __init__(self, byte_count: Fraction, device: Device) -> None:
        self._left = byte_count
        self._device = device
        self.words = 0

    @property
    def pending(self) -> Fraction | None:
        """Cycles that the next word takes; None when all are through."""
        if not self._left:
            return None
        return min(self._left, Fraction(self._device.word_bytes)) / self._device.bytes_per_cycle

    def finish_word(self) -> None:
        """One word is through."""
        self._left -= min(self._left, Fraction(self._device.word_bytes))
        self.words += 1


class _Engine:
    """A unit that does one thing after the other; keeps when the current one ends."""

    def __init__(self, jobs: Sequence[_Transfer], now: Fraction) -> None:
        self._jobs = jobs
        self._ends: Fraction | None = None
        self._start(now)

    @property
    def ends(self) -> Fraction | None:
        """When the next word is through; None if there is none."""
        return self._ends

    def _start(self, now: Fraction) -> None:
        waiting = (job.pending for job in self._jobs)
        cycles = next((taken for taken in waiting if taken is not None), None)
        self._ends = None if cycles is None else now + cycles

    def advance(self, now: Fraction) -> None:
        """Finish the word that ends now, begin the next."""
        if self._ends == now:
            next(job for job in self._jobs if job.pending is not None).finish_word()
            self._start(now)


def run_tiles(tiles: Sequence[MemoryTile], device: Device) -> Moved:
    """Run tiles in order: one is loaded while the one before is computed and the last is stored.

    Raises:
        ValueError: A tile does not fit a set of buffers.
    """
    now = Fraction(0)
    read = written = array_cycles = swaps = 0
    for loaded, computed, stored in _stages(tiles):
        _check_fit(loaded, computed, device)
        reading = _Transfer(Fraction(0) if loaded is None else loaded.load_bytes, device)
        writing = _Transfer(Fraction(0) if stored is None else stored.store_bytes, device)
        ports = [[reading, writing]] if device.shared_port else [[reading], [writing]]
        engines = [_Engine(jobs, now) for jobs in ports]
        free = now + (0 if computed is None else computed.compute_cycles)
        decoded = now + _decoding(loaded, device)
        while True:
            events = [engine.ends for engine in engines if engine.ends is not None]
            events += [end for end in (free, decoded) if end > now]
            if not events:
                break
            now = min(events)
            for engine in engines:
                engine.advance(now)
        read, written = read + reading.words, written + writing.words
        array_cycles += 0 if computed is None else computed.compute_cycles
        swaps += 1
    return Moved(
        cycles=now,
        read_words=read,
        written_words=written,
        array_cycles=array_cycles,
        swaps=swaps,
    )


def _stages(
    tiles: Sequence[MemoryTile],
) -> Iterator[tuple[MemoryTile | None, MemoryTile | None, MemoryTile | None]]:
    """Which tiles are loaded, computed and stored between two swaps."""
    loaded: MemoryTile | None = None
    computed: MemoryTile | None = None
    waiting = list(reversed(tiles))
    while True:
        stored, computed = computed, loaded
        loaded = waiting.pop() if waiting else None
        if loaded is None and computed is None and stored is None:
            return
        yield loaded, computed, stored


def _decoding(tile: MemoryTile | None, device: Device) -> Fraction:
    rate = device.decoder_weights_per_cycle
    return Fraction(0) if tile is None or rate is None else tile.decoded_weights / rate


def _check_fit(loaded: MemoryTile | None, computed: MemoryTile | None, device: Device) -> None:
    """Refuse what overflows a set of buffers."""
    room, out = device.buffer_bytes, device.output_bytes
    if loaded is not None and room is not None and loaded.load_bytes > room:
        raise ValueError(f"{loaded.load_bytes} bytes into a buffer of {room}")
    if computed is not None and out is not None and computed.store_bytes > out:
        raise ValueError(f"{computed.store_bytes} bytes of results into a buffer of {out}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nest:
    """Loops over the parts of matrix products, and what an element of each tensor takes.

    Attributes:
        rows, columns, inner: Of a part, but for the last along each axis.
        rows_outer: The loop over the parts of the rows is the outer one, else that over the
            columns; the inner axis is innermost.
        input_bytes, weight_bytes, output_bytes: Of an element, over the port.
        decoded_weights: Of the decoder for a weight.
    """

    rows: int
    columns: int
    inner: int
    rows_outer: bool
    input_bytes: Fraction
    weight_bytes: Fraction
    output_bytes: Fraction
    decoded_weights: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of one product: the extent along each axis, and the number of its weights."""

    product: int
    weights: int
    rows: slice
    columns: slice
    inner: slice
    last: bool


def run_layer(
    products: Sequence[IntegerProduct], array: SystolicArray, nest: Nest, device: Device
) -> tuple[list[IntArray], Moved]:
    """Products one after the other through array and memory.

    Products that share the array of their weights (the same object) use the same weights. Where
    the array holds sums they stay in its elements between parts of the inner axis.

    Returns:
        The sums of each product, and what happened.

    Raises:
        ValueError: A part does not fit a set of buffers, or its sums the elements they stay in.
    """
    sums = [np.zeros((p.inputs.shape[0], p.weights.shape[1]), np.int64) for p in products]
    in_place = SumsInPlace(array)
    tiles: list[MemoryTile] = []
    inputs_there: tuple[object, ...] = ()
    weights_there: tuple[object, ...] = ()
    for part in _walk(products, nest):
        product = products[part.product]
        x, w = product.inputs[part.rows, part.inner], product.weights[part.inner, part.columns]
        inputs = (part.product, _ends(part.rows), _ends(part.inner))
        weights = (part.weights, _ends(part.columns), _ends(part.inner))
        read = Fraction(0) if inputs == inputs_there else x.size * nest.input_bytes
        new = 0 if weights == weights_there else w.size
        inputs_there, weights_there = inputs, weights
        if array.held == "sums":
            ran = in_place.run(x, w, last=part.last)
        else:
            ran = simulate(array, IntegerProduct(inputs=x, weights=w))
        target = sums[part.product][part.rows, part.columns]
        target += ran.outputs
        done = target.size if part.last else 0
        tiles.append(
            MemoryTile(
                load_bytes=read + new * nest.weight_bytes,
                decoded_weights=new * nest.decoded_weights,
                compute_cycles=ran.cycles,
                store_bytes=done * nest.output_bytes,
            )
        )
    corrected = [
        one - product.zero_point * product.weights.sum(axis=0)
        for one, product in zip(sums, products, strict=True)
    ]
    return corrected, run_tiles(tiles, device)


def _walk(products: Sequence[IntegerProduct], nest: Nest) -> Iterator[_Part]:
    weights: list[int] = []
    for number, product in enumerate(products):
        same = [n for n in range(number) if products[n].weights is product.weights]
        weights.append(weights[same[0]] if same else number)
        rows = _cut(product.inputs.shape[0], nest.rows)
        columns = _cut(product.weights.shape[1], nest.columns)
        outer = [(row, column) for column in columns for row in rows]
        if nest.rows_outer:
            outer = [(row, column) for row in rows for column in columns]
        inner = _cut(product.weights.shape[0], nest.inner)
        for row, column in outer:
            for taps in inner:
                yield _Part(number, weights[-1], row, column, taps, taps == inner[-1])


def _cut(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _ends(part: slice) -> tuple[int, int]:
    return part.start, part.stop
