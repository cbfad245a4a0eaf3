"""Promises of every decomposition format, checked with an independent convolution."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.layers import Layer
from edgecompress.core.stages import Conv, Embedding, MatMul, Permute, Recurrent, Reshape, Stage
from edgecompress.core.tensors import Dense
from edgecompress.formats import FORMATS
from edgecompress.formats.base import Format, Moments

ROUNDING = 2e-5
"""float32 weights, outputs of order 1 to 10."""


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _conv(
    shape: tuple[int, ...],
    *,
    group: int = 1,
    stride: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    size: tuple[int, ...] | None = None,
    transposed: bool = False,
) -> Layer:
    axes = len(shape) - 2
    stage = Conv(
        weight=Dense(_rng(1).normal(size=shape).astype(np.float32)),
        stride=stride or (1,) * axes,
        pads=pads or (0,) * (2 * axes),
        dilation=dilation or (1,) * axes,
        group=group,
        transposed=transposed,
    )
    sizes = size or (9, 8, 7)[:axes]
    return Layer(
        name="conv",
        stage=stage,
        bias=None,
        input_shape=(2, shape[1] * group, *sizes),
        output_shape=(2, shape[0], *(None,) * axes),
        macs=None,
    )


def _matmul(out: int, inner: int, lead: tuple[int, ...] = (3,)) -> Layer:
    weight = Dense(_rng(2).normal(size=(out, inner)).astype(np.float32))
    return Layer(
        name="matmul",
        stage=MatMul(weight=weight),
        bias=None,
        input_shape=(*lead, inner),
        output_shape=(*lead, out),
        macs=None,
    )


LAYERS = {
    "3x3": _conv((6, 5, 3, 3), pads=(1, 1, 1, 1)),
    "asymmetric pads": _conv((4, 6, 3, 2), pads=(2, 0, 1, 1)),
    "strided": _conv((5, 4, 3, 3), stride=(2, 3), pads=(1, 0, 1, 1)),
    "dilated": _conv((5, 4, 3, 2), dilation=(2, 3), pads=(2, 1, 0, 3)),
    "grouped": _conv((8, 3, 3, 3), group=2, pads=(1, 1, 1, 1), stride=(1, 2)),
    "grouped pointwise": _conv((6, 2, 1, 1), group=3),
    "strided pointwise": _conv((6, 4, 1, 1), stride=(2, 2), pads=(1, 0, 0, 1)),
    "one axis": _conv((6, 4, 3), pads=(1, 1), stride=(2,)),
    "three axes": _conv((4, 3, 2, 3, 2), size=(4, 5, 4), pads=(1, 0, 1, 0, 1, 0)),
    "one input": _conv((6, 1, 5, 5), pads=(2, 2, 2, 2)),
    "one output": _conv((1, 4, 3, 3)),
    "matrix": _matmul(12, 18),
    "matrix of a sequence": _matmul(10, 8, (2, 3)),
    "row vector": _matmul(1, 6),
}


def _convolve(x: np.ndarray, stage: Conv) -> np.ndarray:
    """A convolution by its definition, one kernel tap at a time."""
    weight = stage.weight.to_dense().astype(np.float64)
    axes = weight.ndim - 2
    padded = np.pad(
        x, [(0, 0), (0, 0), *((stage.pads[a], stage.pads[a + axes]) for a in range(axes))]
    )
    reach = [d * (k - 1) + 1 for d, k in zip(stage.dilation, weight.shape[2:], strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, stage.stride, strict=True)]
    result = np.zeros((len(x), weight.shape[0], *out))
    rows, columns = weight.shape[0] // stage.group, weight.shape[1]
    for g in range(stage.group):
        mine = slice(g * rows, (g + 1) * rows)
        for tap in product(*(range(k) for k in weight.shape[2:])):
            window = tuple(
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(tap, stage.dilation, stage.stride, out, strict=True)
            )
            part = padded[(slice(None), slice(g * columns, (g + 1) * columns), *window)]
            kernel = weight[(mine, slice(None), *tap)]
            result[:, mine] += np.einsum("oi,ni...->no...", kernel, part)
    return result


def _run(stages: tuple[Stage, ...], x: np.ndarray) -> np.ndarray:
    for stage in stages:
        match stage:
            case Conv():
                x = _convolve(x, stage)
            case MatMul(weight=weight):
                x = x @ weight.to_dense().astype(np.float64).T
            case Reshape(shape=shape):
                x = x.reshape([x.shape[a] if n == 0 else n for a, n in enumerate(shape)])
            case Permute(axes=axes):
                x = x.transpose(axes)
            case Embedding() | Recurrent():
                raise AssertionError("no format makes these")
    return x


def _cases() -> list[tuple[str, str]]:
    return [
        (name, key)
        for name in FORMATS.names()
        for key, layer in LAYERS.items()
        if FORMATS.get(name).why_not(layer) is None
    ]


def _error(form: Format, layer: Layer, stages: tuple[Stage, ...]) -> float:
    dense = layer.stage.weight.to_dense().astype(np.float64)
    return float(np.linalg.norm(form.compose(layer, stages) - dense) / np.linalg.norm(dense))


def _lower(largest: tuple[int, ...]) -> list[tuple[int, ...]]:
    shares = (1.0, 0.75, 0.5, 0.25, 0.0)
    return list(dict.fromkeys(tuple(max(1, int(s * m)) for m in largest) for s in shares))


def _moments(layer: Layer, count: int = 4000) -> Moments:
    """Of correlated inputs whose outputs are exactly the layer's."""
    weight = layer.stage.weight.to_dense().astype(np.float64)
    groups = layer.stage.group if isinstance(layer.stage, Conv) else 1
    rows = weight.reshape(groups, len(weight) // groups, -1)
    columns = rows.shape[2]
    mixing = _rng(3).normal(size=(groups, columns, columns)) * np.linspace(2, 0.1, columns)
    x = _rng(4).normal(size=(groups, count, columns)) @ mixing.transpose(0, 2, 1)
    y = x @ rows.transpose(0, 2, 1)
    return Moments(
        covariance=x.transpose(0, 2, 1) @ x / count,
        cross=y.transpose(0, 2, 1) @ x / count,
        energy=float(np.square(y).sum() / count),
        input_mean=np.zeros((groups, columns)),
        output_mean=np.zeros(len(weight)),
        count=count,
    )


def _output_error(form: Format, layer: Layer, stages: tuple[Stage, ...], m: Moments) -> float:
    rows = form.compose(layer, stages).reshape(m.cross.shape)
    loss = np.vdot(rows @ m.covariance - 2 * m.cross, rows) + m.energy
    return float(np.sqrt(max(loss, 0.0) / m.energy))


@pytest.mark.parametrize(("name", "key"), _cases())
def test_exact_at_max_ranks(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    stages = form.decompose(layer, form.max_ranks(layer))
    assert _error(form, layer, stages) < 1e-6
    x = _rng().normal(size=layer.input_shape)
    expected = _run((layer.stage,), x)
    np.testing.assert_allclose(_run(stages, x), expected, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize(("name", "key"), _cases())
def test_chain_computes_what_compose_says(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    stages = form.decompose(layer, _lower(form.max_ranks(layer))[-1])
    rebuilt = form.compose(layer, stages).astype(np.float32)
    dense = (
        MatMul(weight=Dense(rebuilt))
        if isinstance(layer.stage, MatMul)
        else Conv(
            weight=Dense(rebuilt),
            stride=layer.stage.stride,
            pads=layer.stage.pads,
            dilation=layer.stage.dilation,
            group=layer.stage.group,
        )
    )
    x = _rng().normal(size=layer.input_shape)
    np.testing.assert_allclose(_run(stages, x), _run((dense,), x), atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize(("name", "key"), _cases())
def test_error_does_not_rise_with_rank(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    ranks = _lower(form.max_ranks(layer))
    errors = [_error(form, layer, form.decompose(layer, each)) for each in ranks]
    slack = 0.02 if name == "cp" else 1e-6  # alternating least squares may stop early
    assert all(a <= b + slack for a, b in pairwise(errors)), errors


@pytest.mark.parametrize(("name", "key"), _cases())
def test_data_do_not_raise_the_output_error(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    moments = _moments(layer)
    for ranks in _lower(form.max_ranks(layer)):
        plain = _output_error(form, layer, form.decompose(layer, ranks), moments)
        aware = _output_error(form, layer, form.decompose(layer, ranks, moments), moments)
        assert aware <= plain * 1.01 + 1e-3, (ranks, aware, plain)


@pytest.mark.parametrize(("name", "key"), _cases())
def test_counts_are_those_of_the_stages(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    for ranks in _lower(form.max_ranks(layer)):
        stages = form.decompose(layer, ranks)
        weights = [s.weight.shape for s in stages if isinstance(s, Conv | MatMul)]
        assert form.parameters(layer, ranks) == sum(prod(shape) for shape in weights)
        outline = form.outline(layer, ranks)
        assert [type(s) for s in outline] == [type(s) for s in stages]
        assert [s.weight.shape for s in outline if isinstance(s, Conv | MatMul)] == weights
        x, macs = np.zeros(layer.input_shape), 0
        for stage in stages:
            x = _run((stage,), x)
            if isinstance(stage, Conv):
                macs += prod(stage.weight.shape) * x.shape[0] * prod(x.shape[2:])
            elif isinstance(stage, MatMul):
                macs += prod(stage.weight.shape) * prod(x.shape[:-1])
        assert form.macs(layer, ranks) == macs


@pytest.mark.parametrize(("name", "key"), _cases())
def test_same_answer_twice_and_ranks_as_asked(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    for moments in (None, _moments(layer)):
        ranks = _lower(form.max_ranks(layer))[-1]
        first, second = (form.decompose(layer, ranks, moments) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            if isinstance(a, Conv | MatMul) and isinstance(b, Conv | MatMul):
                assert a.weight.to_dense().dtype == np.float32
                np.testing.assert_array_equal(a.weight.to_dense(), b.weight.to_dense())


@pytest.mark.parametrize(("name", "key"), _cases())
def test_ranks_out_of_range_are_refused(name: str, key: str) -> None:
    form, layer = FORMATS.get(name), LAYERS[key]
    largest = form.max_ranks(layer)
    for ranks in ((0,) * len(largest), tuple(m + 1 for m in largest), (*largest, 1)):
        with pytest.raises(ValueError, match="ranks"):
            form.decompose(layer, ranks)


@pytest.mark.parametrize("name", FORMATS.names())
def test_few_samples_and_dead_inputs_give_finite_weights(name: str) -> None:
    form = FORMATS.get(name)
    for layer in LAYERS.values():
        if form.why_not(layer) is not None:
            continue
        few = _moments(layer, count=3)
        dead = Moments(
            covariance=np.zeros_like(few.covariance),
            cross=np.zeros_like(few.cross),
            energy=0.0,
            input_mean=few.input_mean,
            output_mean=few.output_mean,
            count=3,
        )
        for moments in (few, dead):
            stages = form.decompose(layer, form.max_ranks(layer), moments)
            assert np.isfinite(form.compose(layer, stages)).all()


@pytest.mark.parametrize("name", FORMATS.names())
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (_conv((6, 1, 3, 3), group=6), "depthwise"),
        (_conv((4, 6, 3, 3), transposed=True), "transposed"),
    ],
    ids=["depthwise", "transposed"],
)
def test_refuses_with_a_reason(name: str, layer: Layer, reason: str) -> None:
    assert reason in (FORMATS.get(name).why_not(layer) or "")


@pytest.mark.parametrize("name", FORMATS.names())
def test_refuses_what_is_not_a_product(name: str) -> None:
    table = Layer(
        name="table",
        stage=Embedding(weight=Dense(np.zeros((8, 4), np.float32))),
        bias=None,
        input_shape=(2,),
        output_shape=(2, 4),
        macs=None,
    )
    assert FORMATS.get(name).why_not(table) == "not a convolution or a matrix product"


@pytest.mark.parametrize("name", FORMATS.names())
def test_every_layer_has_a_format_or_a_reason(name: str) -> None:
    for layer in LAYERS.values():
        reason = FORMATS.get(name).why_not(layer)
        assert reason is None or len(reason) > 5


def test_listing_imports_no_format() -> None:
    code = (
        "import sys; from edgecompress.formats import FORMATS; names = FORMATS.names();"
        "print(*names); print('numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, numpy_loaded = run.stdout.splitlines()
    assert names.split() == ["channel", "cp", "spatial", "svd", "tt", "tucker2"]
    assert numpy_loaded == "False"


def test_unknown_format() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"unknown format 'svdd' \(one of channel, cp,"):
        FORMATS.get("svdd")
