"""Quantizers on any weight: rank one, zeros, single entries, any magnitude."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.core.arrays import FloatArray
from edgecompress.core.grids import GRIDS
from edgecompress.quantizers import QUANTIZERS
from edgecompress.quantizers.base import Moments, nearest_codes
from tests.strategies import weights


@pytest.mark.parametrize("name", QUANTIZERS.names())
@given(weight=weights(ndim=3), grid=st.sampled_from(sorted(GRIDS)), seed=st.integers(0, 99))
def test_never_worse_than_no_weight(name: str, weight: FloatArray, grid: str, seed: int) -> None:
    """The driven scale is the least-squares one, so the error is below that of zeros."""
    groups, _, columns = weight.shape
    inputs = np.random.default_rng(seed).normal(size=(groups, columns + 20, columns))
    gram = np.swapaxes(inputs, 1, 2) @ inputs / inputs.shape[1]
    moments = Moments(gram=gram, cross=weight @ gram, count=inputs.shape[1])
    found = QUANTIZERS.get(name).quantize(weight, GRIDS[grid], moments=moments, per_channel=True)
    metric = gram if name == "hessian" else np.broadcast_to(np.eye(columns), gram.shape)
    error = found.to_dense() - weight
    loss = np.einsum("grk,gkl,grl->gr", error, metric, error)
    power = np.einsum("grk,gkl,grl->gr", weight, metric, weight)
    assert (loss <= power * (1 + 1e-9)).all()


@given(
    values=weights(ndim=1, largest=30),
    grid=st.sampled_from(sorted(GRIDS)),
    scale=st.floats(1e-3, 1e3),
)
def test_nearest_codes_are_the_nearest(values: FloatArray, grid: str, scale: float) -> None:
    found = nearest_codes(values, np.array(scale), GRIDS[grid])
    distances = np.abs(values[:, None] - scale * GRIDS[grid].codes.astype(np.float64))
    chosen = np.abs(values - scale * found)
    np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-9, atol=1e-12 * scale)
