"""Promises of every tensor format, and of single formats against independent code."""

from __future__ import annotations

import dataclasses
import pickle
from math import prod

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402

from edgecompress.core.options import FixedRanks, ParameterRatio  # noqa: E402
from edgecompress.training.factorized import format_names, load_format  # noqa: E402
from edgecompress.training.factorized.base import Factorization, Order  # noqa: E402
from edgecompress.training.factorized.costs import cheapest, core_count, start_ranks  # noqa: E402
from edgecompress.training.factorized.folding import (  # noqa: E402
    Folding,
    pad_size,
    split_size,
)
from edgecompress.training.factorized.two_sided import TwoSided  # noqa: E402

NAMES = ("cp", "tt", "tucker")
MATRICES = ((12, 18), (10, 7), (1, 5), (6, 1), (30, 16))
KERNELS = ((6, 4, 3, 3), (5, 8, 1, 1), (4, 3, 1, 5), (1, 3, 3, 3))
FOLDINGS = (
    Folding((2, 3), (3, 2)),
    Folding((5,), (2, 2, 2)),
    Folding((2, 2, 3), (4,)),
    Folding((3,), (5,)),
    Folding((1, 4), (3, 1)),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    name: str, folding: Folding, rank: int = 3, seed: int = 0, std: float = 1.0
) -> Factorization:
    kind = load_format(name)
    ranks = tuple(min(rank, most) for most in kind.max_ranks(folding))
    made = kind(folding, ranks, dtype=torch.float64)
    made.reset(std, generator(seed))
    return made


def test_formats_are_listed_by_file_and_unknown_ones_refused() -> None:
    assert set(NAMES) <= set(format_names())
    assert all(load_format(name).name == name for name in format_names())
    with pytest.raises(ValueError, match="no tensor format is called 'svd'"):
        load_format("svd")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", MATRICES + KERNELS)
def test_exact_at_max_ranks(name: str, shape: tuple[int, ...]) -> None:
    kind = load_format(name)
    weight = torch.randn(shape, generator=generator(), dtype=torch.float64)
    folding = kind.fold(shape)
    made = kind.from_dense(weight, folding, kind.max_ranks(folding))
    torch.testing.assert_close(made.dense().detach(), weight, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["tt", "cp", "tucker"])
def test_a_matrix_of_one_mode_a_side_gets_the_truncated_svd(name: str) -> None:
    """Truth: Eckart-Young, singular values from numpy's own driver."""
    weight = torch.randn(9, 14, generator=generator(), dtype=torch.float64)
    kind = load_format(name)
    folding = Folding((9,), (14,))
    ranks = tuple(4 for _ in kind.max_ranks(folding))
    error = (kind.from_dense(weight, folding, ranks).dense().detach() - weight).norm()
    tail = np.linalg.svd(weight.numpy(), compute_uv=False)[4:]
    assert float(error) == pytest.approx(float(np.linalg.norm(tail)), rel=1e-8)


def test_cp_finds_a_planted_sum_of_rank_one_terms() -> None:
    made = make("cp", Folding((3, 4), (5, 2)), rank=3)
    weight = made.dense().detach()
    found = load_format("cp").from_dense(weight, made.folding, (3,))
    assert float((found.dense().detach() - weight).norm() / weight.norm()) < 1e-3
    # Norms in check: no component outgrows the whole.
    assert float(found.spectrum(0).detach().max()) < 3 * float(weight.norm())


