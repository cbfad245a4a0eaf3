"""Radix bytes: digits worked out by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.core.grids import GRIDS
from edgecompress.quantizers._packing import Plane, byte_count, pack_codes, planes_of, unpack_codes


def test_trits_are_base_three_digits_least_significant_first() -> None:
    # digits 2 1 0 0 2 -> 2 + 1*3 + 0*9 + 0*27 + 2*81 = 167; then one trit 0 and four fillers 0
    codes = np.array([1, 0, -1, -1, 1, -1], np.int8)
    (packed,) = pack_codes(codes, GRIDS["ternary"])
    assert packed.tolist() == [167, 0]


def test_four_bit_codes_are_nibbles_low_first() -> None:
    # -15 is level 0, 15 level 15, -13 level 1: 0 + 16*15 = 240, 1
    (packed,) = pack_codes(np.array([-15, 15, -13], np.int8), GRIDS["4"])
    assert packed.tolist() == [240, 1]


def test_three_bit_codes_are_low_bits_and_signs() -> None:
    # -7 = 1 - 8, -1 = 7 - 8, 1, 5: low digits 0 3 0 2 = 0 + 12 + 0 + 128; signs rise from -8 to 0,
    # so a negative code is digit 0: digits 0 0 1 1 = 12.
    low, sign = pack_codes(np.array([-7, -1, 1, 5], np.int8), GRIDS["3"])
    assert low.tolist() == [140]
    assert sign.tolist() == [12]


def test_eight_bit_codes_are_their_own_bytes() -> None:
    codes = np.array([-127, 0, 127], np.int8)
    (packed,) = pack_codes(codes, GRIDS["8"])
    assert packed.tobytes() == codes.tobytes()
    assert planes_of(GRIDS["8"]) == ()


@pytest.mark.parametrize(
    ("grid", "rate"), [("ternary", 1.6), ("2", 2.0), ("3", 3.0), ("4", 4.0), ("8", 8.0)]
)
def test_bits_per_code(grid: str, rate: float) -> None:
    assert byte_count(4000, GRIDS[grid]) * 8 / 4000 == rate


@pytest.mark.parametrize(
    ("levels", "digits"), [(2, 8), (3, 5), (4, 4), (5, 3), (6, 3), (7, 2), (16, 2), (17, 1)]
)
def test_digits_per_byte(levels: int, digits: int) -> None:
    plane = Plane(tuple(range(levels)))
    assert plane.digits == digits
    assert plane.table.shape == (levels**digits, digits)


def test_table_row_is_what_the_byte_says() -> None:
    assert Plane((-1, 0, 1)).table[167].tolist() == [1, 0, -1, -1, 1]


def test_a_value_off_the_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of the levels"):
        Plane((-1, 0, 1)).pack(np.array([2], np.int8))


@pytest.mark.parametrize("levels", [(0,), (1, 0), (0, 0), (-129, 0), (0, 128)])
def test_levels_that_are_no_int8_row_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising row"):
        Plane(levels)


def test_bytes_that_pack_never_writes_are_refused() -> None:
    with pytest.raises(ValueError, match="digits of base 3"):
        Plane((-1, 0, 1)).unpack(np.array([243], np.uint8), 5)
    with pytest.raises(ValueError, match="digits of base 3"):
        unpack_codes((np.array([1], np.uint8),), GRIDS["ternary"], 6)
