"""What is packed comes back, at every length, for every grid and any levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.grids import GRIDS
from edgecompress.quantizers._packing import Plane, byte_count, pack_codes, unpack_codes

LEVELS = st.lists(st.integers(-128, 127), min_size=2, max_size=256, unique=True).map(
    lambda levels: tuple(sorted(levels))
)


@pytest.mark.parametrize("name", GRIDS)
@given(data=st.data())
def test_codes_come_back(name: str, data: st.DataObject) -> None:
    grid = GRIDS[name]
    length = data.draw(st.integers(0, 67))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = rng.choice(grid.codes, length)
    packed = pack_codes(codes, grid)
    assert np.array_equal(unpack_codes(packed, grid, length), codes)
    assert sum(part.size for part in packed) == byte_count(length, grid)


@given(levels=LEVELS, length=st.integers(0, 41), seed=st.integers(0, 2**32 - 1))
def test_any_levels_come_back(levels: tuple[int, ...], length: int, seed: int) -> None:
    plane = Plane(levels)
    values = np.random.default_rng(seed).choice(np.array(levels, np.int8), length)
    assert np.array_equal(plane.unpack(plane.pack(values), length), values)


@given(levels=LEVELS)
def test_rows_of_the_table_are_distinct_and_are_packed_to_their_number(
    levels: tuple[int, ...],
) -> None:
    plane = Plane(levels)
    packed = plane.pack(plane.table)
    assert np.array_equal(packed, np.arange(len(plane.table)))


@pytest.mark.parametrize("name", GRIDS)
def test_shape_does_not_matter_but_order_does(name: str) -> None:
    grid = GRIDS[name]
    codes = np.random.default_rng(0).choice(grid.codes, (7, 3, 3))
    flat = pack_codes(codes.reshape(-1), grid)
    for a, b in zip(pack_codes(codes, grid), flat, strict=True):
        assert np.array_equal(a, b)
    turned = np.ascontiguousarray(codes.transpose(2, 0, 1))
    back = unpack_codes(pack_codes(turned, grid), grid, codes.size)
    assert np.array_equal(back.reshape(turned.shape), turned)