@pytest.mark.parametrize("folding", FOLDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_reconstruction_agrees_with_tensorly(name: str, folding: Folding) -> None:
    """Truth: tensorly's own reconstruction from the same cores."""
    tensorly = pytest.importorskip("tensorly")
    made = make(name, folding)
    cores = [core.detach().numpy() for core in made.cores]
    if name == "tt":
        whole = tensorly.tt_to_tensor(cores)
    elif name == "cp":
        whole = tensorly.cp_to_tensor((None, cores))
    else:
        whole = tensorly.tucker_to_tensor((cores[-1], cores[:-1]))
    out, inner = folding.shape
    expected = torch.from_numpy(whole).reshape(inner, out).T
    torch.testing.assert_close(made.dense().detach(), expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_reconstructed_as_tensorly_does(name: str) -> None:
    tensorly = pytest.importorskip("tensorly")
    folding = Folding((2, 3), (2, 2), (3, 2))
    made = make(name, folding)
    cores = [core.detach().numpy() for core in made.cores]
    if name == "tucker":
        whole = torch.from_numpy(
            tensorly.tenalg.multi_mode_dot(cores[-1], cores[:-1], modes=[0, 1, 2, 3])
        )
        expected = whole.reshape(4, 6, 3, 2).transpose(0, 1)
    else:
        rebuilt = (
            tensorly.tt_to_tensor(cores) if name == "tt" else tensorly.cp_to_tensor((None, cores))
        )
        expected = torch.from_numpy(rebuilt).reshape(4, 3, 2, 6).permute(3, 0, 1, 2)
    torch.testing.assert_close(made.dense().detach(), expected, rtol=1e-5, atol=1e-10)


def ways(name: str) -> list[dict[str, object]]:
    """Every order, and what each may keep for the backward pass."""
    fused = [
        {"order": "fused", "whole": False, "keep": False},
        {"order": "fused", "whole": False, "keep": True},
        {"order": "fused", "whole": True},
    ]
    if name == "cp":
        return [*fused, {"order": "columns"}, {"order": "rebuild"}]
    chain = [{"order": "pieces", "keep": keep} for keep in (False, True)]
    return [*fused, *chain, {"order": "rebuild"}]


WAYS = [(name, way) for name in NAMES for way in ways(name)]


def forced(made: Factorization, way: dict[str, object]) -> TwoSided:
    """The layer made to run one way."""
    assert isinstance(made, TwoSided)
    cls = type(made)

    class Forced(cls):  # type: ignore[misc, valid-type]
        def route(self, batch: int) -> object:
            return dataclasses.replace(super().route(batch), **way)

    made.__class__ = Forced
    return made


@pytest.mark.parametrize(("name", "way"), WAYS, ids=str)
@pytest.mark.parametrize("folding", [Folding((2, 3), (3, 2)), Folding((3,), (2, 1, 2))])
def test_every_way_to_run_has_exact_first_and_second_gradients(
    name: str, way: dict[str, object], folding: Folding
) -> None:
    made = forced(make(name, folding, rank=2), way)
    out, inner = folding.shape
    x = torch.randn(2, inner, generator=generator(1), dtype=torch.float64, requires_grad=True)
    bias = torch.randn(out, generator=generator(2), dtype=torch.float64, requires_grad=True)
    expected = x @ made.dense().T + bias
    torch.testing.assert_close(made.multiply(x, bias), expected, rtol=1e-10, atol=1e-10)

    def run(x: torch.Tensor, bias: torch.Tensor, *cores: torch.Tensor) -> torch.Tensor:
        return made.multiply(x, bias)

    inputs = (x, bias, *made.cores)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, atol=1e-4)


@pytest.mark.parametrize("way", ways("cp"), ids=str)
def test_many_rows_of_cp_have_the_gradients_of_the_dense_weight(way: dict[str, object]) -> None:
    """Enough rows that the column-wise order takes them in several blocks."""
    made = forced(make("cp", Folding((2, 3), (3, 2)), rank=4), way)
    x = torch.randn(40, 6, generator=generator(1), dtype=torch.float64, requires_grad=True)
    inputs = [x, *made.cores]
    target = torch.randn(40, 6, generator=generator(2), dtype=torch.float64)
    ours = torch.autograd.grad((made.multiply(x) * target).sum(), inputs)
    theirs = torch.autograd.grad((x @ made.dense().T * target).sum(), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuilt_weight_is_forgotten_after_the_pass(name: str) -> None:
    made = forced(make(name, Folding((3, 4), (4, 3))), {"order": "rebuild"})
    rebuilt: list[StorageWeakRef] = []
    make_dense = made._dense

    def noted(cores: list[torch.Tensor]) -> torch.Tensor:
        weight = make_dense(cores)
        rebuilt.append(StorageWeakRef(weight.untyped_storage()))
        return weight

    made._dense = noted  # type: ignore[method-assign]
    x = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    y = made.multiply(x)
    assert len(rebuilt) == 1
    assert rebuilt[0].expired()
    y.sum().backward()
    torch.testing.assert_close(x.grad, make_dense(list(made.cores)).sum(0).expand(2, 12))


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,), (2, 0, 3)])
@pytest.mark.parametrize(("name", "way"), WAYS, ids=str)
def test_any_leading_shape_and_layout(
    name: str, way: dict[str, object], lead: tuple[int, ...]
) -> None:
    """Truth: the product with the dense weight."""
    made = forced(make(name, Folding((2, 3), (3, 2))), way)
    wide = torch.randn(*lead, 12, generator=generator(), dtype=torch.float64)
    x = wide[..., ::2].requires_grad_()
    y = made.multiply(x)
    torch.testing.assert_close(y, x @ made.dense().T)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, made.dense().sum(0).expand(*lead, 6).detach())


