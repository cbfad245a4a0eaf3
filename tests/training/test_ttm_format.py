"""Tensor train of paired modes as a linear layer, against tensorly, NumPy and closed forms."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import tensorly
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import linear

from edgecompress.training.factorized import load_format
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.kron import FIRST_FIRST, LAST_FIRST, REBUILD, kron_multiply
from edgecompress.training.factorized.pieces import Order, Piece, Product, View
from edgecompress.training.factorized.ttm import TensorTrainMatrix
from edgecompress.training.factorized.ttm_folding import attainable_rank

TWO = [
    (Folding((4, 3), (5, 2)), 3),
    (Folding((2, 6), (5, 3)), 4),
    (Folding((1, 7), (3, 2)), 2),
    (Folding((3, 1), (1, 4)), 1),
]
MANY = [
    (Folding((2, 3, 2), (2, 2, 3)), (3, 4)),
    (Folding((3, 2, 2, 2), (1, 3, 2, 2)), (2, 3, 2)),
    (Folding((1, 2, 5), (4, 1, 2)), (4, 3)),
]
ALL = [(folding, (rank,)) for folding, rank in TWO] + MANY
ORDERS = (LAST_FIRST, FIRST_FIRST, REBUILD)


def drawn(folding: Folding, ranks: tuple[int, ...], std: float = 1.0) -> TensorTrainMatrix:
    made = TensorTrainMatrix(folding, ranks, dtype=torch.float64)
    made.reset(std, torch.Generator().manual_seed(3))
    return made


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def run_pieces(pieces: tuple[Piece, ...], x: Tensor) -> Tensor:
    """The chain as its pieces' docstrings define it."""
    for piece in pieces:
        match piece:
            case Product(weight=weight):
                x = x @ weight.T
            case View(shape=shape, taken=taken):
                x = x.reshape(*x.shape[: x.dim() - taken], *shape)
            case Order(axes=axes):
                lead = x.dim() - len(axes)
                x = x.permute(*range(lead), *[lead + axis for axis in axes])
    return x


@pytest.mark.parametrize(("folding", "ranks"), ALL)
def test_dense_is_what_tensorly_rebuilds(folding: Folding, ranks: tuple[int, ...]) -> None:
    made = drawn(folding, ranks)
    cores = [core.detach().numpy() for core in made.cores]
    expected = tensorly.tt_matrix.tt_matrix_to_matrix(cores)
    np.testing.assert_allclose(made.dense().detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("folding", "rank"), TWO)
def test_two_cores_are_a_sum_of_kronecker_products(folding: Folding, rank: int) -> None:
    made = drawn(folding, (rank,))
    first, last = (core.detach().numpy() for core in made.cores)
    expected = sum(np.kron(first[0, :, :, r], last[r, :, :, 0]) for r in range(rank))
    np.testing.assert_allclose(made.dense().detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("folding", "rank"), TWO)
@pytest.mark.parametrize("batch", [0, 1, 6])
def test_every_order_multiplies_by_the_dense_weight(
    folding: Folding, rank: int, batch: int, order: str
) -> None:
    made, x, bias = drawn(folding, (rank,)), numbers(batch, folding.shape[1]), numbers(1)
    bias = bias.expand(folding.shape[0])
    for keep in (False, True):
        y = kron_multiply(x, bias, *made.cores, order, keep=keep)
        torch.testing.assert_close(y, linear(x, made.dense(), bias))
        assert y.is_contiguous()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("folding", "rank"), [(Folding((2, 3), (2, 2)), 2), TWO[3]])
def test_gradients_of_every_order_twice(
    folding: Folding, rank: int, order: str, keep: bool
) -> None:
    made = drawn(folding, (rank,))
    x, bias = numbers(2, folding.shape[1]), numbers(folding.shape[0])
    inputs = (x.requires_grad_(), bias.requires_grad_(), *made.cores)
    assert gradcheck(lambda *a: kron_multiply(*a, order, keep=keep), inputs)
    assert gradgradcheck(lambda *a: kron_multiply(*a, order, keep=keep), inputs)


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_are_those_of_the_dense_weight(order: str) -> None:
    """Six rows of the first core: the rebuilt weight comes in parts of two."""
    made, x = drawn(Folding((6, 2), (5, 3)), (4,)), numbers(7, 15).requires_grad_()
    target = numbers(7, 12)
    ours = torch.autograd.grad(
        (kron_multiply(x, None, *made.cores, order) * target).sum(), (x, *made.cores)
    )
    theirs = torch.autograd.grad((linear(x, made.dense()) * target).sum(), (x, *made.cores))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("folding", "ranks"), MANY)
def test_gradients_of_many_cores(folding: Folding, ranks: tuple[int, ...]) -> None:
    made, x = drawn(folding, ranks), numbers(2, 2, folding.shape[1]).requires_grad_()
    torch.testing.assert_close(made.multiply(x), linear(x, made.dense()))
    assert gradcheck(lambda x, *_: made.multiply(x), (x, *made.cores))
    assert gradgradcheck(lambda x, *_: made.multiply(x), (x, *made.cores))


