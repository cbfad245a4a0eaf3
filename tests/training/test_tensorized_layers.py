"""Layers whose weight is a factorization, against torch's ordinary layers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecompress.training.factorized import load_format  # noqa: E402
from edgecompress.training.layers import (  # noqa: E402
    TensorizedConv2d,
    TensorizedEmbedding,
    TensorizedLinear,
)

NAMES = ("cp", "tt", "tucker")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_linear_layer_at_full_ranks_is_the_dense_one(name: str, bias: bool) -> None:
    dense = nn.Linear(12, 10, bias=bias)
    kind = load_format(name)
    layer = TensorizedLinear.from_dense(dense, kind, kind.max_ranks(kind.fold((10, 12))))
    x = torch.randn(3, 4, 12, generator=generator())
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-4, atol=1e-5)
    again = layer.to_dense()
    torch.testing.assert_close(again.weight, dense.weight, rtol=1e-4, atol=1e-6)
    assert (again.bias is None) == (not bias)
    assert layer.bias is dense.bias


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
        {"padding": "same", "dilation": 2},
        {"bias": False, "padding": "valid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (1, 5)])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", [3, 1000])
def test_a_convolution_is_the_dense_one_of_its_weight(
    name: str, kernel: tuple[int, int], setting: dict[str, object], rank: int
) -> None:
    dense = nn.Conv2d(6, 8, kernel, **setting)
    kind = load_format(name)
    most = kind.max_ranks(kind.fold((8, 6, *kernel)))
    layer = TensorizedConv2d.from_dense(dense, kind, tuple(min(rank, limit) for limit in most))
    x = torch.randn(2, 6, 11, 9, generator=generator())
    expected = dense if rank == 1000 else layer.to_dense()
    torch.testing.assert_close(layer(x), expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_convolution_are_those_of_its_dense_weight(name: str) -> None:
    """Truth: torch's convolution with the reconstructed weight, float64."""
    kind = load_format(name)
    folding = kind.fold((8, 6, 3, 3), 5)
    made = kind(folding, tuple(min(2, m) for m in kind.max_ranks(folding)), dtype=torch.float64)
    made.reset(0.3, generator())
    bias = torch.zeros(8, dtype=torch.float64)
    layer = TensorizedConv2d(made, bias, (2, 2), (1, 1))
    x = torch.randn(2, 6, 9, 9, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert layer.factors_pay
    layer(x).square().sum().backward()
    ours = [x.grad.clone(), *[core.grad.clone() for core in made.cores]]
    x.grad = None
    made.zero_grad()
    nn.functional.conv2d(x, made.dense(), bias, 2, 1).square().sum().backward()
    for mine, theirs in zip(ours, [x.grad, *[core.grad for core in made.cores]], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_factors_that_cost_more_than_the_kernel_are_not_run() -> None:
    kind = load_format("tt")
    dense = nn.Conv2d(4, 4, 3)
    layer = TensorizedConv2d.from_dense(dense, kind, (4, 4))
    assert not layer.factors_pay
    assert TensorizedConv2d.from_dense(dense, kind, (2, 2)).factors_pay


@pytest.mark.parametrize("name", NAMES)
def test_a_table_at_full_ranks_is_the_dense_one(name: str) -> None:
    dense = nn.Embedding(30, 8, padding_idx=3)
    kind = load_format(name)
    layer = TensorizedEmbedding.from_dense(dense, kind, kind.max_ranks(kind.fold((30, 8))))
    rows = torch.randint(0, 30, (4, 5), generator=generator())
    rows[0, 0] = 3
    torch.testing.assert_close(layer(rows), dense(rows), rtol=1e-4, atol=1e-5)
    again = layer.to_dense()
    torch.testing.assert_close(again(rows), layer(rows), rtol=1e-4, atol=1e-6)
    assert again.padding_idx == 3
    layer(torch.tensor([3])).sum().backward()
    assert all(float(core.grad.abs().max()) == 0.0 for core in layer.factorization.cores)


@pytest.mark.parametrize("name", [*NAMES, "ttm"])
def test_only_rows_of_the_table_can_be_asked_for(name: str) -> None:
    """As nn.Embedding; rows 29 to 31 exist in the factors and not in the table."""
    kind = load_format(name)
    folding = kind.fold((32, 8))
    made = kind(folding, kind.max_ranks(folding))
    made.reset(1.0, generator())
    layer = TensorizedEmbedding(made, 29)
    dense = nn.Embedding(29, 8)
    for wrong in (-1, 29, 31, 32, 1000):
        rows = torch.tensor([[0, wrong]])
        with pytest.raises(IndexError):
            dense(rows)
        with pytest.raises(IndexError, match=f"index {wrong} is not in a table of 29 rows"):
            layer(rows)
    assert layer(torch.tensor([0, 28])).shape == (2, 8)
    assert layer(torch.zeros(0, dtype=torch.long)).shape == (0, 8)


def test_a_traced_table_does_not_look_at_its_rows() -> None:
    kind = load_format("tt")
    folding = kind.fold((32, 8))
    layer = TensorizedEmbedding(kind(folding, kind.max_ranks(folding)))
    layer.factorization.reset(1.0, generator())
    again = torch.tensor([0, 2, 7])
    program = torch.export.export(layer, (torch.tensor([1, 5, 31]),), strict=False)
    torch.testing.assert_close(program.module()(again), layer(again))
    assert not [node for node in program.graph.nodes if "aminmax" in str(node.target)]
    torch.testing.assert_close(torch.vmap(layer)(again[:, None]), layer(again[:, None]))


@pytest.mark.parametrize("name", NAMES)
def test_a_huge_table_is_never_made(name: str) -> None:
    """Ten million rows of 128: 5 GB dense; nothing above a megabyte may be allocated."""
    kind = load_format(name)
    folding = kind.fold((200 * 220 * 250, 128), 4)
    layer = TensorizedEmbedding(kind(folding, tuple(min(4, m) for m in kind.max_ranks(folding))))
    layer.factorization.reset(0.1, generator())
    largest: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest.append(result.numel())
            return result

    rows = torch.randint(0, layer.num_embeddings, (64,), generator=generator())
    with Watch():
        layer(rows).sum().backward()
    assert max(largest) < 1 << 18


def test_precision_takes_over_the_forward_pass() -> None:
    class Halved(nn.Module):
        def run(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return layer.compute(x) / 2

    kind = load_format("tt")
    layer = TensorizedLinear.from_dense(nn.Linear(6, 4), kind, (2,))
    x = torch.randn(3, 6, generator=generator())
    whole = layer(x)
    layer.precision = Halved()
    torch.testing.assert_close(layer(x), whole / 2)
    layer.precision = None
    torch.testing.assert_close(layer(x), whole)