@pytest.mark.parametrize(
    ("name", "way"),
    [pair for pair in WAYS if not (pair[1].get("whole") or pair[1].get("keep"))],
    ids=str,
)
def test_only_the_input_and_the_cores_are_kept_for_the_backward_pass(
    name: str, way: dict[str, object]
) -> None:
    """Unless the way keeps more."""
    kind = load_format(name)
    folding = Folding((8, 8), (8, 8))
    rank = 4 if name == "tucker" else 8
    made = forced(kind(folding, tuple(min(rank, most) for most in kind.max_ranks(folding))), way)
    made.reset(0.1, generator())
    x = torch.randn(256, 64, requires_grad=True)
    bias = torch.zeros(64, requires_grad=True)
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made.multiply(x, bias)
    known = {x.data_ptr(), *[core.data_ptr() for core in made.cores]}
    assert {tensor.data_ptr() for tensor in kept} <= known


def test_halves_are_kept_where_they_are_few_beside_what_the_layer_holds() -> None:
    """By hand, 784-512 of rank 20: halves and x A are 25,920 + 20 B numbers, held are 784 B and
    four times 18,800. CP of rank 50 has halves of 64,800 and 5,200 in its factors."""
    folding = Folding((16, 32), (28, 28))
    made = load_format("tt")(folding, (20, 20, 20))
    assert made.route(16).order == made.route(64).order == "fused"
    assert made.route(16).whole
    assert made.route(64).whole
    assert not load_format("cp")(folding, (50,)).route(64).whole
    assert load_format("cp")(folding, (50,)).route(256).whole


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [1, 5, 400])
@pytest.mark.parametrize("folding", [Folding((3, 4, 5), (2, 3)), Folding((7,), (6,))])
def test_rows_of_a_table(name: str, tokens: int, folding: Folding) -> None:
    made = make(name, folding)
    rows = torch.randint(0, folding.shape[0], (tokens, 2), generator=generator())
    torch.testing.assert_close(made.gather(rows), made.dense()[rows])
    made.gather(rows).square().sum().backward()
    ours = [core.grad.clone() for core in made.cores]
    made.zero_grad()
    made.dense()[rows].square().sum().backward()
    for mine, core in zip(ours, made.cores, strict=True):
        torch.testing.assert_close(mine, core.grad)