def kept_by_autograd(made: TensorTrainMatrix, x: Tensor) -> list[Tensor]:
    bias = torch.zeros(made.folding.shape[0], requires_grad=True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made.multiply(x, bias)
    return kept


@pytest.mark.parametrize(
    ("batch", "rows", "columns", "rank"),
    [(64, (64, 8), (8, 98), 8), (1, (64, 8), (8, 98), 8), (64, (8, 64), (98, 8), 4)],
)
def test_autograd_keeps_the_input_and_the_cores_only(
    batch: int, rows: tuple[int, int], columns: tuple[int, int], rank: int
) -> None:
    made = TensorTrainMatrix(Folding(rows, columns), (rank,))
    made.reset(0.05)
    x = torch.randn(batch, 784)
    kept = kept_by_autograd(made, x)
    allowed = {x.data_ptr(), *[core.data_ptr() for core in made.cores]}
    assert {tensor.data_ptr() for tensor in kept} == allowed
    assert sum(tensor.numel() for tensor in kept) == x.numel() + made.count


def test_a_narrow_product_is_kept_instead_of_computed_again() -> None:
    """By hand: rank 5 x 7 x 8 = 280 numbers a row between both products, under half of 784."""
    made = TensorTrainMatrix(Folding((64, 8), (7, 112)), (5,))
    x = torch.randn(16, 784, requires_grad=True)
    kept = {t.data_ptr(): t.numel() for t in kept_by_autograd(made, x)}
    assert sorted(kept.values()) == sorted([16 * 784, 16 * 280, 5 * 64 * 7, 5 * 8 * 112])


def test_orders_count_by_hand() -> None:
    """in 6 = 2 x 3, out 20 = 4 x 5, rank 2, 7 rows.

    Last first: a row is 2 x 3; by (2 * 5, 3): 2 * 3 * 10 = 60; then (4, 2 * 2) by 5 columns: 80.
    First first: (4 * 2, 2) by 3 columns: 48; then 4 rows of 2 * 3 by 5: 120.
    """
    orders = TensorTrainMatrix.orders(Folding((4, 5), (2, 3)), (2,), 7)
    macs = {order.name: order.macs for order in orders}
    assert macs == {LAST_FIRST: 7 * 140, FIRST_FIRST: 7 * 168, REBUILD: (2 + 7) * 120}
    assert all(order.saved == 0 for order in orders)


def test_orders_say_that_many_cores_are_slower_than_dense() -> None:
    """The published folding of 784 x 512 at rank 20 (Hawkins and Zhang 2021)."""
    folding = Folding((4, 4, 8, 4), (4, 7, 4, 7))
    orders = TensorTrainMatrix.orders(folding, (16, 20, 20), 64)
    assert min(order.macs for order in orders) > 64 * 784 * 512
    two = TensorTrainMatrix.orders(Folding((64, 8), (8, 98)), (6,), 64)
    assert min(order.macs for order in two) == 64 * 6 * 8 * (784 + 512)


@pytest.mark.parametrize(("folding", "ranks"), ALL)
def test_pieces_are_the_layer(folding: Folding, ranks: tuple[int, ...]) -> None:
    made, x = drawn(folding, ranks), numbers(2, 3, folding.shape[1])
    torch.testing.assert_close(run_pieces(made.pieces(), x), linear(x, made.dense()))


@pytest.mark.parametrize(("folding", "ranks"), ALL)
def test_exact_at_the_largest_ranks(folding: Folding, ranks: tuple[int, ...]) -> None:
    weight = numbers(*folding.shape)
    made = TensorTrainMatrix.from_dense(weight, folding, TensorTrainMatrix.max_ranks(folding))
    torch.testing.assert_close(made.dense(), weight)
    with pytest.raises(ValueError, match="are not between 1 and"):
        TensorTrainMatrix(folding, tuple(r + 1 for r in made.ranks))


def test_two_cores_are_the_nearest_kronecker_sum() -> None:
    """Van Loan and Pitsianis 1993: the error is the tail of the rearranged matrix's spectrum."""
    folding, weight = Folding((4, 3), (5, 2)), numbers(12, 10)
    pairs = weight.reshape(4, 3, 5, 2).permute(0, 2, 1, 3).reshape(20, 6).numpy()
    tail = np.linalg.svd(pairs, compute_uv=False)[2:]
    made = TensorTrainMatrix.from_dense(weight, folding, (2,))
    error = float((made.dense().detach() - weight).norm())
    assert error == pytest.approx(float(np.sqrt((tail**2).sum())))


@pytest.mark.parametrize(("folding", "ranks"), ALL)
def test_balance_keeps_the_weight_and_shows_singular_values(
    folding: Folding, ranks: tuple[int, ...]
) -> None:
    made = drawn(folding, ranks)
    weight = made.dense().detach()
    made.balance()
    torch.testing.assert_close(made.dense(), weight)
    count = len(folding.rows)
    axes = [axis for k in range(count) for axis in (k, count + k)]
    tensor = weight.reshape(*folding.rows, *folding.columns).permute(axes)
    for bond, rank in enumerate(made.ranks):
        before = prod(folding.rows[: bond + 1]) * prod(folding.columns[: bond + 1])
        values = np.linalg.svd(tensor.reshape(before, -1).numpy(), compute_uv=False)[:rank]
        found = np.sort(made.spectrum(bond).numpy())[::-1]
        np.testing.assert_allclose(found[: len(values)], values, atol=1e-9)


def test_balanced_slices_carry_the_same_energy_on_both_sides() -> None:
    made = drawn(Folding((4, 3), (5, 2)), (3,))
    made.balance()
    first, last = made.cores[0].reshape(-1, 3), made.cores[1].reshape(3, -1)
    torch.testing.assert_close(first.T @ first, last @ last.T)
    torch.testing.assert_close(first.T @ first, torch.diag(made.spectrum(0)))


def test_cut_of_the_smallest_index_costs_its_singular_value() -> None:
    made = drawn(Folding((4, 3), (5, 2)), (3,))
    made.balance()
    weight, values = made.dense().detach(), made.spectrum(0)
    kept = values.argsort(descending=True)[:2]
    made.cut(0, kept)
    assert made.ranks == (2,)
    assert float((made.dense().detach() - weight).norm()) == pytest.approx(float(values.min()))


@pytest.mark.parametrize(
    ("folding", "ranks"),
    [
        (Folding((64, 8), (8, 98)), (6,)),
        (Folding((16, 8, 4), (4, 14, 14)), (5, 7)),
        (Folding((4, 4, 8, 4), (4, 7, 4, 7)), (16, 20, 20)),
    ],
)
def test_reset_gives_the_wanted_deviation(folding: Folding, ranks: tuple[int, ...]) -> None:
    wanted = (2 / folding.shape[1]) ** 0.5
    made = TensorTrainMatrix(folding, ranks)
    generator = torch.Generator().manual_seed(0)
    squares = []
    for _ in range(8):
        made.reset(wanted, generator)
        squares.append(float(made.dense().detach().square().mean()))
    assert np.mean(squares) ** 0.5 == pytest.approx(wanted, rel=0.1)


def test_same_seed_same_bits() -> None:
    one, other = drawn(*ALL[0]), drawn(*ALL[0])
    assert all(torch.equal(a, b) for a, b in zip(one.cores, other.cores, strict=True))


@pytest.mark.parametrize(
    "shape", [(512, 784), (10, 512), (64, 64), (128, 512), (7, 13), (1, 5), (4096, 1024), (96, 40)]
)
def test_fold_multiplies_out(shape: tuple[int, int]) -> None:
    for cores in (None, 2, 3, 4):
        folding = TensorTrainMatrix.fold(shape, cores)
        assert folding.shape == shape
        assert len(folding.rows) == len(folding.columns) == (cores or 2)


def test_fold_of_a_matrix_is_cheap_and_of_high_rank() -> None:
    """At 1/32 of the parameters: a quarter of the dense MACs, half of the full matrix rank."""
    for out, inner in ((512, 784), (256, 256), (1024, 4096), (128, 512), (1000, 1000), (32, 1536)):
        folding = TensorTrainMatrix.fold((out, inner))
        term = sum(prod(s) for s in TensorTrainMatrix.core_shapes(folding, (1,)))
        rank = round(out * inner / 32 / term)
        macs = min(order.macs for order in TensorTrainMatrix.orders(folding, (rank,), 1))
        assert macs <= 0.26 * out * inner
        assert attainable_rank(folding.rows, folding.columns, rank) >= 0.49 * min(out, inner)
        assert term <= 2.2 * (out * inner) ** 0.5


def test_attainable_rank_is_reached() -> None:
    """By a matrix of random cores, as NumPy counts it."""
    for folding, rank in ((Folding((8, 4), (3, 12)), 2), (Folding((4, 2), (2, 6)), 1)):
        weight = drawn(folding, (rank,)).dense().detach().numpy()
        expected = attainable_rank(folding.rows, folding.columns, rank)
        assert np.linalg.matrix_rank(weight) == expected < min(weight.shape)


def test_fold_refuses_with_a_reason() -> None:
    with pytest.raises(ValueError, match="no chain of plain operations: use tucker, tt or cp"):
        TensorTrainMatrix.fold((64, 32, 3, 3))
    with pytest.raises(ValueError, match="at least 2 cores, not 1"):
        TensorTrainMatrix.fold((64, 32), 1)
    with pytest.raises(ValueError, match="are not two or more pairs of modes"):
        TensorTrainMatrix(Folding((4, 2), (8,)), (2,))


def test_the_format_is_listed_by_its_name() -> None:
    assert load_format("ttm") is TensorTrainMatrix
