"""Layers on codes: the float simulation against a computation on integers, bit for bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import clusters, tensor_train_network

from edgecompress.core.arrays import Array
from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.grids import GRIDS
from edgecompress.core.training import PrecisionOptions, TrainOptions
from edgecompress.quantizers._exact import exact_rows
from edgecompress.training.factorized import format_names, load_format
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.layers import TensorizedConv2d, TensorizedEmbedding, TensorizedLinear
from edgecompress.training.loop import train_network
from edgecompress.training.low_precision import (
    apply_precision,
    bake_precision,
    factor_bits_at,
    use_factor_bits,
)
from edgecompress.training.low_precision.layer import RoundedConv2d, RoundedCores, RoundedLinear
from edgecompress.training.low_precision.nodes import Round
from edgecompress.training.low_precision.rounding import (
    Rounder,
    fitting_exponent,
    largest_code,
    stream,
)
from edgecompress.training.plain import plain_network
from edgecompress.training.progress import RunOptions, TrainingProgress

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


def factor(values: Array, bits: int) -> Codes:
    """The grid of the widest, half and quarter reach with the least square error: odd codes of 3
    and 4 bits, to 7 and to 15; whole codes of more, to 15, 31, 63 and 127."""
    limit = {3: 7, 4: 15, 5: 15, 6: 31, 7: 63, 8: 127}[bits]
    widest = int(np.ceil(np.log2(np.abs(values).max().astype(np.float64) / limit)))
    tries = []
    for exponent in (widest, widest - 1, widest - 2):
        units = values.astype(np.float64) / 2.0**exponent
        codes = 2 * np.floor(units / 2) + 1 if bits < 5 else np.rint(units)
        tries.append(Codes(codes.clip(-limit, limit).astype(np.int64), exponent))
    return min(tries, key=lambda t: float(np.square(t.values - values).sum()))


def passed(wide: Codes, core: Tensor, rounded: Codes, bits: int) -> Codes:
    """The gradient of a factor without what would move a value that was cut off further out."""
    values = core.detach().double().numpy().reshape(wide.codes.shape)
    end = {3: 8, 4: 16, 8: 127.5}[bits]
    inside = np.abs(values) <= end * 2.0**rounded.exponent
    return Codes(np.where(inside | (wide.codes * values > 0), wide.codes, 0), wide.exponent)


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
        factor(core.detach().numpy(), factor_bits) for core in layer.factorization.cores
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
    for core, rounded, wide in zip(
        layer.factorization.cores, (g1, g2, g3, g4), wanted, strict=True
    ):
        gradient = narrowed(passed(wide, core, rounded, factor_bits), 16)
        agrees(core.grad.reshape(gradient.codes.shape), gradient)  # type: ignore[union-attr]


@pytest.mark.parametrize("bits", [8, 4])
def test_two_core_matrix_train_is_integer_true(bits: int) -> None:
    """Truth: the sum of two Kronecker products by hand on int64 codes; last core first. A single
    core is no product of cores: beside activations of 4 bits it keeps its codes to 15."""
    options = PrecisionOptions(activation_bits=bits)
    _, layer = precise(linear("ttm", Folding(rows=(6, 2), columns=(3, 5)), (2,)), options)
    with torch.no_grad():
        layer.bias.mul_(4)  # type: ignore[union-attr]
    x, dy = numbers((7, 15), 1).requires_grad_(), numbers((7, 12), 2, 1e-2)
    y = layer(x)
    y.backward(dy)

    first, last = (factor(core.detach().numpy(), 4) for core in layer.factorization.cores)
    grids = (first, last)
    first = narrowed(Codes(first.codes[0], first.exponent), max(bits, 5))  # (j1, i1, r)
    last = narrowed(Codes(last.codes[..., 0], last.exponent), max(bits, 5))  # (r, j2, i2)
    xq = coded(x.detach().numpy().reshape(7, 3, 5), bits)
    inner = narrowed(product("bik,rjk->birj", xq, last), bits)
    bias = coded(layer.bias.detach().numpy().reshape(6, 2), bits)  # type: ignore[union-attr]
    wide = with_bias(product("birj,oir->boj", inner, first), bias)
    wanted = narrowed(wide, bits)
    agrees(y, Codes(wanted.codes.reshape(7, 12), wanted.exponent))

    dq = coded(dy.numpy().reshape(7, 6, 2), 16)
    back = narrowed(product("boj,oir->birj", dq, first), 16)
    dx = narrowed(product("birj,rjk->bik", back, last), 16)
    agrees(x.grad, Codes(dx.codes.reshape(7, 15), dx.exponent))
    db = narrowed(Codes(dq.codes.sum(0), dq.exponent), 16)
    agrees(layer.bias.grad, Codes(db.codes.reshape(12), db.exponent))  # type: ignore[union-attr]
    wanted = [product("boj,birj->oir", dq, inner), product("birj,bik->rjk", back, xq)]
    for core, rounded, total in zip(layer.factorization.cores, grids, wanted, strict=True):
        # the merged half's gradient is rounded first, then cut off values lose theirs
        gradient = narrowed(passed(narrowed(total, 16), core, rounded, 4), 16)
        agrees(core.grad.reshape(gradient.codes.shape), gradient)  # type: ignore[union-attr]


def test_convolution_is_integer_true() -> None:
    """Truth: three kernels by hand on int64 codes, the middle one strided and padded."""
    factorization = load_format("tt")(Folding(rows=(5,), columns=(4,), kernel=(3, 3)), (3, 2))
    factorization.reset(0.2, torch.Generator().manual_seed(1))
    layer = TensorizedConv2d(factorization, numbers((5,), 2, 0.1), (2, 1), (1, 1), (1, 1))
    apply_precision(nn.Sequential(layer), OPTIONS, seed=0)
    x = numbers((2, 4, 7, 6), 3)
    y = layer(x)
    first, middle, last = (factor(c.detach().numpy(), 4) for c in factorization.cores)
    a = narrowed(Codes(first.codes[0], first.exponent), 8)
    k = narrowed(Codes(middle.codes.reshape(3, 3, 3, 2), middle.exponent), 8)
    c = narrowed(Codes(last.codes[..., 0], last.exponent), 8)
    state = narrowed(product("nihw,ir->nrhw", coded(x.numpy(), 8), a), 8)
    padded = np.pad(state.codes, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2]
    state = narrowed(product("nrhwuv,ruvs->nshw", Codes(windows, state.exponent), k), 8)
    bias = coded(layer.bias.detach().numpy()[:, None, None], 8)  # type: ignore[union-attr]
    agrees(y, narrowed(with_bias(product("nshw,so->nohw", state, c), bias), 8))


def test_table_rounds_factors_and_rows() -> None:
    """Truth: rows of the table that the rounded cores make, in float64 by numpy."""
    factorization = load_format("ttm")(Folding(rows=(6, 7), columns=(2, 3)), (4,))
    factorization.reset(0.3, torch.Generator().manual_seed(1))
    layer = TensorizedEmbedding(factorization)
    apply_precision(nn.Sequential(layer), OPTIONS, seed=0)
    rows = torch.tensor([[0, 41], [17, 3]])
    first, last = (factor(core.detach().numpy(), 4) for core in factorization.cores)
    table = product("aick,kjdb->ijcd", first, last)
    table = Codes(table.codes.reshape(42, 6), table.exponent)
    found = layer(rows)
    agrees(found, narrowed(Codes(table.codes[rows.numpy()], table.exponent), 8))
    found.sum().backward()
    assert all(core.grad is not None for core in factorization.cores)


def test_dense_layers_are_covered_and_the_rest_is_named() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4 * 4, 5)
    )
    names = [name for name, _ in network.named_parameters()]
    weight = network[3].weight
    left = apply_precision(network, OPTIONS, seed=0)
    assert left == ("1.weight", "1.bias")
    assert isinstance(network[0], RoundedConv2d)
    assert isinstance(network[3], RoundedLinear)
    assert network[3].weight is weight
    assert [name for name, _ in network.named_parameters()] == names
    x = numbers((4, 48), 0)
    wanted = product("bi,oi->bo", coded(x.numpy(), 8), factor(weight.detach().numpy(), 4))
    bias = coded(network[3].bias.detach().numpy(), 8)
    agrees(network[3](x), narrowed(with_bias(wanted, bias), 8))


def test_baked_network_has_the_values_of_the_codes() -> None:
    network = nn.Sequential(linear("tt", Folding((4,), (6,)), (3,)), nn.Linear(4, 2))
    apply_precision(network, OPTIONS, seed=0)
    dense = network[0].factorization.dense().detach().clone()
    head = factor(network[1].weight.detach().numpy(), 4)
    bake_precision(network)
    assert type(network[1]) is nn.Linear
    assert network[0].precision is None
    assert not len(network[0].factorization.views)
    torch.testing.assert_close(network[0].factorization.dense(), dense, rtol=0, atol=0)
    agrees(network[1].weight, head)


@pytest.mark.parametrize(
    ("bits", "grid"), [(3, "3"), (4, "4"), (5, "8"), (6, "8"), (7, "8"), (8, "8")]
)
@pytest.mark.parametrize(("name", "shape"), [("ttm", (24, 30)), ("tucker", (8, 8, 3, 3))])
def test_written_factors_are_on_the_grid_of_packing(
    name: str, shape: tuple[int, ...], bits: int, grid: str
) -> None:
    """Truth: code times scale, found by the quantizer that knows nothing of training; at full rank
    too, where a product would take less."""
    kind = load_format(name)
    part = kind(kind.fold(shape), kind.max_ranks(kind.fold(shape)))
    part.reset(0.3, torch.Generator().manual_seed(1))
    layer = TensorizedLinear(part) if len(shape) == 2 else TensorizedConv2d(part)
    network = nn.Sequential(layer)
    apply_precision(network, PrecisionOptions(factor_bits=bits), seed=0)
    assert bake_precision(network) == 1
    weights = [p.detach().numpy() for p in plain_network(network, merged=False).parameters()]
    assert sum(weight.size for weight in weights) == part.count
    for weight in weights:
        rows = weight.reshape(1, len(weight), -1)
        found = exact_rows(rows, GRIDS[grid], per_channel=False)
        assert found is not None
        np.testing.assert_array_equal(found.rows.to_dense(), rows)


def test_odd_codes_stay_what_they_are() -> None:
    """Also where the large codes are not in use: another grid would hold none of them."""
    for codes in ([1, -1, 1], [3, -1, 1], [5, -3, 1], [15, -1, 7], [9, 9, -9]):
        values = torch.tensor(codes) * 2.0**-5
        assert torch.equal(Rounder(4, factors=True)(values), values)
        noisy = Rounder(4, stream(0, "x"), factors=True)
        assert torch.equal(noisy(values), values)
        assert Rounder(4, factors=True).holds(values)
    assert not Rounder(4, factors=True).holds(torch.tensor([2.0, 1.0]))
    assert not Rounder(4, factors=True).holds(torch.tensor([17.0, 1.0]))
    assert not Rounder(4, factors=True).holds(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("bits", [3, 4])
def test_odd_codes_are_the_nearest(bits: int) -> None:
    """Truth: all codes of the grid, the distances by numpy."""
    values = numbers((500,), 3, 6.0)
    found = Rounder(bits, factors=True).at(values, 0).numpy()
    codes = GRIDS[str(bits)].codes.astype(np.float64)
    distances = np.abs(values.double().numpy()[:, None] - codes)
    np.testing.assert_array_equal(found, codes[distances.argmin(axis=1)])


def test_stochastic_rounding_to_odd_codes_is_exact_in_the_mean() -> None:
    """Truth: as for whole codes, steps twice as large; a zero becomes half a step either way."""
    values = torch.tensor([0.0, 0.3, -1.7, 3.0, 14.99, -15.0]).repeat(20000, 1)
    found = Rounder(4, stream(1, "x"), factors=True).at(values, 0)
    assert ((found.abs() % 2) == 1).all()
    assert ((found - values).abs() <= 2).all()
    torch.testing.assert_close(found.mean(0), values[0], rtol=0, atol=5 / 20000**0.5)


def test_all_zero_factors_have_a_scale_of_zero() -> None:
    for bits in (3, 4, 8):
        assert not Rounder(bits, factors=True)(torch.zeros(2, 3)).any()
        assert not Rounder(bits, stream(0, "x"), factors=True)(torch.zeros(2, 3)).any()
        assert Rounder(bits, factors=True).holds(torch.zeros(2, 3))
    assert not Rounder(4, factors=True)(torch.zeros(0, 3)).numel()


def test_evaluation_keeps_the_grid_of_training() -> None:
    """What a sample gives does not depend on its batch; no gradient where it is cut off."""
    network, layer = precise(linear("tt", Folding((3, 4), (5, 6)), (4, 7, 3)))
    small = numbers((8, 30), 1)
    layer(small)
    network.eval()
    large = torch.cat([small, 100 * small]).requires_grad_()
    y = layer(large)
    torch.testing.assert_close(y[:8], layer(small), rtol=0, atol=0)
    y.sum().backward()
    assert large.grad is not None
    end = 127 * 2.0 ** fitting_exponent(float(small.abs().max()), 8)
    outside = large.detach().abs() > end * (1 + 1 / 254)
    assert outside.any()
    assert not large.grad[outside].any()
    assert large.grad[:8].any()


def test_exponents_reach_and_are_the_finest() -> None:
    """Truth: the definition, 2^e * 7 >= peak > 2^(e - 1) * 7."""
    for peak in (7.0, 7.0001, 6.9999, 0.875, 3e-9, 1.0, 14.0):
        exponent = fitting_exponent(peak, 4)
        assert 7 * 2.0**exponent >= peak * (1 - 1e-7)
        assert 7 * 2.0 ** (exponent - 1) < peak
    assert largest_code(4) == 7
    assert fitting_exponent(7.0, 4) == 0


def test_zero_and_diverged_tensors() -> None:
    assert not Rounder(4)(torch.zeros(3)).any()
    assert Rounder(4)(torch.tensor([1.0, float("inf")])).isnan().all()
    assert Rounder(4)(torch.tensor([1.0, float("nan")])).isnan().all()
    network, layer = precise(linear("tt", Folding((3,), (4,)), (2,)))
    nn.init.zeros_(layer.bias)
    for core in layer.factorization.cores:
        nn.init.zeros_(core)
    y = network(torch.zeros(2, 4))
    y.sum().backward()
    assert not y.any()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_stochastic_rounding_is_exact_in_the_mean_and_on_the_grid() -> None:
    """Truth: each draw is a neighbour, the mean of n draws within 5 standard errors."""
    values = torch.tensor([0.3, -0.7, 2.0, 6.99, -7.0]).repeat(20000, 1)
    found = Rounder(4, stream(1, "x")).at(values, 0)
    assert set((found - values.floor()).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(found.mean(0), values[0], rtol=0, atol=5 * 0.5 / 20000**0.5)
    assert torch.equal(found[:, 2], values[:, 2])
    again = Rounder(4, stream(1, "x")).at(values, 0)
    assert torch.equal(found, again)


def test_stochastic_run_continues_from_its_state() -> None:
    """Copies of network and streams give the same bits, a further pass other ones."""
    options = PrecisionOptions(rounding="stochastic")
    network, _ = precise(linear("ttm", Folding((6, 2), (3, 5)), (2,)), options)
    x = numbers((7, 15), 1)
    network(x)
    twin = copy.deepcopy(network)
    assert torch.equal(network(x), twin(x))
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("field", "bits"),
    [("factor_bits", 2), ("activation_bits", 3), ("gradient_bits", 20), ("master_bits", 4)],
)
def test_widths_out_of_range_are_refused(field: str, bits: int) -> None:
    with pytest.raises(ConfigurationInvalid, match=f"{field} is {bits}"):
        apply_precision(nn.Linear(2, 2), PrecisionOptions(**{field: bits}), seed=0)


def test_a_factor_that_was_cut_off_comes_back() -> None:
    """Many small values and one large: the grid is finer than the large one, whose gradient passes
    only where descent makes it smaller."""
    values = torch.cat([numbers((200,), 0, 0.1), torch.tensor([1.2, -1.2])]).requires_grad_()
    factors, plain = Rounder(4, factors=True), Rounder(32)
    rounded = Round.apply(values, None, factors, plain, torch.float32)
    assert rounded[-2:].tolist() == [15 * 2.0**-4, -15 * 2.0**-4]
    for out, back in ((-1.0, 1.0), (1.0, -1.0)):
        (gradient,) = torch.autograd.grad(
            rounded, values, torch.full((202,), back), retain_graph=True
        )
        assert torch.equal(gradient[:200], torch.full((200,), back))
        assert gradient[-2:].tolist() == ([1.0, 0.0] if out < 0 else [0.0, -1.0])


@pytest.mark.parametrize("name", format_names())
def test_every_format_runs_close_to_its_own_function(name: str) -> None:
    """Truth: the layer's float path with the same rounded factors; 16-bit codes are near float."""
    kind = load_format(name)
    options = PrecisionOptions(factor_bits=8, activation_bits=16)
    shapes = [(24, 30)] if name == "ttm" else [(24, 30), (6, 8, 3, 3)]
    for shape in shapes:
        folding = kind.fold(shape)
        part = kind(folding, tuple(min(3, most) for most in kind.max_ranks(folding)))
        part.reset(0.3, torch.Generator().manual_seed(1))
        bias = numbers((shape[0],), 2)
        layer: TensorizedLinear | TensorizedConv2d
        if len(shape) == 2:
            layer, x = TensorizedLinear(part, bias), numbers((5, 30), 3)
        else:
            layer, x = TensorizedConv2d(part, bias, (1, 2), "valid"), numbers((2, 8, 7, 7), 3)
        apply_precision(nn.Sequential(layer), options, seed=0)
        wanted, found = layer.compute(x), layer(x)
        assert found.shape == wanted.shape
        assert (found - wanted).norm() < 1e-3 * wanted.norm()
        gradients = [
            torch.autograd.grad(y.square().sum(), part.cores[0])[0] for y in (found, wanted)
        ]
        assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[1].norm()


