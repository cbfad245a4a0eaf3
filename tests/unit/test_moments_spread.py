"""Second moments where the mean is far larger than the spread about it."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.core.grids import GRIDS
from edgecompress.core.layers import Layer
from edgecompress.core.stages import MatMul
from edgecompress.core.tensors import Dense
from edgecompress.pipeline.calibration import measure_moments
from edgecompress.pipeline.moments import gather_moments
from edgecompress.quantizers import QUANTIZERS

COLUMNS, ROWS, SAMPLES = 48, 8, 600


def layer_and_data() -> tuple[Layer, np.ndarray, np.ndarray]:
    """A matrix product whose inputs are 1 with a spread of 3e-4, as after global pooling."""
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    mixing = rng.standard_normal((COLUMNS, COLUMNS)) / np.sqrt(COLUMNS)
    inputs = 1 + 3e-4 * rng.standard_normal((SAMPLES, COLUMNS)) @ mixing
    x = inputs.astype(np.float32)
    layer = Layer(
        name="head",
        stage=MatMul(weight=Dense(weight)),
        bias=None,
        input_shape=(None, COLUMNS),
        output_shape=(None, ROWS),
        macs=ROWS * COLUMNS,
    )
    return layer, x, (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("of", ["quantizers", "formats"])
def test_covariance_of_inputs_that_hardly_vary(of: str) -> None:
    layer, x, y = layer_and_data()
    if of == "quantizers":
        rng = np.random.default_rng(0)
        moments = measure_moments(layer, [x], [y], rng, centred=True)
        assert moments is not None
        found, cross = moments.gram[0], moments.cross[0]
    else:
        gathered = gather_moments(layer, [x], [y], 0)
        assert gathered is not None
        found, cross = gathered.covariance[0], gathered.cross[0]
        np.testing.assert_allclose(gathered.input_mean[0], x.mean(axis=0, dtype=np.float64))
        np.testing.assert_allclose(gathered.output_mean, y.mean(axis=0, dtype=np.float64))
    wide_x, wide_y = (v.astype(np.float64) - v.mean(axis=0, dtype=np.float64) for v in (x, y))
    wanted = wide_x.T @ wide_x / SAMPLES
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    wanted = wide_y.T @ wide_x / SAMPLES
    assert np.abs(cross - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("grid", ["ternary", "4"])
def test_a_layer_on_such_data_is_quantized(grid: str) -> None:
    layer, x, y = layer_and_data()
    moments = measure_moments(layer, [x], [y], np.random.default_rng(0), centred=True)
    weight = layer.stage.weight.to_dense()[None].astype(np.float64)
    rows = QUANTIZERS.get("hessian").quantize(
        weight, GRIDS[grid], moments=moments, per_channel=True
    )
    assert np.isfinite(rows.to_dense()).all()
