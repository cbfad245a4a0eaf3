"""Cycles of one WinoCNN call on a machine that keeps to its buffers, step by step.

Row steps follow each other; in each, the rows that the next one lacks come in, this one is
computed, and the results of the last one leave. A step takes as long as the longest of the three:

- a weight load comes in while the one before is swept, so that a sweep takes the longer of both;
  the very last sweep waits for none. Weights go before rows on the ports that they share.
- input rows come in rounds of two rows a port, each once; what lies beyond the map does not.
- only rows that the stride keeps leave, in turn on the output ports.

A transfer takes its words over the share of a port's cycles that move data; it need not end with a
cycle, as the memory has its own clock. The simulator (``hardware/simulator/winocnn.py``) executes
the same machine with real values.

Source: the concurrent processes and loop bounds of the published design
(github.com/xliu0709/WinoCNN); where its host software and its buffers disagree, the buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from edgecompress.hardware.models._winograd import (
    Descriptor,
    Parameters,
    Shape,
    WeightRate,
    describe,
    output_row_words,
)
from edgecompress.hardware.models._winograd_published import Cycles, published_cycles
from edgecompress.hardware.timeline import ratio_up


@lru_cache(maxsize=65536)
def call_cycles(
    shape: Shape, kernel_rows: int, p: Parameters, share: float, rate: WeightRate
) -> Cycles:
    """Cycles of one call; ``share`` is that of a port's cycles that move data."""
    if not p.bound_rows_by_output:
        return published_cycles(shape, kernel_rows, p, share, rate)
    d = describe(shape, kernel_rows, p, rate)
    return _machine_cycles(_Rows(shape, d, p, share), rate, kernel_rows)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the row steps of a call move.

    Attributes:
        shape, d, p: The call.
        share: Of a port's cycles, what moves data.
    """

    shape: Shape
    d: Descriptor
    p: Parameters
    share: float

    def cycles(self, words: int) -> float:
        """Cycles of a transfer of one port."""
        return words / self.share

    @property
    def computed(self) -> int:
        """Output rows before the stride leaves some out."""
        return self.shape.out_height * self.shape.stride_height

    @property
    def steps(self) -> int:
        """Row steps."""
        return ratio_up(self.computed, self.d.row_step)

    def held(self, step: int) -> int:
        """Input rows that must have come in before that step, the first being 0."""
        below = (step + 1) * self.d.row_step + self.shape.span_height - 1 - self.shape.pad_top
        return max(0, min(self.shape.in_height, below))

    def load(self, rows: int) -> float:
        """Cycles of each input port for so many rows."""
        words = 2 * ratio_up(rows, 2 * self.p.input_ports) * self.d.input_row_words
        return self.cycles(words)

    def kept(self, step: int) -> int:
        """Output rows of that step that leave."""
        stride = self.shape.stride_height
        end = min(self.computed, (step + 1) * self.d.row_step)
        return ratio_up(end, stride) - ratio_up(step * self.d.row_step, stride)

    def store(self, rows: int) -> float:
        """Cycles of the busiest output port for so many rows."""
        return self.cycles(
            ratio_up(rows, self.p.output_ports) * output_row_words(self.shape, self.p)
        )

    def transfers(self) -> Iterator[tuple[int, int, int]]:
        """(how many steps in a row, input rows that come in, output rows that leave)."""
        regular = self.d.row_step % self.shape.stride_height == 0
        step, last = 0, self.steps - 1
        while step <= last:
            incoming = self.held(step + 1) - self.held(step) if step < last else 0
            leaving = self.kept(step - 1) if step else 0
            count = 1
            if regular and 0 < step < last:
                count = self._alike(step, last, incoming)
            yield count, incoming, leaving
            step += count

    def _alike(self, step: int, last: int, incoming: int) -> int:
        """Steps from this one on, before the last, that load the same number of rows."""
        if incoming == 0:
            return last - step
        if incoming < self.d.row_step:
            return 1
        beyond = self.shape.in_height - self.held(step)
        return max(1, min(last - step, beyond // self.d.row_step))


def _machine_cycles(rows: _Rows, rate: WeightRate, kernel_rows: int) -> Cycles:
    """Cycles of a call, with its row steps in runs of equal ones."""
    d, p = rows.d, rows.p
    loads = d.passes * d.weight_loads
    sweep = d.fi * d.tile_rows * d.tile_columns * rate.sweep_passes(d.fo, kernel_rows, p)
    burst_port = rows.cycles(d.port_burst_words)
    burst = max(burst_port, d.decode_cycles)
    paced = max(sweep, burst)
    filling = d.passes * p.fill_cycles
    steps = rows.steps
    first, final = rows.load(rows.held(0)), rows.store(rows.kept(steps - 1))
    inside = loaded = stored = 0.0
    place = 0
    for count, incoming, leaving in rows.transfers():
        place += count
        missing = place == steps  # the last step of the call prefetches one load less
        busy = loads * paced - (paced - sweep if missing else 0)
        weights = (loads - missing) * burst_port
        load, store = rows.load(incoming) + weights, rows.store(leaving) + weights
        inside += count * max(busy + filling, load, store)
        loaded += count * load
        stored += count * store
    ends = first + burst + final
    last_row = rows.held(steps - 1)
    return Cycles(
        compute=steps * loads * paced - (paced - sweep),
        load=loaded + first + burst_port,
        store=stored + final,
        decode=steps * loads * d.decode_cycles,
        fill=steps * filling + ends,
        total=inside + ends,
        weight_words=p.weight_ports * steps * loads * d.port_burst_words,
        activation_words=last_row * d.input_row_words
        + rows.shape.out_height * output_row_words(rows.shape, p),
        swept=steps * loads * sweep,
        fed=steps * d.passes * d.input_feed_cycles,
    )
