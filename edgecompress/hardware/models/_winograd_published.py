"""Cycles of one WinoCNN call as the published host software takes them.

Every row step takes the same time, and for inputs that are held completely it is not asked whether
the output buffer holds a row step. `_winograd_machine` has the schedule that keeps to the buffers;
on VGG-16 and the published array the two differ by 0.1 %.

Source: derived from the loop bounds and the host software of the published design
(github.com/xliu0709/WinoCNN); see `_winograd`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.hardware.models._winograd import (
    Parameters,
    Shape,
    WeightRate,
    describe,
    output_row_words,
)
from edgecompress.hardware.timeline import ratio_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """One call: cycles by cause, each as if alone, and in all.

    Attributes:
        compute, load, store: Totals over all row steps; weights are on both kinds of port.
        decode: Of the weight decoder.
        fill: Pipeline fill, first load and last store.
        total: Of the call.
        weight_words, activation_words: Port words that are moved.
        swept, fed: Cycles in which the multipliers have a tile and weights, whether all of them
            have something to do or not, and in which tiles come from the input buffer.
    """

    compute: float
    load: float
    store: float
    decode: float
    fill: float
    total: float
    weight_words: int
    activation_words: int
    swept: int
    fed: int

    def times(self, count: int) -> Cycles:
        """The same calls one after the other."""
        if count == 1:
            return self
        return Cycles(
            compute=self.compute * count,
            load=self.load * count,
            store=self.store * count,
            decode=self.decode * count,
            fill=self.fill * count,
            total=self.total * count,
            weight_words=self.weight_words * count,
            activation_words=self.activation_words * count,
            swept=self.swept * count,
            fed=self.fed * count,
        )


def published_cycles(
    shape: Shape, kernel_rows: int, p: Parameters, share: float, rate: WeightRate
) -> Cycles:
    """Cycles of one call as the published host software takes it; every row step alike.

    Rows of a step that its tiles do not cover are counted in a further step, so that no output
    is left out of the time.
    """
    d = describe(shape, kernel_rows, p, rate)
    tile = p.omega_pixels + 1 - kernel_rows
    covered = min(d.row_step, d.tile_rows * tile)
    steps = ratio_up(shape.out_height * shape.stride_height, covered)
    feed = d.weight_loads * max(d.port_burst_words, d.weight_feed_cycles, d.decode_cycles)
    if p.skips_zero_weights:
        feed = d.weight_loads * max(d.port_burst_words, d.decode_cycles)
    busy = d.passes * max(d.pe_cycles, d.input_feed_cycles, feed)
    filling = d.passes * p.fill_cycles
    weights = d.passes * d.weight_loads * d.port_burst_words
    loaded = 2 * ratio_up(d.row_step, 2 * p.input_ports) * d.input_row_words
    stored = ratio_up(d.row_step, p.output_ports) * output_row_words(shape, p)
    first_rows = min(d.row_step + kernel_rows - 1, shape.in_height)
    first = 2 * ratio_up(first_rows, 2 * p.input_ports) * d.input_row_words
    ends = (first + d.port_burst_words + stored) / share
    longest = max(busy + filling, (loaded + weights) / share, (stored + weights) / share)
    return Cycles(
        compute=steps * busy,
        load=steps * (loaded + weights) / share,
        store=steps * (stored + weights) / share,
        decode=steps * d.passes * d.weight_loads * d.decode_cycles,
        fill=steps * filling + ends,
        total=ends + steps * longest,
        weight_words=p.weight_ports * (steps * weights + d.port_burst_words),
        activation_words=p.input_ports * (first + steps * loaded)
        + p.output_ports * (steps + 1) * stored,
        swept=steps * d.passes * d.pe_cycles,
        fed=steps * d.passes * d.input_feed_cycles,
    )
