"""Winograd transforms: exact in integers, the published matrices, one input transform a tile."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.winograd import OMEGAS, transformed_kernels, transforms, zero_share

CASES = [(omega, kernel) for omega in OMEGAS for kernel in range(1, omega)]


def correlation(tile: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The definition, in Python integers."""
    side, taps = len(tile), len(kernel)
    size = side + 1 - taps
    return np.array(
        [
            [
                sum(
                    int(tile[y + i, x + j]) * int(kernel[i, j])
                    for i in range(taps)
                    for j in range(taps)
                )
                for x in range(size)
            ]
            for y in range(size)
        ],
        dtype=object,
    )


@pytest.mark.parametrize(("omega", "kernel"), CASES)
def test_exact_in_integers(omega: int, kernel: int) -> None:
    rng = np.random.default_rng(omega * 10 + kernel)
    t = transforms(omega, kernel)
    for _ in range(20):
        tile = rng.integers(-128, 128, (omega, omega))
        weights = rng.integers(-128, 128, (kernel, kernel))
        product = (t.kernel @ weights @ t.kernel.T) * (t.input @ tile @ t.input.T)
        found = t.output @ product @ t.output.T
        assert (found == t.kernel_scale**2 * correlation(tile, weights)).all()


@pytest.mark.parametrize(("omega", "kernel"), CASES)
def test_identity_holds_for_every_tile(omega: int, kernel: int) -> None:
    """In one dimension, on all unit tiles and kernels, in fractions: the whole bilinear form."""
    t = transforms(omega, kernel)
    for place in range(omega):
        for tap in range(kernel):
            column = [Fraction(int(v), t.kernel_scale) for v in t.kernel[:, tap]]
            product = [g * int(b) for g, b in zip(column, t.input[:, place], strict=True)]
            found = [sum(int(a) * v for a, v in zip(row, product, strict=True)) for row in t.output]
            assert found == [Fraction(int(place == y + tap)) for y in range(len(t.output))]


@pytest.mark.parametrize("omega", OMEGAS)
def test_kernels_of_a_tile_share_the_input_transform(omega: int) -> None:
    first = transforms(omega, 1).input
    for kernel in range(2, omega):
        assert (transforms(omega, kernel).input == first).all()


def test_matrices_of_the_published_tile_of_six() -> None:
    """Truth: B^T, 24 G and A^T of F(4x4, 3x3), Lavin and Gray 2016, section 4.3.

    Their rows of +-1/24 and +-1/12 are ours up to the order of the points 2 and -2.
    """
    t = transforms(6, 3)
    assert t.kernel_scale == 24
    assert t.input.tolist() == [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    assert t.kernel.tolist() == [
        [6, 0, 0],
        [-4, -4, -4],
        [-4, 4, -4],
        [1, 2, 4],
        [1, -2, 4],
        [0, 0, 24],
    ]
    assert t.output.tolist() == [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]


@pytest.mark.parametrize(("omega", "kernel"), [(5, 3), (4, 4), (6, 0), (8, 9)])
def test_what_there_is_no_transform_for(omega: int, kernel: int) -> None:
    with pytest.raises(ValueError, match="Winograd tile"):
        transforms(omega, kernel)


def test_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        transforms(4, 3).input[0, 0] = 5


def test_zero_shares_of_known_kernels() -> None:
    """Truth: by hand. A kernel with only the centre tap has rows 0 and omega - 1 of G empty."""
    assert zero_share(np.zeros((2, 3, 3, 3), dtype=np.int64), 4) == 1.0
    centre = np.zeros((1, 1, 3, 3), dtype=np.int64)
    centre[0, 0, 1, 1] = 7
    assert zero_share(centre, 4) == 1 - 4 / 16
    assert zero_share(centre, 6) == 1 - 16 / 36
    assert zero_share(centre, 8) == 1 - 36 / 64
    assert zero_share(np.ones((1, 1, 1, 1), dtype=np.int64), 6) == 0.0
    assert zero_share(np.zeros((0, 3, 3, 3), dtype=np.int64), 4) == 0.0


@given(
    omega=st.sampled_from(OMEGAS),
    kernel=st.sampled_from([1, 3]),
    levels=st.sampled_from([1, 3, 127]),
    seed=st.integers(0, 2**32 - 1),
)
def test_zero_share_counts_the_transformed_weights(
    omega: int, kernel: int, levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-levels, levels + 1, (5, 3, kernel, kernel))
    domain = transformed_kernels(weights, omega)
    assert domain.shape == (5, 3, omega, omega)
    spread = transforms(omega, kernel).kernel
    assert (domain[4, 2] == spread @ weights[4, 2] @ spread.T).all()
    assert zero_share(weights, omega) == pytest.approx(float((domain == 0).mean()), abs=1e-12)


def test_kernels_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match="square kernels"):
        zero_share(np.zeros((2, 2, 1, 3), dtype=np.int64), 4)
