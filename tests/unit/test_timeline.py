"""The double-buffered schedule against a machine that is stepped cycle by cycle, and energy."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.work import MatMulWork, Work
from edgecompress.hardware.cost import cost
from edgecompress.hardware.target import Energy, load_target
from edgecompress.hardware.timeline import Tile, play

CYCLES = st.integers(0, 9)
TILES = st.lists(
    st.tuples(st.integers(0, 4), st.builds(Tile, CYCLES, CYCLES, CYCLES, CYCLES)), max_size=5
)


def stepped(tiles: list[Tile], *, shared_port: bool) -> int:
    """Cycles of a machine with counters that are decremented until a swap is due."""
    now = 0
    for swap in range(-1, len(tiles) + 1):
        load = tiles[swap + 1].load if swap + 1 < len(tiles) else 0
        decode = tiles[swap + 1].decode if swap + 1 < len(tiles) else 0
        compute = tiles[swap].compute if 0 <= swap < len(tiles) else 0
        store = tiles[swap - 1].store if 1 <= swap <= len(tiles) else 0
        left = {"load": load, "decode": decode, "compute": compute, "store": store}
        while any(left.values()):
            now += 1
            for unit in ("decode", "compute"):
                left[unit] = max(0, left[unit] - 1)
            if shared_port:
                port = "load" if left["load"] else "store"
                left[port] = max(0, left[port] - 1)
            else:
                for port in ("load", "store"):
                    left[port] = max(0, left[port] - 1)
    return now


@given(tiles=TILES, shared_port=st.booleans())
def test_the_closed_form_is_what_the_machine_takes(
    tiles: list[tuple[int, Tile]], shared_port: bool
) -> None:
    each = [tile for count, tile in tiles for _ in range(count)]
    assert play(tiles, shared_port=shared_port).total == stepped(each, shared_port=shared_port)


def test_one_tile_overlaps_with_nothing() -> None:
    played = play([(1, Tile(load=5, compute=7, store=3, decode=2))], shared_port=True)
    assert (played.total, played.fill) == (15, 8)


def test_energy_by_hand() -> None:
    energy = Energy(
        mac_pj={"8x2": 0.1, "8x8": 0.2, "16x16": 1.0},
        on_chip_pj_per_byte=0.0,
        dram_pj_per_byte=100.0,
        static_w=2.0,
    )
    target = dataclasses.replace(load_target("roofline-generic"), energy=energy)
    product = MatMulWork(
        count=1, rows=10, inner=20, columns=30, constant=True, weight_bits=4, activation_bits=8
    )
    work = Work(name="", op_type="", operator=product, input_bits=0, output_bits=0)
    found = cost(work, target)
    moved = 10 * 20 + 20 * 30 / 2 + 10 * 30
    expected = 6000 * 0.2 + moved * 100 + 2e12 * found.latency_s
    assert found.energy_pj == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bits", "pj"), [((8, 2), 0.1), ((8, 3), 0.2), ((4, 2), 0.1), ((9, 2), 1.0), ((32, 32), 1.0)]
)
def test_the_narrowest_multiplier_that_holds_both_widths(bits: tuple[int, int], pj: float) -> None:
    energy = Energy(
        mac_pj={"16x16": 1.0, "8x2": 0.1, "8x8": 0.2}, on_chip_pj_per_byte=0, dram_pj_per_byte=0
    )
    assert energy.mac_energy_pj(*bits) == pj
