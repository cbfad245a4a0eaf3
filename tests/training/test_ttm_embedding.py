"""Tables of paired modes: rows by index, gradients, memory."""

from __future__ import annotations

import resource
from itertools import pairwise

import numpy as np
import pytest
import tensorly
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from edgecompress.core.options import FixedRanks
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.factorized.ttm import TensorTrainMatrix
from edgecompress.training.factorized.two_sided import gather_rows
from edgecompress.training.tensorize import factorizations, tensorize

TABLES = [
    (Folding((4, 3), (2, 3)), (3,)),
    (Folding((3, 4, 5), (2, 1, 3)), (2, 4)),
    (Folding((5, 2, 3, 2), (1, 2, 2, 2)), (2, 3, 2)),
]
INDICES = [
    torch.tensor([[0, 3, 3], [1, 0, 11]]),
    torch.tensor([7]),
    torch.tensor(5),
    torch.zeros(0, dtype=torch.long),
    torch.tensor([3] * 9 + [4]),
    torch.arange(12),
]


def drawn(folding: Folding, ranks: tuple[int, ...]) -> TensorTrainMatrix:
    made = TensorTrainMatrix(folding, ranks, dtype=torch.float64)
    made.reset(1.0, torch.Generator().manual_seed(3))
    return made


@pytest.mark.parametrize("rows", INDICES)
@pytest.mark.parametrize(("folding", "ranks"), TABLES)
def test_rows_are_those_of_tensorlys_matrix(
    folding: Folding, ranks: tuple[int, ...], rows: Tensor
) -> None:
    made = drawn(folding, ranks)
    table = tensorly.tt_matrix.tt_matrix_to_matrix([c.detach().numpy() for c in made.cores])
    found = made.gather(rows)
    assert found.shape == (*rows.shape, folding.shape[1])
    np.testing.assert_allclose(found.detach().numpy(), table[rows.numpy()], atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 12, 10**6])
@pytest.mark.parametrize(("folding", "ranks"), TABLES)
def test_lookups_are_the_table(folding: Folding, ranks: tuple[int, ...], tokens: int) -> None:
    made, rows = drawn(folding, ranks), torch.tensor([[0, 3], [3, folding.shape[0] - 1]])
    torch.testing.assert_close(gather_rows(made.lookups(tokens), rows), made.dense()[rows])


@pytest.mark.parametrize("rows", INDICES[:3] + INDICES[4:])
@pytest.mark.parametrize(("folding", "ranks"), TABLES)
def test_gradients_twice(folding: Folding, ranks: tuple[int, ...], rows: Tensor) -> None:
    made = drawn(folding, ranks)
    assert gradcheck(lambda *_: made.gather(rows), tuple(made.cores))
    assert gradgradcheck(lambda *_: made.gather(rows), tuple(made.cores))


def test_gradients_are_those_of_the_dense_table() -> None:
    """With most rows asked for several times."""
    folding, ranks = TABLES[1]
    made = drawn(folding, ranks)
    rows = torch.randint(0, 60, (200,), generator=torch.Generator().manual_seed(1))
    pull = torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sparse = torch.autograd.grad(made.gather(rows), list(made.cores), pull)
    dense = torch.autograd.grad(made.dense()[rows], list(made.cores), pull)
    for one, other in zip(sparse, dense, strict=True):
        torch.testing.assert_close(one, other)


def test_same_indices_same_gradient_bits() -> None:
    made = TensorTrainMatrix(Folding((30, 40, 50), (2, 2, 4)), (6, 6))
    made.reset(1.0, torch.Generator().manual_seed(3))
    rows = torch.randint(0, 60000, (999,), generator=torch.Generator().manual_seed(1))
    runs = [torch.autograd.grad(made.gather(rows).sum(), list(made.cores)) for _ in range(3)]
    for one, other in pairwise(runs):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_autograd_keeps_indices_and_cores_only() -> None:
    made = TensorTrainMatrix(Folding((200, 220, 250), (4, 4, 8)), (8, 8))
    made.reset(1.0, torch.Generator().manual_seed(3))
    rows = torch.randint(0, 11_000_000, (512,), generator=torch.Generator().manual_seed(1))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made.gather(rows)
    floats = {t.data_ptr(): t.numel() for t in kept if t.is_floating_point()}
    assert sum(floats.values()) == made.count
    assert sum(t.numel() for t in kept if not t.is_floating_point()) <= 3 * rows.numel()