def test_same_padding_of_an_even_kernel() -> None:
    """Truth: torch's own convolution; the odd row of zeros goes behind."""
    layer = nn.Conv2d(2, 3, (2, 3), padding="same", dilation=(1, 2))
    network = nn.Sequential(layer)
    x = numbers((2, 2, 5, 6), 1)
    with torch.no_grad():
        layer.weight.copy_(Rounder(4, factors=True)(layer.weight))
    wanted = layer(x)
    apply_precision(network, PrecisionOptions(activation_bits=16), seed=0)
    assert (network(x) - wanted).norm() < 1e-3 * wanted.norm()


def test_factors_can_be_narrowed_during_a_run() -> None:
    network, layer = precise(linear("tt", Folding((3, 4), (5, 6)), (4, 7, 3)))
    assert use_factor_bits(network, 8) == 1
    x = numbers((4, 30), 1)
    wide = network(x)
    assert len(layer.factorization.factors()[1].unique()) > 16
    assert use_factor_bits(network, 4) == 1
    assert not torch.equal(network(x), wide)
    assert len(layer.factorization.factors()[1].unique()) <= 16
    with pytest.raises(ConfigurationInvalid, match="factor_bits is 9"):
        use_factor_bits(network, 9)


def test_width_follows_from_the_step() -> None:
    options = PrecisionOptions(wide_share=0.3)
    assert [factor_bits_at(options, step, 10) for step in (0, 2, 3, 9)] == [8, 8, 4, 4]
    no_masters = replace(options, master_bits=0)  # the parameters are the codes
    assert factor_bits_at(no_masters, 0, 10) == 4
    assert factor_bits_at(replace(options, wide_share=1.0), 10, 10) == 4
    assert factor_bits_at(replace(options, factor_bits=8), 0, 10) == 8


def test_a_run_narrows_its_factors_on_the_way() -> None:
    """216 samples in batches of 54: 4 steps an epoch, 16 in all, the first 6 of them wide."""
    network = tensor_train_network()
    seen: list[int] = []

    def look(_: TrainingProgress) -> None:
        (part,) = {m.options.factor_bits for m in network.modules() if type(m) is RoundedCores}
        seen.append(part)

    options = TrainOptions(
        adaptation=None,
        precision=PrecisionOptions(wide_share=0.375),
        epochs=4,
        batch=54,
        patience=50,
    )
    run = RunOptions(device="cpu", on_progress=look, progress_s=1e9)
    result = train_network(network, clusters(), options, run=run)
    assert seen == [8, 4, 4, 4]
    assert result.best_epoch > 1
