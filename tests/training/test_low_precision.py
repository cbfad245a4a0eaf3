"""Layers on codes: the float simulation against a computation on integers, bit for bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecompress.core.arrays import Array
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.training import PrecisionOptions
from edgecompress.training.factorized import load_format
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.layers import TensorizedConv2d, TensorizedEmbedding, TensorizedLinear
from edgecompress.training.low_precision import apply_precision, bake_precision
from edgecompress.training.low_precision.layer import RoundedConv2d, RoundedLinear
from edgecompress.training.low_precision.rounding import (
    Rounder,
    fitting_exponent,
    largest_code,
    stream,
)

OPTIONS = PrecisionOptions()


@dataclass(frozen=True)
class Codes:
    """int64 codes times 2^exponent: what the reference computes on."""

    codes: Array
    exponent: int

    @property
    def values(self) -> Array:
        return self.codes.astype(np.float64) * 2.0**self.exponent


def shifted(codes: Array, places: int) -> Array:
    """codes / 2^places, ties to even, in integers."""
    if places <= 0:
        return codes << -places
    quotient, rest = codes >> places, codes & ((1 << places) - 1)
    half = 1 << (places - 1)
    up = (rest > half) | ((rest == half) & (quotient % 2 == 1))
    return quotient + up


def narrowed(wide: Codes, bits: int) -> Codes:
    """Requantization: the least shift after which the largest code fits."""
    largest, limit = int(np.abs(wide.codes).max()), 2 ** (bits - 1) - 1
    if largest == 0:
        return Codes(wide.codes, 0)
    places = -60
    while largest > limit << places if places >= 0 else largest << -places > limit:
        places += 1
    codes = np.clip(shifted(wide.codes, places), -limit, limit)
    return Codes(codes, wide.exponent + places)


def coded(values: Array, bits: int) -> Codes:
    """Floating values: first exactly to integers of 2^-120, as Python integers."""
    exact = np.vectorize(lambda v: int(float(v) * 2.0**120), otypes=[object])(values)
    limit = 2 ** (bits - 1) - 1
    largest, places = max(abs(int(v)) for v in exact.flat), 0
    if largest == 0:
        return Codes(np.zeros(values.shape, np.int64), 0)
    while largest > limit << places:
        places += 1
    return Codes(shifted(exact, places).astype(np.int64), places - 120)


def product(subscripts: str, *operands: Codes) -> Codes:
    codes = np.einsum(subscripts, *[operand.codes for operand in operands])
    return Codes(codes, sum(operand.exponent for operand in operands))


def with_bias(wide: Codes, bias: Codes) -> Codes:
    assert bias.exponent >= wide.exponent
    return Codes(wide.codes + (bias.codes << (bias.exponent - wide.exponent)), wide.exponent)


def numbers(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * scale


def precise(
    layer: TensorizedLinear, options: PrecisionOptions = OPTIONS
) -> tuple[nn.Sequential, TensorizedLinear]:
    network = nn.Sequential(layer)
    apply_precision(network, options, seed=3)
    return network, layer


def linear(name: str, folding: Folding, ranks: tuple[int, ...]) -> TensorizedLinear:
    factorization = load_format(name)(folding, ranks)
    factorization.reset(0.3, torch.Generator().manual_seed(5))
    return TensorizedLinear(factorization, numbers((folding.shape[0],), 6, 0.2))


def agrees(found: Tensor | None, wanted: Codes) -> None:
    assert found is not None
    np.testing.assert_array_equal(found.detach().double().numpy(), wanted.values)


@pytest.mark.parametrize("factor_bits", [3, 4, 8])
def test_tensor_train_is_integer_true(factor_bits: int) -> None:
    """Truth: int64 codes, shifts and requantization by hand, forward and backward."""
    options = PrecisionOptions(factor_bits=factor_bits)
    _, layer = precise(linear("tt", Folding(rows=(3, 4), columns=(5, 6)), (4, 7, 3)), options)
    x, dy = numbers((9, 30), 1).requires_grad_(), numbers((9, 12), 2, 1e-3)
    y = layer(x)
    y.backward(dy)

    g1, g2, g3, g4 = (
        coded(core.detach().numpy(), factor_bits) for core in layer.factorization.cores
    )
    xq = coded(x.detach().numpy(), 8)
    a = narrowed(product("anr,rms->nms", g1, g2), 8)
    c = narrowed(product("rns,smb->rnm", g3, g4), 8)
    a, c = Codes(a.codes.reshape(30, 7), a.exponent), Codes(c.codes.reshape(7, 12), c.exponent)
    h = narrowed(product("bi,ir->br", xq, a), 8)
    bias = coded(layer.bias.detach().numpy(), 8)  # type: ignore[union-attr]
    agrees(y, narrowed(with_bias(product("br,ro->bo", h, c), bias), 8))

    dq = coded(dy.numpy(), 16)
    dh = narrowed(product("bo,ro->br", dq, c), 16)
    dc = narrowed(product("br,bo->ro", h, dq), 16)
    da = narrowed(product("bi,br->ir", xq, dh), 16)
    agrees(x.grad, narrowed(product("br,ir->bi", dh, a), 16))
    agrees(layer.bias.grad, narrowed(Codes(dq.codes.sum(0), dq.exponent), 16))  # type: ignore[union-attr]
    da = Codes(da.codes.reshape(5, 6, 7), da.exponent)
    dc = Codes(dc.codes.reshape(7, 3, 4), dc.exponent)
    wanted = [
        product("nms,rms->nr", da, g2),
        product("nms,anr->rms", da, g1),
        product("rnm,smb->rns", dc, g4),
        product("rnm,rns->sm", dc, g3),
    ]
    for core, wide in zip(layer.factorization.cores, wanted, strict=True):
        gradient = narrowed(wide, 16)
        agrees(core.grad.reshape(gradient.codes.shape), gradient)  # type: ignore[union-attr]


def test_two_core_matrix_train_is_integer_true() -> None:
    """Truth: the sum of two Kronecker products by hand on int64 codes; last core first."""
    _, layer = precise(linear("ttm", Folding(rows=(6, 2), columns=(3, 5)), (2,)))
    x, dy = numbers((7, 15), 1).requires_grad_(), numbers((7, 12), 2, 1e-2)
    y = layer(x)
    y.backward(dy)

    first, last = (coded(core.detach().numpy(), 4) for core in layer.factorization.cores)
    first = narrowed(Codes(first.codes[0], first.exponent), 8)  # (j1, i1, r)
    last = narrowed(Codes(last.codes[..., 0], last.exponent), 8)  # (r, j2, i2)
    xq = coded(x.detach().numpy().reshape(7, 3, 5), 8)
    inner = narrowed(product("bik,rjk->birj", xq, last), 8)
    bias = coded(layer.bias.detach().numpy().reshape(6, 2), 8)  # type: ignore[union-attr]
    wide = with_bias(product("birj,oir->boj", inner, first), bias)
    wanted = narrowed(wide, 8)
    agrees(y, Codes(wanted.codes.reshape(7, 12), wanted.exponent))

    dq = coded(dy.numpy().reshape(7, 6, 2), 16)
    back = narrowed(product("boj,oir->birj", dq, first), 16)
    dx = narrowed(product("birj,rjk->bik", back, last), 16)
    agrees(x.grad, Codes(dx.codes.reshape(7, 15), dx.exponent))
    db = narrowed(Codes(dq.codes.sum(0), dq.exponent), 16)
    agrees(layer.bias.grad, Codes(db.codes.reshape(12), db.exponent))  # type: ignore[union-attr]
    wanted = [product("boj,birj->oir", dq, inner), product("birj,bik->rjk", back, xq)]
    for core, total in zip(layer.factorization.cores, wanted, strict=True):
        gradient = narrowed(total, 16)
        agrees(core.grad.reshape(gradient.codes.shape), gradient)  # type: ignore[union-attr]