def test_a_table_of_ten_million_rows_is_never_made() -> None:
    """Dense: 10,131,240 rows of 128 are 5.2 GB; here the process grows by less than 100 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    folding = TensorTrainMatrix.fold((10_131_240, 128), 3)
    assert folding.entries * 4 > 5e9
    made = TensorTrainMatrix(folding, (8, 8))
    made.reset(1.0, torch.Generator().manual_seed(3))
    rows = torch.tensor([0, 1, 10_131_226, 5_000_000] * 256)
    found = made.gather(rows)
    found.sum().backward()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB
    first = [int(d) for d in np.unravel_index(5_000_000, folding.rows)]
    a, b, c = (core.detach()[:, d] for core, d in zip(made.cores, first, strict=True))
    expected = torch.einsum("aib,bjc,ckd->ijk", a, b, c).reshape(-1)
    torch.testing.assert_close(found[3], expected)


def test_fold_of_a_table_has_more_cores() -> None:
    assert len(TensorTrainMatrix.fold((10_131_240, 128)).rows) == 3
    assert len(TensorTrainMatrix.fold((25_000, 256)).rows) == 2


def test_deviation_of_a_table() -> None:
    """sqrt(2 / (V + E)) as Hawkins et al. 2022 draw embeddings, read off 4,000 rows."""
    wanted = (2 / (1_000_000 + 64)) ** 0.5
    made = TensorTrainMatrix(Folding((100, 100, 100), (4, 4, 4)), (4, 4))
    made.reset(wanted, torch.Generator().manual_seed(0))
    rows = torch.randint(0, 1_000_000, (4000,), generator=torch.Generator().manual_seed(1))
    assert float(made.gather(rows).std()) == pytest.approx(wanted, rel=0.1)


def test_slices_of_a_fresh_table_share_most_of_their_variance() -> None:
    """Over draws, entries have the wanted deviation and slices of a core correlate by 0.7."""
    folding, squares, alike = Folding((16, 12, 10), (2, 2, 4)), [], []
    generator = torch.Generator().manual_seed(0)
    made = TensorTrainMatrix(folding, (3, 3))
    for _ in range(200):
        made.reset_table(0.4, generator)
        squares.append(float(made.dense().detach().square().mean()))
        core = made.cores[1].detach()
        alike.append(float((core[:, 0] * core[:, 5]).mean() / core.square().mean()))
    assert np.mean(squares) ** 0.5 == pytest.approx(0.4, rel=0.1)
    assert np.mean(alike) == pytest.approx(0.7, abs=0.07)


def test_a_fresh_table_of_two_cores_is_drawn_like_any_weight() -> None:
    one, other = (TensorTrainMatrix(TABLES[0][0], (3,)) for _ in range(2))
    one.reset_table(0.4, torch.Generator().manual_seed(1))
    other.reset(0.4, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(one.cores, other.cores, strict=True))


def test_tensorized_tables_start_like_that() -> None:
    table = torch.nn.ModuleList([torch.nn.Embedding(1920, 16)])
    options = TensorizeOptions(format="ttm", ranks=FixedRanks((3,)), cores=3)
    tensorize(table, options, generator=torch.Generator().manual_seed(0))
    ((_, part),) = factorizations(table)
    rows = part.cores[2].detach()
    common = rows.mean(1).square().mean() / rows.square().mean()
    assert float(common) > 0.4
