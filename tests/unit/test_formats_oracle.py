"""Formats against tensorly, and against closed forms worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, MatMul
from edgecompress.core.tensors import Dense
from edgecompress.formats import FORMATS
from edgecompress.formats._linalg import truncated_svd
from edgecompress.formats.base import Moments, count_macs, count_parameters

tensorly = pytest.importorskip("tensorly", reason="the test oracle is a development dependency")
from tensorly.decomposition import (  # noqa: E402
    parafac,
    partial_tucker,
    tensor_train_matrix,
)
from tensorly.tenalg import multi_mode_dot  # noqa: E402


def _weight(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=shape)
    for axis in range(len(shape)):
        smooth = np.cumsum(smooth, axis=axis)
    return (smooth / smooth.std()).astype(np.float32)


def _conv(weight: np.ndarray) -> Layer:
    stage = Conv(weight=Dense(weight), stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1))
    shape = (1, weight.shape[1], 8, 8)
    return Layer(
        name="conv", stage=stage, bias=None, input_shape=shape, output_shape=shape, macs=None
    )


def _matmul(weight: np.ndarray) -> Layer:
    return Layer(
        name="matmul",
        stage=MatMul(weight=Dense(weight)),
        bias=None,
        input_shape=(1, weight.shape[1]),
        output_shape=(1, weight.shape[0]),
        macs=None,
    )


def _error(name: str, layer: Layer, ranks: tuple[int, ...]) -> float:
    form = FORMATS.get(name)
    dense = layer.stage.weight.to_dense()
    rebuilt = form.compose(layer, form.decompose(layer, ranks))
    return float(np.linalg.norm(rebuilt - dense) / np.linalg.norm(dense))


@pytest.mark.parametrize("ranks", [(2, 3), (4, 6), (5, 5)])
def test_tucker2_is_as_good_as_tensorly(ranks: tuple[int, int]) -> None:
    weight = _weight((8, 6, 3, 3)).astype(np.float64)
    (core, factors), _ = partial_tucker(
        weight, rank=[ranks[1], ranks[0]], modes=[0, 1], n_iter_max=200, tol=1e-12
    )
    rebuilt = multi_mode_dot(core, factors, modes=[0, 1])
    oracle = np.linalg.norm(rebuilt - weight) / np.linalg.norm(weight)
    assert _error("tucker2", _conv(weight.astype(np.float32)), ranks) <= oracle * 1.01 + 1e-6


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_cp_is_as_good_as_tensorly(rank: int) -> None:
    weight = _weight((8, 6, 3, 3), seed=1)
    found = parafac(
        weight.reshape(8, 6, 9).astype(np.float64), rank, n_iter_max=200, init="svd", tol=1e-9
    )
    rebuilt = tensorly.cp_to_tensor(found)
    oracle = np.linalg.norm(rebuilt - weight.reshape(8, 6, 9)) / np.linalg.norm(weight)
    assert _error("cp", _conv(weight), (rank,)) <= oracle * 1.1 + 1e-4


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_tt_is_as_good_as_tensorly(rank: int) -> None:
    weight = _weight((12, 18), seed=2)  # 12 = 3 x 4, 18 = 3 x 6
    cores = tensor_train_matrix(weight.reshape(3, 4, 3, 6).astype(np.float64), [1, rank, 1])
    oracle = np.linalg.norm(cores.to_matrix() - weight) / np.linalg.norm(weight)
    assert _error("tt", _matmul(weight), (rank,)) == pytest.approx(oracle, rel=1e-4, abs=1e-6)


def test_svd_and_channel_lose_the_cut_singular_values() -> None:
    matrix = _weight((10, 14), seed=3)
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    expected = np.sqrt((values[4:] ** 2).sum() / (values**2).sum())
    assert _error("svd", _matmul(matrix), (4,)) == pytest.approx(expected, rel=1e-4)
    kernel = _weight((7, 5, 3, 3), seed=4)
    values = np.linalg.svd(kernel.reshape(7, 45).astype(np.float64), compute_uv=False)
    expected = np.sqrt((values[3:] ** 2).sum() / (values**2).sum())
    assert _error("channel", _conv(kernel), (3,)) == pytest.approx(expected, rel=1e-4)


def test_spatial_recovers_a_separable_kernel() -> None:
    column, row = np.array([1.0, 2.0, 1.0]), np.array([1.0, 0.0, -1.0])  # Sobel
    kernel = np.outer(column, row)[None, None].astype(np.float32)
    assert _error("spatial", _conv(kernel), (1,)) < 1e-6


def test_data_aware_svd_is_the_projection_on_output_components() -> None:
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(6, 9)).astype(np.float32)
    x = rng.normal(size=(5000, 9)) * np.array([9, 5, 3, 1, 1, 0.3, 0.3, 0.1, 0.1])
    y = x @ weight.T.astype(np.float64)
    moments = Moments(
        covariance=(x.T @ x / 5000)[None],
        cross=(y.T @ x / 5000)[None],
        energy=float(np.square(y).sum() / 5000),
        input_mean=np.zeros((1, 9)),
        output_mean=np.zeros(6),
        count=5000,
    )
    form, layer = FORMATS.get("svd"), _matmul(weight)
    rebuilt = form.compose(layer, form.decompose(layer, (2,), moments))
    variances = np.linalg.eigvalsh(y.T @ y / 5000)[::-1]
    expected = variances[2:].sum() / variances.sum()
    lost = np.square(x @ rebuilt.T - y).sum() / np.square(y).sum()
    assert lost == pytest.approx(expected, rel=1e-2)
    plain = form.compose(layer, form.decompose(layer, (2,)))
    assert lost < np.square(x @ plain.T - y).sum() / np.square(y).sum()


def test_signs_do_not_depend_on_the_library() -> None:
    matrix = _weight((6, 5), seed=6).astype(np.float64)
    u, s, vt = truncated_svd(matrix, 3)
    assert (u[np.abs(u).argmax(axis=0), np.arange(3)] > 0).all()
    np.testing.assert_allclose((u * s) @ vt, (-u * s) @ -vt)
    with pytest.raises(ValueError, match="rank 6"):
        truncated_svd(matrix, 6)


def test_counts_by_hand() -> None:
    # 3x3, 16 to 32 channels, stride 2 on 8x8: 4x4 outputs.
    stage = Conv(
        weight=Dense(np.zeros((32, 16, 3, 3), np.float32)),
        stride=(2, 2),
        pads=(1, 1, 1, 1),
        dilation=(1, 1),
    )
    layer = Layer(
        name="c",
        stage=stage,
        bias=None,
        input_shape=(None, 16, 8, 8),
        output_shape=(None, 32, 4, 4),
        macs=32 * 16 * 9 * 16,
    )
    assert count_macs([stage], layer.input_shape) == 73_728
    spatial, tucker = FORMATS.get("spatial"), FORMATS.get("tucker2")
    assert spatial.parameters(layer, (8,)) == 8 * (3 * 16 + 3 * 32)
    # Column kernel: 4 rows of 8 columns; row kernel: 4x4.
    assert spatial.macs(layer, (8,)) == 8 * 48 * 32 + 8 * 96 * 16
    assert tucker.parameters(layer, (4, 6)) == 16 * 4 + 4 * 6 * 9 + 6 * 32
    # The first 1x1 runs at the input's 8x8.
    assert tucker.macs(layer, (4, 6)) == 64 * 64 + 216 * 16 + 192 * 16
    assert count_macs([stage], (None, 16, None, 8)) is None
    assert count_parameters([stage]) == 4608


def test_reasons_point_to_the_format_that_works() -> None:
    kernel, pointwise = _conv(_weight((4, 4, 3, 3))), _conv(_weight((4, 4, 1, 1)))
    assert "use channel, spatial or tucker2" in (FORMATS.get("svd").why_not(kernel) or "")
    assert "use svd" in (FORMATS.get("channel").why_not(pointwise) or "")
    assert "tucker2" in (FORMATS.get("tt").why_not(kernel) or "")
    assert "no two axes" in (FORMATS.get("spatial").why_not(_conv(_weight((4, 4, 1, 3)))) or "")
    assert "neither size" in (FORMATS.get("tt").why_not(_matmul(_weight((7, 5)))) or "")