@pytest.mark.parametrize("name", format_names())
def test_entries_have_the_standard_deviation_that_was_asked(name: str) -> None:
    """Entries of one draw share factors, so the variance is averaged over 200 draws."""
    kind = load_format(name)
    folding = kind.fold((48, 64))
    made = kind(folding, start_ranks(kind, folding, FixedRanks((6,))))
    draws = []
    for seed in range(200):
        made.reset(0.07, generator(seed))
        draws.append(float(made.dense().detach().square().mean()))
    assert (sum(draws) / len(draws)) ** 0.5 == pytest.approx(0.07, rel=0.08)


def test_tucker_factors_start_with_orthogonal_columns() -> None:
    """Of one norm, the root of a mode's size times the entries' deviation."""
    made = make("tucker", Folding((6, 8), (5, 7)), rank=4)
    each = (1 / 4**4) ** (1 / 10)
    for factor in list(made.cores)[:-1]:
        gram = factor.detach().T @ factor.detach()
        expected = factor.shape[0] * each**2 * torch.eye(4, dtype=torch.float64)
        torch.testing.assert_close(gram, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_has_the_standard_deviation_that_was_asked(name: str) -> None:
    made = make(name, Folding((16,), (12,), (3, 3)), rank=6)
    draws = []
    for seed in range(200):
        made.reset(0.2, generator(seed))
        draws.append(float(made.dense().detach().square().mean()))
    assert (sum(draws) / len(draws)) ** 0.5 == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folding", [*FOLDINGS, Folding((2, 3), (4,), (3, 3))])
def test_balancing_leaves_the_weight_and_is_idempotent(name: str, folding: Folding) -> None:
    made = make(name, folding)
    before = made.dense().detach().clone()
    with torch.no_grad():
        made.cores[0].mul_(7)
        made.cores[-1].div_(7)
    made.balance()
    torch.testing.assert_close(made.dense().detach(), before, rtol=0, atol=1e-9)
    cores = [core.detach().clone() for core in made.cores]
    made.balance()
    for old, new in zip(cores, made.cores, strict=True):
        torch.testing.assert_close(new.detach().abs(), old.abs(), rtol=1e-6, atol=1e-8)


def test_a_balanced_train_shows_the_singular_values_of_its_unfoldings() -> None:
    """Truth: singular values of the dense unfoldings; both sides of a bond are orthogonal."""
    folding = Folding((3, 4), (4, 3))
    made = make("tt", folding)
    made.balance()
    dense = made.dense().detach().T.reshape(4, 3, 3, 4)
    for bond, split in enumerate((1, 2, 3)):
        rows = prod(dense.shape[:split])
        expected = torch.linalg.svdvals(dense.reshape(rows, -1))[: made.ranks[bond]]
        found = made.spectrum(bond).sort(descending=True).values
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    first = made.cores[0].detach().reshape(4, -1)
    torch.testing.assert_close(first.T @ first, made.spectrum(0).diag(), rtol=0, atol=1e-9)
    last = made.cores[-1].detach().reshape(-1, 4)
    torch.testing.assert_close(last @ last.T, made.spectrum(2).diag(), rtol=0, atol=1e-9)


def test_a_balanced_tucker_shows_the_singular_values_of_its_modes() -> None:
    folding = Folding((3, 4), (4, 3))
    made = make("tucker", folding)
    made.balance()
    dense = made.dense().detach().T.reshape(4, 3, 3, 4)
    for mode in range(4):
        unfolded = dense.movedim(mode, 0).reshape(dense.shape[mode], -1)
        expected = torch.linalg.svdvals(unfolded)[: made.ranks[mode]]
        found = made.spectrum(mode).sort(descending=True).values
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
        factor = made.cores[mode].detach()
        gram = factor.T @ factor
        torch.testing.assert_close(gram, gram.diagonal().diag(), rtol=0, atol=1e-10)


def test_balanced_cp_columns_have_equal_norms() -> None:
    made = make("cp", Folding((3, 4), (4, 3)))
    terms = torch.stack([core.detach().norm(dim=0) for core in made.cores]).prod(0)
    made.balance()
    for core in made.cores:
        torch.testing.assert_close(core.detach().norm(dim=0), terms**0.25)
    torch.testing.assert_close(made.spectrum(0), terms)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folding", [Folding((4, 4), (4, 4)), Folding((6,), (5,), (3, 3))])
def test_cutting_an_empty_index_leaves_the_weight(name: str, folding: Folding) -> None:
    """The rank that contributes nothing goes; parameters stay the same objects and gradients
    follow them."""
    kind = load_format(name)
    for bond, places in enumerate(kind.bonds(folding)):
        made = make(name, folding)
        core, axis = places.members[0]
        with torch.no_grad():
            made.cores[core].select(axis, 1).zero_()
        made.dense().square().sum().backward()
        before, identities = made.dense().detach(), [id(core) for core in made.cores]
        gradients = [core.grad.clone() for core in made.cores]
        old = made.ranks
        made.cut(bond, [0, 2])
        assert made.ranks == (*old[:bond], 2, *old[bond + 1 :])
        assert [id(core) for core in made.cores] == identities
        torch.testing.assert_close(made.dense().detach(), before)
        for member, where in places.members:
            kept = gradients[member].index_select(where, torch.tensor([0, 2]))
            torch.testing.assert_close(made.cores[member].grad, kept)
        if not folding.kernel:
            x = torch.randn(2, folding.shape[1], dtype=torch.float64)
            torch.testing.assert_close(made.multiply(x), x @ made.dense().T)
    with pytest.raises(ValueError, match="at least one index"):
        make(name, folding).cut(0, [])


def test_cut_singular_value_is_the_error_of_the_weight() -> None:
    """Truth: Eckart-Young at one bond of a balanced train."""
    made = make("tt", Folding((4, 4), (4, 4)), rank=4)
    made.balance()
    before, values = made.dense().detach(), made.spectrum(1)
    least = int(values.argmin())
    made.cut(1, [k for k in range(4) if k != least])
    error = float((made.dense().detach() - before).norm())
    assert error == pytest.approx(float(values[least]), rel=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_slice_survives_balancing(name: str) -> None:
    made = make(name, Folding((3, 4), (4, 3)))
    with torch.no_grad():
        made.cores[0][..., 1].zero_()
    before = made.dense().detach().clone()
    made.balance()
    torch.testing.assert_close(made.dense().detach(), before, rtol=0, atol=1e-9)
    assert all(bool(torch.isfinite(core).all()) for core in made.cores)
    with torch.no_grad():
        for core in made.cores:
            core.zero_()
    made.balance()
    assert float(made.dense().detach().abs().max()) == 0.0


def test_counts_of_the_published_layer() -> None:
    """784-512 as (28, 28 | 16, 32) at rank 20, counted by hand, batch 64."""
    kind = load_format("tt")
    folding = Folding((16, 32), (28, 28))
    ranks = (20, 20, 20)
    assert core_count(kind, folding, ranks) == 28 * 20 + 20 * 28 * 20 + 20 * 16 * 20 + 20 * 32
    orders = {order.name: order for order in kind.orders(folding, ranks, 64)}
    merging = 28 * 20 * 28 * 20 + 20 * 16 * 20 * 32
    assert orders["fused"].macs == merging + 64 * (784 * 20 + 20 * 512)
    per_row = 28 * 28 * 20 + 20 * 28 * 20 + 20 * 16 * 20 + 16 * 20 * 32
    assert orders["pieces"].macs == 64 * per_row
    assert orders["rebuild"].macs == merging + 20 * 784 * 512 + 64 * 784 * 512
    assert orders["fused"].saved == 784 * 20 + 20 * 512 + 64 * 20


def test_counts_of_tucker_and_cp() -> None:
    """By hand: modes (2, 3) and (4, 5), all ranks 2, batch 7."""
    folding = Folding((4, 5), (2, 3))
    orders = {o.name: o.macs for o in load_format("tucker").orders(folding, (2, 2, 2, 2), 7)}
    chain = 6 * 2 + 2 * 2 * 2 + 4 * 4 + 2 * 4 * 2 + 4 * 2 * 5
    assert orders["pieces"] == 7 * chain
    assert orders["fused"] == (6 * 4 + 20 * 4) + 7 * (6 * 4 + 4 * 4 + 4 * 20)
    macs = {o.name: o.macs for o in load_format("cp").orders(folding, (2,), 7)}
    assert macs["fused"] == (6 * 2 + 20 * 2) + 7 * (6 * 2 + 2 * 20)
    assert macs["columns"] == 2 * (2 + 4) + 7 * (6 * 2 + 2 * 2 + 4 * 2 + 20 * 2)


def test_the_cheapest_order_weighs_memory_first() -> None:
    lean = Order("fused", 100, 0, 80)
    assert cheapest((lean, Order("rebuild", 50, 0, 101))) is lean
    assert cheapest((lean, quick := Order("rebuild", 50, 0, 100))) is quick
    assert cheapest((lean, more := Order("rebuild", 50, 0, 101)), held=10) is more
    assert cheapest((lean, Order("pieces", 60, 0, 80))) is lean
    assert cheapest((lean, small := Order("pieces", 40, 0, 80))) is small


@pytest.mark.parametrize("name", format_names())
def test_a_ratio_is_never_exceeded_and_almost_used_up(name: str) -> None:
    kind = load_format(name)
    folding = kind.fold((64, 96))
    ranks = start_ranks(kind, folding, ParameterRatio(0.3))
    assert core_count(kind, folding, ranks) <= 0.3 * 64 * 96
    more = tuple(min(max(ranks) + 1, most) for most in kind.max_ranks(folding))
    assert core_count(kind, folding, more) > 0.3 * 64 * 96


@pytest.mark.parametrize("name", format_names())
def test_ranks_from_a_wish(name: str) -> None:
    kind = load_format(name)
    folding = kind.fold((64, 96))
    most = kind.max_ranks(folding)
    assert start_ranks(kind, folding, FixedRanks((5,))) == tuple(min(5, limit) for limit in most)
    assert start_ranks(kind, folding, FixedRanks((10**6,) * len(most))) == most
    assert start_ranks(kind, folding, None) == tuple(min(kind.ceiling, limit) for limit in most)
    with pytest.raises(ValueError, match=f"has {len(most)} ranks"):
        start_ranks(kind, folding, FixedRanks((2,) * (len(most) + 2)))
    with pytest.raises(ValueError, match="are not between 1 and"):
        kind(folding, (0,) * len(most))


@pytest.mark.parametrize(
    ("size", "parts", "modes"),
    [
        (784, 2, (28, 28)),
        (512, 2, (16, 32)),
        (512, 3, (8, 8, 8)),
        (10, 1, (10,)),
        (1009, 3, (1009,)),
        (1, 2, (1,)),
        (24, 2, (4, 6)),
        (1018, 2, (2, 509)),
    ],
)
def test_sizes_split_near_their_root(size: int, parts: int, modes: tuple[int, ...]) -> None:
    assert split_size(size, parts) == modes


@pytest.mark.parametrize(("size", "parts"), [(1009, 2), (10_131_227, 3), (2_202_608, 3), (13, 2)])
def test_padded_sizes_split_evenly(size: int, parts: int) -> None:
    padded = pad_size(size, parts)
    assert size <= padded <= size + size // 8
    assert max(split_size(padded, parts)) <= 2 * padded ** (1 / parts)


@pytest.mark.parametrize("name", NAMES)
def test_pickles_and_moves(name: str) -> None:
    made = make(name, Folding((3, 4), (4, 3)))
    x = torch.randn(2, 12, dtype=torch.float64)
    y = made.multiply(x)
    again = pickle.loads(pickle.dumps(made))
    torch.testing.assert_close(again.multiply(x), y)
    torch.testing.assert_close(made.float().multiply(x.float()), y.float())
